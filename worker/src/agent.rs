//! The agent's one task: it owns the ledger, starts attempts when slots are free, and keeps a session open.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use common::AttemptId;
use common::session::{FromWorker, Hello, Launch, LogPart, PROTOCOL, ToWorker};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::attempt::{self, AttemptEvent, AttemptOrder, Context, log_file};
use crate::blobs::Blobs;
use crate::cache::Cache;
use crate::config::Config;
use crate::identity::{Identity, IdentityError};
use crate::lease::Lease;
use crate::ledger::Ledger;
use crate::leftovers::{self, Remains};
use crate::session::{self, Session, SessionLost};
use crate::warm::Pool;

/// Bytes of a log in one message.
const LOG_CHUNK: usize = 64 * 1024;

/// Pause before the first try to dial again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A file or folder of the worker cannot be used.
    #[error("cannot use the worker's folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The coordinator's URL is not one.
    #[error("`{url}` is not a URL")]
    Url {
        /// The URL.
        url: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The coordinator does not want this worker.
    #[error(transparent)]
    Refused(SessionLost),
}

/// Offers slots and runs what it is given, until `shutdown` ends or the coordinator refuses the worker. Trainers that
/// run then are stopped; the coordinator gives their trials to others.
///
/// # Errors
///
/// [`AgentError`] names what must be mended.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    let identity = Identity::claim(&config.data_dir)?;
    let folder = |source| AgentError::Folder { path: config.data_dir.clone(), source };
    let remains = leftovers::sweep(&config.data_dir, config.grace).map_err(folder)?;
    let cache = Cache::open(config.data_dir.join("cache"), config.cache_mib << 20).map_err(folder)?;
    let channel = session::channel(&config.coordinator)
        .map_err(|source| AgentError::Url { url: config.coordinator.clone(), source })?;
    let (events, inbox) = mpsc::channel(1024);
    let trainers = Pool::start(&config);
    let context = Arc::new(Context { blobs: Blobs::new(channel.clone(), cache), trainers, events, config });
    tracing::info!(worker = %identity.worker, name = context.config.name, slots = context.config.slots, "ready");
    let mut agent = Agent {
        context,
        channel,
        identity,
        ledger: Ledger::default(),
        orders: BTreeMap::new(),
        waiting: VecDeque::new(),
        heartbeat: Duration::from_secs(1),
        beats: 0,
        lease: Lease::default(),
        suspended: false,
        stopping: false,
    };
    agent.salvage(remains);
    agent.serve(inbox, shutdown).await
}

type Dial = Pin<Box<dyn Future<Output = Result<Session, SessionLost>> + Send>>;

/// Where the connection stands.
enum Link {
    Down { until: Instant, pause: Duration },
    Dialling { dial: Dial, pause: Duration },
    Up(Box<Session>),
}

struct Agent {
    context: Arc<Context>,
    channel: Channel,
    identity: Identity,
    ledger: Ledger,
    orders: BTreeMap<AttemptId, mpsc::Sender<AttemptOrder>>,
    /// Launches whose slots are still held by processes of older attempts.
    waiting: VecDeque<Launch>,
    heartbeat: Duration,
    /// Heartbeats of this agent so far.
    beats: u64,
    /// What can be proven of the lease.
    lease: Lease,
    /// Whether the trainers stand still, because the lease may have ended.
    suspended: bool,
    stopping: bool,
}

impl Agent {
    /// Stores the logs that an earlier agent left.
    fn salvage(&mut self, remains: Vec<Remains>) {
        for Remains { attempt, logs } in remains {
            self.ledger.admit_remains(attempt);
            let context = self.context.clone();
            tokio::spawn(async move {
                for (rank, path) in logs {
                    match context.blobs.store(&path).await {
                        Ok((digest, bytes)) => {
                            let event = AttemptEvent::Log(rank, digest, bytes);
                            drop(context.events.send((attempt, event)).await);
                        }
                        Err(error) => {
                            tracing::warn!(%attempt, rank, %error, "cannot store a log left behind")
                        }
                    }
                }
                // What is stored and told can be forgotten, and its folder removed.
                drop(context.events.send((attempt, AttemptEvent::ProcessesGone)).await);
            });
        }
    }

