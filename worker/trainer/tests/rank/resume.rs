//! A trial that was killed and goes on ends with the bits of one that was not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::report::{Command, Launch, Report};
use common::spec::{
    DropoutSettings, DuqSettings, EvidentialSettings, MimoSettings, TrainMethod, TrainSpec, TrialSpec,
};

use crate::support::{
    Ended, Rank, assert_same_tensors, batch_ensemble, launch, lp_bnn, run, run_gang, sngp, start_gang,
    train_spec,
};

/// Kills all ranks of `whole` as soon as the checkpoint of `step` is reported, and runs them again from what
/// they left, newest first. Returns rank 0 of the second attempt.
pub fn kill_and_resume(whole: &Launch, step: u64, folder: &Path) -> Ended {
    let mut first = Launch { work_dir: folder.join("first"), ..whole.clone() };
    first.policy.checkpoint_steps = Some(1);
    let mut ranks = start_gang(&first);
    ranks[0].wait_for(|report| match report {
        Report::Checkpoint { step: found, .. } if *found >= step => Some(()),
        _ => None,
    });
    let mut restore: Vec<PathBuf> = Vec::new();
    for rank in ranks {
        let killed = rank.kill();
        assert!(killed.status.code().is_none(), "it was to be killed, but had ended: {}", killed.status);
        restore.extend(killed.checkpoints().into_iter().map(|(_, path)| path));
    }
    restore.reverse();
    assert!(!restore.is_empty());
    let second = Launch { work_dir: folder.join("second"), restore, ..whole.clone() };
    run_gang(&second).swap_remove(0)
}

pub fn survives_kills(method: TrainMethod, reset_momentum: bool, steps: &[u64]) {
    let mut spec = train_spec(method);
    spec.recipe.reset_momentum_each_epoch = reset_momentum;
    spec_survives_kills(spec, steps);
}

pub fn spec_survives_kills(spec: TrainSpec, steps: &[u64]) {
    let folder = tempfile::tempdir().unwrap();
    let whole = launch(TrialSpec::Train(spec), &folder.path().join("whole"));
    let expected = run(&whole);
    for &step in steps {
        let resumed = kill_and_resume(&whole, step, &folder.path().join(step.to_string()));
        assert_same_tensors(&expected.final_checkpoint(), &resumed.final_checkpoint());
        assert_eq!(expected.done()["loss"], resumed.done()["loss"]);
        // The rows of the second attempt are those of the same steps of the first.
        let rows = expected.rows();
        assert!(resumed.rows().iter().all(|row| rows.contains(row)));
        assert_eq!(resumed.warnings(), expected.warnings());
    }
}

#[test]
fn a_deterministic_trial_that_was_killed_ends_with_the_same_bits() {
    survives_kills(
        TrainMethod::Dropout(DropoutSettings { rate: 0.3, ..DropoutSettings::default() }),
        false,
        &[1, 3, 10],
    );
}

#[test]
fn a_batch_ensemble_that_was_killed_ends_with_the_same_bits() {
    survives_kills(batch_ensemble(), true, &[2, 6]);
}

#[test]
fn an_lp_bnn_that_was_killed_ends_with_the_same_bits() {
    survives_kills(lp_bnn(), false, &[5]);
}

#[test]
fn an_evidential_network_that_was_killed_ends_with_the_same_bits() {
    survives_kills(TrainMethod::Evidential(EvidentialSettings::default()), false, &[4]);
}

/// The whole of its training is the last epoch, the one that the precision is of.
#[test]
fn an_sngp_that_was_killed_ends_with_the_same_bits() {
    let mut spec = train_spec(sngp());
    spec.recipe.epochs = 1;
    spec.recipe.batch_size = 4;
    spec_survives_kills(spec, &[2, 9]);
}

#[test]
fn a_duq_that_was_killed_ends_with_the_same_bits() {
    survives_kills(TrainMethod::Duq(DuqSettings::default()), false, &[5]);
}

/// Its batches are mixed by draws of each step.
#[test]
fn a_mimo_that_was_killed_ends_with_the_same_bits() {
    survives_kills(TrainMethod::Mimo(MimoSettings::default()), false, &[4]);
}

/// With three ranks the order of summation could depend on how gradients are put in buckets, and buckets on how
/// long the process has lived.
#[test]
fn ranks_that_were_killed_together_end_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let duq = TrainMethod::Duq(DuqSettings::default());
    for (world_size, batch_size, method) in [(2, 32, lp_bnn()), (3, 30, lp_bnn()), (2, 32, duq)] {
        let folder = folder.path().join(format!("{world_size} {}", matches!(method, TrainMethod::Duq(_))));
        let mut spec = train_spec(method);
        spec.world_size = world_size;
        spec.recipe.batch_size = batch_size;
        let whole = launch(TrialSpec::Train(spec), &folder.join("whole"));
        let expected = run_gang(&whole).swap_remove(0);
        for step in [1, 7] {
            let resumed = kill_and_resume(&whole, step, &folder.join(step.to_string()));
            assert_same_tensors(&expected.final_checkpoint(), &resumed.final_checkpoint());
        }
    }
}

