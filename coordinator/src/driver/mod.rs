//! The one task that owns the state, and how everybody else speaks to it.
//!
//! It takes what waits in its inbox, lets the core decide, makes all resulting events durable with one flush,
//! and only then performs effects and answers (I3). Readers run in the same queue, so nobody sees a state that
//! is not durable. It decides nothing itself.

mod clock;
mod command;
mod history;
mod journal;
mod pause;
mod recovery;
mod sessions;
mod task;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::session::{FromWorker, Hello, Progress, ToWorker};
use common::{AttemptId, Digest, ExperimentId, TrialId, WorkerId};
use coordinator_core::{Cluster, Input, Millis, Policy, Reject};
use proto::status::{ErrorKind, Kind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::blobs::Blobs;
use crate::store::{Store, StoreError};

use command::Command;
pub use history::{AttemptEnd, AttemptOutcome, AttemptRecord, History};
pub(crate) use recovery::{recover, recover_from};
pub(crate) use sessions::OUTGOING;
pub use sessions::{Outgoing, SessionEnd, SessionId, Sessions};

/// Commands that may wait. Beyond that, senders wait: the inbox must not hide that the disk is too slow.
const INBOX: usize = 1024;

/// Why the driver did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DriverError {
    /// The core refused.
    #[error(transparent)]
    Rejected(#[from] Reject),
    /// The disk takes no writes now.
    #[error(
        "the coordinator is paused, because it cannot write its log; it goes on by itself when it can, and trainers go on \
         meanwhile"
    )]
    Paused(#[source] Arc<StoreError>),
    /// The state could not be made durable. The coordinator stops.
    #[error("the coordinator cannot write its log, and stops")]
    Store(#[source] Arc<StoreError>),
    /// The driver is gone.
    #[error("the coordinator is stopping: try again when it is back")]
    Stopping,
}

impl Kind for DriverError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(reject) => match reject {
                Reject::EmptyPlan { .. }
                | Reject::NoSlots { .. }
                | Reject::MissingNeed { .. }
                | Reject::MissingTrial { .. } => ErrorKind::InvalidArgument,
                Reject::UnknownExperiment(_)
                | Reject::UnknownTrial(_)
                | Reject::NoSuchWorker(_)
                | Reject::NoSuchCheckpoint { .. }
                | Reject::UnknownCheckpoint { .. } => ErrorKind::NotFound,
                Reject::TrialEnded(_) | Reject::UnknownWorker(_) => ErrorKind::FailedPrecondition,
                Reject::Overtaken(_) | Reject::StaleAttempt(_) | Reject::StaleCheckpoint { .. } => {
                    ErrorKind::Aborted
                }
            },
            Self::Paused(error) | Self::Store(error) => error.kind(),
            Self::Stopping => ErrorKind::Unavailable,
        }
    }
}

/// Limits of the driver and of the core.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The core's.
    pub policy: Policy,
    /// Time between heartbeats that workers are asked for.
    pub heartbeat: Duration,
    /// Events between two snapshots of the state, at least.
    pub snapshot_events: u64,
}

/// What an input came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The experiment that was accepted, if the input was a submission.
    pub experiment: Option<ExperimentId>,
    /// Trials that nobody had asked for before.
    pub new_trials: u32,
    /// Trials that ended without success.
    pub cancelled: u32,
}

/// What is known only while the coordinator runs.
#[derive(Debug, Default)]
pub struct Live {
    /// Where running attempts stand.
    pub progress: BTreeMap<AttemptId, Progress>,
    /// Open sessions.
    pub sessions: Sessions,
}

/// The state, as a reader sees it. All of it is durable but what is [`Live`].
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The core.
    pub cluster: &'a Cluster,
    /// Attempts that are over.
    pub history: &'a History,
    /// Progress and sessions.
    pub live: &'a Live,
    /// The time.
    pub now: Millis,
}

/// Speaks to the driver. Clones speak to the same one; when the last is dropped, the driver ends.
#[derive(Clone, Debug)]
pub struct Handle {
    inbox: mpsc::Sender<Command>,
    changes: watch::Receiver<u64>,
    paused: watch::Receiver<Option<Arc<StoreError>>>,
}

/// The driver's task.
pub type Running = JoinHandle<Result<(), Arc<StoreError>>>;

