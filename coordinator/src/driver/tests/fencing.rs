//! A message of an old session or an old attempt changes nothing (I5).

use common::FailureCause;
use common::session::SessionOrder;

use super::super::*;
use super::support::{Coordinator, Worker, hello_of, is_running};

async fn launched(coordinator: &Coordinator) -> (Worker, AttemptId) {
    coordinator.submit().await;
    let mut worker = coordinator.connect(1, &[]).await;
    let attempt = worker.hear_launch().await.attempt;
    (worker, attempt)
}

async fn ack(worker: &mut Worker) -> (AttemptId, u64) {
    match worker.hear().await {
        ToWorker::MetricAck { attempt, sequence } => (attempt, sequence),
        other => panic!("expected an acknowledgement, heard {other:?}"),
    }
}

#[tokio::test]
async fn a_newer_session_ends_the_older_one_and_its_late_messages_are_ignored() {
    let coordinator = Coordinator::start();
    let (old, attempt) = launched(&coordinator).await;
    let mut new = coordinator.connect(1, &[attempt]).await;
    let (id, session) = (old.id, old.session);
    assert_eq!(old.ended().await, SessionEnd::Superseded(id));

    let late = FromWorker::AttemptEnded { attempt, end: Err(FailureCause::OutOfMemory) };
    coordinator.driver.from_worker(id, session, late).await.unwrap();
    coordinator.driver.session_closed(id, session).await.unwrap();
    coordinator.settle().await;
    assert!(is_running(&coordinator.trial(1).await));
    new.assert_silent();
}

#[tokio::test]
async fn a_hello_that_the_network_held_up_takes_nothing_from_the_session_that_came_after_it() {
    let coordinator = Coordinator::start();
    coordinator.submit().await;
    let order = |start, session| SessionOrder { start, session };
    let mut worker = coordinator.say_hello(1, order(7, 2), &[]).await.unwrap();
    let attempt = worker.hear_launch().await.attempt;
    // Of an agent that is dead, and of a session that its agent gave up. Neither knows of the attempt.
    for held_up in [order(6, 9), order(7, 1)] {
        let error = coordinator.say_hello(1, held_up, &[]).await.err().unwrap();
        assert_eq!(error.to_string(), "a later session of worker w1 came first");
    }
    coordinator.settle().await;
    assert!(is_running(&coordinator.trial(1).await));
    worker.rows(attempt, 1, 0.5).await;
    assert_eq!(ack(&mut worker).await, (attempt, 1), "its session stands");
    coordinator.say_hello(1, order(7, 3), &[attempt]).await.unwrap();
    coordinator.say_hello(1, order(8, 1), &[attempt]).await.unwrap();
}

/// The older hello waited in the network, and the coordinator that had heard the later one is dead.
#[tokio::test]
async fn a_hello_that_the_network_held_up_over_a_restart_of_the_coordinator_takes_nothing() {
    let coordinator = Coordinator::start();
    coordinator.submit().await;
    let order = |start, session| SessionOrder { start, session };
    let mut worker = coordinator.say_hello(1, order(7, 2), &[]).await.unwrap();
    let attempt = worker.hear_launch().await.attempt;
    let mut coordinator = Coordinator::start_in(coordinator.kill().await);
    for held_up in [order(6, 9), order(7, 1)] {
        let error = coordinator.say_hello(1, held_up, &[]).await.err().unwrap();
        assert_eq!(error.to_string(), "a later session of worker w1 came first");
    }
    assert!(is_running(&coordinator.trial(1).await));
    let mut worker = coordinator.say_hello(1, order(7, 3), &[attempt]).await.unwrap();
    worker.rows(attempt, 1, 0.5).await;
    assert_eq!(ack(&mut worker).await, (attempt, 1));
    // Also one that a snapshot stands for, of a worker that is no member any more.
    coordinator.driver.apply(Input::WorkerLeft { worker: worker.id }).await.unwrap();
    coordinator = Coordinator::start_in(coordinator.kill().await);
    assert!(coordinator.say_hello(1, order(7, 2), &[]).await.is_err());
    coordinator.say_hello(1, order(8, 1), &[]).await.unwrap();
}

