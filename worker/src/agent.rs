//! The shell around the agent's decisions: it reads the clock, dials, starts attempts, and performs what [`worker_core::Agent`]
//! asks for.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use common::AttemptId;
use common::session::{AttemptReport, FromWorker, Hello, Launch, LogPart, PROTOCOL, SessionOrder, ToWorker};
use common::timeouts::Timeouts;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;
use worker_core::{
    Action, Agent, AttemptEvent, AttemptOrder, Input, LogRequest, SessionNumber, Settings, Spool, SpoolEvent,
    SpoolOrder,
};

use crate::attempt::{self, Context, log_file};
use crate::blobs::Blobs;
use crate::cache::Cache;
use crate::clock;
use crate::config::Config;
use crate::devices::{Monitor, Sight, Smi};
use crate::identity::{Identity, IdentityError};
use crate::leftovers::{self, Remains};
use crate::prefetch::Prefetcher;
use crate::session::{self, Session, SessionLost};
use crate::spool;
use crate::warm::Pools;

/// Bytes of a log in one message.
const LOG_CHUNK: usize = 64 * 1024;

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
    /// The system starts no thread.
    #[error("cannot start a thread that looks at the GPUs")]
    Thread(#[source] io::Error),
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
    // Of each attempt at most one answer is awaited.
    let (spooled, answers) = mpsc::unbounded_channel();
    let trainers = Pools::start(&config);
    let (looks, sights) = mpsc::unbounded_channel();
    let _monitor = watch_gpus(&config, looks)?;
    let (known, gpus) = watch::channel(Arc::default());
    let timeouts = Timeouts::default();
    let spool = Spool::of(config.spool_mib << 20);
    let slots = config.inventory.slots();
    let (slots_per_device, reconnect_limit) = (config.slots_per_device, config.reconnect_limit);
    let settings = Settings { slots, slots_per_device, reconnect_limit, timeouts, spool };
    let context =
        Arc::new(Context { blobs: Blobs::new(channel.clone(), cache), trainers, gpus, events, config });
    let (name, device) = (&context.config.name, context.config.inventory.kind());
    tracing::info!(worker = %identity.worker, name, slots, device, "ready");
    for gpu in context.config.inventory.devices() {
        tracing::info!(%gpu, name = gpu.name, memory_mib = gpu.memory_mib, bus = gpu.bus, "offers a GPU");
    }
    let mut shell = Shell {
        context,
        channel,
        identity,
        agent: Agent::new(settings),
        orders: BTreeMap::new(),
        link: Link::None,
        session: SessionNumber::default(),
        spooled,
        known,
        seen: None,
    };
    for found in remains {
        shell.salvage(found);
    }
    let outcome = shell.serve(Inboxes { attempts: inbox, spool: answers, gpus: sights }, shutdown).await;
    shell.context.trainers.end().await;
    outcome
}

/// Starts to look at the GPUs, if there are any.
fn watch_gpus(config: &Config, looks: mpsc::UnboundedSender<Sight>) -> Result<Option<Monitor>, AgentError> {
    let devices = config.inventory.devices();
    if devices.is_empty() || config.gpu_check.is_zero() {
        return Ok(None);
    }
    let smi = Smi::new(&config.nvidia_smi, config.gpu_check / 2);
    let (interval, most_foreign) = (config.gpu_check, config.foreign_gpu_memory_mib);
    Monitor::start(smi, devices.to_vec(), interval, most_foreign, looks).map(Some).map_err(AgentError::Thread)
}

/// What is heard beside the link.
struct Inboxes {
    attempts: mpsc::Receiver<(AttemptId, AttemptEvent)>,
    spool: mpsc::UnboundedReceiver<(AttemptId, SpoolEvent)>,
    gpus: mpsc::UnboundedReceiver<Sight>,
}

type Dial = Pin<Box<dyn Future<Output = Result<Session, SessionLost>> + Send>>;

/// The connection that the agent asked for.
enum Link {
    None,
    Dialling(Dial),
    /// With what its coordinator says will be needed.
    Up(Box<Session>, Prefetcher),
}

/// What the link did.
enum LinkStep {
    Opened(Box<Session>),
    Message(ToWorker),
    Lost(SessionLost),
}

/// Whether the agent goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Going {
    On,
    Away,
}

