//! Ctrl-C ends a process promptly, with status 0, and with everything that it started.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use system_tests::{Cluster, Lease, until};

use crate::undisturbed::{self, Outcome, Ranks};

/// What a person at a terminal accepts. The grace of a trainer is 5 s.
const PROMPTLY: Duration = Duration::from_secs(12);

fn training(cluster: &Cluster) -> String {
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 40);
    train
}

#[test]
fn ctrl_c_on_a_worker_ends_it_and_its_trainers_and_its_trial_goes_on_elsewhere() {
    let expected = undisturbed::outcome(Ranks::One);
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let train = training(&cluster);
    let worker = cluster.take_worker("alpha");
    let start = Instant::now();
    worker.signal(Signal::SIGINT);
    assert_eq!(worker.wait(PROMPTLY).code(), Some(0));
    assert!(cluster.trainers().is_empty(), "the agent went before its trainers: {:?}", cluster.trainers());
    // It said goodbye: nobody waits for its lease.
    let queued = cluster.wait_trial(&train, "it waits for a worker", |trial| trial.state == "queued");
    assert!(start.elapsed() < Duration::from_secs(30), "the lease is 60 s");
    assert_eq!((queued.failures, queued.reason.as_str()), (0, "no worker is connected"));
    cluster.add_worker("beta", 1);
    expected.assert_same(&Outcome::of(&cluster, "one-rank"));
    cluster.stop();
}

#[test]
fn ctrl_c_ends_a_coordinator_that_is_watched_and_a_worker_that_misses_it() {
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    training(&cluster);
    let watch = cluster.start_command(&["watch", "one-rank"], "watch.log");
    until("the watch shows the experiment", PROMPTLY, || watch.log().contains("one-rank").then_some(()));
    let coordinator = cluster.take_coordinator();
    coordinator.signal(Signal::SIGINT);
    assert_eq!(coordinator.wait(PROMPTLY).code(), Some(0));
    assert_eq!(cluster.trainers().len(), 1, "trainers train on");
    let worker = cluster.take_worker("alpha");
    worker.signal(Signal::SIGINT);
    assert_eq!(worker.wait(PROMPTLY).code(), Some(0));
    watch.kill();
    cluster.assert_nothing_left();
    cluster.stop();
}

#[test]
fn a_trainer_that_does_not_hear_sigterm_is_killed_after_its_grace() {
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    training(&cluster);
    let trainer = cluster.trainers().remove(0);
    cluster.freeze_trainer(&trainer);
    let worker = cluster.take_worker("alpha");
    worker.signal(Signal::SIGINT);
    assert_eq!(worker.wait(PROMPTLY).code(), Some(0));
    assert!(cluster.trainers().is_empty(), "{:?}", cluster.trainers());
    cluster.stop();
}
