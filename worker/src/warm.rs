//! Trainers that are started before there is anything for them to do, so that a launch need not wait for libtorch.
//!
//! Each device has a pool of its own, because a process that sees one GPU can use no other. One task keeps a pool: it starts
//! processes one at a time, replaces those that were taken and those that died, and takes back those whose trial came to its end,
//! for the next one. What it hands out is alive and waits. An idle trainer holds no slot, only memory, and leaves when its agent
//! does, because its standard input ends then.
//!
//! A trainer that waits for a GPU has touched none: what it holds is the machine's memory. After its trial it would hold some of
//! the GPU's, which was offered to whoever comes next, so it serves one trial and ends.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::config::Config;
use crate::leftovers;
use crate::proc;
use crate::process::{Home, Process};

/// Trials after which a process is replaced, whatever it looks like.
const MOST_TRIALS: u32 = 100;

/// Resident memory, in KiB, with which an idle process is replaced: libtorch's allocator keeps what a large trial used.
const MOST_RESIDENT: u64 = 1 << 20;

/// Pause after a process was taken, so that its first steps need not share the processor with the start of the next.
const AFTER_TAKING: Duration = Duration::from_secs(2);

/// Pauses after processes that died without having done anything: the first, and the longest.
const AFTER_DEATH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long the end may wait for a process that is being started. One that takes longer is killed and left to the system.
const STARTING: Duration = Duration::from_secs(2);

/// Time between two looks at the processes that wait.
const ROUND: Duration = Duration::from_secs(1);

/// A trainer that waits for a launch.
#[derive(Debug)]
pub struct Idle {
    /// Its process.
    pub process: Process,
    trials: u32,
    build: Option<Build>,
    serves: Serves,
    /// Weak, so that the pool ends with its last user.
    pool: mpsc::WeakUnboundedSender<Request>,
}

impl Idle {
    /// The process, and where it goes when it is done, unless it ends then.
    pub fn leave(self) -> (Process, Option<Home>) {
        let Self { process, trials, build, serves, pool } = self;
        if serves == Serves::OneTrial {
            return (process, None);
        }
        let home = move |process| {
            let home = pool.clone();
            let idle = Self { process, trials: trials + 1, build, serves, pool };
            // Without a pool the process ends, as it should.
            if let Some(pool) = home.upgrade() {
                drop(pool.send(Request::Return(Box::new(idle))));
            }
        };
        (process, Some(Box::new(home)))
    }
}

/// How much a process does before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serves {
    OneTrial,
    ManyTrials,
}

/// What tells one build of the trainer from another that took its place on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Build {
    file: (u64, u64),
    bytes: u64,
    changed: (i64, i64),
}

impl Build {
    fn of(trainer: &Path) -> Option<Self> {
        let metadata = fs::metadata(trainer).ok()?;
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

#[derive(Debug)]
enum Request {
    Take(oneshot::Sender<Option<Idle>>),
    Return(Box<Idle>),
    End(oneshot::Sender<()>),
}

/// Trainers that wait for a launch, on each device. They end when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Pools {
    pools: Vec<Pool>,
}

impl Pools {
    /// Starts to fill pools of the size that the configuration says, in all.
    pub fn start(config: &Config) -> Self {
        let inventory = &config.inventory;
        let (size, places) = (config.warm_trainers.unwrap_or(inventory.slots()) as usize, inventory.places());
        let of_place = |place| size / places + usize::from(place < size % places);
        Self { pools: (0..places).map(|place| Pool::start(config, place, of_place(place))).collect() }
    }

    /// A trainer that waits at a device, or is about to. `None` when there is none, and one must be started for the purpose.
    pub async fn take(&self, place: usize) -> Option<Idle> {
        self.pools.get(place)?.take().await
    }

    /// Ends every trainer that waits, and returns when they are gone: none outlives its agent, not even for a moment.
    pub async fn end(&self) {
        for pool in &self.pools {
            pool.end().await;
        }
    }
}

#[derive(Clone, Debug)]
struct Pool {
    requests: Option<mpsc::UnboundedSender<Request>>,
}

impl Pool {
    fn start(config: &Config, place: usize, size: usize) -> Self {
        if size == 0 {
            return Self { requests: None };
        }
        let (requests, inbox) = mpsc::unbounded_channel();
        let serves = match config.inventory.devices() {
            [] => Serves::ManyTrials,
            _ => Serves::OneTrial,
        };
        let keeper = Keeper {
            size,
            serves,
            environment: config.inventory.environment(place),
            trainer: config.trainer.clone(),
            threads: config.threads_per_slot,
            folder: leftovers::warm_folder(&config.data_dir),
            requests: requests.downgrade(),
            idle: VecDeque::new(),
            starting: None,
            wanted: None,
            proven: false,
            start_at: Instant::now(),
            pause: AFTER_DEATH.0,
        };
        tokio::spawn(keeper.keep(inbox));
        Self { requests: Some(requests) }
    }

    async fn take(&self) -> Option<Idle> {
        let (answer, idle) = oneshot::channel();
        self.requests.as_ref()?.send(Request::Take(answer)).ok()?;
        idle.await.ok()?
    }

