//! A disk without space: refused requests, an error at the end, nothing half done.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use coordinator::ServeError;
use proto::status::{ErrorKind, Kind};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::Code;

use crate::support::{GRID, Server};

/// Set for the process that has little space; its data folder.
const FOLDER: &str = "CREDENCE_TEST_LITTLE_SPACE";

/// No file of the child may grow beyond 4 MiB; writing more is an error instead of a signal.
const CHILD: &str = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" --exact \"$1\" --nocapture";

const TEST: &str =
    "full_disk::a_coordinator_without_space_refuses_and_stops_and_loses_nothing_that_it_answered";

#[tokio::test]
async fn a_coordinator_without_space_refuses_and_stops_and_loses_nothing_that_it_answered() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return fill(PathBuf::from(folder)).await;
    }
    let dir = TempDir::new().unwrap();
    let program = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", CHILD])
        .arg(program)
        .arg(TEST)
        .env(FOLDER, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stdout));
    let answered = text.lines().find_map(|line| line.strip_prefix("answered ")).expect("the child says");
    let answered: u64 = answered.parse().unwrap();
    assert!(answered > 0);

    // With space again, everything that was answered is there.
    let server = Server::start_in(Arc::new(dir)).await;
    let list = server.client().list_experiments(proto::v1::ListExperimentsRequest {}).await.unwrap();
    let experiments = list.into_inner().experiments.len() as u64;
    // The last one may have become durable before the failure.
    assert!((answered..=answered + 1).contains(&experiments), "{experiments} of {answered}");
}

async fn fill(folder: PathBuf) {
    let server = Server::start_at(folder).await;
    let mut answered = 0_u64;
    let blob = server.upload(&[7; 9 << 20]).await.unwrap_err();
    assert_eq!(blob.code(), Code::ResourceExhausted, "{blob}");
    let status = loop {
        let grid =
            GRID.replace("seeds = [0, 1]", &format!("seeds = {{ first = {}, count = 200 }}", answered * 200));
        match server.submit(&grid).await {
            Ok(_) => answered += 1,
            Err(status) => break status,
        }
        assert!(answered < 1000, "there is no limit");
    };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("no space is left"), "{status}");
    let error = timeout(Duration::from_secs(30), server.failed()).await.expect("it stops");
    let ServeError::Store(reason) = &error else { panic!("{error}") };
    assert_eq!(reason.kind(), ErrorKind::ResourceExhausted);
    eprintln!("answered {answered}");
}
