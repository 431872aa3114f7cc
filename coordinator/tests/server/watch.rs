//! Watching an experiment.

use std::time::{Duration, Instant};

use common::session::{FromWorker, Progress};
use proto::v1;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use crate::support::{GRID, Server, Worker, assert_refused};

async fn watch(server: &Server, experiment: &str) -> Result<Streaming<v1::WatchUpdate>, Status> {
    let request = v1::WatchRequest { experiment: experiment.to_owned() };
    server.client().watch(request).await.map(tonic::Response::into_inner)
}

async fn next(updates: &mut Streaming<v1::WatchUpdate>) -> Option<v1::WatchUpdate> {
    timeout(Duration::from_secs(30), updates.message()).await.expect("an update, or the end").unwrap()
}

#[tokio::test]
async fn a_watch_begins_at_once_and_ends_with_its_experiment() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut updates = watch(&server, "small").await.unwrap();
    let first = next(&mut updates).await.unwrap();
    let experiment = first.experiment.unwrap();
    assert_eq!((experiment.id.as_str(), experiment.state()), ("e1", v1::ExperimentState::Active));
    assert_eq!(first.notes, ["t1 and 3 more: no worker is connected"]);
    assert_eq!((first.slots_total, first.seconds_left), (0, None));

    let mut worker = Worker::connect(&server, 1, 1).await;
    let run = worker.run(&server, 8, |_| 0.5);
    let follow = async {
        let (mut ended, mut last) = (Vec::new(), None);
        while let Some(update) = next(&mut updates).await {
            ended.extend(update.ended.iter().map(|trial| trial.id.clone()));
            last = update.experiment;
        }
        (ended, last.unwrap())
    };
    let ((mut ended, last), ()) = tokio::join!(follow, run);
    assert_eq!(last.state(), v1::ExperimentState::Succeeded);
    assert_eq!(last.counts.unwrap().succeeded, 8);
    // Each trial is said to have ended exactly once.
    ended.sort();
    assert_eq!(ended, (1..=8).map(|id| format!("t{id}")).collect::<Vec<_>>());

    let mut again = watch(&server, "small").await.unwrap();
    assert!(next(&mut again).await.is_some());
    assert!(next(&mut again).await.is_none());
}

#[tokio::test]
async fn changes_are_coalesced() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let attempt = worker.hear_launch().await.attempt;
    let mut updates = watch(&server, "small").await.unwrap();
    next(&mut updates).await;
    let start = Instant::now();
    for step in 1..=1000 {
        let progress = Progress { step, total_steps: 1000, loss: None, steps_per_second: Some(100.0) };
        worker.say(FromWorker::Progress { attempt, progress }).await;
    }
    let mut count = 0;
    loop {
        let update = next(&mut updates).await.unwrap();
        count += 1;
        if update.running[0].progress.unwrap().step == 1000 {
            break;
        }
    }
    let intervals = u64::try_from(start.elapsed().as_millis()).unwrap() / 250 + 1;
    assert!(count <= intervals, "{count} updates in {intervals} intervals");
}

#[tokio::test]
async fn the_time_left_follows_from_progress() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let attempt = worker.hear_launch().await.attempt;
    let progress = Progress { step: 50, total_steps: 100, loss: Some(1.0), steps_per_second: Some(10.0) };
    worker.say(FromWorker::Progress { attempt, progress }).await;
    worker.rows(attempt, 1, &[]).await;
    let update = next(&mut watch(&server, "e1").await.unwrap()).await.unwrap();
    // 5 s for the trial that runs, and at least as much again for each of the seven others.
    let left = update.seconds_left.unwrap();
    assert!((5.0 * 8.0..600.0).contains(&left), "{left}");
    assert_eq!((update.slots_total, update.slots_used), (1, 1));
}

#[tokio::test]
async fn a_cancelled_experiment_ends_its_watch() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut updates = watch(&server, "e1").await.unwrap();
    next(&mut updates).await;
    let target = v1::cancel_request::Target::Experiment("e1".to_owned());
    server.client().cancel(v1::CancelRequest { target: Some(target) }).await.unwrap();
    let last = next(&mut updates).await.unwrap();
    assert_eq!(last.experiment.unwrap().state(), v1::ExperimentState::Cancelled);
    assert_eq!(next(&mut updates).await, None);
}

#[tokio::test]
async fn a_watch_of_nothing_is_refused() {
    let server = Server::start().await;
    assert_refused(&watch(&server, "e1").await.unwrap_err(), Code::NotFound, &["`e1`"]);
}