    async fn serve(
        &mut self,
        mut inbox: mpsc::Receiver<(AttemptId, AttemptEvent)>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), AgentError> {
        tokio::pin!(shutdown);
        let mut link = Link::Down { until: Instant::now(), pause: FIRST_PAUSE };
        let mut beat = Instant::now() + self.heartbeat;
        loop {
            let fence = self.lease.ends().filter(|_| !self.suspended);
            tokio::select! {
                biased;
                // Before anything else: an agent that was itself stopped for long wakes up as a zombie.
                () = at(fence) => self.suspend(),
                () = &mut shutdown, if !self.stopping => self.stop_all(),
                () = tokio::time::sleep_until(beat) => {
                    beat = Instant::now() + self.heartbeat;
                    self.beat(&link);
                }
                received = next(&mut link) => link = self.receive(link, received)?,
                Some((attempt, event)) = inbox.recv() => self.hear(&link, attempt, event),
            }
            self.start_waiting();
            if let Link::Up(session) = &link {
                self.ledger.tell(|message| session.tell(message));
                self.clean_up();
            }
            if self.stopping && self.ledger.alive().is_empty() {
                self.part(link).await;
                return Ok(());
            }
        }
    }

    /// Goes on after the link's step: waits, dials, or handles a message.
    fn receive(&mut self, link: Link, step: LinkStep) -> Result<Link, AgentError> {
        match step {
            LinkStep::Dial(pause) => {
                let hello = self.hello();
                self.lease.hello(Instant::now());
                let dial = Box::pin(Session::open(self.channel.clone(), hello));
                Ok(Link::Dialling { dial, pause })
            }
            LinkStep::Opened(session) => Ok(Link::Up(session)),
            LinkStep::Message(message) => {
                self.obey(&link, message);
                Ok(link)
            }
            LinkStep::Lost(lost @ (SessionLost::Refused(_) | SessionLost::NotUnderstood(_)), _) => {
                Err(AgentError::Refused(lost))
            }
            LinkStep::Lost(lost @ (SessionLost::Unreachable(_) | SessionLost::Down(_)), pause) => {
                if let SessionLost::Down(_) = lost {
                    self.lease.coordinator_is_down(Instant::now());
                }
                let trainers = if self.suspended { "trainers stand still" } else { "trainers go on" };
                tracing::warn!("{lost}; {trainers}, dialling again in {pause:?}");
                let next = (pause * 2).min(self.context.config.reconnect_limit);
                Ok(Link::Down { until: Instant::now() + pause, pause: next })
            }
        }
    }

    fn hello(&mut self) -> Hello {
        let config = &self.context.config;
        Hello {
            protocol: PROTOCOL,
            worker: self.identity.worker,
            name: config.name.clone(),
            host: config.host.clone(),
            slots: config.slots,
            labels: config.labels.clone(),
            device: config.device.clone(),
            slot_memory_mib: (config.slot_memory_mib > 0).then_some(config.slot_memory_mib),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            attempts: self.ledger.begin_session(),
        }
    }

