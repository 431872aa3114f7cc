//! A rank is killed: the trial goes on from its last checkpoint, and ends with the same bits.

use system_tests::{Cluster, Lease};

use crate::undisturbed::{self, Outcome, Ranks};

fn assert_resumed(ranks: Ranks, workers: &[&str], killed: u32) {
    let expected = undisturbed::outcome(ranks);
    let cluster = Cluster::with_workers(Lease::Long, workers);
    let grid = undisturbed::grid(ranks);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    let first = cluster.wait_checkpoint(&train, 100).history[0].id.clone();
    cluster.kill_trainer(&first, killed);

    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    let after = cluster.trial(&train);
    assert_eq!((after.attempts, after.failures), (2, 1), "{after:#?}");
    assert_eq!(after.history[0].id, first);
    assert!(after.history[0].failure.contains("signal 9"), "{:?}", after.history);
    assert_ne!(after.history[1].id, first);
    assert_went_on_from(&cluster, &train, &after.history[1].id, 100);
    cluster.stop();
}

/// The attempt did not start from the beginning.
pub fn assert_went_on_from(cluster: &Cluster, train: &str, attempt: &str, step: u64) {
    let log = cluster.run(&["logs", train, "--attempt", attempt]).ok();
    let restored = log.lines().find(|line| line.contains("restored a checkpoint"));
    let restored = restored.unwrap_or_else(|| panic!("{attempt} restored nothing:\n{log}"));
    let found: u64 =
        restored.split("step=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(found >= step, "{attempt} went on from step {found}");
    let rows = cluster.metric_rows(train);
    let own = rows.iter().filter(|row| row.attempt == attempt).map(|row| row.step);
    assert!(own.min().is_some_and(|first| first > found), "{attempt} has rows from before step {found}");
}

#[test]
fn a_trial_of_one_rank_goes_on_to_the_same_bits_when_its_trainer_is_killed() {
    assert_resumed(Ranks::One, &["alpha"], 0);
}

#[test]
fn a_trial_of_two_ranks_goes_on_to_the_same_bits_when_rank_0_is_killed() {
    assert_resumed(Ranks::Two, &["alpha", "beta"], 0);
}

#[test]
fn a_trial_of_two_ranks_goes_on_to_the_same_bits_when_rank_1_is_killed() {
    assert_resumed(Ranks::Two, &["alpha", "beta"], 1);
}

#[test]
fn a_trial_whose_trainer_is_killed_again_and_again_fails_when_its_budget_is_spent() {
    let cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One).run("max-failures = 1");
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    for attempt in 0..2 {
        let running = cluster.wait_trial(&train, "it makes steps", |trial| {
            trial.history.len() == attempt + 1
                && trial.progress.as_ref().is_some_and(|progress| progress.step > 0)
        });
        cluster.kill_trainer(&running.history[attempt].id, 0);
    }
    let ended = cluster.ended(&train);
    assert_eq!((ended.state.as_str(), ended.attempts, ended.failures), ("failed", 2, 2), "{ended:#?}");
    assert!(ended.reason.contains("signal 9"), "{}", ended.reason);
    let experiment = cluster.experiment(grid.name());
    let evaluate = cluster.ended(&experiment.trial(&["evaluate"]).id);
    assert_eq!((evaluate.state.as_str(), evaluate.attempts), ("failed", 0), "{evaluate:#?}");
    assert!(evaluate.reason.contains(&train) && evaluate.reason.contains("signal 9"), "{}", evaluate.reason);
    cluster.stop();
}

#[test]
fn a_trainer_that_hangs_is_ended_and_its_trial_goes_on_to_the_same_bits() {
    let expected = undisturbed::outcome(Ranks::One);
    let cluster = Cluster::with_workers(Lease::ShortWithStallLimit, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 100);
    let hung = cluster.trainers().remove(0);
    cluster.freeze_trainer(&hung);

    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    let after = cluster.trial(&train);
    assert_eq!((after.attempts, after.failures), (2, 1), "{after:#?}");
    assert!(after.history[0].failure.contains("rank 0 on alpha hung"), "{:?}", after.history);
    assert_went_on_from(&cluster, &train, &after.history[1].id, 100);
    cluster.stop();
}