/// Checkpoints of a trial, newest first.
fn checkpoints_of(whole: &Launch, folder: &Path) -> Vec<PathBuf> {
    let mut launch = Launch { work_dir: folder.to_owned(), ..whole.clone() };
    launch.policy.checkpoint_steps = Some(6);
    let mut found: Vec<PathBuf> = run(&launch).checkpoints().into_iter().map(|(_, path)| path).collect();
    found.reverse();
    found
}

fn refused(ended: &Ended) -> Vec<PathBuf> {
    let refused = |report: &Report| match report {
        Report::CheckpointRefused { path, message } if !message.is_empty() => Some(path.clone()),
        _ => None,
    };
    ended.reports.iter().filter_map(refused).collect()
}

#[test]
fn damaged_checkpoints_are_refused_and_an_older_one_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let whole =
        launch(TrialSpec::Train(train_spec(TrainMethod::Deterministic)), &folder.path().join("whole"));
    let restore = checkpoints_of(&whole, &folder.path().join("first"));
    assert!(restore.len() >= 3, "{restore:?}");

    let mut bytes = fs::read(&restore[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&restore[0], &bytes).unwrap();
    let whole_file = fs::read(&restore[1]).unwrap();
    fs::write(&restore[1], &whole_file[..whole_file.len() - 1]).unwrap();

    let expected = run(&whole);
    let resumed = Launch { work_dir: folder.path().join("second"), restore: restore.clone(), ..whole };
    let resumed = run(&resumed);
    assert_eq!(refused(&resumed), restore[..2]);
    assert!(
        resumed.reports.iter().any(|report| matches!(report, Report::Progress { step: 6, loss: None, .. }))
    );
    assert_same_tensors(&expected.final_checkpoint(), &resumed.final_checkpoint());
}

/// Not only the tensors: a step count that lies would be worse than a weight that does.
#[test]
fn no_byte_of_a_checkpoint_can_be_changed_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.recipe.epochs = 1;
    let path = run(&launch(TrialSpec::Train(spec), folder.path())).final_checkpoint();
    let whole = fs::read(&path).unwrap();
    trainer::checkpoint::read(&path).unwrap();
    let header = 8 + usize::try_from(u64::from_le_bytes(whole[..8].try_into().unwrap())).unwrap();
    let padding = whole[..header].iter().rev().take_while(|&&byte| byte == b' ').count();
    // Every byte of the header, and some hundred of the tensors. Blanks that align the header say nothing.
    let places = (0..header - padding).chain((header..whole.len()).step_by(1_999));
    let changed = folder.path().join("changed");
    for place in places {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x01;
        fs::write(&changed, &bytes).unwrap();
        assert!(trainer::checkpoint::read(&changed).is_err(), "byte {place} of {}", whole.len());
    }
}

#[test]
fn without_a_whole_checkpoint_the_trial_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let empty = folder.path().join("empty");
    fs::write(&empty, b"").unwrap();
    let whole =
        launch(TrialSpec::Train(train_spec(TrainMethod::Deterministic)), &folder.path().join("whole"));
    let expected = run(&whole);
    let restore = vec![missing.clone(), empty.clone()];
    let ended = run(&Launch { work_dir: folder.path().join("again"), restore, ..whole });
    assert_eq!(refused(&ended), [missing, empty]);
    assert_same_tensors(&expected.final_checkpoint(), &ended.final_checkpoint());
}

#[test]
fn a_trial_that_had_ended_reports_the_same_result_again() {
    let folder = tempfile::tempdir().unwrap();
    let whole =
        launch(TrialSpec::Train(train_spec(TrainMethod::Deterministic)), &folder.path().join("whole"));
    let expected = run(&whole);
    let restore = vec![expected.final_checkpoint()];
    let again = run(&Launch { work_dir: folder.path().join("again"), restore, ..whole });
    assert_same_tensors(&expected.final_checkpoint(), &again.final_checkpoint());
    assert_eq!(expected.done()["loss"], again.done()["loss"]);
    assert!(again.done()["train_seconds"] >= expected.done()["train_seconds"]);
}

#[test]
fn a_checkpoint_is_written_when_the_agent_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.recipe.epochs = 1_000_000;
    let mut rank = Rank::start(&launch(TrialSpec::Train(spec), folder.path()));
    rank.wait_for(|report| matches!(report, Report::Progress { .. }).then_some(()));
    rank.command(&Command::Checkpoint);
    let path = rank.wait_for(|report| match report {
        Report::Checkpoint { path, .. } => Some(path.clone()),
        _ => None,
    });
    assert!(trainer::checkpoint::read(&path).unwrap().header().final_loss.is_none());
    rank.kill();
}

#[test]
fn checkpoints_follow_the_clock_when_the_policy_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.recipe.epochs = 1_000_000;
    let mut launch = launch(TrialSpec::Train(spec), folder.path());
    launch.policy.checkpoint_interval = Some(Duration::from_millis(200));
    let mut rank = Rank::start(&launch);
    let mut next = || {
        rank.wait_for(|report| match report {
            Report::Checkpoint { step, .. } => Some(*step),
            _ => None,
        })
    };
    assert!(next() < next());
    rank.kill();
}
