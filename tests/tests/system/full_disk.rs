//! The disk of a worker fills while its rank trains, and has space again later.

use std::thread;
use std::time::Duration;

use system_tests::{Cluster, Lease, NoDisk};

use crate::undisturbed::{self, Outcome, Ranks};

/// Large enough for what a worker keeps of one trial.
const MIB: u64 = 64;

/// How long there is no space: many checkpoints.
const FULL: Duration = Duration::from_secs(6);

/// Attempts that may fail meanwhile. A trial that is tried again without a pause would make hundreds.
const ATTEMPTS: u32 = 20;

/// A cluster of one worker on a small disk; `None`, with a word, where there are none.
fn on_a_small_disk() -> Option<Cluster> {
    match Cluster::on_small_disks(Lease::Long, &["alpha"], MIB) {
        Ok(mut cluster) => {
            cluster.add_worker("alpha", 1);
            cluster.wait_connected("alpha");
            Some(cluster)
        }
        Err(NoDisk(why)) => {
            eprintln!("skipped, there are no small disks here: {why}");
            None
        }
    }
}

fn assert_goes_on(cluster: Cluster, train: &str) {
    let expected = undisturbed::outcome(Ranks::One);
    let meanwhile = cluster.trial(train);
    cluster.worker_disk("alpha").unwrap().free();
    expected.assert_same(&Outcome::of(&cluster, undisturbed::grid(Ranks::One).name()));
    let after = cluster.trial(train);
    assert!(after.attempts <= ATTEMPTS, "{} attempts: {meanwhile:#?}", after.attempts);
    cluster.stop();
}

#[test]
fn a_worker_without_space_damages_nothing_and_its_trial_goes_on_to_the_same_bits_when_there_is_some() {
    undisturbed::outcome(Ranks::One);
    let Some(cluster) = on_a_small_disk() else { return };
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 40);
    cluster.worker_disk("alpha").unwrap().fill();
    // So that one is started while there is no space, too.
    cluster.trainers().iter().for_each(|trainer| cluster.kill_process_of(trainer));
    thread::sleep(FULL);
    assert_goes_on(cluster, &train);
}

#[test]
fn a_trial_that_is_placed_on_a_worker_without_space_is_not_tried_again_without_a_pause() {
    undisturbed::outcome(Ranks::One);
    let Some(cluster) = on_a_small_disk() else { return };
    cluster.worker_disk("alpha").unwrap().fill();
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    thread::sleep(FULL);
    assert_goes_on(cluster, &train);
}