struct Shell {
    context: Arc<Context>,
    channel: Channel,
    identity: Identity,
    agent: Agent,
    orders: BTreeMap<AttemptId, mpsc::UnboundedSender<AttemptOrder>>,
    link: Link,
    session: SessionNumber,
    spooled: mpsc::UnboundedSender<(AttemptId, SpoolEvent)>,
    /// What attempts know of the GPUs.
    known: watch::Sender<Arc<Sight>>,
    /// What they are about to know.
    seen: Option<Arc<Sight>>,
}

impl Shell {
    /// Stores the logs that an earlier agent left.
    fn salvage(&mut self, remains: Remains) {
        let Remains { attempt, logs } = remains;
        self.perform_all(Input::Remains(attempt));
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

    async fn serve(
        &mut self,
        mut inboxes: Inboxes,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), AgentError> {
        tokio::pin!(shutdown);
        let mut asked = false;
        loop {
            let due = clock::until(self.agent.next_deadline());
            let input = tokio::select! {
                () = &mut shutdown, if !asked => {
                    asked = true;
                    tracing::info!("stopping");
                    Input::Shutdown
                }
                Some((attempt, event)) = inboxes.attempts.recv() => Input::Attempt(attempt, event),
                Some((attempt, event)) = inboxes.spool.recv() => Input::Spool(attempt, event),
                Some(sight) = inboxes.gpus.recv() => self.see(sight),
                step = next(&mut self.link) => self.connect(step)?,
                () = tokio::time::sleep(due) => Input::Timer,
            };
            if let Input::Attempt(attempt, AttemptEvent::Ended(_)) = &input {
                self.orders.remove(attempt);
            }
            let going = self.perform_all(input);
            // First the coordinator hears of it, then the attempts: one that ends over it must not be placed here again.
            if let Some(sight) = self.seen.take() {
                self.known.send_replace(sight);
            }
            if going == Going::Away {
                self.part().await;
                return Ok(());
            }
        }
    }

    /// What the agent must know of the GPUs.
    fn see(&mut self, sight: Sight) -> Input {
        let faults: Vec<String> = sight.faults.iter().map(|fault| fault.message.clone()).collect();
        let known = self.known.borrow().faults == sight.faults;
        if !known {
            tracing::warn!(?faults, "the state of the GPUs has changed");
        }
        self.seen = Some(Arc::new(sight));
        Input::Faults(faults)
    }

    /// What the agent must know of the link.
    fn connect(&mut self, step: LinkStep) -> Result<Input, AgentError> {
        match step {
            LinkStep::Opened(session) => {
                self.link = Link::Up(session, Prefetcher::start(self.context.blobs.clone()));
                Ok(Input::SessionOpened(self.session))
            }
            LinkStep::Message(message) => {
                if let ToWorker::Welcome { version, .. } = &message {
                    tracing::info!(coordinator = self.context.config.coordinator, version, "connected");
                }
                Ok(Input::Message(self.session, message))
            }
            LinkStep::Lost(lost @ (SessionLost::Refused(_) | SessionLost::NotUnderstood(_))) => {
                Err(AgentError::Refused(lost))
            }
            LinkStep::Lost(lost @ SessionLost::Down(_)) => {
                tracing::warn!("{lost}; trainers go on, dialling again");
                self.link = Link::None;
                Ok(Input::CoordinatorDown(self.session))
            }
            LinkStep::Lost(lost @ SessionLost::Unreachable(_)) => {
                tracing::warn!("{lost}; trainers go on while the lease lasts, dialling again");
                self.link = Link::None;
                Ok(Input::SessionLost(self.session))
            }
        }
    }

    /// Lets the agent decide, does what it asks for, and tells the coordinator what it was not told yet.
    fn perform_all(&mut self, input: Input) -> Going {
        let mut going = Going::On;
        for action in self.agent.handle(clock::now(), input) {
            if self.perform(action) == Going::Away {
                going = Going::Away;
            }
        }
        if let Link::Up(session, _) = &self.link {
            for attempt in self.agent.tell(|message| session.tell(message)) {
                self.clean_up(attempt);
            }
        }
        going
    }

    fn perform(&mut self, action: Action) -> Going {
        match action {
            Action::Dial { session, attempts, faults } => {
                self.session = session;
                let hello = Hello { faults, ..self.hello(session, attempts) };
                let dial = Session::open(self.channel.clone(), hello);
                self.link = Link::Dialling(Box::pin(dial));
            }
            Action::HangUp(_) => {
                tracing::warn!("the coordinator does not answer; opening another session");
                self.link = Link::None;
            }
            Action::Send(message) => {
                if let Link::Up(session, _) = &self.link {
                    session.tell(message);
                }
            }
            Action::Start(launch) => {
                let attempt = launch.attempt;
                self.orders.insert(attempt, self.start(*launch));
            }
            Action::Order(attempt, order) => self.order(attempt, order),
            Action::ReadLog(request) => {
                if let Link::Up(session, _) = &self.link {
                    let path = log_file(&self.context.folder(request.attempt), request.rank);
                    tokio::spawn(send_log(path, request, session.sender()));
                }
            }
            Action::Prefetch(blobs) => {
                if let Link::Up(_, prefetcher) = &self.link {
                    prefetcher.want(blobs);
                }
            }
            Action::Spool(attempt, order) => self.spool(attempt, order),
            Action::Exit => return Going::Away,
        }
        Going::On
    }

    fn start(&self, launch: Launch) -> mpsc::UnboundedSender<AttemptOrder> {
        let slots = self.agent.slots_of(launch.attempt);
        attempt::spawn(self.context.clone(), launch, &slots, self.agent.lease().timeouts())
    }

    fn order(&self, attempt: AttemptId, order: AttemptOrder) {
        match order {
            AttemptOrder::Suspend => {
                tracing::warn!(%attempt, "stands still: the lease may have been given away");
            }
            AttemptOrder::Resume => tracing::info!(%attempt, "goes on: the lease stands"),
            AttemptOrder::Rendezvous(_)
            | AttemptOrder::Yield
            | AttemptOrder::Lease(_)
            | AttemptOrder::Stop => {}
        }
        if let Some(orders) = self.orders.get(&attempt) {
            // One that is about to end takes no orders.
            drop(orders.send(order));
        }
    }

    /// Moves rows where a disk that is slow, or never answers, holds up nobody.
    fn spool(&self, attempt: AttemptId, order: SpoolOrder) {
        let (folder, spooled) = (self.context.folder(attempt), self.spooled.clone());
        tokio::task::spawn_blocking(move || {
            if let Some(event) = spool::perform(&folder, order) {
                // Nobody hears it when the agent ends.
                drop(spooled.send((attempt, event)));
            }
        });
    }

    fn hello(&self, session: SessionNumber, attempts: Vec<AttemptReport>) -> Hello {
        let config = &self.context.config;
        // Of the processor's memory, where that is what slots are made of.
        let own = (config.slot_memory_mib > 0).then_some(config.slot_memory_mib);
        Hello {
            protocol: PROTOCOL,
            worker: self.identity.worker,
            order: SessionOrder { start: self.identity.start, session: session.0 },
            name: config.name.clone(),
            host: config.host.clone(),
            slots: config.inventory.slots(),
            labels: config.labels.clone(),
            device: config.inventory.kind().to_owned(),
            slot_memory_mib: config.inventory.slot_memory_mib().or(own),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            prefetches: true,
            faults: Vec::new(),
            attempts,
        }
    }

    fn clean_up(&self, attempt: AttemptId) {
        let folder = self.context.folder(attempt);
        tokio::spawn(async move {
            if let Err(error) = tokio::fs::remove_dir_all(&folder).await
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%attempt, %error, "cannot remove `{}`", folder.display());
            }
        });
    }

    /// Says goodbye, and leaves the message a moment to get out.
    async fn part(&mut self) {
        let Link::Up(session, _) = &mut self.link else { return };
        session.tell(FromWorker::Goodbye);
        let farewell = async { while session.next().await.is_ok() {} };
        drop(tokio::time::timeout(Duration::from_secs(1), farewell).await);
    }
}

/// Waits for the link's next step. Nothing is lost if the future is dropped.
async fn next(link: &mut Link) -> LinkStep {
    match link {
        Link::None => std::future::pending().await,
        Link::Dialling(dial) => match dial.await {
            Ok(session) => LinkStep::Opened(Box::new(session)),
            Err(lost) => LinkStep::Lost(lost),
        },
        Link::Up(session, _) => match session.next().await {
            Ok(message) => LinkStep::Message(message),
            Err(lost) => LinkStep::Lost(lost),
        },
    }
}

async fn send_log(path: PathBuf, wanted: LogRequest, to: mpsc::Sender<proto::v1::FromWorker>) {
    let LogRequest { request, tail, .. } = wanted;
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
