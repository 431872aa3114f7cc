//! One attempt on this worker: fetch what it starts from, start its ranks, store what they leave, and say how it ended.
//!
//! A gang dies together: when one rank fails, the others on this worker are stopped at once. Those on other
//! workers are stopped by the coordinator.

mod launch;
mod outcome;
mod uploads;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::report::{Command, Report};
use common::result::{Checkpoint, MetricRow};
use common::session::{AttemptEnd, Launch, Progress};
use common::{AttemptId, Digest, FailureCause};
use proto::status::chain;
use tokio::sync::mpsc;
use tracing::Instrument as _;

use crate::blobs::{BlobError, Blobs};
use crate::config::Config;
use crate::process::{RankEvent, RankOrder};

use launch::start_ranks;
use outcome::Outcomes;
use uploads::{Upload, Uploads};

/// How long the other ranks of a failed attempt may take to say what they saw.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// What the agent tells an attempt.
#[derive(Clone, Debug)]
pub enum AttemptOrder {
    /// Where rank 0, on another worker, hosts the rendezvous store.
    Rendezvous(String),
    /// Write a checkpoint, then end: the slots are wanted, the work is not to be lost.
    Yield,
    /// End, whatever it does.
    Stop,
}

/// What an attempt tells the agent.
#[derive(Debug)]
pub enum AttemptEvent {
    /// Rank 0 hosts the rendezvous store.
    Rendezvous(String),
    /// Where it stands.
    Progress(Progress),
    /// Measured values.
    Metrics(Vec<MetricRow>),
    /// A checkpoint is stored.
    Checkpoint(Checkpoint),
    /// A checkpoint that it was to go on from did not load.
    Damaged(Digest, String),
    /// Something that the user should know.
    Warning(String),
    /// The log of a rank is stored.
    Log(u32, Digest, u64),
    /// The last process is gone.
    ProcessesGone,
    /// Everything is stored. The last event.
    Ended(AttemptEnd),
}

/// What all attempts of an agent share.
#[derive(Debug)]
pub struct Context {
    /// Settings.
    pub config: Config,
    /// The blob store.
    pub blobs: Blobs,
    /// Where attempts tell of themselves.
    pub events: mpsc::Sender<(AttemptId, AttemptEvent)>,
}

impl Context {
    /// Folder of an attempt. Everything in it is gone when the attempt is forgotten.
    pub fn folder(&self, attempt: AttemptId) -> PathBuf {
        attempt_folder(&self.config.data_dir, attempt)
    }
}

/// Folder of an attempt below a worker's data folder.
pub fn attempt_folder(data_dir: &Path, attempt: AttemptId) -> PathBuf {
    data_dir.join("attempts").join(attempt.to_string())
}

/// File of a rank's log in an attempt's folder.
pub fn log_file(folder: &Path, rank: u32) -> PathBuf {
    folder.join(format!("rank-{rank}.log"))
}

/// Folder of a rank in an attempt's folder.
pub fn work_dir(folder: &Path, rank: u32) -> PathBuf {
    folder.join(format!("rank-{rank}"))
}

/// Runs one attempt to its end in a task of its own. Orders go through the sender.
pub fn spawn(context: Arc<Context>, launch: Launch) -> mpsc::Sender<AttemptOrder> {
    let (orders, inbox) = mpsc::channel(16);
    let span = tracing::info_span!("attempt", attempt = %launch.attempt, trial = %launch.key.0.short());
    tokio::spawn(async move { Attempt { context, launch }.run(inbox).await }.instrument(span));
    orders
}

struct Attempt {
    context: Arc<Context>,
    launch: Launch,
}

impl Attempt {
    async fn tell(&self, event: AttemptEvent) {
        // The agent outlives its attempts, except when it is itself about to end.
        drop(self.context.events.send((self.launch.attempt, event)).await);
    }

    async fn run(self, mut orders: mpsc::Receiver<AttemptOrder>) {
        let mut rendezvous = None;
        let prepared = {
            let prepare = self.prepare();
            tokio::pin!(prepare);
            loop {
                tokio::select! {
                    files = &mut prepare => break files,
                    order = orders.recv() => match order {
                        Some(AttemptOrder::Rendezvous(address)) => rendezvous = Some(address),
                        // Nothing has begun.
                        Some(AttemptOrder::Yield | AttemptOrder::Stop) | None => {
                            break Err(FailureCause::Preempted);
                        }
                    },
                }
            }
        };
        let end = match prepared {
            Ok(files) => self.train(files, rendezvous, &mut orders).await,
            Err(cause) => {
                tracing::warn!(%cause, "the attempt did not start");
                self.tell(AttemptEvent::ProcessesGone).await;
                Err(cause)
            }
        };
        self.tell(AttemptEvent::Ended(end)).await;
    }

