//! What trainers leave, brought to the blob store one after the other, while they train on.

use std::path::PathBuf;
use std::sync::Arc;

use common::AttemptId;
use common::result::{Artifact, Checkpoint};
use proto::status::chain;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::{AttemptEvent, Context};

/// A file to store.
#[derive(Debug)]
pub enum Upload {
    /// A checkpoint. One that waits is given up for a newer one.
    Checkpoint {
        /// Steps done.
        step: u64,
        /// The file.
        path: PathBuf,
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
#[error("cannot store {what}: {why}")]
pub struct UploadFailed {
    what: String,
    why: String,
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
        let task = Task { context, attempt, artifacts: Vec::new(), failed: None };
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
            why: error.to_string(),
        })?
    }
}

struct Task {
    context: Arc<Context>,
    attempt: AttemptId,
    artifacts: Vec<Artifact>,
    failed: Option<UploadFailed>,
}

impl Task {
    async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Upload>,
    ) -> Result<Vec<Artifact>, UploadFailed> {
        let mut waiting = std::collections::VecDeque::new();
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
            let superseded = matches!(upload, Upload::Checkpoint { .. })
                && waiting.iter().any(|later| matches!(later, Upload::Checkpoint { .. }));
            if !superseded {
                self.store(upload).await;
            } else if let Upload::Checkpoint { path, .. } = upload {
                drop(tokio::fs::remove_file(path).await);
            }
        }
        match self.failed {
            Some(failed) => Err(failed),
            None => Ok(self.artifacts),
        }
    }

    async fn store(&mut self, upload: Upload) {
        let path = match &upload {
            Upload::Checkpoint { path, .. } | Upload::Artifact { path, .. } | Upload::Log { path, .. } => {
                path
            }
        };
        let stored = self.context.blobs.store(path).await;
        let (what, event) = match (upload, stored) {
            (Upload::Checkpoint { step, .. }, Ok((digest, bytes))) => {
                self.failed = None;
                tracing::debug!(step, bytes, "stored a checkpoint");
                let checkpoint = Checkpoint { step, digest, bytes };
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
            (Upload::Checkpoint { step, .. }, Err(error)) => {
                (format!("the checkpoint of step {step}"), error)
            }
            (Upload::Artifact { name, .. }, Err(error)) => (format!("`{name}`"), error),
        };
        let failed = UploadFailed { what, why: chain(&event) };
        tracing::error!("{failed}");
        self.failed = Some(failed);
    }
}
