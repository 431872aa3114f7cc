//! A checkpoint that went bad on the disk is noticed, said, and passed over for the one before it.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use system_tests::{Cluster, Grid, Lease, PATIENCE, method, tensors_of};

use crate::trainer_loss::assert_went_on_from;
use crate::undisturbed::{self, Outcome, Ranks};

/// What happens to the file of a checkpoint.
#[derive(Clone, Copy, Debug)]
enum Damage {
    FlippedByte,
    Truncated,
    Removed,
}

impl Damage {
    fn apply(self, blob: &PathBuf) {
        let mut bytes = fs::read(blob).unwrap();
        match self {
            Self::FlippedByte => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(blob, bytes).unwrap();
            }
            Self::Truncated => fs::write(blob, &bytes[..bytes.len() / 2]).unwrap(),
            Self::Removed => fs::remove_file(blob).unwrap(),
        }
    }
}

/// The worker dies with its cache, so that the next one must ask the coordinator for the checkpoint, and no worker is
/// there until the damage is done.
fn assert_the_one_before_is_used(damage: Damage) {
    let expected = undisturbed::outcome(Ranks::One);
    let mut cluster = Cluster::with_workers(Lease::Short, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_trial(&train, "two checkpoints are kept", |trial| {
        trial.state == "running" && trial.checkpoint_steps.len() == 2 && trial.checkpoint_steps[0] >= 60
    });
    cluster.kill_worker("alpha");
    cluster.wait_trial(&train, "its worker is lost", |trial| trial.state == "queued");
    let blobs = cluster.checkpoint_files(&train);
    let [(before, whole), (newest, damaged)] = &blobs[..] else { panic!("two checkpoints: {blobs:?}") };
    assert!(whole.is_file());
    damage.apply(damaged);
    cluster.add_worker("beta", 1);

    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    let after = cluster.trial(&train);
    assert_eq!((after.attempts, after.failures), (2, 0), "{after:#?}");
    assert_went_on_from(&cluster, &train, &after.history[1].id, *before);
    let log = cluster.coordinator_log();
    assert!(log.contains("a checkpoint did not load"), "the damage is not reported:\n{log}");
    let told = after.warnings.iter().any(|warning| warning.contains("damaged"));
    assert!(
        told,
        "the user is not told that the checkpoint of step {newest} was damaged: {:?}",
        after.warnings
    );
    cluster.stop();
}

#[test]
fn a_checkpoint_with_a_flipped_byte_is_passed_over_for_the_one_before() {
    assert_the_one_before_is_used(Damage::FlippedByte);
}

#[test]
fn a_truncated_checkpoint_is_passed_over_for_the_one_before() {
    assert_the_one_before_is_used(Damage::Truncated);
}

#[test]
fn a_checkpoint_that_is_gone_is_passed_over_for_the_one_before() {
    assert_the_one_before_is_used(Damage::Removed);
}

/// Damage that comes after success: the trial that trained the network is run again, and who needs it waits.
#[test]
fn a_network_that_went_bad_is_trained_again_for_whoever_needs_it() {
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let first = Grid::new("first").method(method::DETERMINISTIC);
    cluster.submit(&first);
    let train = cluster.finish("first").trial(&["train"]).id.clone();
    let before = tensors_of(&cluster.artifact(&train, "checkpoint.safetensors"));
    let worker = cluster.take_worker("alpha");
    worker.signal(Signal::SIGTERM);
    assert!(worker.wait(PATIENCE).success());
    let blobs = cluster.checkpoint_files(&train);
    let [(_, blob)] = &blobs[..] else { panic!("one checkpoint: {blobs:?}") };
    Damage::FlippedByte.apply(blob);

    // Its cache is not that of the worker that trained.
    cluster.add_worker("beta", 1);
    cluster.submit(&Grid::new("second").method(method::DETERMINISTIC).method(method::DEEP_ENSEMBLE));
    cluster.finish("second");
    let again = cluster.trial(&train);
    assert_eq!((again.attempts, again.failures), (2, 0), "{again:#?}");
    assert!(
        before == tensors_of(&cluster.artifact(&train, "checkpoint.safetensors")),
        "other weights than before"
    );
    cluster.stop();
}

#[test]
fn a_damaged_artifact_is_not_handed_out() {
    let cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    cluster.submit(&Grid::new("fetched").method(method::DETERMINISTIC));
    let train = cluster.finish("fetched").trial(&["train"]).id.clone();
    let blobs = cluster.checkpoint_files(&train);
    let [(_, blob)] = &blobs[..] else { panic!("one checkpoint: {blobs:?}") };
    Damage::FlippedByte.apply(blob);
    let target = cluster.path("fetched.safetensors");
    let arguments = ["artifacts", &train, "checkpoint.safetensors", "--output", target.to_str().unwrap()];
    let errors = cluster.run(&arguments).failed_with(1);
    assert!(errors.contains("damaged"), "{errors}");
    let left: Vec<_> =
        fs::read_dir(cluster.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let left: Vec<_> =
        left.iter().filter(|name| name.to_string_lossy().starts_with("fetched.safe")).collect();
    assert!(left.is_empty(), "a part of a damaged file is left: {left:?}");
    cluster.stop();
}
