//! An agent is killed or frozen: its trainers leave or stand still by themselves, and the trial goes on elsewhere.

use std::time::Duration;

use system_tests::{Cluster, Lease, PATIENCE, until};

use crate::trainer_loss::assert_went_on_from;
use crate::undisturbed::{self, Outcome, Ranks};

/// A trainer notices at once that its agent is gone.
const LEAVING: Duration = Duration::from_secs(10);

pub fn assert_trainers_leave(cluster: &Cluster, worker: &str) {
    until(&format!("the trainers of {worker} leave"), LEAVING, || {
        cluster.trainers().iter().all(|trainer| trainer.worker != worker).then_some(())
    });
}

#[test]
fn a_trial_goes_on_to_the_same_bits_on_another_worker() {
    let expected = undisturbed::outcome(Ranks::One);
    let mut cluster = Cluster::with_workers(Lease::Short, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 100);
    cluster.add_worker("beta", 1);
    cluster.wait_connected("beta");
    cluster.kill_worker("alpha");
    assert_trainers_leave(&cluster, "alpha");

    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    let after = cluster.trial(&train);
    // Nobody's fault: it costs nothing.
    assert_eq!((after.attempts, after.failures), (2, 0), "{after:#?}");
    assert_eq!(
        (&after.history[0].workers[..], &after.history[1].workers[..]),
        (&["alpha".into()][..], &["beta".into()][..])
    );
    assert!(after.history[0].failure.contains("lost"), "{:?}", after.history);
    assert_went_on_from(&cluster, &train, &after.history[1].id, 100);
    cluster.stop();
}

#[test]
fn a_gang_that_loses_a_worker_goes_on_with_another() {
    let expected = undisturbed::outcome(Ranks::Two);
    let mut cluster = Cluster::with_workers(Lease::Short, &["alpha", "beta"]);
    let grid = undisturbed::grid(Ranks::Two);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 60);
    cluster.add_worker("gamma", 1);
    cluster.wait_connected("gamma");
    cluster.kill_worker("beta");
    assert_trainers_leave(&cluster, "beta");

    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    let after = cluster.trial(&train);
    // The rank that is left sees its collective fail, but that is not the cause.
    assert_eq!((after.attempts, after.failures), (2, 0), "{after:#?}");
    let workers = &after.history[1].workers;
    assert!(workers.contains(&"alpha".to_owned()) && workers.contains(&"gamma".to_owned()), "{after:#?}");
    assert_went_on_from(&cluster, &train, &after.history[1].id, 60);
    cluster.stop();
}

#[test]
fn an_agent_that_comes_back_takes_up_its_trial_before_the_lease_ends() {
    let expected = undisturbed::outcome(Ranks::One);
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 100);
    let id = |cluster: &Cluster| cluster.workers().into_iter().map(|worker| worker.id).collect::<Vec<_>>();
    let before = id(&cluster);
    cluster.kill_worker("alpha");
    cluster.add_worker("alpha", 1);

    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    assert_eq!(id(&cluster), before, "it is the same worker");
    let after = cluster.trial(&train);
    assert_eq!((after.attempts, after.failures), (2, 0), "{after:#?}");
    cluster.stop();
}

#[test]
fn a_worker_that_was_silent_for_longer_than_its_lease_is_fenced() {
    let expected = undisturbed::outcome(Ranks::One);
    let mut cluster = Cluster::with_workers(Lease::Short, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 60);
    cluster.add_worker("beta", 1);
    cluster.wait_connected("beta");
    let trainer = cluster.trainers().pop().expect("a trainer of alpha");
    cluster.freeze_worker("alpha");
    let second = cluster.wait_trial(&train, "it is given to the other worker", |trial| {
        let given_away = trial.history.len() == 2;
        // Its agent, which is frozen alone, could not tell it to.
        assert!(!given_away || trainer.stands_still(), "two attempts of the trial compute at once");
        given_away && trial.state == "running"
    });
    assert_eq!(second.history[1].workers, ["beta"]);
    cluster.thaw_worker("alpha");
    assert_trainers_leave(&cluster, "alpha");
    until("the slot of alpha is free again", PATIENCE, || {
        let workers = cluster.workers();
        let alpha = workers.iter().find(|worker| worker.name == "alpha")?;
        (alpha.connected && alpha.slots_used == 0 && alpha.attempts.is_empty()).then_some(())
    });

    expected.assert_same(&Outcome::of(&cluster, grid.name()));
    let after = cluster.trial(&train);
    assert_eq!((after.attempts, after.failures), (2, 0), "{after:#?}");
    assert!(after.history[0].failure.contains("lost"), "{after:#?}");
    cluster.stop();
}

#[test]
fn a_trainer_that_stands_still_by_itself_leaves_with_its_agent() {
    let mut cluster = Cluster::with_workers(Lease::Short, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 20);
    let trainer = cluster.trainers().pop().expect("a trainer of alpha");
    cluster.freeze_worker("alpha");
    until("the trainer stands still", PATIENCE, || trainer.stands_still().then_some(()));
    cluster.kill_worker("alpha");
    assert_trainers_leave(&cluster, "alpha");
    cluster.stop();
}
