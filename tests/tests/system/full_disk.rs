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

#[test]
fn a_worker_without_space_damages_nothing_and_its_trial_goes_on_to_the_same_bits_when_there_is_some() {
    let expected = undisturbed::outcome(Ranks::One);
    let mut cluster = match Cluster::on_small_disks(Lease::Long, &["alpha"], MIB) {
        Ok(cluster) => cluster,
        Err(NoDisk(why)) => return eprintln!("skipped, there are no small disks here: {why}"),
    };
    cluster.add_worker("alpha", 1);
    cluster.wait_connected("alpha");
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 40);
    let disk = cluster.worker_disk("alpha").unwrap();
    disk.fill();
    // So that one is started while there is no space, too.
    cluster.trainers().iter().for_each(|trainer| cluster.kill_process_of(trainer));
    thread::sleep(FULL);
    let meanwhile = cluster.trial(&train);
    disk.free();

    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    let after = cluster.trial(&train);
    assert!(after.attempts <= ATTEMPTS, "{} attempts: {meanwhile:#?}", after.attempts);
    cluster.stop();
}