    fn obey(&mut self, link: &Link, message: ToWorker) {
        match message {
            ToWorker::Welcome { lease, heartbeat, version } => {
                self.lease.welcome(lease);
                tracing::info!(coordinator = self.context.config.coordinator, version, "connected");
                self.heartbeat = heartbeat;
                if self.suspended {
                    // Its acknowledgement comes after the release of everything that is no longer ours.
                    self.beat(link);
                }
            }
            ToWorker::Launch(launch) => {
                if !self.stopping && self.ledger.admit(launch.attempt, launch.ranks) {
                    self.waiting.push_back(*launch);
                }
            }
            ToWorker::Release { attempt } => self.release(attempt),
            ToWorker::Rendezvous { attempt, address } => {
                self.order(attempt, AttemptOrder::Rendezvous(address));
            }
            ToWorker::Preempt { attempt } => self.order(attempt, AttemptOrder::Yield),
            ToWorker::HeartbeatAck { sequence } => self.acknowledged(sequence),
            ToWorker::MetricAck { attempt, sequence } => self.ledger.acknowledge(attempt, sequence),
            ToWorker::FetchLog { request, attempt, rank, tail } => {
                if let Link::Up(session) = link {
                    let path = log_file(&self.context.folder(attempt), rank);
                    tokio::spawn(send_log(path, request, tail, session.sender()));
                }
            }
        }
    }

    fn beat(&mut self, link: &Link) {
        let Link::Up(session) = link else { return };
        self.beats += 1;
        let heartbeat = FromWorker::Heartbeat { sequence: self.beats, attempts: self.ledger.reports() };
        // One that finds no room is not sent, and proves nothing.
        if session.tell(heartbeat) {
            self.lease.beat(self.beats, Instant::now());
        }
    }

    /// The lease may have ended: nothing computes here until it is known what is still ours. Nothing is lost by that.
    fn suspend(&mut self) {
        self.suspended = true;
        let alive = self.ledger.alive();
        tracing::warn!(
            attempts = alive.len(),
            "the lease may have ended: trainers stand still until the coordinator is heard"
        );
        for attempt in alive {
            self.order(attempt, AttemptOrder::Suspend);
        }
    }

    /// The coordinator heard a heartbeat, and what it answered before that released everything that is not ours any more.
    fn acknowledged(&mut self, sequence: u64) {
        self.lease.acknowledge(sequence);
        if !self.suspended || self.lease.ends().is_none_or(|ends| ends <= Instant::now()) {
            return;
        }
        self.suspended = false;
        tracing::info!("the lease stands: trainers go on");
        for attempt in self.ledger.current() {
            self.order(attempt, AttemptOrder::Resume);
        }
    }

    fn release(&mut self, attempt: AttemptId) {
        self.ledger.release(attempt);
        if let Some(index) = self.waiting.iter().position(|launch| launch.attempt == attempt) {
            self.waiting.remove(index);
            self.ledger.ended(attempt, Err(common::FailureCause::Preempted));
        }
        self.order(attempt, AttemptOrder::Stop);
    }

    fn order(&self, attempt: AttemptId, order: AttemptOrder) {
        let Some(orders) = self.orders.get(&attempt) else { return };
        // A full queue holds orders of the same kinds already, and the coordinator repeats itself.
        if let Err(error) = orders.try_send(order) {
            tracing::debug!(%attempt, %error, "an attempt takes no order");
        }
    }

    fn hear(&mut self, link: &Link, attempt: AttemptId, event: AttemptEvent) {
        match event {
            AttemptEvent::Rendezvous(address) => self.ledger.rendezvous(attempt, address),
            AttemptEvent::Progress(progress) => {
                self.ledger.progress(attempt, progress.step);
                if let Link::Up(session) = link {
                    session.tell(FromWorker::Progress { attempt, progress });
                }
            }
            AttemptEvent::Metrics(rows) => self.ledger.rows(attempt, rows),
            AttemptEvent::Checkpoint(checkpoint) => self.ledger.checkpoint(attempt, checkpoint),
            AttemptEvent::Damaged(digest, message) => self.ledger.damaged(attempt, digest, message),
            AttemptEvent::Warning(message) => self.ledger.warning(attempt, message),
            AttemptEvent::Incident { rank, pattern, line, quarantine } => {
                self.ledger
                    .incident(attempt, FromWorker::Incident { attempt, rank, pattern, line, quarantine });
            }
            AttemptEvent::Log(rank, digest, bytes) => self.ledger.log(attempt, rank, digest, bytes),
            AttemptEvent::ProcessesGone => self.ledger.processes_gone(attempt),
            AttemptEvent::Ended(end) => {
                self.orders.remove(&attempt);
                self.ledger.ended(attempt, end);
            }
        }
    }