    async fn end(&self) {
        let (answer, ended) = oneshot::channel();
        let asked =
            self.requests.as_ref().is_some_and(|requests| requests.send(Request::End(answer)).is_ok());
        if asked {
            // A keeper that is gone keeps none.
            let _ = ended.await;
        }
    }
}

type Starting = Pin<Box<dyn Future<Output = io::Result<Idle>> + Send>>;

struct Keeper {
    size: usize,
    serves: Serves,
    environment: Vec<(&'static str, OsString)>,
    trainer: PathBuf,
    threads: u32,
    folder: PathBuf,
    /// For the processes' way home.
    requests: mpsc::WeakUnboundedSender<Request>,
    idle: VecDeque<Idle>,
    starting: Option<Starting>,
    /// Who waits for the process that is being started.
    wanted: Option<oneshot::Sender<Option<Idle>>>,
    /// Whether a process of this program was ever ready: others are not worth waiting for.
    proven: bool,
    start_at: Instant,
    pause: Duration,
}

impl Keeper {
    async fn keep(mut self, mut inbox: mpsc::UnboundedReceiver<Request>) {
        if let Err(error) = fs::create_dir_all(&self.folder) {
            tracing::warn!(%error, "no warm trainers: cannot make `{}`", self.folder.display());
            return;
        }
        let mut round = tokio::time::interval(ROUND);
        loop {
            let want_one = self.starting.is_none() && self.idle.len() < self.size;
            let started = async {
                match &mut self.starting {
                    Some(starting) => starting.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                request = inbox.recv() => match request {
                    Some(Request::Take(answer)) => self.give(answer),
                    Some(Request::Return(idle)) => self.take_back(*idle),
                    Some(Request::End(answer)) => {
                        self.end_all().await;
                        // Who asked may be gone.
                        let _ = answer.send(());
                        return;
                    }
                    None => return,
                },
                result = started => self.started(result),
                () = tokio::time::sleep_until(self.start_at), if want_one => self.begin(),
                _ = round.tick() => self.look(),
            }
        }
    }

    fn begin(&mut self) {
        let pool = self.requests.clone();
        let (trainer, threads, folder) = (self.trainer.clone(), self.threads, self.folder.clone());
        let (environment, serves) = (self.environment.clone(), self.serves);
        self.starting = Some(Box::pin(async move {
            let build = Build::of(&trainer);
            let mut command = tokio::process::Command::new(&trainer);
            command.arg("--warm").arg(folder.parent().unwrap_or(&folder)).envs(environment);
            let log = File::options().create(true).append(true).open(folder.join("log"))?;
            let mut process = Process::spawn(command, threads, log)?;
            leftovers::record_warm(&folder, process.pid())?;
            if !process.ready().await {
                leftovers::forget_warm(&folder, process.pid());
                return Err(io::Error::other("it ended before it was ready"));
            }
            Ok(Idle { process, trials: 0, build, serves, pool })
        }));
    }

    fn started(&mut self, result: io::Result<Idle>) {
        self.starting = None;
        match result {
            Ok(idle) => {
                tracing::debug!(pid = idle.process.pid(), "a warm trainer is ready");
                self.proven = true;
                self.pause = AFTER_DEATH.0;
                self.idle.push_back(idle);
            }
            Err(error) => {
                tracing::warn!(%error, "a warm trainer did not start; the next try is in {:?}", self.pause);
                self.after_death();
            }
        }
        if let Some(answer) = self.wanted.take() {
            self.answer(answer);
        }
    }

    fn after_death(&mut self) {
        self.start_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(AFTER_DEATH.1);
    }

    fn give(&mut self, answer: oneshot::Sender<Option<Idle>>) {
        self.look();
        if self.idle.is_empty() && self.starting.is_some() && self.proven && self.wanted.is_none() {
            // It is further than one that would be started now.
            self.wanted = Some(answer);
        } else {
            self.answer(answer);
        }
    }

    fn answer(&mut self, answer: oneshot::Sender<Option<Idle>>) {
        // The one used last has the warmest caches.
        let idle = self.idle.pop_back();
        if idle.is_some() {
            self.start_at = self.start_at.max(Instant::now() + AFTER_TAKING);
        }
        // From now on the attempt remembers the process.
        if let Some(idle) = &idle {
            leftovers::forget_warm(&self.folder, idle.process.pid());
        }
        // Who asked may be gone; the process waits on.
        if let Err(Some(idle)) = answer.send(idle) {
            self.take_back(idle);
        }
    }

    fn take_back(&mut self, idle: Idle) {
        let resident = resident_kib(idle.process.pid()).unwrap_or(0);
        if idle.trials >= MOST_TRIALS || resident > MOST_RESIDENT {
            tracing::info!(trials = idle.trials, resident_kib = resident, "a trainer is replaced");
            self.end(idle);
            return;
        }
        if let Err(error) = leftovers::record_warm(&self.folder, idle.process.pid()) {
            tracing::warn!(%error, "a trainer that cannot be remembered is not kept");
            return;
        }
        self.idle.push_back(idle);
        while self.idle.len() > self.size {
            if let Some(oldest) = self.idle.pop_front() {
                self.end(oldest);
            }
        }
    }

    /// Removes those that died, and those of a program that was replaced.
    fn look(&mut self) {
        let build = Build::of(&self.trainer);
        for mut idle in std::mem::take(&mut self.idle) {
            if !idle.process.is_alive() {
                tracing::warn!(pid = idle.process.pid(), "a warm trainer died");
                self.end(idle);
                self.after_death();
            } else if idle.build == build {
                self.idle.push_back(idle);
            } else {
                tracing::info!("the trainer was replaced; processes of the old one end");
                self.end(idle);
            }
        }
    }

    async fn end_all(&mut self) {
        // One that is being started can only be waited for when it is there.
        if let Some(starting) = self.starting.take()
            && let Ok(Ok(idle)) = tokio::time::timeout(STARTING, starting).await
        {
            self.idle.push_back(idle);
        }
        for mut idle in std::mem::take(&mut self.idle) {
            idle.process.kill().await;
            self.end(idle);
        }
    }

    /// Dropping a process kills it.
    fn end(&self, idle: Idle) {
        leftovers::forget_warm(&self.folder, idle.process.pid());
    }
}

fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    proc::kib(&status, "VmRSS:")
}