/// Replays the log and starts the driver.
///
/// The task ends when it is stopped or nobody can speak to it any more, or with an error when the database gave
/// up. While the disk takes no writes it is paused, and answers everybody why.
///
/// # Errors
///
/// When the log cannot be read, or a record of it is not what was written.
pub fn start(store: Store, blobs: Blobs, limits: Limits) -> Result<(Handle, Running), StoreError> {
    let (inbox, commands) = mpsc::channel(INBOX);
    let (notify, changes) = watch::channel(0);
    let (pauses, paused) = watch::channel(None);
    let driver = task::Driver::replay(&store, blobs, limits, task::News { notify, pauses })?;
    let task = tokio::spawn(driver.run(store, commands));
    Ok((Handle { inbox, changes, paused }, task))
}

impl Handle {
    /// Hands an input of a client to the core. The answer comes when its events are durable.
    ///
    /// # Errors
    ///
    /// [`DriverError`].
    pub async fn apply(&self, input: Input) -> Result<Applied, DriverError> {
        self.ask(|reply| Command::Apply { input, reply }).await?
    }

    /// Lets `look` see the state.
    ///
    /// # Errors
    ///
    /// [`DriverError::Stopping`].
    pub async fn read<R: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> R + Send + 'static,
    ) -> Result<R, DriverError> {
        self.ask(|reply| {
            Command::Read(Box::new(move |view| {
                // Who asked may have gone away.
                let _ = reply.send(look(view));
            }))
        })
        .await
    }

    /// Notices changes of what [`Handle::read`] shows. It closes when the driver ends.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Opens a worker's session. Its earlier session is ended.
    ///
    /// # Errors
    ///
    /// [`DriverError`].
    pub async fn open_session(&self, hello: Hello, outgoing: Outgoing) -> Result<SessionId, DriverError> {
        let hello = Box::new(hello);
        self.ask(|reply| Command::OpenSession { hello, outgoing, reply }).await?
    }

    /// Hands over what a worker said. It is ignored unless the session is the worker's newest.
    ///
    /// # Errors
    ///
    /// [`DriverError::Stopping`].
    pub async fn from_worker(
        &self,
        worker: WorkerId,
        session: SessionId,
        message: FromWorker,
    ) -> Result<(), DriverError> {
        self.tell(Command::FromWorker { worker, session, message }).await
    }

    /// Says that the stream of a session is gone.
    ///
    /// # Errors
    ///
    /// [`DriverError::Stopping`].
    pub async fn session_closed(&self, worker: WorkerId, session: SessionId) -> Result<(), DriverError> {
        self.tell(Command::SessionClosed { worker, session }).await
    }

    /// Sends a message to a worker; false when it has no session.
    ///
    /// # Errors
    ///
    /// [`DriverError::Stopping`].
    pub async fn send(&self, worker: WorkerId, message: ToWorker) -> Result<bool, DriverError> {
        self.ask(|reply| Command::Send { worker, message, reply }).await
    }

    /// Deletes those of `blobs` that nothing refers to.
    ///
    /// # Errors
    ///
    /// [`DriverError::Stopping`].
    pub async fn collect(&self, blobs: Vec<Digest>) -> Result<(), DriverError> {
        self.tell(Command::Collect(blobs)).await
    }

    /// Ends the driver, after what it was told before. Sessions are ended, trainers go on.
    pub async fn stop(&self) {
        // One that has ended already is stopped.
        let _ = self.tell(Command::Stop).await;
    }

    async fn tell(&self, command: Command) -> Result<(), DriverError> {
        self.inbox.send(command).await.map_err(|_| DriverError::Stopping)
    }

    async fn ask<R>(&self, command: impl FnOnce(oneshot::Sender<R>) -> Command) -> Result<R, DriverError> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply)).await?;
        answer.await.map_err(|_| match &*self.paused.borrow() {
            Some(cause) => DriverError::Paused(cause.clone()),
            None => DriverError::Stopping,
        })
    }
}

impl View<'_> {
    /// Where the running attempt of a trial stands, as far as it was told.
    pub fn progress(&self, trial: TrialId) -> Option<Progress> {
        let attempt = self.cluster.trial(trial)?.attempt()?.id;
        let reported = self.live.progress.get(&attempt).copied();
        reported.or_else(|| {
            let step = self.cluster.reported_step(trial)?;
            Some(Progress { step, ..Progress::default() })
        })
    }
}

#[cfg(test)]
mod tests;
