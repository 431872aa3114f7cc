//! Everything that can die dies, within one trial.

use std::time::Duration;

use system_tests::soak::{self, Axes, Rounds, Soak};
use system_tests::{Cluster, Lease};

use crate::undisturbed::{self, Outcome, Ranks};

/// Of the round that every change is tested with.
const FIXED_SEED: u64 = 1;

#[test]
fn a_trial_of_two_ranks_ends_with_the_same_bits_though_everything_was_killed_once() {
    let expected = undisturbed::outcome(Ranks::Two);
    let mut cluster = Cluster::with_workers(Lease::Short, &["alpha", "beta"]);
    let grid = undisturbed::grid(Ranks::Two);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();

    let first = cluster.wait_checkpoint(&train, 40).history[0].id.clone();
    cluster.kill_trainer(&first, 1);
    cluster.wait_checkpoint(&train, 100);
    // The agent dies while nobody can hear that it does.
    cluster.kill_coordinator();
    cluster.kill_worker("beta");
    cluster.start_coordinator();
    cluster.add_worker("beta", 1);
    cluster.wait_checkpoint(&train, 180);
    cluster.kill_worker("alpha");
    cluster.add_worker("alpha", 1);

    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    let after = cluster.trial(&train);
    // Only the trainer's death counts.
    assert_eq!((after.attempts, after.failures), (4, 1), "{after:#?}");
    cluster.stop();
}

/// The short form of `cargo xtask soak`: one round or two, with faults of every kind at moments that nobody chose.
/// `CREDENCE_SOAK_SEED` repeats the schedule of one that failed.
#[test]
fn a_grid_ends_with_the_same_bits_after_faults_of_every_kind() {
    let seed = std::env::var("CREDENCE_SOAK_SEED").map_or(FIXED_SEED, |seed| seed.parse().unwrap());
    let axes = Axes { settings: 2, seeds: 2 };
    let survived = soak::run(Soak { seed, axes, rounds: Rounds::For(Duration::from_secs(80)), faults: 40 });
    eprintln!("{survived}");
    assert_eq!(survived.cells, survived.rounds * 12, "{survived}");
    assert!(survived.total() >= 10, "the grid ended before it was disturbed: {survived}");
}
