//! The coordinator is killed: what it had answered is not lost, and trainers train on.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use system_tests::{Cluster, Experiment, Lease, PATIENCE, TrainerProcess, until};

use crate::undisturbed::{self, METRICS_STEPS, Outcome, Ranks, STEPS};

fn pids(trainers: &[TrainerProcess]) -> BTreeMap<(&str, u32), u32> {
    trainers.iter().map(|trainer| ((trainer.attempt.as_str(), trainer.rank), trainer.pid)).collect()
}

/// Kills the coordinator while the trial trains, and again while nobody may have reconnected.
fn assert_training_goes_on(ranks: Ranks, workers: &[&str]) {
    let expected = undisturbed::outcome(ranks);
    let mut cluster = Cluster::with_workers(Lease::Long, workers);
    let grid = undisturbed::grid(ranks);
    let submitted = cluster.submit(&grid);
    let train = cluster.experiment(&submitted.experiment).trial(&["train"]).id.clone();
    let before = cluster.wait_checkpoint(&train, 60);
    let trainers = cluster.trainers();
    assert_eq!(trainers.len(), workers.len());

    cluster.kill_coordinator();
    assert_eq!(pids(&cluster.trainers()), pids(&trainers), "trainers train on while the coordinator is away");
    cluster.start_coordinator();
    let answered = cluster.experiment(&submitted.experiment);
    assert_eq!(answered.name, grid.name(), "what was answered is there");
    let kept = cluster.trial(&train).checkpoint_steps;
    assert!(
        kept.iter().max() >= before.checkpoint_steps.iter().max(),
        "{kept:?} after {:?}",
        before.checkpoint_steps
    );
    cluster.wait_checkpoint(&train, 160);
    assert_eq!(pids(&cluster.trainers()), pids(&trainers), "the same processes go on");
    cluster.kill_coordinator();
    cluster.start_coordinator();

    expected.assert_same(&Outcome::of(&cluster, &submitted.experiment));
    let after = cluster.trial(&train);
    assert_eq!(after.attempt_ids(), before.attempt_ids(), "{after:#?}");
    assert_eq!((after.attempts, after.failures), (1, 0));
    assert_rows_are_whole(&cluster, &train);
    cluster.stop();
}

/// Every row is there, and there once, however often it was sent.
fn assert_rows_are_whole(cluster: &Cluster, train: &str) {
    let rows = cluster.metric_rows(train);
    for name in ["loss", "lr"] {
        let steps: Vec<u64> = rows.iter().filter(|row| row.name == name).map(|row| row.step).collect();
        let expected: Vec<u64> = (METRICS_STEPS..=STEPS).step_by(METRICS_STEPS as usize).collect();
        assert_eq!(steps, expected, "steps of {name}");
    }
}

#[test]
fn a_trial_of_one_rank_goes_on_when_the_coordinator_is_killed_and_restarted() {
    assert_training_goes_on(Ranks::One, &["alpha"]);
}

#[test]
fn a_trial_of_two_ranks_goes_on_when_the_coordinator_is_killed_and_restarted() {
    assert_training_goes_on(Ranks::Two, &["alpha", "beta"]);
}

#[test]
fn an_experiment_that_was_answered_survives_a_kill_at_once() {
    let mut cluster = Cluster::start(Lease::Long);
    let first = cluster.submit(&undisturbed::grid(Ranks::One));
    cluster.kill_coordinator();
    cluster.start_coordinator();
    let second = cluster.submit(&undisturbed::grid(Ranks::Two));
    cluster.kill_coordinator();
    cluster.start_coordinator();
    let known: Vec<Experiment> = cluster.json(&["list"]);
    let ids: Vec<&str> = known.iter().map(|experiment| experiment.id.as_str()).collect();
    assert_eq!(ids, [&first.experiment, &second.experiment]);
    let again = cluster.submit(&undisturbed::grid(Ranks::One));
    assert_eq!((again.new_trials, again.reused_trials), (0, first.trials));
    cluster.stop();
}

#[test]
fn a_trial_that_ends_while_the_coordinator_is_away_is_not_run_again() {
    let expected = undisturbed::outcome(Ranks::One);
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    // Close to the end, so that the wait for it is short.
    cluster.wait_checkpoint(&train, STEPS - 60);
    cluster.kill_coordinator();
    until("the trainer ends by itself", PATIENCE, || cluster.trainers().is_empty().then_some(()));
    cluster.start_coordinator();
    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    assert_eq!(cluster.trial(&train).attempts, 1);
    cluster.stop();
}

#[test]
fn a_watch_outlives_a_restart_of_the_coordinator() {
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    let watch = cluster.start_command(&["watch", grid.name(), "--json"], "watch.log");
    cluster.wait_checkpoint(&train, 40);
    until("the watch shows the experiment", PATIENCE, || watch.log().contains(grid.name()).then_some(()));
    cluster.kill_coordinator();
    cluster.start_coordinator();
    let log = cluster.path("watch.log");
    assert!(watch.wait(PATIENCE).success(), "{}", std::fs::read_to_string(log).unwrap());
    cluster.stop();
}

#[test]
fn a_coordinator_that_is_stopped_in_good_order_leaves_trainers_alone() {
    let expected = undisturbed::outcome(Ranks::One);
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 40);
    let trainers = cluster.trainers();
    let coordinator = cluster.take_coordinator();
    coordinator.signal(Signal::SIGTERM);
    assert!(coordinator.wait(PATIENCE).success());
    assert_eq!(pids(&cluster.trainers()), pids(&trainers));
    cluster.start_coordinator();
    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    assert_eq!(cluster.trial(&train).attempts, 1);
    cluster.stop();
}

#[test]
fn a_trial_goes_on_though_the_coordinator_is_killed_after_every_checkpoint() {
    let expected = undisturbed::outcome(Ranks::One);
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    for step in (20..=STEPS - 80).step_by(40) {
        cluster.wait_checkpoint(&train, step);
        cluster.kill_coordinator();
        cluster.start_coordinator();
    }
    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    let after = cluster.trial(&train);
    assert_eq!((after.attempts, after.failures), (1, 0), "{after:#?}");
    assert_rows_are_whole(&cluster, &train);
    cluster.stop();
}

/// A coordinator that is down gives no lease away, so nobody stops because it is silent.
#[test]
fn trainers_train_on_through_several_leases_without_a_coordinator() {
    let mut cluster = Cluster::with_workers(Lease::Short, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One).recipe("epochs = 50000");
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 20);
    cluster.kill_coordinator();
    let gone = std::time::Instant::now();
    while gone.elapsed() < std::time::Duration::from_secs(11) {
        for trainer in cluster.trainers() {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", trainer.pid)).unwrap_or_default();
            assert!(!stat.contains(") T "), "a trainer stands still after {:?}: {stat}", gone.elapsed());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    cluster.start_coordinator();
    cluster.wait_connected("alpha");
    let after = cluster.wait_trial(&train, "it goes on", |trial| trial.state == "running");
    assert_eq!((after.attempts, after.failures), (1, 0), "{after:#?}");
    cluster.run(&["cancel", grid.name()]).ok();
    cluster.stop();
}
