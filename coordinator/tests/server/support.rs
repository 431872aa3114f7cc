//! A coordinator on a temporary folder, its clients, and workers that say what a test wants.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::result::{Artifact, Checkpoint, MetricRow, Score, TrialResult};
use common::session::{
    AttemptReport, AttemptState, FromWorker, Hello, Launch, PROTOCOL, SessionOrder, ToWorker,
};
use common::{AttemptId, Digest, WorkerId};
use coordinator::{Config, ServeError, serve};
use proto::v1;
use proto::v1::credence_client::CredenceClient;
use proto::v1::worker_session_client::WorkerSessionClient;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Two methods and two seeds: four cells, four train trials and four evaluate trials.
pub const GRID: &str = r#"
name = "small"
models = ["wrn-10-1"]
seeds = [0, 1]
data = ["digits"]

[recipe]
epochs = 1

[[method]]
kind = "deterministic"
label = "MSP"

[[method]]
kind = "mc-dropout"
label = "MC Dropout"
rate = 0.1
samples = 2
"#;

/// Longer than anything here takes, shorter than a patient person waits.
const LIMIT: Duration = Duration::from_secs(30);

pub fn config(data_dir: &Path) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: data_dir.to_owned(),
        lease: Duration::from_secs(20),
        heartbeat: Duration::from_secs(4),
        stall_limit: Duration::from_secs(1800),
        max_workers_lost: 5.try_into().unwrap(),
        keep_checkpoints: 2.try_into().unwrap(),
        max_blob_bytes: 64 << 20,
        snapshot_events: 20.try_into().unwrap(),
        resize_after: Duration::from_secs(60),
        projects: std::collections::BTreeMap::new(),
    }
}

pub struct Server {
    dir: Option<Arc<TempDir>>,
    pub folder: PathBuf,
    pub channel: Channel,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap())).await
    }

    pub async fn start_in(dir: Arc<TempDir>) -> Self {
        Self { dir: Some(dir.clone()), ..Self::start_at(dir.path().to_owned()).await }
    }

    /// In a folder that somebody else removes.
    pub async fn start_at(folder: PathBuf) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (listening, address) = oneshot::channel();
        let on_listening = move |address: SocketAddr| listening.send(address).expect("the test waits");
        let shutdown = async { drop(stopped.await) };
        let served = tokio::spawn(serve(config(&folder), shutdown, on_listening));
        let address = address.await.expect("it listens");
        let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self { dir: None, folder, channel, stop, served }
    }

    /// Stops it in good order, wherever its folder is.
    pub async fn stop_anywhere(self) {
        drop(self.channel);
        self.stop.send(()).unwrap();
        timeout(LIMIT, self.served).await.expect("it stops").unwrap().unwrap();
    }

    /// Stops it in good order and hands over its folder, which is free again.
    pub async fn stop(self) -> Arc<TempDir> {
        drop(self.channel);
        self.stop.send(()).unwrap();
        timeout(LIMIT, self.served).await.expect("it stops").unwrap().unwrap();
        self.dir.expect("it has a folder of its own")
    }

    pub fn client(&self) -> CredenceClient<Channel> {
        CredenceClient::new(self.channel.clone())
    }

    pub fn worker_client(&self) -> WorkerSessionClient<Channel> {
        WorkerSessionClient::new(self.channel.clone())
    }

    pub async fn submit(&self, grid: &str) -> Result<v1::SubmitResponse, Status> {
        let request = v1::SubmitRequest { grid: grid.to_owned(), ..Default::default() };
        self.client().submit(request).await.map(tonic::Response::into_inner)
    }

    pub async fn trials(&self) -> Vec<v1::Trial> {
        let request = v1::ListTrialsRequest { experiment: "small".to_owned() };
        self.client().list_trials(request).await.unwrap().into_inner().trials
    }

    pub async fn upload(&self, bytes: &[u8]) -> Result<bool, Status> {
        self.upload_as(&Digest::of(bytes).to_string(), bytes.len() as u64, bytes).await
    }

    pub async fn upload_as(&self, digest: &str, size: u64, bytes: &[u8]) -> Result<bool, Status> {
        let mut chunks: Vec<_> = bytes
            .chunks(proto::CHUNK_BYTES)
            .map(|data| v1::UploadChunk { data: data.to_vec(), ..Default::default() })
            .collect();
        if chunks.is_empty() {
            chunks.push(v1::UploadChunk::default());
        }
        chunks[0].digest = digest.to_owned();
        chunks[0].bytes = size;
        let response = self.worker_client().upload_blob(tokio_stream::iter(chunks)).await?;
        Ok(response.into_inner().known)
    }

    pub fn blob_file(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.folder.join("blobs").join(&name[..2]).join(name)
    }
}

/// Reads a stream of chunks to its end.
pub async fn read_all(mut chunks: Streaming<v1::Chunk>) -> Result<Vec<u8>, Status> {
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        bytes.extend(chunk.data);
    }
    Ok(bytes)
}

/// Asserts what a refused request says.
pub fn assert_refused(status: &Status, code: Code, words: &[&str]) {
    assert_eq!(status.code(), code, "{status}");
    for word in words {
        assert!(status.message().contains(word), "`{word}` is not in: {}", status.message());
    }
}

