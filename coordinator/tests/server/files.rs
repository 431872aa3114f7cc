//! Blobs, artifacts and logs.

use std::fs;

use common::Digest;
use common::result::Artifact;
use common::session::{FromWorker, LogPart, ToWorker};
use proto::v1;
use tonic::{Code, Status};

use crate::support::{GRID, Server, Worker, assert_refused, read_all};

async fn download(server: &Server, digest: Digest) -> Result<Vec<u8>, Status> {
    let request = v1::DownloadBlobRequest { digest: digest.to_string(), offset: 0 };
    read_all(server.worker_client().download_blob(request).await?.into_inner()).await
}

async fn read_log(server: &Server, attempt: &str, rank: u32, tail_bytes: u64) -> Result<Vec<u8>, Status> {
    let (trial, attempt) = ("t1".to_owned(), attempt.to_owned());
    let request = v1::ReadLogRequest { trial, attempt, rank, tail_bytes };
    read_all(server.client().read_log(request).await?.into_inner()).await
}

#[tokio::test]
async fn a_blob_is_downloaded_as_it_was_uploaded() {
    let server = Server::start().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    assert!(!server.upload(&bytes).await.unwrap());
    assert!(download(&server, Digest::of(&bytes)).await.unwrap() == bytes);
    assert!(!server.upload(b"").await.unwrap());
    assert!(download(&server, Digest::of(b"")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_blob_that_is_known_is_answered_in_the_middle_of_its_upload() {
    let server = Server::start().await;
    let bytes = vec![7; 24 << 20];
    assert!(!server.upload(&bytes).await.unwrap());
    for _ in 0..3 {
        assert!(server.upload(&bytes).await.unwrap());
    }
}

#[tokio::test]
async fn an_upload_that_is_not_what_it_says_is_refused() {
    let server = Server::start().await;
    let digest = Digest::of(b"bytes").to_string();
    let cut = server.upload_as(&digest, 5, b"byte").await.unwrap_err();
    assert_refused(&cut, Code::DataLoss, &["announced with 5 bytes", "4 came"]);
    let other = server.upload_as(&digest, 5, b"bytez").await.unwrap_err();
    assert_refused(&other, Code::DataLoss, &["hash to"]);
    let large = server.upload_as(&digest, 65 << 20, b"bytes").await.unwrap_err();
    assert_refused(&large, Code::InvalidArgument, &["max-blob-bytes"]);
    let unnamed = server.upload_as("bytes", 5, b"bytes").await.unwrap_err();
    assert_refused(&unnamed, Code::InvalidArgument, &["`bytes` is not a digest"]);
    let missing = download(&server, Digest::of(b"bytes")).await.unwrap_err();
    assert_refused(&missing, Code::NotFound, &["is not stored"]);
}

#[tokio::test]
async fn a_flipped_byte_ends_a_download_with_data_loss() {
    let server = Server::start().await;
    let bytes = vec![1; 1 << 20];
    server.upload(&bytes).await.unwrap();
    let file = server.blob_file(Digest::of(&bytes));
    let mut damaged = bytes.clone();
    damaged[12_345] ^= 1;
    fs::write(&file, damaged).unwrap();
    let status = download(&server, Digest::of(&bytes)).await.unwrap_err();
    assert_refused(&status, Code::DataLoss, &["is damaged"]);
    // The whole bytes replace the damaged ones.
    assert!(!server.upload(&bytes).await.unwrap());
    assert!(download(&server, Digest::of(&bytes)).await.unwrap() == bytes);
}

#[tokio::test]
async fn artifacts_of_a_trial_are_its_files_and_its_network() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let train = worker.hear_launch().await;
    let network = worker.checkpoint(&server, train.attempt, 10).await;
    worker.succeed(train.attempt, &[], Vec::new()).await;
    let evaluate = worker.hear_launch().await;
    let predictions = Artifact { name: "predictions".to_owned(), digest: Digest::of(b"p"), bytes: 1 };
    server.upload(b"p").await.unwrap();
    worker.succeed(evaluate.attempt, &[], vec![predictions]).await;
    worker.hear_launch().await;

    let list = async |trial: String| {
        let request = v1::ListArtifactsRequest { trial };
        let list = server.client().list_artifacts(request).await.unwrap().into_inner().artifacts;
        list.into_iter().map(|artifact| (artifact.name, artifact.digest)).collect::<Vec<_>>()
    };
    let (train, evaluate) = (train.key.to_string(), evaluate.key.to_string());
    let checkpoint = "checkpoint.safetensors".to_owned();
    assert_eq!(list(train.clone()).await, [(checkpoint.clone(), network.digest.to_string())]);
    let predictions = ("predictions".to_owned(), Digest::of(b"p").to_string());
    assert_eq!(list(evaluate.clone()).await, [predictions]);

    let fetch = async |trial: &str, name: &str| {
        let request = v1::DownloadArtifactRequest { trial: trial.to_owned(), name: name.to_owned() };
        read_all(server.client().download_artifact(request).await?.into_inner()).await
    };
    assert_eq!(fetch(&evaluate, "predictions").await.unwrap(), b"p");
    assert_eq!(fetch(&train, &checkpoint).await.unwrap().len() as u64, network.bytes);
    let status = fetch(&evaluate, "prediction").await.unwrap_err();
    assert_refused(&status, Code::NotFound, &["`prediction`", "did you mean `predictions`?"]);
    let open = server.trials().await.into_iter().find(|trial| trial.state() == v1::TrialState::Running);
    let status = fetch(&open.unwrap().id, "predictions").await.unwrap_err();
    assert_refused(&status, Code::NotFound, &["has not ended yet"]);
}

#[tokio::test]
async fn the_log_of_a_running_rank_comes_from_its_worker() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let none = read_log(&server, "", 0, 0).await.unwrap_err();
    assert_refused(&none, Code::FailedPrecondition, &["t1", "has not been started yet"]);

    let mut worker = Worker::connect(&server, 1, 1).await;
    let attempt = worker.hear_launch().await.attempt;
    let answer = async {
        let ToWorker::FetchLog { request, attempt: asked, rank, tail } = worker.hear().await.unwrap() else {
            panic!("the coordinator asks for the log")
        };
        assert_eq!((asked, rank, tail), (attempt, 0, Some(100)));
        // An answer to another request goes nowhere.
        worker.say(FromWorker::LogData { request: request + 1, part: LogPart::Data(b"x".to_vec()) }).await;
        for part in [LogPart::Data(b"step 1\n".to_vec()), LogPart::Data(b"step 2\n".to_vec()), LogPart::End] {
            worker.say(FromWorker::LogData { request, part }).await;
        }
    };
    let (log, ()) = tokio::join!(read_log(&server, "", 0, 100), answer);
    assert_eq!(log.unwrap(), b"step 1\nstep 2\n");

    let refuse = async {
        let ToWorker::FetchLog { request, tail, .. } = worker.hear().await.unwrap() else {
            panic!("a request")
        };
        assert_eq!(tail, None);
        let part = LogPart::Unreadable("no such file".to_owned());
        worker.say(FromWorker::LogData { request, part }).await;
    };
    let name = attempt.to_string();
    let (log, ()) = tokio::join!(read_log(&server, &name, 0, 0), refuse);
    assert_refused(&log.unwrap_err(), Code::NotFound, &["no such file"]);

    let rank = read_log(&server, "", 3, 0).await.unwrap_err();
    assert_refused(&rank, Code::NotFound, &["has no rank 3", "0 to 0"]);
    let attempt = read_log(&server, "a77", 0, 0).await.unwrap_err();
    assert_refused(&attempt, Code::NotFound, &["`a77`", "it has a1"]);
}

#[tokio::test]
async fn the_log_of_a_rank_that_ended_comes_from_the_store() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let attempt = worker.hear_launch().await.attempt;
    worker.say(FromWorker::AttemptEnded { attempt, end: Err(common::FailureCause::OutOfMemory) }).await;
    let second = worker.hear_launch().await.attempt;
    let lost = read_log(&server, &attempt.to_string(), 0, 0).await.unwrap_err();
    assert_refused(&lost, Code::NotFound, &["was not stored", "w1"]);

    let text = b"step 1\nout of memory\n";
    server.upload(text).await.unwrap();
    let (digest, bytes) = (Digest::of(text), text.len() as u64);
    worker.say(FromWorker::LogStored { attempt, rank: 0, digest, bytes }).await;
    worker.rows(second, 1, &[]).await;
    assert_eq!(read_log(&server, &attempt.to_string(), 0, 0).await.unwrap(), text);
    assert_eq!(read_log(&server, &attempt.to_string(), 0, 7).await.unwrap(), b"memory\n");
}