    /// Makes the folder and fetches every checkpoint that the ranks will read.
    async fn prepare(&self) -> Result<Files, FailureCause> {
        let folder = self.context.folder(self.launch.attempt);
        let cannot = |path: &Path, error: std::io::Error| FailureCause::LaunchFailed {
            message: format!("cannot write `{}`: {error}", path.display()),
        };
        tokio::fs::create_dir_all(&folder).await.map_err(|error| cannot(&folder, error))?;
        let mut files = Files::default();
        for checkpoint in &self.launch.restore {
            let target = folder.join(format!("restore-{}.safetensors", checkpoint.step));
            match self.fetch(checkpoint.digest, &target).await {
                Ok(()) => files.restore.push((checkpoint.digest, target)),
                // The one before it is used.
                Err(BlobError::Damaged { digest, message }) => {
                    tracing::warn!(
                        step = checkpoint.step,
                        message,
                        "a checkpoint is damaged; trying the one before it"
                    );
                    self.tell(AttemptEvent::Damaged(digest, message)).await;
                }
                Err(error) => return Err(FailureCause::LaunchFailed { message: chain(&error) }),
            }
        }
        for (index, (key, checkpoint)) in self.launch.networks.iter().enumerate() {
            let target = folder.join(format!("network-{index}.safetensors"));
            if let Err(error) = self.fetch(checkpoint.digest, &target).await {
                let message = format!("the network of trial {key}: {}", chain(&error));
                if let BlobError::Damaged { digest, message } = error {
                    // No other copy exists. Who is told can have the network trained again.
                    self.tell(AttemptEvent::Damaged(digest, message)).await;
                }
                return Err(FailureCause::LaunchFailed { message });
            }
            files.networks.push(target);
        }
        Ok(files)
    }

    async fn fetch(&self, digest: Digest, target: &Path) -> Result<(), BlobError> {
        let purpose = self.launch.attempt.to_string();
        self.context.blobs.fetch(digest, &purpose, target).await
    }

    async fn train(
        &self,
        files: Files,
        rendezvous: Option<String>,
        orders: &mut mpsc::Receiver<AttemptOrder>,
    ) -> AttemptEnd {
        let (events, mut inbox) = mpsc::channel(256);
        let ranks = match start_ranks(&self.context, &self.launch, &files, events) {
            Ok(ranks) => ranks,
            Err(error) => {
                self.tell(AttemptEvent::ProcessesGone).await;
                return Err(FailureCause::LaunchFailed { message: error.to_string() });
            }
        };
        let uploads = Uploads::spawn(self.context.clone(), self.launch.attempt);
        let mut gang = Gang { attempt: self, files, ranks, outcomes: Outcomes::default(), uploads: &uploads };
        if let Some(address) = rendezvous {
            gang.introduce(&address).await;
        }
        gang.watch(&mut inbox, orders).await;
        let outcomes = std::mem::take(&mut gang.outcomes);
        self.tell(AttemptEvent::ProcessesGone).await;
        self.finish(outcomes, uploads, orders).await
    }

    /// Stores the logs and waits for the uploads, unless the coordinator gives the attempt up meanwhile.
    async fn finish(
        &self,
        outcomes: Outcomes,
        uploads: Uploads,
        orders: &mut mpsc::Receiver<AttemptOrder>,
    ) -> AttemptEnd {
        let folder = self.context.folder(self.launch.attempt);
        for rank in self.launch.first_rank..self.launch.first_rank + self.launch.ranks {
            uploads.push(Upload::Log { rank, path: log_file(&folder, rank) });
        }
        let stored = uploads.finish();
        tokio::pin!(stored);
        let artifacts = loop {
            tokio::select! {
                artifacts = &mut stored => break artifacts,
                order = orders.recv() => match order {
                    Some(AttemptOrder::Rendezvous(_) | AttemptOrder::Yield) => {}
                    // What it left is wanted no more; its logs are, but not at any price.
                    Some(AttemptOrder::Stop) | None => {
                        drop(tokio::time::timeout(self.context.config.grace, &mut stored).await);
                        return Err(FailureCause::Preempted);
                    }
                },
            }
        };
        outcomes.into_end(self.launch.first_rank == 0, artifacts)
    }
}

