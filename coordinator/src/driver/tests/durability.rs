//! What was answered survives; what was not performed is performed again (I2, I3).

use common::session::SessionOrder;
use coordinator_core::{Cluster, Effect, Traits};

use super::super::*;
use super::support::{Coordinator, GRID, LEASE, is_running, plan};
use crate::store::Batch;

#[tokio::test]
async fn a_submission_is_durable_when_it_is_answered() {
    let coordinator = Coordinator::start();
    let applied = coordinator.submit().await;
    assert_eq!(applied.experiment, Some(ExperimentId(1)));
    assert_eq!(applied.new_trials, 2);

    let coordinator = Coordinator::start_in(coordinator.kill().await);
    let grid = coordinator
        .driver
        .read(|view| view.cluster.experiment(ExperimentId(1)).map(|record| record.grid.clone()))
        .await
        .unwrap();
    assert_eq!(grid.as_deref(), Some(GRID));
}

#[tokio::test]
async fn a_restart_gives_the_same_state() {
    let coordinator = Coordinator::start();
    coordinator.submit().await;
    let mut worker = coordinator.connect(1, &[]).await;
    let attempt = worker.hear_launch().await.attempt;
    coordinator.checkpoint(&worker, attempt, 10).await;
    worker.succeed(attempt, 0.25).await;
    let before = coordinator.driver.read(|view| view.cluster.clone()).await.unwrap();
    let attempts = coordinator.driver.read(|view| view.history.clone()).await.unwrap();

    let coordinator = Coordinator::start_in(coordinator.kill().await);
    let after = coordinator.driver.read(|view| view.cluster.clone()).await.unwrap();
    assert!(after.same_durable_state(&before));
    let replayed = coordinator.driver.read(|view| view.history.clone()).await.unwrap();
    assert_eq!(replayed.attempt(attempt), attempts.attempt(attempt));
    assert_eq!(replayed.worker_name(worker.id), Some("node-1"));
}

/// The crash comes after the flush and before the first effect: the log says that the attempt started, and no
/// worker was ever told.
#[tokio::test]
async fn an_effect_that_was_persisted_and_not_performed_is_made_good() {
    let coordinator = Coordinator::start();
    let dir = coordinator.kill().await;
    let mut core = Cluster::new(Policy { lease: LEASE, ..Policy::default() });
    let (worker, name, host) = (WorkerId(1), "node-1".to_owned(), "127.0.0.1".to_owned());
    let traits = Traits::default();
    let hello = Input::Hello {
        worker,
        order: SessionOrder::default(),
        name,
        host,
        slots: 1,
        traits,
        attempts: Vec::new(),
    };
    let joined = core.handle(Millis(1), hello).unwrap();
    let submit = Input::Submit { plan: plan(), grid: GRID.to_owned() };
    let submitted = core.handle(Millis(2), submit).unwrap();
    assert!(matches!(submitted.effects[..], [Effect::Launch { .. }]));
    let mut store = Store::open(dir.path()).unwrap();
    let events = joined.events.into_iter().chain(submitted.events).collect();
    store.commit(&Batch { events, ..Batch::default() }).unwrap();
    drop(store);

    let coordinator = Coordinator::start_in(dir);
    assert!(is_running(&coordinator.trial(1).await));
    // Its hello proves that the attempt never began, so another one does.
    let mut worker = coordinator.connect(1, &[]).await;
    assert!(matches!(worker.hear().await, ToWorker::Release { attempt: AttemptId(1) }));
    assert_eq!(worker.hear_launch().await.attempt, AttemptId(2));
    worker.assert_silent();
    assert_eq!(coordinator.trial(1).await.counted_failures, 0);
}

#[tokio::test]
async fn a_launch_that_was_lost_on_the_way_is_sent_again() {
    let coordinator = Coordinator::start();
    coordinator.submit().await;
    let mut worker = coordinator.connect(1, &[]).await;
    let launch = worker.hear_launch().await;
    worker.heartbeat(&[]).await;
    assert_eq!(worker.hear_launch().await, launch);
    worker.heartbeat(&[launch.attempt]).await;
    coordinator.settle().await;
    worker.assert_silent();
}

#[tokio::test]
async fn a_trainer_trains_on_while_the_coordinator_is_away() {
    let coordinator = Coordinator::start();
    coordinator.submit().await;
    let mut worker = coordinator.connect(1, &[]).await;
    let attempt = worker.hear_launch().await.attempt;
    let coordinator = Coordinator::start_in(coordinator.kill().await);

    let mut worker = coordinator.connect(1, &[attempt]).await;
    coordinator.settle().await;
    worker.assert_silent();
    assert_eq!(coordinator.trial(1).await.attempt().map(|attempt| attempt.id), Some(attempt));
}

#[tokio::test]
async fn stopping_ends_sessions_and_answers_nobody_afterwards() {
    let coordinator = Coordinator::start();
    let worker = coordinator.connect(1, &[]).await;
    coordinator.driver.stop().await;
    assert_eq!(worker.ended().await, SessionEnd::Stopping);
    let error = coordinator.driver.read(|_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

/// What refers to blobs comes out of the snapshot, too: a collection after a restart takes only what nobody needs.
#[tokio::test]
async fn what_a_record_refers_to_is_never_collected() {
    let coordinator = Coordinator::start();
    coordinator.submit().await;
    let mut worker = coordinator.connect(1, &[]).await;
    let attempt = worker.hear_launch().await.attempt;
    let held = coordinator.checkpoint(&worker, attempt, 10).await.digest;
    let log = coordinator.upload(b"step 1\n").await;
    let stored = common::session::FromWorker::LogStored { attempt, rank: 0, digest: log, bytes: 7 };
    worker.say(stored).await;
    let stray = coordinator.upload(b"nobody wants it").await;
    coordinator.settle().await;

    let coordinator = Coordinator::start_in(coordinator.kill().await);
    coordinator.driver.collect(vec![held, log, stray]).await.unwrap();
    coordinator.settle().await;
    for (digest, kept) in [(held, true), (log, true), (stray, false)] {
        assert_eq!(coordinator.blobs.size(digest).await.unwrap().is_some(), kept, "{digest}");
    }
}
