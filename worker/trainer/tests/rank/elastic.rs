//! An elastic trial goes on with another number of ranks: no image is trained twice or left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use common::FailureCause;
use common::report::{Launch, Report};
use common::spec::{TrainMethod, TrainSpec, TrialSpec};

use crate::support::{Ended, launch, run, start_gang_with, train_spec};

/// Images of each step, over all ranks, in the order of the ranks.
type Record = BTreeMap<u64, Vec<u32>>;

const RECORDED: [(&str, &str); 1] = [("CREDENCE_LOG", "info,credence::samples=trace")];

/// Long enough that a busy machine does not end it before it is killed.
fn rigid() -> TrainSpec {
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.recipe.epochs = 40;
    spec
}

fn elastic(min: u32, max: u32) -> TrainSpec {
    TrainSpec { world_size: max, min_world_size: Some(min), ..rigid() }
}

/// One attempt with `ranks` ranks, ended by SIGKILL once the checkpoint of `until` is reported, or by itself. Returns
/// what each rank left.
fn attempt(whole: &Launch, ranks: u32, restore: Option<&PathBuf>, until: Option<u64>) -> Vec<Ended> {
    let folder = whole.work_dir.join(format!("{ranks} to {until:?}"));
    let restore = restore.cloned().into_iter().collect();
    let launch = Launch { world_size: ranks, work_dir: folder, restore, ..whole.clone() };
    let mut gang = start_gang_with(&launch, &RECORDED);
    let Some(until) = until else { return gang.into_iter().map(crate::support::Rank::end).collect() };
    gang[0].wait_for(|report| match report {
        Report::Checkpoint { step, .. } => (*step >= until).then_some(()),
        _ => None,
    });
    gang.into_iter().map(crate::support::Rank::kill).collect()
}

fn record(ranks: &[Ended]) -> Record {
    let mut record = Record::new();
    for rank in ranks {
        for line in rank.stderr.lines().filter(|line| line.contains("credence::samples")) {
            let (step, images) = line.split_once("step=").unwrap().1.split_once(" images=[").unwrap();
            let images = images.trim_end_matches(']').split(", ").map(|id| id.parse::<u32>().unwrap());
            record.entry(step.parse().unwrap()).or_default().extend(images);
        }
    }
    record
}

fn newest(ranks: &[Ended]) -> (u64, PathBuf) {
    ranks[0].checkpoints().pop().expect("a checkpoint was waited for")
}

/// Trains with 1, 2, and 1 ranks, and returns the record of the steps that count: those that no later attempt repeats.
fn one_two_one(folder: &Path) -> (Record, Ended) {
    let mut whole = launch(TrialSpec::Train(elastic(1, 2)), folder);
    whole.policy.checkpoint_steps = Some(1);
    let first = attempt(&whole, 1, None, Some(4));
    let (grown_at, checkpoint) = newest(&first);
    let second = attempt(&whole, 2, Some(&checkpoint), Some(11.max(grown_at + 1)));
    let (shrunk_at, checkpoint) = newest(&second);
    let mut last = attempt(&whole, 1, Some(&checkpoint), None);
    let mut counted = Record::new();
    counted.extend(record(&first).into_iter().filter(|&(step, _)| step <= grown_at));
    counted.extend(record(&second).into_iter().filter(|&(step, _)| step > grown_at && step <= shrunk_at));
    counted.extend(record(&last));
    (counted, last.swap_remove(0))
}

#[test]
fn from_one_rank_to_two_and_back_each_image_is_used_once_an_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let (elastic, last) = one_two_one(folder.path());
    last.done();

    let spec = rigid();
    let epochs = u64::from(spec.recipe.epochs);
    // 100 images in batches of 32: three steps, and four images that this epoch leaves out.
    assert_eq!(elastic.keys().copied().collect::<Vec<_>>(), (1..=3 * epochs).collect::<Vec<_>>());
    for epoch in 0..epochs {
        let used: Vec<u32> = (1..=3).flat_map(|step| elastic[&(3 * epoch + step)].clone()).collect();
        assert_eq!(used.len(), 96, "epoch {epoch}");
        assert_eq!(
            used.iter().collect::<BTreeSet<_>>().len(),
            96,
            "an image was used twice in epoch {epoch}"
        );
    }

    // The global batches are those of a trial that was never resized.
    let whole = launch(TrialSpec::Train(spec), &folder.path().join("whole"));
    let undisturbed = start_gang_with(&whole, &RECORDED).into_iter().map(crate::support::Rank::end);
    assert_eq!(elastic, record(&undisturbed.collect::<Vec<_>>()));
}

#[test]
fn a_number_of_ranks_that_the_trial_does_not_allow_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (spec, ranks) in [(elastic(2, 4), 1), (elastic(1, 4), 3), (rigid(), 2)] {
        let launch = Launch { world_size: ranks, ..launch(TrialSpec::Train(spec), folder.path()) };
        let cause = run(&launch).cause().clone();
        assert!(
            matches!(&cause, FailureCause::SpecRejected { message } if message.contains("ranks")),
            "{cause}"
        );
    }
}