/// Checkpoints on this worker's disk.
#[derive(Debug, Default)]
struct Files {
    restore: Vec<(Digest, PathBuf)>,
    networks: Vec<PathBuf>,
}

/// The ranks of an attempt on this worker.
struct Gang<'a> {
    attempt: &'a Attempt,
    files: Files,
    ranks: Vec<(u32, mpsc::Sender<RankOrder>)>,
    outcomes: Outcomes,
    uploads: &'a Uploads,
}

impl Gang<'_> {
    /// Handles what ranks say until the last one is gone.
    async fn watch(
        &mut self,
        inbox: &mut mpsc::Receiver<RankEvent>,
        orders: &mut mpsc::Receiver<AttemptOrder>,
    ) {
        let mut alive = self.ranks.len();
        let mut open = true;
        let mut stop_at = None;
        while alive > 0 {
            let last_words = async {
                match stop_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(event) = inbox.recv() => match event {
                    RankEvent::Report(rank, report) => self.report(rank, report).await,
                    RankEvent::Gone(rank, status) => {
                        alive -= 1;
                        if self.outcomes.gone(rank, status) && stop_at.is_none() {
                            stop_at = Some(tokio::time::Instant::now() + LAST_WORDS);
                        }
                    }
                },
                order = orders.recv(), if open => match order {
                    Some(AttemptOrder::Rendezvous(address)) => self.introduce(&address).await,
                    Some(AttemptOrder::Yield) => self.tell_all(&Command::Yield).await,
                    Some(AttemptOrder::Stop) => {
                        self.outcomes.stopped();
                        self.stop().await;
                    }
                    None => {
                        open = false;
                        self.stop().await;
                    }
                },
                () = last_words => {
                    self.stop().await;
                    stop_at = None;
                }
            }
        }
    }

    async fn stop(&self) {
        for (_, orders) in &self.ranks {
            // A rank that is gone takes no orders.
            drop(orders.send(RankOrder::Stop).await);
        }
    }

    async fn tell_all(&self, command: &Command) {
        for (_, orders) in &self.ranks {
            drop(orders.send(RankOrder::Tell(command.clone())).await);
        }
    }

    /// Tells every rank but 0 where the rendezvous store is.
    async fn introduce(&self, address: &str) {
        for (rank, orders) in &self.ranks {
            if *rank != 0 {
                let command = Command::Rendezvous { address: address.to_owned() };
                drop(orders.send(RankOrder::Tell(command)).await);
            }
        }
    }

    /// Folder of a rank, from which the paths that it reports start unless they are absolute.
    fn work_dir(&self, rank: u32) -> PathBuf {
        work_dir(&self.attempt.context.folder(self.attempt.launch.attempt), rank)
    }

    async fn report(&mut self, rank: u32, report: Report) {
        match report {
            Report::Rendezvous { address } => {
                self.introduce(&address).await;
                self.attempt.tell(AttemptEvent::Rendezvous(address)).await;
            }
            Report::Progress { step, total_steps, loss, steps_per_second } => {
                let progress = Progress { step, total_steps, loss, steps_per_second };
                self.attempt.tell(AttemptEvent::Progress(progress)).await;
            }
            Report::Metrics { rows } => self.attempt.tell(AttemptEvent::Metrics(rows)).await,
            Report::Checkpoint { step, path } => {
                self.uploads.push(Upload::Checkpoint { step, path: self.work_dir(rank).join(path) });
            }
            Report::Artifact { name, path } => {
                self.uploads.push(Upload::Artifact { name, path: self.work_dir(rank).join(path) });
            }
            Report::Warning { message } => {
                tracing::warn!(rank, message, "a trainer warns");
                self.attempt.tell(AttemptEvent::Warning(message)).await;
            }
            Report::CheckpointRefused { path, message } => {
                let damaged =
                    self.files.restore.iter().find(|(_, file)| *file == path).map(|&(digest, _)| digest);
                if let Some(digest) = damaged {
                    self.attempt.tell(AttemptEvent::Damaged(digest, message)).await;
                }
            }
            Report::Yielded { .. } => self.outcomes.yielded(),
            Report::Failed { cause } => self.outcomes.failed(rank, cause),
            Report::Done { metrics } => self.outcomes.done(metrics),
        }
    }
}
