//! One log line for each event that people follow, after it is durable.

use coordinator_core::{Event, Outcome};
use tracing::{debug, info, warn};

pub(super) fn log(event: &Event) {
    match event {
        Event::TrialSubmitted { trial, experiment, label, .. } => {
            info!(%trial, %experiment, label, "trial submitted");
        }
        Event::TrialResubmitted { trial, experiment, .. } => {
            info!(%trial, %experiment, "trial submitted again");
        }
        Event::TrialReopened { trial, .. } => warn!(%trial, "checkpoint lost: trial runs again"),
        Event::ExperimentSubmitted { experiment, name, trials, .. } => {
            info!(%experiment, name, trials = trials.len(), "experiment submitted");
        }
        Event::ExperimentPrioritized { experiment, priority, .. } => {
            info!(%experiment, priority, "experiment has another priority");
        }
        Event::TrialPaused { trial, .. } => info!(%trial, "trial paused"),
        Event::TrialResumed { trial, .. } => info!(%trial, "trial resumed"),
        Event::ExperimentPaused { experiment, .. } => info!(%experiment, "experiment paused"),
        Event::ExperimentResumed { experiment, .. } => info!(%experiment, "experiment resumed"),
        Event::ExperimentCancelled { experiment, .. } => info!(%experiment, "experiment cancelled"),
        Event::WorkerJoined { worker, name, host, slots, .. } => {
            info!(%worker, name, host, slots, "worker joined");
        }
        Event::SessionOpened { worker, order, .. } => debug!(%worker, ?order, "session opened"),
        Event::WorkerLost { worker, .. } => warn!(%worker, "worker lost"),
        Event::WorkerLeft { worker, .. } => info!(%worker, "worker left"),
        Event::WorkerDrained { worker, reason, .. } => info!(%worker, reason, "worker drained"),
        Event::WorkerQuarantined { worker, reason, .. } => warn!(%worker, %reason, "worker quarantined"),
        Event::WorkerUndrained { worker, .. } => info!(%worker, "worker back in service"),
        Event::AttemptStarted { trial, attempt, placement, .. } => {
            let shares = placement.shares().iter();
            let workers: Vec<_> = shares.map(|share| share.worker.to_string()).collect();
            info!(%trial, %attempt, workers = workers.join(","), ranks = placement.world_size(), "attempt started");
        }
        Event::YieldRequested { trial, attempt, reason, .. } => {
            info!(%trial, %attempt, %reason, "attempt is to stop at a checkpoint");
        }
        Event::AttemptFailed { trial, attempt, cause, .. } => {
            warn!(%trial, %attempt, %cause, "attempt failed");
        }
        Event::TrialEnded { trial, outcome, .. } => match outcome {
            Outcome::Succeeded { .. } | Outcome::Cancelled => info!(%trial, %outcome, "trial ended"),
            Outcome::Failed { .. } | Outcome::LostWorkers { .. } | Outcome::NeedFailed { .. } => {
                warn!(%trial, %outcome, "trial ended")
            }
        },
        Event::CheckpointCommitted { trial, attempt, checkpoint, .. } => {
            let digest = checkpoint.digest.short();
            info!(%trial, %attempt, step = checkpoint.step, digest, "checkpoint committed");
        }
        Event::CheckpointPinned { trial, step, .. } => info!(%trial, step, "checkpoint pinned"),
        Event::CheckpointUnpinned { trial, step, .. } => info!(%trial, step, "checkpoint unpinned"),
        Event::CheckpointDropped { trial, digest, reason, .. } => {
            info!(%trial, digest = digest.short(), ?reason, "checkpoint dropped");
        }
    }
}
