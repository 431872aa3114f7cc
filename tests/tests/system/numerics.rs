//! Training that goes wrong by itself.

use system_tests::{Cluster, Grid, Lease};

fn assert_fails_once(cluster: &Cluster, grid: &Grid) {
    cluster.submit(grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    let ended = cluster.ended(&train);
    assert_eq!((ended.state.as_str(), ended.attempts), ("failed", 1), "it is not tried again: {ended:#?}");
    assert!(ended.reason.contains("not finite") && ended.reason.contains("step"), "{}", ended.reason);
    let step: u64 = ended.reason.rsplit("step ").next().unwrap().trim().parse().unwrap();
    // The first step is taken with the initial weights, which are finite.
    assert!((2..=8).contains(&step), "{}", ended.reason);
    let kept = &ended.checkpoint_steps;
    assert!(
        kept.iter().all(|&kept| kept < step),
        "a checkpoint of weights that are not numbers: {kept:?} at step {step}"
    );
    assert_eq!(cluster.run(&["watch", grid.name()]).code, Some(1));
    assert_eq!(cluster.experiment(grid.name()).state, "failed");
    let table = cluster.run(&["table", grid.name()]).ok();
    assert!(table.contains("0/1") && table.contains("not finite"), "{table}");
}

#[test]
fn a_loss_that_is_not_finite_ends_the_trial_once_with_the_step() {
    let cluster = Cluster::with_workers(Lease::Long, &["alpha", "beta"]);
    let run = "checkpoint-steps = 1\nmetrics-steps = 1";
    let grid = |name, slots| {
        Grid::new(name)
            .method(format!("kind = \"deterministic\"\nslots = {slots}"))
            .recipe("epochs = 2\nlr = 1e30")
            .run(run)
    };
    assert_fails_once(&cluster, &grid("alone", 1));
    assert_fails_once(&cluster, &grid("together", 2));
    cluster.stop();
}