pub struct Worker {
    outbound: mpsc::Sender<v1::FromWorker>,
    inbound: Streaming<v1::ToWorker>,
}

pub fn hello(id: u64, slots: u32, attempts: &[AttemptId]) -> Hello {
    let running = AttemptState::Running { rendezvous: None, step: 0 };
    Hello {
        protocol: PROTOCOL,
        worker: WorkerId(id),
        order: SessionOrder::default(),
        name: format!("node-{id}"),
        host: "127.0.0.1".to_owned(),
        slots,
        labels: std::collections::BTreeMap::new(),
        device: "cpu".to_owned(),
        slot_memory_mib: None,
        prefetches: false,
        faults: Vec::new(),
        version: "0.0.0".to_owned(),
        attempts: attempts.iter().map(|&attempt| AttemptReport { attempt, state: running.clone() }).collect(),
    }
}

impl Worker {
    /// Opens a session and hears the welcome.
    pub async fn connect(server: &Server, id: u64, slots: u32) -> Self {
        Self::reconnect(server, id, slots, &[]).await
    }

    /// The same, by a worker that runs `attempts`.
    pub async fn reconnect(server: &Server, id: u64, slots: u32, attempts: &[AttemptId]) -> Self {
        let hello = FromWorker::Hello(Box::new(hello(id, slots, attempts)));
        let mut worker = Self::open(server, hello).await.unwrap();
        assert!(matches!(worker.hear().await.unwrap(), ToWorker::Welcome { .. }));
        worker
    }

    pub async fn open(server: &Server, first: FromWorker) -> Result<Self, Status> {
        let (outbound, messages) = mpsc::channel(64);
        outbound.send(first.into()).await.unwrap();
        let inbound = server.worker_client().session(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Self { outbound, inbound })
    }

    pub async fn say(&self, message: FromWorker) {
        self.say_raw(message.into()).await;
    }

    pub async fn say_raw(&self, message: v1::FromWorker) {
        self.outbound.send(message).await.unwrap();
    }

    /// The coordinator ends the session without an error.
    pub async fn end(mut self) {
        assert_eq!(timeout(LIMIT, self.inbound.message()).await.expect("it ends").unwrap(), None);
    }

    pub async fn hear(&mut self) -> Result<ToWorker, Status> {
        let message = timeout(LIMIT, self.inbound.message()).await.expect("something comes")?;
        Ok(message.expect("the session goes on").try_into().unwrap())
    }

    pub async fn hear_launch(&mut self) -> Launch {
        loop {
            match self.hear().await.unwrap() {
                ToWorker::Launch(launch) => return *launch,
                ToWorker::Release { .. } | ToWorker::MetricAck { .. } => {}
                other => panic!("expected a launch, heard {other:?}"),
            }
        }
    }

    /// Waits until rows are acknowledged: everything that was said before is done.
    pub async fn rows(&mut self, attempt: AttemptId, sequence: u64, rows: &[(u64, &str, f64)]) {
        let row = |&(step, name, value): &(u64, &str, f64)| MetricRow { step, name: name.to_owned(), value };
        let rows = rows.iter().map(row).collect();
        self.say(FromWorker::Metrics { attempt, sequence, rows }).await;
        loop {
            if self.hear().await.unwrap() == (ToWorker::MetricAck { attempt, sequence }) {
                return;
            }
        }
    }

    /// Stores a network as the trial's checkpoint.
    pub async fn checkpoint(&self, server: &Server, attempt: AttemptId, step: u64) -> Checkpoint {
        self.scored_checkpoint(server, attempt, step, None).await
    }

    pub async fn scored_checkpoint(
        &self,
        server: &Server,
        attempt: AttemptId,
        step: u64,
        score: Option<Score>,
    ) -> Checkpoint {
        let bytes = format!("network of {attempt} after {step} steps").into_bytes();
        server.upload(&bytes).await.unwrap();
        let checkpoint = Checkpoint::new(step, Digest::of(&bytes), bytes.len() as u64).scored(score);
        self.say(FromWorker::CheckpointStored { attempt, checkpoint: checkpoint.clone() }).await;
        checkpoint
    }

    pub async fn succeed(&self, attempt: AttemptId, metrics: &[(&str, f64)], artifacts: Vec<Artifact>) {
        let metrics = metrics.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        let end = Ok(Some(TrialResult { metrics, artifacts }));
        self.say(FromWorker::AttemptEnded { attempt, end }).await;
    }

    /// Runs `count` trials; `score` says what an evaluation finds.
    pub async fn run(&mut self, server: &Server, count: usize, score: impl Fn(&Launch) -> f64) {
        for _ in 0..count {
            let launch = self.hear_launch().await;
            if launch.networks.is_empty() {
                self.checkpoint(server, launch.attempt, 10).await;
                self.succeed(launch.attempt, &[], Vec::new()).await;
            } else {
                self.succeed(launch.attempt, &[("accuracy", score(&launch))], Vec::new()).await;
            }
        }
    }
}
