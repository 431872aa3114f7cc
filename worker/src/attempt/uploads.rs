//! What trainers leave, brought to the blob store one after the other, while they train on.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use common::result::{Artifact, Checkpoint, Score};
use common::{AttemptId, FailureCause};
use proto::status::chain;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tracing::Instrument as _;

use super::{AttemptEvent, Context, Note};

/// Time between two looks whether what is being stored is stuck.
const LOOK: Duration = Duration::from_millis(200);

/// A file to store.
#[derive(Debug)]
pub enum Upload {
    /// A checkpoint. One that waits is given up for a newer one.
    Checkpoint {
        /// Steps done.
        step: u64,
        /// The file.
        path: PathBuf,
        /// How well it predicts, if that is known.
        score: Option<Score>,
    },
    /// A file for the trial's users.
    Artifact {
        /// Name within the trial.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// The log of a rank.
    Log {
        /// The rank.
        rank: u32,
        /// The file.
        path: PathBuf,
    },
}

/// A file that the trial's result needs cannot be stored.
#[derive(Debug, thiserror::Error)]
#[error("cannot store {what}: {cause}")]
pub struct UploadFailed {
    what: String,
    cause: FailureCause,
}

impl UploadFailed {
    /// What the attempt fails with.
    pub fn cause(self) -> FailureCause {
        match self.cause {
            FailureCause::StorageFull { message } => {
                FailureCause::StorageFull { message: format!("{}: {message}", self.what) }
            }
            // Whatever else a blob fails with says that it could not be stored.
            cause => FailureCause::LaunchFailed { message: format!("cannot store {}: {cause}", self.what) },
        }
    }
}

/// The queue of an attempt's uploads.
#[derive(Debug)]
pub struct Uploads {
    queue: mpsc::UnboundedSender<Upload>,
    worker: JoinHandle<Result<Vec<Artifact>, UploadFailed>>,
}

impl Uploads {
    /// Starts the task that stores what is pushed.
    pub fn spawn(context: Arc<Context>, attempt: AttemptId) -> Self {
        let (queue, inbox) = mpsc::unbounded_channel();
        let stuck = Arc::default();
        let task = Task { context, attempt, artifacts: Vec::new(), failed: None, stuck };
        Self { queue, worker: tokio::spawn(task.run(inbox).in_current_span()) }
    }

    /// Stores a file after those before it.
    pub fn push(&self, upload: Upload) {
        // The task ends only when this side does.
        drop(self.queue.send(upload));
    }

    /// Waits until all is stored. Returns the artifacts.
    ///
    /// # Errors
    ///
    /// When a checkpoint or an artifact cannot be stored.
    pub async fn finish(self) -> Result<Vec<Artifact>, UploadFailed> {
        drop(self.queue);
        self.worker.await.map_err(|error| UploadFailed {
            what: "what the trial left".to_owned(),
            cause: FailureCause::LaunchFailed { message: error.to_string() },
        })?
    }
}

struct Task {
    context: Arc<Context>,
    attempt: AttemptId,
    artifacts: Vec<Artifact>,
    failed: Option<UploadFailed>,
    /// Whether what is being stored was refused, and waits for the next try.
    stuck: Arc<AtomicBool>,
}

fn is_checkpoint(upload: &Upload) -> bool {
    matches!(upload, Upload::Checkpoint { .. })
}

impl Task {
    async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Upload>,
    ) -> Result<Vec<Artifact>, UploadFailed> {
        let mut waiting = VecDeque::new();
        loop {
            while let Ok(upload) = inbox.try_recv() {
                waiting.push_back(upload);
            }
            let Some(upload) = waiting.pop_front() else {
                match inbox.recv().await {
                    Some(upload) => {
                        waiting.push_back(upload);
                        continue;
                    }
                    None => break,
                }
            };
            let Upload::Checkpoint { path, .. } = &upload else {
                self.store(upload).await;
                continue;
            };
            let path = path.clone();
            let superseded = waiting.iter().any(is_checkpoint)
                || self.store_unless_newer(upload, &mut inbox, &mut waiting).await;
            if superseded {
                drop(tokio::fs::remove_file(path).await);
            }
        }
        match self.failed {
            Some(failed) => Err(failed),
            None => Ok(self.artifacts),
        }
    }

