//! Starting, stopping, and starting again.

use std::time::{Duration, Instant};

use coordinator::{ServeError, serve};
use proto::v1;
use tonic::Code;

use crate::support::{GRID, Server, Worker, assert_refused, config};

#[tokio::test]
async fn a_second_coordinator_on_the_same_folder_is_refused() {
    let server = Server::start().await;
    let error = serve(config(&server.folder), std::future::pending(), |_| {}).await.unwrap_err();
    let ServeError::Open(reason) = &error else { panic!("{error}") };
    let pid = std::process::id();
    assert!(reason.to_string().contains(&format!("process id {pid}")), "{reason}");
    // The first one does not notice.
    server.submit(GRID).await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let server = Server::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let mut config = config(dir.path());
    config.listen = taken.local_addr().unwrap();
    let error = serve(config.clone(), std::future::pending(), |_| {}).await.unwrap_err();
    assert!(matches!(error, ServeError::Listen { address, .. } if address == config.listen), "{error}");
    drop(server);
}

#[tokio::test]
async fn stopping_ends_sessions_and_watches_and_frees_the_folder() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let attempt = worker.hear_launch().await.attempt;
    let request = v1::WatchRequest { experiment: "e1".to_owned() };
    let mut updates = server.client().watch(request).await.unwrap().into_inner();
    updates.message().await.unwrap().unwrap();

    let start = Instant::now();
    let dir = server.stop().await;
    assert!(start.elapsed() < Duration::from_secs(5), "connections had to be cut");
    assert_refused(&worker.hear().await.unwrap_err(), Code::Unavailable, &["stopping"]);
    let status = loop {
        match updates.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch ended as if the experiment had"),
            Err(status) => break status,
        }
    };
    assert_refused(&status, Code::Unavailable, &["stopping"]);

    let server = Server::start_in(dir).await;
    let trials = server.trials().await;
    assert_eq!(trials.len(), 8);
    assert_eq!((trials[0].state(), trials[0].attempts), (v1::TrialState::Running, 1));
    let mut worker = Worker::reconnect(&server, 1, 1, &[attempt]).await;
    worker.checkpoint(&server, attempt, 10).await;
    worker.succeed(attempt, &[], Vec::new()).await;
    worker.hear_launch().await;
    assert_eq!(server.trials().await[0].state(), v1::TrialState::Succeeded);
}
