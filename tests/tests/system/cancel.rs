//! Cancelling ends what runs, at once, and nothing else.

use std::time::Duration;

use system_tests::{Cluster, Lease, PATIENCE, until};

use crate::undisturbed::{self, Ranks};

/// Long enough for SIGTERM to be heard.
const AT_ONCE: Duration = Duration::from_secs(15);

#[test]
fn a_cancelled_experiment_ends_its_trainers_and_frees_its_slots() {
    let cluster = Cluster::with_workers(Lease::Long, &["alpha", "beta"]);
    let grid = undisturbed::grid(Ranks::Two);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    let watch = cluster.start_command(&["watch", grid.name()], "watch.log");
    cluster.wait_trial(&train, "it makes steps", |trial| trial.progress.as_ref().is_some_and(|p| p.step > 0));
    let used = |cluster: &Cluster| cluster.workers().iter().map(|worker| worker.slots_used).sum::<u32>();
    assert_eq!(used(&cluster), 2);

    let printed = cluster.run(&["cancel", grid.name()]).ok();
    assert!(printed.contains("2 trials"), "{printed}");
    until("its trainers end", AT_ONCE, || cluster.trainers().is_empty().then_some(()));
    until("its slots are free", AT_ONCE, || (used(&cluster) == 0).then_some(()));
    let experiment = cluster.experiment(grid.name());
    assert_eq!((experiment.state.as_str(), experiment.trials.cancelled), ("cancelled", 2), "{experiment:#?}");
    assert_eq!(watch.wait(PATIENCE).code(), Some(1), "`watch` of a cancelled experiment");
    assert_eq!(cluster.run(&["watch", grid.name()]).code, Some(1));

    // What was cancelled can be wanted again, and goes on from where it was.
    let again = cluster.submit(&undisturbed::grid(Ranks::Two));
    cluster.wait_trial(&train, "it runs again", |trial| trial.state == "running");
    cluster.run(&["cancel", &again.experiment]).ok();
    until("its trainers end", AT_ONCE, || cluster.trainers().is_empty().then_some(()));
    cluster.stop();
}

#[test]
fn a_cancelled_trial_takes_with_it_only_what_needs_it() {
    let cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One).seeds(&[0, 1]).recipe("epochs = 2");
    cluster.submit(&grid);
    let experiment = cluster.experiment(grid.name());
    let cancelled = &experiment.trial(&["train", "seed 1"]).id;
    cluster.run(&["cancel", cancelled]).ok();
    let ended = until("the experiment ends", PATIENCE, || {
        Some(cluster.experiment(grid.name())).filter(|experiment| experiment.state != "active")
    });
    assert_eq!(ended.trial(&["train", "seed 0"]).state, "succeeded");
    assert_eq!(ended.trial(&["evaluate", "seed 0"]).state, "succeeded");
    assert_eq!(ended.trial(&["train", "seed 1"]).state, "cancelled");
    let dependent = ended.trial(&["evaluate", "seed 1"]);
    assert!(["failed", "cancelled"].contains(&dependent.state.as_str()), "{dependent:#?}");
    // A seed is missing, and the table says so.
    let table = cluster.run(&["table", grid.name()]).ok();
    assert!(table.contains("1/2"), "{table}");
    cluster.stop();
}

#[test]
fn a_watch_of_an_experiment_that_succeeds_ends_with_status_0() {
    let cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One).recipe("epochs = 1");
    let file = cluster.write(&grid);
    let printed = cluster.run(&["submit", &file, "--watch"]).ok();
    assert!(printed.contains("2/2 done"), "{printed}");
    cluster.run(&["watch", grid.name()]).ok();
    cluster.stop();
}
