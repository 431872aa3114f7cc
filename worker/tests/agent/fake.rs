//! A coordinator that does what the test says, and a node whose trainer is a shell script.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::session::{AttemptReport, FromWorker, Hello, ToWorker};
use common::{AttemptId, Digest};
use futures::Stream;
use proto::v1;
use proto::v1::worker_session_server::{WorkerSession, WorkerSessionServer};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use worker::{AgentError, Config};

/// Long enough for a loaded machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

type Blobs = Arc<Mutex<BTreeMap<Digest, Vec<u8>>>>;

/// What was downloaded, and what is to be downloaded with trouble.
#[derive(Default)]
struct Downloads {
    /// Each with the byte from which on it was asked for.
    asked: Vec<(Digest, u64)>,
    /// After how many bytes the next download of a blob brings no more, and does not end.
    stuck: BTreeMap<Digest, usize>,
}

/// A session as the fake coordinator holds it.
struct Open {
    inbound: Streaming<v1::FromWorker>,
    outbound: mpsc::Sender<Result<v1::ToWorker, Status>>,
}

/// The fake coordinator.
pub struct Fake {
    url: String,
    /// Its process, in effect: ends with everything that it holds.
    runtime: Option<tokio::runtime::Runtime>,
    /// The lease that it gives.
    pub lease: Duration,
    /// Whether it answers heartbeats.
    pub answers: bool,
    /// Attempts that are current no more.
    pub given_away: Vec<AttemptId>,
    sessions: mpsc::Receiver<Open>,
    open: Option<Open>,
    blobs: Blobs,
    downloads: Arc<Mutex<Downloads>>,
}

struct Service {
    sessions: mpsc::Sender<Open>,
    refusal: Option<&'static str>,
    blobs: Blobs,
    downloads: Arc<Mutex<Downloads>>,
}

impl Fake {
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    pub async fn refusing(message: &'static str) -> Self {
        Self::serve(Some(message)).await
    }

    async fn serve(refusal: Option<&'static str>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let blobs = Blobs::default();
        let downloads = Arc::<Mutex<Downloads>>::default();
        let (runtime, sessions) = listen(listener, refusal, blobs.clone(), downloads.clone());
        let lease = Duration::from_secs(10);
        Self {
            url,
            runtime: Some(runtime),
            lease,
            answers: true,
            given_away: Vec::new(),
            sessions,
            open: None,
            blobs,
            downloads,
        }
    }