#[tokio::test]
async fn a_second_hello_ends_the_session() {
    let coordinator = Coordinator::start();
    let worker = coordinator.connect(1, &[]).await;
    let hello = Hello { slots: 9, ..hello_of(1, SessionOrder::default(), &[]) };
    worker.say(FromWorker::Hello(Box::new(hello))).await;
    assert_eq!(worker.ended().await, SessionEnd::SecondHello);
}

#[tokio::test]
async fn rows_are_acknowledged_when_they_are_stored() {
    let coordinator = Coordinator::start();
    let (mut worker, attempt) = launched(&coordinator).await;
    worker.rows(attempt, 1, 0.5).await;
    assert_eq!(ack(&mut worker).await, (attempt, 1));
    let coordinator = Coordinator::start_in(coordinator.kill().await);
    let rows = coordinator.reader.metrics(TrialId(1)).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].1[0].value, 0.5);
}

#[tokio::test]
async fn rows_that_are_sent_again_are_kept_once_and_acknowledged_again() {
    let coordinator = Coordinator::start();
    let (mut worker, attempt) = launched(&coordinator).await;
    for (sequence, value) in [(1, 0.5), (2, 0.4), (1, 0.5), (2, 0.4)] {
        worker.rows(attempt, sequence, value).await;
        assert_eq!(ack(&mut worker).await, (attempt, sequence));
    }
    assert_eq!(coordinator.reader.metrics(TrialId(1)).unwrap().len(), 2);
}

#[tokio::test]
async fn rows_of_an_attempt_that_is_over_are_dropped_and_acknowledged() {
    let coordinator = Coordinator::start();
    let (mut worker, old) = launched(&coordinator).await;
    worker.say(FromWorker::AttemptEnded { attempt: old, end: Err(FailureCause::OutOfMemory) }).await;
    assert!(matches!(worker.hear().await, ToWorker::Release { attempt } if attempt == old));
    let new = worker.hear_launch().await.attempt;
    worker.rows(old, 7, 0.5).await;
    assert_eq!(ack(&mut worker).await, (old, 7));
    worker.rows(new, 1, 0.25).await;
    assert_eq!(ack(&mut worker).await, (new, 1));
    let rows = coordinator.reader.metrics(TrialId(1)).unwrap();
    assert_eq!(rows.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [new]);
}

#[tokio::test]
async fn rows_and_progress_of_another_workers_attempt_are_dropped() {
    let coordinator = Coordinator::start();
    let (_worker, attempt) = launched(&coordinator).await;
    let mut thief = coordinator.connect(2, &[]).await;
    thief.rows(attempt, 1, 0.5).await;
    assert_eq!(ack(&mut thief).await, (attempt, 1));
    let progress = Progress { step: 5, total_steps: 10, ..Progress::default() };
    thief.say(FromWorker::Progress { attempt, progress }).await;
    let checkpoint = coordinator.checkpoint(&thief, attempt, 5).await;
    coordinator.settle().await;
    assert!(coordinator.reader.metrics(TrialId(1)).unwrap().is_empty());
    assert!(coordinator.trial(1).await.checkpoints.is_empty(), "{checkpoint:?}");
    assert_eq!(coordinator.driver.read(|view| view.progress(TrialId(1))).await.unwrap(), None);
}

#[tokio::test]
async fn a_worker_that_was_lost_must_open_a_new_session() {
    let coordinator = Coordinator::start();
    let worker = coordinator.connect(1, &[]).await;
    coordinator.driver.apply(Input::WorkerLeft { worker: worker.id }).await.unwrap();
    worker.heartbeat(&[]).await;
    let id = worker.id;
    assert_eq!(worker.ended().await, SessionEnd::LeaseEnded(id));
}
