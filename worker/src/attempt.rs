//! One attempt on this worker: fetch what it starts from, start its ranks, store what they leave, and say how it ended.
//!
//! A gang dies together: when one rank fails, the others on this worker are ended at once. Those on other
//! workers are ended by the coordinator.

mod devices;
mod gang;
mod judge;
mod launch;
mod observe;
mod outcome;
mod patterns;
mod space;
mod uploads;
mod watcher;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::session::{AttemptEnd, Launch};
use common::timeouts::Timeouts;
use common::{AttemptId, Digest, FailureCause};
use proto::status::chain;
use tokio::sync::{mpsc, watch};
use tracing::Instrument as _;

use crate::blobs::{BlobError, Blobs};
use crate::config::Config;
use crate::devices::{Seat, Sight};
use crate::process::RankEvent;
use crate::warm::Pools;

use gang::Gang;
use launch::start_ranks;
use outcome::Outcomes;
use uploads::{Upload, Uploads};

pub use patterns::Patterns;
use worker_core::{AttemptEvent, AttemptOrder, Note};

/// What all attempts of an agent share.
#[derive(Debug)]
pub struct Context {
    /// Settings.
    pub config: Config,
    /// The blob store.
    pub blobs: Blobs,
    /// Trainers that wait for a launch.
    pub trainers: Pools,
    /// What is known of the GPUs.
    pub gpus: watch::Receiver<Arc<Sight>>,
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

/// Runs one attempt to its end in a task of its own, a rank on each of `slots`. Orders go through the sender.
pub fn spawn(
    context: Arc<Context>,
    launch: Launch,
    slots: &[u32],
    timeouts: Timeouts,
) -> mpsc::UnboundedSender<AttemptOrder> {
    // An order that got lost would not be repeated: one to stand still must not be dropped because others wait.
    let (orders, inbox) = mpsc::unbounded_channel();
    let span = tracing::info_span!("attempt", attempt = %launch.attempt, trial = %launch.key.0.short());
    let seats = slots.iter().map(|&slot| context.config.inventory.seat(slot)).collect();
    let attempt = Attempt { context, launch, seats, timeouts };
    tokio::spawn(async move { attempt.run(inbox).await }.instrument(span));
    orders
}

struct Attempt {
    context: Arc<Context>,
    launch: Launch,
    timeouts: Timeouts,
    /// Where its ranks on this worker run, in their order.
    seats: Vec<Seat>,
}

impl Attempt {
    async fn tell(&self, event: AttemptEvent) {
        // The agent outlives its attempts, except when it is itself about to end.
        drop(self.context.events.send((self.launch.attempt, event)).await);
    }

    async fn run(self, mut orders: mpsc::UnboundedReceiver<AttemptOrder>) {
        let mut before = Before::default();
        let prepared = {
            let prepare = async {
                space::wait(&self).await?;
                self.prepare().await
            };
            tokio::pin!(prepare);
            loop {
                tokio::select! {
                    files = &mut prepare => break files,
                    order = orders.recv() => match order {
                        Some(AttemptOrder::Rendezvous(address)) => before.rendezvous = Some(address),
                        // What stands still is the ranks, and there are none yet.
                        Some(AttemptOrder::Suspend) => before.suspended = true,
                        Some(AttemptOrder::Resume) => before.suspended = false,
                        Some(AttemptOrder::Lease(until)) => before.lease = Some(until),
                        // Nothing has begun.
                        Some(AttemptOrder::Yield | AttemptOrder::Stop) | None => {
                            break Err(FailureCause::Preempted);
                        }
                    },
                }
            }
        };
        let end = match prepared {
            Ok(files) => self.train(files, before, &mut orders).await,
            Err(cause) => {
                tracing::warn!(%cause, "the attempt did not start");
                self.tell(AttemptEvent::ProcessesGone).await;
                Err(cause)
            }
        };
        self.tell(AttemptEvent::Ended(end)).await;
    }

    /// Fetches every checkpoint that the ranks will read into the attempt's folder.
    async fn prepare(&self) -> Result<Files, FailureCause> {
        let folder = self.context.folder(self.launch.attempt);
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
                Err(error) => return Err(error.cause()),
            }
        }
        for (index, (key, checkpoint)) in self.launch.networks.iter().enumerate() {
            let target = folder.join(format!("network-{index}.safetensors"));
            if let Err(error) = self.fetch(checkpoint.digest, &target).await {
                let full = matches!(error.cause(), FailureCause::StorageFull { .. });
                let message = format!("the network of trial {key}: {}", chain(&error));
                if let BlobError::Damaged { digest, message } = error {
                    // No other copy exists. Who is told can have the network trained again.
                    self.tell(AttemptEvent::Damaged(digest, message)).await;
                }
                return Err(match full {
                    true => FailureCause::StorageFull { message },
                    false => FailureCause::LaunchFailed { message },
                });
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
        before: Before,
        orders: &mut mpsc::UnboundedReceiver<AttemptOrder>,
    ) -> AttemptEnd {
        let (events, mut inbox) = mpsc::channel::<RankEvent>(256);
        let started = start_ranks(&self.context, &self.launch, &self.seats, &files, before.lease, events);
        let ranks = match started.await {
            Ok(ranks) => ranks,
            Err(error) => {
                self.tell(AttemptEvent::ProcessesGone).await;
                return Err(FailureCause::LaunchFailed { message: error.to_string() });
            }
        };
        let uploads = Uploads::spawn(self.context.clone(), self.launch.attempt);
        let mut gang = Gang::new(self, files, ranks, &uploads);
        if let Some(address) = before.rendezvous {
            gang.introduce(&address).await;
        }
        if before.suspended {
            gang.suspend().await;
        }
        let outcomes = gang.watch(&mut inbox, orders).await;
        self.tell(AttemptEvent::ProcessesGone).await;
        self.finish(outcomes, uploads, orders).await
    }

    /// Stores the logs and waits for the uploads, unless the coordinator gives the attempt up meanwhile.
    async fn finish(
        &self,
        outcomes: Outcomes,
        uploads: Uploads,
        orders: &mut mpsc::UnboundedReceiver<AttemptOrder>,
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
                    Some(
                        AttemptOrder::Rendezvous(_)
                        | AttemptOrder::Yield
                        | AttemptOrder::Suspend
                        | AttemptOrder::Resume
                        | AttemptOrder::Lease(_),
                    ) => {}
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

/// What an attempt was told before it had ranks.
#[derive(Debug, Default)]
struct Before {
    rendezvous: Option<String>,
    suspended: bool,
    /// When its ranks stand still by themselves, unless they hear more.
    lease: Option<Duration>,
}

/// Checkpoints on this worker's disk.
#[derive(Debug, Default)]
struct Files {
    restore: Vec<(Digest, PathBuf)>,
    networks: Vec<PathBuf>,
}