    /// Ends, as a process that is killed does: connections break, and new ones are refused.
    pub fn die(&mut self) {
        self.open = None;
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Starts again on the same port.
    pub async fn rise(&mut self) {
        let address = self.url.strip_prefix("http://").unwrap();
        let bound = async {
            loop {
                match std::net::TcpListener::bind(address) {
                    Ok(listener) => return listener,
                    // Tasks of the one before may take a moment to end.
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let listener = tokio::time::timeout(PATIENCE, bound).await.expect("the port is free again");
        let (runtime, sessions) = listen(listener, None, self.blobs.clone(), self.downloads.clone());
        (self.runtime, self.sessions) = (Some(runtime), sessions);
    }

    /// Waits for a session and welcomes it.
    pub async fn hello(&mut self) -> Hello {
        let welcomed = async {
            loop {
                // One that the agent gave up while the test did not look is passed over.
                if let Some(hello) = self.welcome_next().await {
                    return hello;
                }
            }
        };
        tokio::time::timeout(PATIENCE, welcomed).await.expect("a session that is open")
    }

    /// Welcomes the next session. `None` if it is over.
    async fn welcome_next(&mut self) -> Option<Hello> {
        let mut open = self.sessions.recv().await.unwrap();
        let first = open.inbound.message().await.ok()??;
        let FromWorker::Hello(hello) = first.try_into().unwrap() else {
            panic!("a session begins with a hello")
        };
        let welcome = ToWorker::Welcome {
            lease: self.lease,
            heartbeat: Duration::from_millis(50),
            version: "test".to_owned(),
            current: self.current(&hello.attempts),
        };
        open.outbound.send(Ok(welcome.into())).await.ok()?;
        self.open = Some(open);
        Some(*hello)
    }

    pub async fn tell(&mut self, message: ToWorker) {
        self.open.as_ref().unwrap().outbound.send(Ok(message.into())).await.unwrap();
    }

    pub async fn next(&mut self) -> FromWorker {
        let message = self.open.as_mut().unwrap().inbound.message();
        let message = tokio::time::timeout(PATIENCE, message).await.expect("a message in time");
        let message = message.unwrap().expect("an open session").try_into().unwrap();
        if let (FromWorker::Heartbeat { sequence, attempts, .. }, true) = (&message, self.answers) {
            self.tell(ToWorker::HeartbeatAck { sequence: *sequence, current: self.current(attempts) }).await;
        }
        message
    }

    fn current(&self, attempts: &[AttemptReport]) -> Vec<AttemptId> {
        let named = attempts.iter().map(|report| report.attempt);
        named.filter(|attempt| !self.given_away.contains(attempt)).collect()
    }

    /// Reads what comes for some time.
    pub async fn listen_for(&mut self, time: Duration) {
        let heard = async {
            loop {
                self.next().await;
            }
        };
        let _: Result<(), _> = tokio::time::timeout(time, heard).await;
    }

    /// The first message that is wanted.
    pub async fn until(&mut self, wanted: impl Fn(&FromWorker) -> bool) -> FromWorker {
        let found = async {
            loop {
                let message = self.next().await;
                if wanted(&message) {
                    return message;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the wanted message in time")
    }

    /// Breaks the session.
    pub fn hang_up(&mut self) {
        self.open = None;
    }

    pub fn put(&self, digest: Digest, content: &[u8]) {
        self.blobs.lock().unwrap().insert(digest, content.to_vec());
    }

    pub fn blob(&self, digest: Digest) -> Vec<u8> {
        self.blobs.lock().unwrap()[&digest].clone()
    }

    /// The next download of the blob brings so many bytes, then nothing, and does not end.
    pub fn hold_back(&self, digest: Digest, after: usize) {
        self.downloads.lock().unwrap().stuck.insert(digest, after);
    }

    /// Downloads so far, each with the byte from which on it was asked for.
    pub fn downloads(&self) -> Vec<(Digest, u64)> {
        self.downloads.lock().unwrap().asked.clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn listen(
    listener: std::net::TcpListener,
    refusal: Option<&'static str>,
    blobs: Blobs,
    downloads: Arc<Mutex<Downloads>>,
) -> (tokio::runtime::Runtime, mpsc::Receiver<Open>) {
    let (sender, sessions) = mpsc::channel(4);
    let service = Service { sessions: sender, refusal, blobs, downloads };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    listener.set_nonblocking(true).unwrap();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let server = tonic::transport::Server::builder().add_service(WorkerSessionServer::new(service));
        server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    (runtime, sessions)
}

#[tonic::async_trait]
impl WorkerSession for Service {
    type SessionStream = ReceiverStream<Result<v1::ToWorker, Status>>;
    type DownloadBlobStream = Pin<Box<dyn Stream<Item = Result<v1::Chunk, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::FromWorker>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if let Some(message) = self.refusal {
            return Err(Status::failed_precondition(message));
        }
        let (outbound, messages) = mpsc::channel(64);
        let open = Open { inbound: request.into_inner(), outbound };
        self.sessions.send(open).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn upload_blob(
        &self,
        request: Request<Streaming<v1::UploadChunk>>,
    ) -> Result<Response<v1::UploadBlobResponse>, Status> {
        let mut chunks = request.into_inner();
        let mut content = Vec::new();
        let mut named = None;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            named.get_or_insert(chunk.digest);
            content.extend(chunk.data);
        }
        let digest = Digest::of(&content);
        assert_eq!(named.unwrap(), digest.to_string());
        self.blobs.lock().unwrap().insert(digest, content);
        Ok(Response::new(v1::UploadBlobResponse { known: false }))
    }

    async fn probe_blob(
        &self,
        request: Request<v1::ProbeBlobRequest>,
    ) -> Result<Response<v1::ProbeBlobResponse>, Status> {
        let digest = request.into_inner().digest.parse().unwrap();
        let known = self.blobs.lock().unwrap().contains_key(&digest);
        Ok(Response::new(v1::ProbeBlobResponse { known, received: 0 }))
    }

    async fn download_blob(
        &self,
        request: Request<v1::DownloadBlobRequest>,
    ) -> Result<Response<Self::DownloadBlobStream>, Status> {
        let v1::DownloadBlobRequest { digest, offset } = request.into_inner();
        let digest = digest.parse().unwrap();
        let stuck = {
            let mut downloads = self.downloads.lock().unwrap();
            downloads.asked.push((digest, offset));
            downloads.stuck.remove(&digest)
        };
        let blobs = self.blobs.lock().unwrap();
        let content = blobs.get(&digest).ok_or_else(|| Status::not_found("no such blob"))?;
        let content = &content[usize::try_from(offset).unwrap()..];
        let sent = &content[..stuck.unwrap_or(content.len())];
        let chunks: Vec<_> = sent.chunks(4).map(|data| Ok(v1::Chunk { data: data.to_vec() })).collect();
        let chunks = tokio_stream::iter(chunks);
        Ok(Response::new(match stuck {
            Some(_) => Box::pin(chunks.chain(tokio_stream::pending())),
            None => Box::pin(chunks),
        }))
    }
}

/// The beginning of every script: one that is started with `--warm` runs itself for each launch that it is told of, until
/// that fails. What was meant for the rank before, and not read, is passed over.
const WARM: &str = r#"if [ "$1" = --warm ]; then
  echo '{"report":"ready"}'
  while read -r line; do
    case $line in *\"command\":\"launch\"*) ;; *) continue ;; esac
    path=${line#*\"path\":\"}; log=${line#*\"log\":\"}
    WARM=$$ sh "$0" "${path%%\"*}" 2>>"${log%%\"*}" || exit 1
    echo '{"report":"ready"}'
  done
  exit 3
fi"#;

/// An agent in this process, in a folder of its own.
pub struct Node {
    folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    agent: JoinHandle<Result<(), AgentError>>,
}

impl Node {
    /// Starts an agent. `$1` of the script is the launch file; it runs in the rank's folder.
    pub async fn start(fake: &Fake, slots: u32, script: &str) -> Self {
        Self::start_with(fake, slots, script, |_| {}).await
    }

    /// As [`start`](Self::start), with other settings.
    pub async fn start_with(fake: &Fake, slots: u32, script: &str, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trainer = folder.path().join("trainer.sh");
        let home = folder.path().display();
        let text =
            format!("#!/bin/sh\n{WARM}\nHOME_OF_TEST='{home}'\ncd \"${{1%.json}}\" || exit 9\n{script}\n");
        std::fs::write(&trainer, text).unwrap();
        std::fs::set_permissions(&trainer, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut config = Config {
            coordinator: fake.url.clone(),
            name: "node".to_owned(),
            host: "127.0.0.1".to_owned(),
            slots: worker::Slots::Count(slots),
            slots_per_device: 1,
            labels: std::collections::BTreeMap::new(),
            device: worker::DeviceKind::Cpu,
            devices: Vec::new(),
            cuda_libtorch: PathBuf::new(),
            nccl_interface: String::new(),
            nccl_debug: String::new(),
            nvidia_smi: PathBuf::from("nvidia-smi"),
            gpu_check: Duration::from_millis(200),
            foreign_gpu_memory_mib: 1024,
            inventory: worker::devices::Inventory::default(),
            slot_memory_mib: 0,
            warm_trainers: Some(0),
            log_patterns: Vec::new(),
            threads_per_slot: 1,
            data_dir: folder.path().join("data"),
            datasets_dir: folder.path().join("datasets"),
            trainer,
            grace: Duration::from_millis(300),
            reconnect_limit: Duration::from_millis(200),
            cache_mib: 16,
            spool_mib: 64,
        };
        change(&mut config);
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let agent = tokio::spawn(worker::run(config.validated().unwrap(), shutdown));
        Self { folder, stop: Some(stop), agent }
    }

    pub fn ask_to_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub async fn ended(&mut self) -> Result<(), AgentError> {
        (&mut self.agent).await.unwrap()
    }

    /// Process of the attempt, as its script wrote it.
    pub fn pid_of(&self, attempt: AttemptId) -> u32 {
        let file: PathBuf = self.folder.path().join(attempt.to_string());
        std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }

    /// A file that a script wrote into its `$HOME_OF_TEST`.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap().trim().to_owned()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// Files of rows that wait for the coordinator.
    pub fn spooled(&self, attempt: AttemptId) -> Vec<PathBuf> {
        let folder = self.folder.path().join("data/attempts").join(attempt.to_string()).join("spool");
        let mut files: Vec<_> =
            std::fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path()).collect();
        files.sort();
        files
    }

    /// Whether a script wrote a file into its `$HOME_OF_TEST`.
    pub fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Path of a file in `$HOME_OF_TEST`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of the cache, or one that is to become part of it.
    pub fn cached(&self, name: &str) -> PathBuf {
        self.folder.path().join("data/cache").join(name)
    }

    /// Trainers that wait for a launch, as the agent remembers them.
    pub fn warm(&self) -> Vec<u32> {
        let files = std::fs::read_dir(self.folder.path().join("data/warm")).into_iter().flatten().flatten();
        files.filter_map(|file| file.path().file_stem()?.to_str()?.parse().ok()).collect()
    }

    /// Waits until so many trainers that are alive wait for a launch.
    pub async fn wait_for_warm(&self, count: usize) {
        let waiting = || self.warm().into_iter().filter(|&pid| is_alive(pid)).count();
        let enough = async {
            while waiting() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // The file is written when the process is there, a moment before it says that it is ready.
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("warm trainers in time");
    }

    pub fn break_trainer(&self) {
        std::fs::remove_file(self.folder.path().join("trainer.sh")).unwrap();
    }

    pub async fn wait_until_no_attempt_folder(&self) {
        let attempts = self.folder.path().join("data/attempts");
        let empty = async {
            while std::fs::read_dir(&attempts).unwrap().next().is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, empty).await.expect("the folder is removed in time");
    }
}

/// Whether a process group was stopped: one of its processes stands still, and none of the others can go on. A shell that was
/// starting a program waits (`D`) for a child that was stopped before it could.
pub fn stands_still(group: u32) -> bool {
    let states: Vec<char> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let state = fields.next()?.chars().next()?;
            (fields.nth(1)?.parse() == Ok(group)).then_some(state)
        })
        .collect();
    states.contains(&'T') && states.iter().all(|state| matches!(state, 'T' | 'D' | 'Z'))
}

/// Waits until something holds; fails when it takes too long. Returns how long it took.
pub async fn until(what: &str, holds: impl Fn() -> bool) -> Duration {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}

/// Whether a process is there and not waiting to be reaped.
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
