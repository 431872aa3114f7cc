//! A driver on a folder, and workers that say what a test wants.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use common::grid;
use common::plan::Plan;
use common::result::{Checkpoint, MetricRow, TrialResult};
use common::session::{AttemptReport, AttemptState, Launch, PROTOCOL, SessionOrder};
use coordinator_core::{Phase, Trial};
use tempfile::TempDir;
use tokio::time::timeout;

use super::super::*;
use crate::blobs::Announced;
use crate::store::Reader;

pub(super) const LEASE: Duration = Duration::from_secs(20);

/// One cell: a train trial of one slot, and the evaluation that needs it.
pub(super) const GRID: &str = r#"
name = "grid"
models = ["wrn-10-1"]
seeds = [0]
data = ["digits"]

[recipe]
epochs = 1

[[method]]
kind = "deterministic"
"#;

pub(super) struct Coordinator {
    pub(super) dir: Arc<TempDir>,
    pub(super) driver: Handle,
    pub(super) blobs: Blobs,
    pub(super) reader: Reader,
    running: Running,
}

pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) session: SessionId,
    messages: mpsc::Receiver<ToWorker>,
    end: oneshot::Receiver<SessionEnd>,
    driver: Handle,
}

impl Coordinator {
    pub(super) fn start() -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap()))
    }

    pub(super) fn start_in(dir: Arc<TempDir>) -> Self {
        let store = Store::open(dir.path()).unwrap();
        let blobs = Blobs::open_local(&dir.path().join("blobs"), 1 << 20).unwrap();
        let policy = Policy { lease: LEASE, ..Policy::default() };
        let limits = Limits { policy, heartbeat: Duration::from_secs(5), snapshot_events: 2 };
        let reader = store.reader();
        let (driver, running) = start(store, blobs.clone(), limits).unwrap();
        Self { dir, driver, blobs, reader, running }
    }

    /// Ends it between two turns, and hands over its folder. Nothing is written or said any more.
    pub(super) async fn kill(self) -> Arc<TempDir> {
        self.running.abort();
        assert!(self.running.await.unwrap_err().is_cancelled());
        self.dir
    }

    pub(super) async fn submit(&self) -> Applied {
        self.driver.apply(Input::Submit { plan: plan(), grid: GRID.to_owned() }).await.unwrap()
    }

    pub(super) async fn trial(&self, id: u64) -> Trial {
        self.driver.read(move |view| view.cluster.trial(TrialId(id)).unwrap().clone()).await.unwrap()
    }

    pub(super) async fn workers(&self) -> usize {
        self.driver.read(|view| view.cluster.workers().count()).await.unwrap()
    }

    /// Connects a worker of one slot that runs `attempts`.
    pub(super) async fn connect(&self, id: u64, attempts: &[AttemptId]) -> Worker {
        self.say_hello(id, SessionOrder::default(), attempts).await.unwrap()
    }

    /// As [`Self::connect`], with a place among the worker's hellos.
    pub(super) async fn say_hello(
        &self,
        id: u64,
        order: SessionOrder,
        attempts: &[AttemptId],
    ) -> Result<Worker, DriverError> {
        self.open(hello_of(id, order, attempts)).await
    }

    /// Opens a session, and hears its welcome.
    pub(super) async fn open(&self, hello: Hello) -> Result<Worker, DriverError> {
        let (messages, outgoing) = mpsc::channel(OUTGOING);
        let (end, ended) = oneshot::channel();
        let worker = hello.worker;
        let session = self.driver.open_session(hello, Outgoing { messages, end }).await?;
        let mut worker =
            Worker { id: worker, session, messages: outgoing, end: ended, driver: self.driver.clone() };
        assert!(matches!(worker.hear().await, ToWorker::Welcome { lease: LEASE, .. }));
        Ok(worker)
    }

    pub(super) async fn upload(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        match self.blobs.announce(digest, bytes.len() as u64).await.unwrap() {
            Announced::Known => {}
            Announced::Wanted(mut upload) => {
                upload.write(Bytes::copy_from_slice(bytes)).await.unwrap();
                upload.finish().await.unwrap();
            }
        }
        digest
    }

    /// Stores a checkpoint and says so.
    pub(super) async fn checkpoint(&self, worker: &Worker, attempt: AttemptId, step: u64) -> Checkpoint {
        let bytes = format!("checkpoint of step {step}").into_bytes();
        let digest = self.upload(&bytes).await;
        let checkpoint = Checkpoint::new(step, digest, bytes.len() as u64);
        worker.say(FromWorker::CheckpointStored { attempt, checkpoint: checkpoint.clone() }).await;
        checkpoint
    }

    /// Waits until everything that was said is done.
    pub(super) async fn settle(&self) {
        self.driver.read(|_| ()).await.unwrap();
    }
}

