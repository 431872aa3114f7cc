//! Everything that can die dies once within one trial.

use system_tests::{Cluster, Lease};

use crate::undisturbed::{self, Outcome, Ranks};

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