    /// Stores a checkpoint. True when a newer one came while it could not be stored: then it is given up. One
    /// that is on its way is not, or frequent checkpoints would keep each other from being stored.
    async fn store_unless_newer(
        &mut self,
        upload: Upload,
        inbox: &mut mpsc::UnboundedReceiver<Upload>,
        waiting: &mut VecDeque<Upload>,
    ) -> bool {
        let stuck = self.stuck.clone();
        stuck.store(false, Ordering::Relaxed);
        let store = self.store(upload);
        tokio::pin!(store);
        let mut open = true;
        loop {
            tokio::select! {
                () = &mut store => return false,
                next = inbox.recv(), if open => match next {
                    Some(next) => waiting.push_back(next),
                    None => open = false,
                },
                () = tokio::time::sleep(LOOK), if waiting.iter().any(is_checkpoint) => {}
            }
            if stuck.load(Ordering::Relaxed) && waiting.iter().any(is_checkpoint) {
                return true;
            }
        }
    }

    /// What hears why a file is not stored yet: the user, once for each reason.
    fn trouble(&self, what: String) -> impl Fn(&Status) + use<> {
        let (context, attempt, stuck) = (self.context.clone(), self.attempt, self.stuck.clone());
        let said = std::sync::Mutex::new(None);
        move |status| {
            stuck.store(true, Ordering::Relaxed);
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            // A coordinator that is away is told of nothing, and a full disk is what somebody can mend.
            if status.code() == Code::ResourceExhausted && said.replace(status.code()) != Some(status.code())
            {
                let message = format!(
                    "{what} is not stored yet, and is tried again while the trial goes on: {}",
                    status.message()
                );
                // A warning that finds no room is in the log of this worker.
                drop(context.events.try_send((attempt, AttemptEvent::Note(Note::Warning(message)))));
            }
        }
    }

    async fn store(&mut self, upload: Upload) {
        let path = match &upload {
            Upload::Checkpoint { path, .. } | Upload::Artifact { path, .. } | Upload::Log { path, .. } => {
                path
            }
        };
        let what = match &upload {
            Upload::Checkpoint { step, .. } => format!("the checkpoint of step {step}"),
            Upload::Artifact { name, .. } => format!("`{name}`"),
            Upload::Log { rank, .. } => format!("the log of rank {rank}"),
        };
        let stored = self.context.blobs.store_watched(path, self.trouble(what.clone())).await;
        let error = match (upload, stored) {
            (Upload::Checkpoint { step, score, .. }, Ok((digest, bytes))) => {
                self.failed = None;
                tracing::debug!(step, bytes, "stored a checkpoint");
                let checkpoint = Checkpoint::new(step, digest, bytes).scored(score);
                drop(self.context.events.send((self.attempt, AttemptEvent::Checkpoint(checkpoint))).await);
                return;
            }
            (Upload::Log { rank, .. }, Ok((digest, bytes))) => {
                let event = AttemptEvent::Log(rank, digest, bytes);
                drop(self.context.events.send((self.attempt, event)).await);
                return;
            }
            (Upload::Artifact { name, .. }, Ok((digest, bytes))) => {
                self.artifacts.push(Artifact { name, digest, bytes });
                return;
            }
            (Upload::Log { rank, .. }, Err(error)) => {
                tracing::warn!(rank, error = chain(&error), "cannot store a log");
                return;
            }
            (Upload::Checkpoint { .. } | Upload::Artifact { .. }, Err(error)) => error,
        };
        let failed = UploadFailed { what, cause: error.cause() };
        tracing::error!("{failed}");
        self.failed = Some(failed);
    }
}
