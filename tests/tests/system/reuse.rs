//! The same trial is never computed twice.

use std::collections::BTreeMap;

use system_tests::{Cluster, Experiment, Grid, Lease, method};

fn grid(name: &str, seeds: &[u64]) -> Grid {
    Grid::new(name).seeds(seeds).method(method::DETERMINISTIC).method(method::DEEP_ENSEMBLE)
}

fn attempts(experiment: &Experiment) -> BTreeMap<&str, u32> {
    experiment.all_trials.iter().map(|trial| (trial.key.as_str(), trial.attempts)).collect()
}

#[test]
fn the_same_file_submitted_again_trains_nothing() {
    let cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = grid("again", &[0]);
    let first = cluster.submit(&grid);
    // Two networks, of which the first belongs to both rows, and two evaluations.
    assert_eq!((first.trials, first.new_trials, first.reused_trials), (4, 4, 0));
    let before = cluster.finish("again");
    let table = cluster.run(&["table", &first.experiment, "--format", "csv"]).ok();

    let second = cluster.submit(&grid);
    assert_ne!(second.experiment, first.experiment);
    assert_eq!((second.trials, second.new_trials, second.reused_trials), (4, 0, 4));
    let after = cluster.experiment(&second.experiment);
    assert_eq!(after.state, "succeeded", "the table is there at once: {after:#?}");
    assert_eq!(attempts(&after), attempts(&before));
    assert_eq!(cluster.run(&["table", &second.experiment, "--format", "csv"]).ok(), table);
    cluster.stop();
}

#[test]
fn a_grid_that_grew_trains_only_what_is_missing() {
    let cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    cluster.submit(&grid("grows", &[0]));
    let before = cluster.finish("grows");

    let grown = grid("grows", &[0, 1]).method(method::MC_DROPOUT);
    let submitted = cluster.submit(&grown);
    // A second seed of both rows: 4 trials. Dropout trains networks of its own: 2 seeds, 2 trials each.
    assert_eq!((submitted.cells, submitted.new_trials, submitted.reused_trials), (6, 8, 4));
    let after = cluster.finish(&submitted.experiment);
    assert_eq!(after.trials.succeeded, 12);
    assert!(after.all_trials.iter().all(|trial| trial.attempts == 1), "{after:#?}");
    let (before, after) = (attempts(&before), attempts(&after));
    assert!(before.iter().all(|(key, attempts)| after.get(key) == Some(attempts)), "{before:?} {after:?}");
    cluster.stop();
}

#[test]
fn a_dry_run_names_the_trials_and_keeps_nothing() {
    let cluster = Cluster::start(Lease::Long);
    let printed = cluster.run(&["submit", &cluster.write(&grid("dry", &[0])), "--dry-run"]).ok();
    for words in ["train deterministic", "evaluate Deterministic (MSP)", "evaluate Deep Ensemble", "4 trials"]
    {
        assert!(printed.contains(words), "no `{words}` in:\n{printed}");
    }
    assert_eq!(cluster.json::<Vec<Experiment>>(&["list"]).len(), 0);
    cluster.stop();
}
