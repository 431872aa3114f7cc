//! Sessions, as workers see them.

use common::AttemptId;
use common::session::{FromWorker, Hello, PROTOCOL, Progress, ToWorker};
use proto::v1;
use tonic::Code;

use crate::support::{GRID, Server, Worker, assert_refused, hello};

#[tokio::test]
async fn another_protocol_is_refused_and_both_versions_are_named() {
    let server = Server::start().await;
    let newer = Hello { protocol: PROTOCOL + 6, version: "7.1.2".to_owned(), ..hello(1, 1, &[]) };
    let status = Worker::open(&server, FromWorker::Hello(Box::new(newer))).await.err().unwrap();
    let versions = [format!("protocol {}", PROTOCOL + 6), format!("protocol {PROTOCOL}")];
    let builds = ["version 7.1.2".to_owned(), format!("version {}", env!("CARGO_PKG_VERSION"))];
    let named: Vec<&str> = versions.iter().chain(&builds).map(String::as_str).collect();
    assert_refused(&status, Code::FailedPrecondition, &named);
}

#[tokio::test]
async fn a_session_that_does_not_begin_with_a_hello_is_refused() {
    let server = Server::start().await;
    let status = Worker::open(
        &server,
        FromWorker::Heartbeat { sequence: 1, attempts: Vec::new(), faults: Vec::new() },
    )
    .await
    .err()
    .unwrap();
    assert_refused(&status, Code::InvalidArgument, &["hello"]);
}

#[tokio::test]
async fn an_older_session_is_ended_with_aborted() {
    let server = Server::start().await;
    let mut old = Worker::connect(&server, 1, 1).await;
    let _new = Worker::connect(&server, 1, 1).await;
    assert_refused(&old.hear().await.unwrap_err(), Code::Aborted, &["w1"]);
}

#[tokio::test]
async fn a_message_that_means_nothing_does_not_cost_the_session() {
    let server = Server::start().await;
    let mut worker = Worker::connect(&server, 1, 1).await;
    let nothing = FromWorker::Metrics { attempt: AttemptId(5), sequence: 1, rows: Vec::new() };
    worker.say_raw(v1::FromWorker { message: None }).await;
    worker.say(nothing).await;
    let acknowledged = ToWorker::MetricAck { attempt: AttemptId(5), sequence: 1 };
    assert_eq!(worker.hear().await.unwrap(), acknowledged);
}

#[tokio::test]
async fn the_list_of_workers_says_who_is_connected_and_what_runs_there() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 3).await;
    let launches = [worker.hear_launch().await, worker.hear_launch().await, worker.hear_launch().await];
    let list = async || {
        let list = server.client().list_workers(v1::ListWorkersRequest {}).await.unwrap();
        list.into_inner().workers
    };
    let [listed] = &list().await[..] else { panic!("one worker") };
    assert_eq!(
        (listed.id.as_str(), listed.name.as_str(), listed.version.as_str()),
        ("w1", "node-1", "0.0.0")
    );
    assert_eq!((listed.slots, listed.slots_used, listed.connected), (3, 3, true));
    assert!((1..=20_000).contains(&listed.lease_left_ms));
    assert_eq!(listed.attempts, launches.map(|launch| launch.attempt.to_string()));

    worker.say(FromWorker::Goodbye).await;
    worker.end().await;
    assert!(list().await.is_empty());
}

#[tokio::test]
async fn progress_is_shown_while_a_trial_runs() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let attempt = worker.hear_launch().await.attempt;
    let progress = Progress { step: 5, total_steps: 20, loss: Some(1.5), steps_per_second: Some(2.0) };
    worker.say(FromWorker::Progress { attempt, progress }).await;
    worker.rows(attempt, 1, &[]).await;
    let shown = server.trials().await[0].progress.unwrap();
    assert_eq!(Progress::from(shown), progress);
    worker.checkpoint(&server, attempt, 20).await;
    worker.succeed(attempt, &[], Vec::new()).await;
    worker.hear_launch().await;
    assert_eq!(server.trials().await[0].progress, None);
}