impl Worker {
    pub(super) async fn say(&self, message: FromWorker) {
        self.driver.from_worker(self.id, self.session, message).await.unwrap();
    }

    pub(super) async fn heartbeat(&self, attempts: &[AttemptId]) {
        let attempts = attempts.iter().map(|&attempt| running(attempt)).collect();
        self.say(FromWorker::Heartbeat { sequence: 1, attempts, faults: Vec::new() }).await;
    }

    pub(super) async fn succeed(&self, attempt: AttemptId, accuracy: f64) {
        let metrics = [("accuracy".to_owned(), accuracy)].into();
        let result = TrialResult { metrics, artifacts: Vec::new() };
        self.say(FromWorker::AttemptEnded { attempt, end: Ok(Some(result)) }).await;
    }

    pub(super) async fn rows(&self, attempt: AttemptId, sequence: u64, value: f64) {
        let rows = vec![MetricRow { step: sequence, name: "loss".to_owned(), value }];
        self.say(FromWorker::Metrics { attempt, sequence, rows }).await;
    }

    /// The next message. Time that tests do not spend is not waited for: a paused clock jumps to the limit.
    pub(super) async fn hear(&mut self) -> ToWorker {
        loop {
            let message = timeout(Duration::from_secs(10), self.messages.recv()).await;
            match message.expect("a message comes").unwrap() {
                ToWorker::HeartbeatAck { .. } => {}
                message => return message,
            }
        }
    }

    pub(super) async fn hear_launch(&mut self) -> Launch {
        match self.hear().await {
            ToWorker::Launch(launch) => *launch,
            other => panic!("expected a launch, heard {other:?}"),
        }
    }

    /// Nothing waits that the test did not ask for.
    pub(super) fn assert_silent(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            assert!(matches!(message, ToWorker::HeartbeatAck { .. }), "heard {message:?}");
        }
    }

    pub(super) async fn ended(self) -> SessionEnd {
        self.end.await.unwrap()
    }
}

/// Hello of a worker of one slot, which knows nothing of prefetches.
pub(super) fn hello_of(id: u64, order: SessionOrder, attempts: &[AttemptId]) -> Hello {
    Hello {
        protocol: PROTOCOL,
        worker: WorkerId(id),
        order,
        name: format!("node-{id}"),
        host: "127.0.0.1".to_owned(),
        slots: 1,
        labels: std::collections::BTreeMap::new(),
        device: "cpu".to_owned(),
        slot_memory_mib: None,
        version: "0.0.0".to_owned(),
        prefetches: false,
        faults: Vec::new(),
        attempts: attempts.iter().map(|&attempt| running(attempt)).collect(),
    }
}

pub(super) fn running(attempt: AttemptId) -> AttemptReport {
    AttemptReport { attempt, state: AttemptState::Running { rendezvous: None, step: 0 } }
}

pub(super) fn plan() -> Plan {
    grid::parse(GRID).unwrap()
}

pub(super) fn is_running(trial: &Trial) -> bool {
    matches!(trial.phase, Phase::Running(_))
}

pub(super) fn blob_file(dir: &Path, digest: Digest) -> std::path::PathBuf {
    let name = digest.to_string();
    dir.join("blobs").join(&name[..2]).join(name)
}
