//! A disk without space, or one that became read-only: refused requests, a pause, nothing half done; and with
//! space again everything goes on by itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use common::WorkerId;
use common::session::FromWorker;
use proto::v1;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use crate::support::{GRID, Server, Worker, assert_refused, hello};

/// Set for the process that has little space; its data folder.
const FOLDER: &str = "CREDENCE_TEST_LITTLE_SPACE";

/// No file of the child may grow beyond 4 MiB; writing more is an error instead of a signal.
const LIMITED: &str = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" --exact \"$1\" --nocapture";

/// The child has a file system of its own, of 24 MiB, that it may fill and remount.
const MOUNTED: &str = "mount -t tmpfs -o size=24m credence \"$CREDENCE_TEST_LITTLE_SPACE\" && exec \"$0\" --exact \"$1\" --nocapture";

/// Longer than the pause between two tries, shorter than a patient person waits.
const LIMIT: Duration = Duration::from_secs(60);

fn child(program: &str, arguments: &[&str], test: &str, folder: &Path) -> Output {
    let this = std::env::current_exe().unwrap();
    Command::new(program).args(arguments).arg(this).arg(test).env(FOLDER, folder).output().unwrap()
}

fn assert_passed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stdout));
    text
}

#[tokio::test]
async fn a_coordinator_without_space_refuses_and_loses_nothing_that_it_answered() {
    const TEST: &str = "full_disk::a_coordinator_without_space_refuses_and_loses_nothing_that_it_answered";
    if let Some(folder) = std::env::var_os(FOLDER) {
        let server = Server::start_at(PathBuf::from(folder)).await;
        let blob = server.upload(&[7; 9 << 20]).await.unwrap_err();
        assert_eq!(blob.code(), Code::ResourceExhausted, "{blob}");
        let (answered, status) = fill(&server).await;
        assert_refused(&status, Code::ResourceExhausted, &["no space is left", "paused"]);
        eprintln!("answered {answered}");
        return;
    }
    let dir = TempDir::new().unwrap();
    let text = assert_passed(&child("sh", &["-c", LIMITED], TEST, dir.path()));
    let answered = text.lines().find_map(|line| line.strip_prefix("answered ")).expect("the child says");
    let answered: usize = answered.parse().unwrap();
    assert!(answered > 0);

    // With space again, everything that was answered is there.
    let server = Server::start_in(Arc::new(dir)).await;
    let experiments = experiments(&server).await.unwrap();
    // The last one may have become durable before the failure.
    assert!((answered..=answered + 1).contains(&experiments), "{experiments} of {answered}");
}

#[tokio::test]
async fn a_coordinator_goes_on_when_the_disk_takes_writes_again() {
    const TEST: &str = "full_disk::a_coordinator_goes_on_when_the_disk_takes_writes_again";
    if let Some(folder) = std::env::var_os(FOLDER) {
        return fill_and_free(Path::new(&folder)).await;
    }
    let dir = TempDir::new().unwrap();
    let allowed = Command::new("unshare").args(["-rm", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine lets no test mount a file system of its own");
        return;
    }
    assert_passed(&child("unshare", &["-rm", "sh", "-c", MOUNTED], TEST, dir.path()));
}

async fn fill_and_free(mount: &Path) {
    let server = Server::start_at(mount.join("data")).await;
    let mut worker = Worker::connect(&server, 1, 1).await;
    let ballast = mount.join("ballast");
    std::fs::write(&ballast, vec![1; 8 << 20]).unwrap();
    let mut answered = 0;
    for round in 0..2 {
        let (more, status) = fill_from(&server, answered).await;
        answered += more;
        assert_refused(&status, Code::ResourceExhausted, &["no space is left", "paused"]);
        // Readers are told why, and the worker's session ended without fault of its own.
        let status = experiments(&server).await.unwrap_err();
        assert_refused(&status, Code::ResourceExhausted, &["no space is left"]);
        let ended = loop {
            match worker.hear().await {
                Ok(_) => {}
                Err(status) => break status,
            }
        };
        assert_refused(&ended, Code::Unavailable, &["no space is left"]);
        let refused = Worker::open(&server, FromWorker::Hello(Box::new(hello(1, 1, &[])))).await;
        assert_refused(&refused.err().unwrap(), Code::Unavailable, &["no space is left"]);
        // Nothing half written stands in the way of going on.
        assert!(!mount.join("data/probe").exists());

        // Meanwhile it becomes read-only, as a file system does that met an error.
        remount(mount, "ro").await;
        sleep(Duration::from_millis(500)).await;
        assert_refused(&experiments(&server).await.unwrap_err(), Code::ResourceExhausted, &["paused"]);
        remount(mount, "rw").await;
        let size = std::fs::metadata(&ballast).unwrap().len();
        std::fs::File::options().write(true).open(&ballast).unwrap().set_len(size - (3 << 20)).unwrap();
        let found = goes_on(&server).await;
        assert!((answered..=answered + 1).contains(&found), "round {round}: {found} of {answered}");
        answered = found;
        worker = Worker::connect(&server, 1, 1).await;
    }
    submit(&server, 100_000).await.unwrap();

    // What was answered is there for the next one, too.
    let folder = server.folder.clone();
    server.stop_anywhere().await;
    let server = Server::start_at(folder).await;
    assert_eq!(experiments(&server).await.unwrap(), answered + 1);
    let workers = server.client().list_workers(v1::ListWorkersRequest {}).await.unwrap().into_inner();
    assert_eq!(workers.workers[0].id, WorkerId(1).to_string());
}

/// The file system is busy while the coordinator tries whether it takes writes.
async fn remount(mount: &Path, mode: &str) {
    let options = format!("remount,{mode},size=24m");
    for _ in 0..100 {
        let status = Command::new("mount").args(["-o", &options]).arg(mount).status().unwrap();
        if status.success() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("it cannot be mounted {mode}");
}

/// Waits until it answers, and counts what it knows.
async fn goes_on(server: &Server) -> usize {
    let again = async {
        loop {
            match experiments(server).await {
                Ok(found) => break found,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(LIMIT, again).await.expect("it goes on")
}

async fn experiments(server: &Server) -> Result<usize, Status> {
    let list = server.client().list_experiments(v1::ListExperimentsRequest {}).await?;
    Ok(list.into_inner().experiments.len())
}

async fn submit(server: &Server, first: usize) -> Result<v1::SubmitResponse, Status> {
    let seeds = format!("seeds = {{ first = {}, count = 200 }}", first * 200);
    server.submit(&GRID.replace("seeds = [0, 1]", &seeds)).await
}

async fn fill(server: &Server) -> (usize, Status) {
    fill_from(server, 0).await
}

/// Submits until it is refused. Returns how often it was not.
async fn fill_from(server: &Server, first: usize) -> (usize, Status) {
    for answered in 0..1000 {
        if let Err(status) = submit(server, first + answered).await {
            return (answered, status);
        }
    }
    panic!("there is no limit");
}
