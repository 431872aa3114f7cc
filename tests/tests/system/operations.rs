//! What an operator does to what runs: pausing, draining, priorities, resizing. None of it costs a step or a bit.

use std::collections::BTreeSet;

use system_tests::{Cluster, Grid, Lease, PATIENCE, Trial, until};

use crate::undisturbed::{self, Outcome, Ranks};

fn slots_used(cluster: &Cluster) -> u32 {
    cluster.workers().iter().map(|worker| worker.slots_used).sum()
}

fn short(name: &str) -> Grid {
    Grid::new(name).method("kind = \"deterministic\"").recipe("epochs = 1")
}

fn workers_of(trial: &Trial) -> Vec<&[String]> {
    trial.history.iter().map(|attempt| attempt.workers.as_slice()).collect()
}

#[test]
fn a_paused_experiment_gives_its_slots_to_others_and_goes_on_with_the_same_bits() {
    let expected = undisturbed::outcome(Ranks::Two);
    let cluster = Cluster::with_workers(Lease::Long, &["alpha", "beta"]);
    let grid = undisturbed::grid(Ranks::Two);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 40);

    let printed = cluster.run(&["pause", grid.name()]).ok();
    assert!(
        printed.contains("paused 2 trials") && printed.contains("1 of them after a checkpoint"),
        "{printed}"
    );
    until("its slots are free", PATIENCE, || (slots_used(&cluster) == 0).then_some(()));
    let paused = cluster.trial(&train);
    assert_eq!((paused.state.as_str(), paused.failures), ("paused", 0), "{paused:#?}");
    let why = cluster.run(&["explain", &train]).ok();
    assert!(why.contains("paused"), "{why}");
    // The checkpoint is of the step at which it stopped, not of the policy's last one.
    let kept = paused.checkpoint_steps.last().copied().unwrap();
    cluster.submit(&short("meanwhile"));
    cluster.finish("meanwhile");
    assert_eq!(cluster.trial(&train).attempts, 1);

    // A pause outlives the coordinator.
    let mut cluster = cluster;
    cluster.kill_coordinator();
    cluster.start_coordinator();
    assert_eq!(cluster.trial(&train).state, "paused");
    cluster.run(&["resume", grid.name()]).ok();
    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    let after = cluster.trial(&train);
    assert_eq!((after.attempts, after.failures), (2, 0), "{after:#?}");
    assert!(kept > 0, "nothing was trained before the pause");
    cluster.stop();
}

#[test]
fn a_higher_priority_takes_the_slot_at_a_checkpoint_and_gives_it_back() {
    let expected = undisturbed::outcome(Ranks::One);
    let cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 20);

    cluster.submit(&short("urgent").top("priority = 10\nproject = \"deadline\""));
    let urgent = cluster.finish("urgent");
    let waiting = cluster.trial(&train);
    assert_ne!(waiting.state, "succeeded", "it was to be longer than the urgent one");
    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    let after = cluster.trial(&train);
    assert_eq!(after.failures, 0, "{after:#?}");
    assert!(after.history[0].failure.contains("preempted"), "{after:#?}");
    assert_eq!(cluster.trial(&urgent.trial(&["train"]).id).attempts, 1);
    cluster.stop();
}

#[test]
fn a_drained_worker_is_left_at_a_checkpoint_and_stays_drained() {
    let expected = undisturbed::outcome(Ranks::One);
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 20);
    let printed = cluster.run(&["drain", "alpha", "--now", "--reason", "new fans"]).ok();
    assert!(printed.contains("write a checkpoint"), "{printed}");
    let why = until("it waits for another worker", PATIENCE, || {
        let why = cluster.run(&["explain", &train]).ok();
        why.contains("new fans").then_some(why)
    });
    assert!(why.contains("alpha"), "{why}");

    // The drain outlives both processes.
    cluster.kill_coordinator();
    cluster.kill_worker("alpha");
    cluster.start_coordinator();
    cluster.add_worker("alpha", 1);
    cluster.wait_connected("alpha");
    let listed = cluster.run(&["workers"]).ok();
    assert!(listed.contains("drained") && listed.contains("new fans"), "{listed}");
    cluster.add_worker("beta", 1);
    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    let after = cluster.trial(&train);
    assert_eq!(workers_of(&after), [["alpha"], ["beta"]], "{after:#?}");
    assert_eq!(after.failures, 0);

    cluster.run(&["undrain", "alpha"]).ok();
    cluster.run(&["drain", "beta"]).ok();
    cluster.submit(&short("after"));
    let after = cluster.finish("after");
    assert_eq!(workers_of(&cluster.trial(&after.trial(&["train"]).id)), [["alpha"]]);
    cluster.stop();
}

#[test]
fn a_trial_runs_only_where_its_requirements_are_met_and_says_so_meanwhile() {
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let run = "requires = { labels = { rack = \"r7\" } }";
    cluster.submit(&short("picky").run(run));
    let train = cluster.experiment("picky").trial(&["train"]).id.clone();
    let why = cluster.run(&["explain", &train]).ok();
    assert!(why.contains("rack = r7"), "{why}");
    // It holds up nobody.
    cluster.submit(&short("anywhere").seeds(&[5]));
    cluster.finish("anywhere");
    cluster.configure_workers("labels = { rack = \"r7\" }");
    cluster.add_worker("beta", 1);
    let picky = cluster.finish("picky");
    let used: BTreeSet<String> = picky
        .all_trials
        .iter()
        .flat_map(|trial| cluster.trial(&trial.id).history)
        .flat_map(|attempt| attempt.workers)
        .collect();
    assert_eq!(used, BTreeSet::from(["beta".to_owned()]));
    cluster.stop();
}

#[test]
fn an_elastic_trial_grows_and_shrinks_at_checkpoints_and_the_table_says_so() {
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = Grid::new("elastic")
        .method("kind = \"deterministic\"\nslots = { min = 1, max = 2 }")
        .recipe("epochs = 50000\nlr = 0.05")
        .run("checkpoint-steps = 50\ncheckpoint-interval = \"none\"");
    cluster.submit(&grid);
    let train = cluster.experiment("elastic").trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 50);
    assert_eq!(workers_of(&cluster.trial(&train)), [["alpha"]]);

    cluster.add_worker("beta", 1);
    let grown = cluster.wait_trial(&train, "it has two ranks", |trial| {
        trial.history.last().is_some_and(|attempt| attempt.workers.len() == 2)
    });
    assert_eq!((grown.attempts, grown.failures), (2, 0), "{grown:#?}");
    cluster.wait_checkpoint(&train, grown.checkpoint_steps.last().unwrap() + 1);

    // A trial of a higher priority gets one of the two slots.
    cluster.submit(&short("narrow").seeds(&[3]).top("priority = 5"));
    cluster.finish("narrow");
    let after = cluster.wait_trial(&train, "it has two ranks again", |trial| {
        trial.history.len() >= 4 && trial.history.last().is_some_and(|attempt| attempt.workers.len() == 2)
    });
    assert_eq!(after.failures, 0, "{after:#?}");
    let table = cluster.run(&["table", "elastic"]).ok();
    assert!(table.contains("elastic, trained with 1, then 2, then 1, then 2 ranks"), "{table}");
    cluster.run(&["cancel", "elastic"]).ok();
    until("its trainers end", PATIENCE, || (slots_used(&cluster) == 0).then_some(()));
    cluster.stop();
}