    /// Starts what waits, in the order it came, while slots are free.
    fn start_waiting(&mut self) {
        if self.suspended {
            return;
        }
        while let Some(launch) = self.waiting.front() {
            let claimed: u32 = self.waiting.iter().map(|launch| launch.ranks).sum();
            let running = self.ledger.slots_used() - claimed;
            if running + launch.ranks > self.context.config.slots {
                return;
            }
            if let Some(launch) = self.waiting.pop_front() {
                let attempt = launch.attempt;
                self.orders.insert(attempt, attempt::spawn(self.context.clone(), launch));
            }
        }
    }

    fn clean_up(&mut self) {
        for attempt in self.ledger.forget() {
            let folder = self.context.folder(attempt);
            tokio::spawn(async move {
                if let Err(error) = tokio::fs::remove_dir_all(&folder).await
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(%attempt, %error, "cannot remove `{}`", folder.display());
                }
            });
        }
    }

    fn stop_all(&mut self) {
        self.stopping = true;
        for launch in std::mem::take(&mut self.waiting) {
            self.ledger.ended(launch.attempt, Err(common::FailureCause::Preempted));
        }
        let alive = self.ledger.alive();
        tracing::info!(attempts = alive.len(), "stopping");
        for attempt in alive {
            self.order(attempt, AttemptOrder::Stop);
        }
    }

    /// Says goodbye, and leaves the message a moment to get out.
    async fn part(&self, link: Link) {
        let Link::Up(mut session) = link else { return };
        session.tell(FromWorker::Goodbye);
        let farewell = async { while session.next().await.is_ok() {} };
        drop(tokio::time::timeout(Duration::from_secs(1), farewell).await);
    }
}

/// Waits until a moment, for ever if there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What the link did.
enum LinkStep {
    Dial(Duration),
    Opened(Box<Session>),
    Message(ToWorker),
    Lost(SessionLost, Duration),
}

/// Waits for the link's next step. Nothing is lost if the future is dropped.
async fn next(link: &mut Link) -> LinkStep {
    match link {
        Link::Down { until, pause } => {
            tokio::time::sleep_until(*until).await;
            LinkStep::Dial(*pause)
        }
        Link::Dialling { dial, pause } => match dial.await {
            Ok(session) => LinkStep::Opened(Box::new(session)),
            Err(lost) => LinkStep::Lost(lost, *pause),
        },
        Link::Up(session) => match session.next().await {
            Ok(message) => LinkStep::Message(message),
            Err(lost) => LinkStep::Lost(lost, FIRST_PAUSE),
        },
    }
}

async fn send_log(path: PathBuf, request: u64, tail: Option<u64>, to: mpsc::Sender<proto::v1::FromWorker>) {
    let last = match copy_log(&path, request, tail, &to).await {
        Ok(()) => LogPart::End,
        Err(error) => LogPart::Unreadable(format!("`{}`: {error}", path.display())),
    };
    drop(to.send(FromWorker::LogData { request, part: last }.into()).await);
}

async fn copy_log(
    path: &Path,
    request: u64,
    tail: Option<u64>,
    to: &mpsc::Sender<proto::v1::FromWorker>,
) -> io::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
    let mut file = tokio::fs::File::open(path).await?;
    if let Some(tail) = tail {
        let length = file.metadata().await?.len();
        file.seek(io::SeekFrom::Start(length.saturating_sub(tail))).await?;
    }
    loop {
        let mut data = Vec::with_capacity(LOG_CHUNK);
        if (&mut file).take(LOG_CHUNK as u64).read_to_end(&mut data).await? == 0 {
            return Ok(());
        }
        if to.send(FromWorker::LogData { request, part: LogPart::Data(data) }.into()).await.is_err() {
            return Ok(());
        }
    }
}
