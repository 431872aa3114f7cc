//! The network between a worker and the coordinator fails, and nothing else does: the agent and its trainers live.

use std::thread;
use std::time::{Duration, Instant};

use system_tests::{Cluster, Direction, Flow, Lease, PATIENCE, Proxy, until};

use crate::undisturbed::{self, Outcome, Ranks};
use crate::worker_loss::assert_trainers_leave;

/// Longer than [`Lease::Short`].
const PAST_THE_LEASE: Duration = Duration::from_secs(6);

/// A cluster of one worker behind a proxy, whose trial has come to a checkpoint.
fn behind_a_proxy(lease: Lease, step: u64) -> (Cluster, Proxy, String) {
    let mut cluster = Cluster::with_workers(lease, &[]);
    let proxy = cluster.proxy();
    cluster.add_worker_through("alpha", 1, &proxy);
    cluster.wait_connected("alpha");
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, step);
    (cluster, proxy, train)
}

#[test]
fn what_a_worker_says_after_its_lease_ended_in_a_partition_changes_nothing() {
    let expected = undisturbed::outcome(Ranks::One);
    let (mut cluster, proxy, train) = behind_a_proxy(Lease::Short, 60);
    cluster.add_worker("beta", 1);
    cluster.wait_connected("beta");
    proxy.partition();
    let second = cluster.wait_trial(&train, "it runs on the other worker", |trial| {
        trial.history.len() == 2 && trial.state == "running"
    });
    assert_eq!(second.history[1].workers, ["beta"]);
    // It stopped its own trainers before the coordinator gave their work to another.
    for trainer in cluster.trainers().iter().filter(|trainer| trainer.worker == "alpha") {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", trainer.pid)).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") T "), "it computes beside its successor: {stat}");
    }
    // Everything that the agent said meanwhile arrives now: checkpoints, rows, perhaps an end.
    proxy.heal();
    assert_trainers_leave(&cluster, "alpha");
    cluster.wait_connected("alpha");

    expected.assert_same(&Outcome::of(&cluster, undisturbed::grid(Ranks::One).name()));
    let after = cluster.trial(&train);
    assert_eq!((after.attempts, after.failures), (2, 0), "{after:#?}");
    assert!(after.history[0].failure.contains("lost"), "{after:#?}");
    // Its slot is back.
    until("the slot of the zombie is free", PATIENCE, || {
        let workers = cluster.workers();
        workers.iter().all(|worker| worker.connected && worker.slots_used == 0).then_some(())
    });
    cluster.stop();
}

#[test]
fn a_connection_that_breaks_in_the_middle_of_a_checkpoint_upload_costs_nothing() {
    let expected = undisturbed::outcome(Ranks::One);
    let (cluster, proxy, train) = behind_a_proxy(Lease::Long, 20);
    // Heartbeats and rows are small: what carries so many bytes is the upload of a checkpoint, which is three times larger.
    for cut in 1..=4_u64 {
        proxy.cut_after(Direction::Up, 200_000);
        until("an upload is cut", PATIENCE, || (proxy.cuts() >= cut).then_some(()));
    }
    expected.assert_same(&Outcome::of(&cluster, undisturbed::grid(Ranks::One).name()));
    let after = cluster.trial(&train);
    assert_eq!((after.attempts, after.failures), (1, 0), "{after:#?}");
    cluster.stop();
}

/// One direction is silent for longer than a lease. Whether the trial is moved depends on who notices first; its result
/// must not.
fn assert_same_after_silence(direction: Direction) {
    let expected = undisturbed::outcome(Ranks::One);
    let (cluster, proxy, train) = behind_a_proxy(Lease::Short, 60);
    proxy.set(direction, Flow::Hold);
    let start = Instant::now();
    thread::sleep(PAST_THE_LEASE);
    proxy.heal();
    assert!(start.elapsed() >= PAST_THE_LEASE);
    expected.assert_same(&Outcome::of(&cluster, undisturbed::grid(Ranks::One).name()));
    let after = cluster.trial(&train);
    // Nobody's fault: it costs nothing.
    assert_eq!(after.failures, 0, "{after:#?}");
    cluster.stop();
}

#[test]
fn a_worker_that_is_not_heard_but_hears_ends_with_the_same_bits() {
    assert_same_after_silence(Direction::Up);
}

#[test]
fn a_worker_that_is_heard_but_does_not_hear_ends_with_the_same_bits() {
    assert_same_after_silence(Direction::Down);
}
