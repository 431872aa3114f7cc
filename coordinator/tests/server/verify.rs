//! `verify` on what a real coordinator left: whole, and damaged in each way that it knows.

use std::path::Path;
use std::sync::Arc;

use common::Digest;
use common::result::Artifact;
use common::session::FromWorker;
use coordinator::{Verified, verify};
use tempfile::TempDir;

use crate::support::{GRID, Server, Worker};

/// Four trained networks, of which two are evaluated, with a log; then enough submissions for two snapshots.
async fn used() -> (Arc<TempDir>, Vec<Digest>) {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let launch = worker.hear_launch().await;
    let held = worker.checkpoint(&server, launch.attempt, 10).await.digest;
    let text = b"step 1\n";
    server.upload(text).await.unwrap();
    let (log, bytes) = (Digest::of(text), text.len() as u64);
    worker.say(FromWorker::LogStored { attempt: launch.attempt, rank: 0, digest: log, bytes }).await;
    server.upload(b"scores").await.unwrap();
    let scores = Digest::of(b"scores");
    let artifact = Artifact { name: "scores".to_owned(), digest: scores, bytes: 6 };
    worker.rows(launch.attempt, 1, &[(1, "loss", 0.5)]).await;
    worker.succeed(launch.attempt, &[], vec![artifact]).await;
    worker.hear_launch().await;
    server.upload(b"nobody wants it").await.unwrap();
    for first in 1..4 {
        let seeds = format!("seeds = {{ first = {}, count = 60 }}", first * 60);
        server.submit(&GRID.replace("seeds = [0, 1]", &seeds)).await.unwrap();
        wait_for_snapshots(&server).await;
    }
    (server.stop().await, vec![held, log, scores])
}

/// A compaction runs beside what is answered.
async fn wait_for_snapshots(server: &Server) {
    server.trials().await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
}

fn blob(folder: &Path, digest: Digest) -> std::path::PathBuf {
    let name = digest.to_string();
    folder.join("blobs").join(&name[..2]).join(name)
}

fn damage_of(folder: &Path, count: usize, words: &[&str]) -> Verified {
    let found = verify(folder).unwrap();
    assert_eq!(found.damage.len(), count, "{:?}", found.damage);
    for word in words {
        assert!(found.damage.iter().any(|text| text.contains(word)), "`{word}` is not in {:?}", found.damage);
    }
    found
}

#[tokio::test]
async fn what_is_whole_is_counted_and_what_is_damaged_is_named() {
    let (dir, blobs) = used().await;
    let folder = dir.path();
    let found = damage_of(folder, 0, &[]);
    assert!(found.records.snapshots >= 2 && found.newest_event > 400, "{found:?}");
    assert!(found.records.events < found.newest_event, "{found:?}");
    assert_eq!((found.experiments, found.blobs.count), (4, 4));
    assert_eq!((found.records.metric_reports, found.records.logs), (1, 1));
    assert_eq!((found.garbage.count, found.garbage.bytes), (1, 15));

    for (digest, words) in blobs.iter().zip(["the checkpoint of step 10 of t", "a log", "`scores` of t"]) {
        let file = blob(folder, *digest);
        let whole = std::fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        flipped[0] ^= 1;
        std::fs::write(&file, flipped).unwrap();
        damage_of(folder, 2, &[words, "does not hash to its name"]);
        std::fs::remove_file(&file).unwrap();
        damage_of(folder, 1, &[words]);
        std::fs::write(&file, whole).unwrap();
    }
    damage_of(folder, 0, &[]);
}

#[tokio::test]
async fn a_folder_in_use_is_not_looked_at() {
    let server = Server::start().await;
    let error = verify(&server.folder).unwrap_err().to_string();
    assert!(error.contains(&format!("process id {}", std::process::id())), "{error}");
    let empty = TempDir::new().unwrap();
    assert!(verify(empty.path()).unwrap_err().to_string().contains("no coordinator's data"));
}

#[tokio::test]
async fn a_coordinator_goes_on_from_an_import() {
    let (dir, _) = used().await;
    let server = Server::start_in(dir).await;
    let trials = server.trials().await;
    let dir = server.stop().await;
    let (file, target) = (dir.path().join("export"), TempDir::new().unwrap());
    coordinator::store::export(dir.path(), &file).unwrap();
    coordinator::store::import(&file, target.path(), coordinator::store::TornTail::Refuse).unwrap();
    let server = Server::start_in(Arc::new(target)).await;
    assert_eq!(server.trials().await, trials);
}
