//! What becomes of an input: a step, or a refusal.

use common::{AttemptId, Digest, ExperimentId, TrialId, TrialKey, WorkerId};

use crate::{Effect, Event};

/// Result of one input.
///
/// The caller makes the events durable as one record, then performs the effects, then answers.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "events that are not persisted are lost, and with them what the effects rely on"]
pub struct Step {
    /// Facts, in order.
    pub events: Vec<Event>,
    /// Work that the facts call for, in order.
    pub effects: Vec<Effect>,
}

impl Step {
    /// The experiment that the step accepted, if its input was a submission.
    pub fn experiment(&self) -> Option<ExperimentId> {
        self.events.iter().find_map(|event| match event {
            Event::ExperimentSubmitted { experiment, .. } => Some(*experiment),
            Event::TrialSubmitted { .. }
            | Event::TrialResubmitted { .. }
            | Event::TrialReopened { .. }
            | Event::ExperimentPrioritized { .. }
            | Event::TrialPaused { .. }
            | Event::TrialResumed { .. }
            | Event::ExperimentPaused { .. }
            | Event::ExperimentResumed { .. }
            | Event::WorkerDrained { .. }
            | Event::WorkerQuarantined { .. }
            | Event::WorkerUndrained { .. }
            | Event::CheckpointPinned { .. }
            | Event::CheckpointUnpinned { .. }
            | Event::ExperimentCancelled { .. }
            | Event::WorkerJoined { .. }
            | Event::WorkerLost { .. }
            | Event::WorkerLeft { .. }
            | Event::SessionOpened { .. }
            | Event::AttemptStarted { .. }
            | Event::YieldRequested { .. }
            | Event::AttemptFailed { .. }
            | Event::TrialEnded { .. }
            | Event::CheckpointCommitted { .. }
            | Event::CheckpointDropped { .. } => None,
        })
    }
}

/// Why an input was refused. A refused input changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// A plan without trials.
    #[error("experiment `{name}` has no trials")]
    EmptyPlan {
        /// Name of the experiment.
        name: String,
    },
    /// A trial that asks for no slot at all.
    #[error("trial `{label}` needs at least one slot")]
    NoSlots {
        /// Label of the trial.
        label: String,
    },
    /// A trial that stands in the plan before one that it needs, or without it.
    #[error("trial `{label}` needs {need}, which does not stand before it in the plan")]
    MissingNeed {
        /// Label of the trial.
        label: String,
        /// The trial that it needs.
        need: TrialKey,
    },
    /// A cell whose trial is not in the plan.
    #[error("cell `{data} {model} {method} seed {seed}` reads a trial that is not in the plan")]
    MissingTrial {
        /// Data set of the cell.
        data: String,
        /// Model of the cell.
        model: String,
        /// Method of the cell.
        method: String,
        /// Seed of the cell.
        seed: u64,
    },
    /// No such experiment.
    #[error("there is no experiment {0}")]
    UnknownExperiment(ExperimentId),
    /// No such trial.
    #[error("there is no trial {0}")]
    UnknownTrial(TrialId),
    /// The trial has an outcome already.
    #[error("trial {0} has already ended")]
    TrialEnded(TrialId),
    /// A worker that is neither a member nor drained.
    #[error("there is no worker {0}")]
    NoSuchWorker(WorkerId),
    /// A checkpoint that is not kept.
    #[error("trial {trial} keeps no checkpoint of step {step}")]
    NoSuchCheckpoint {
        /// The trial.
        trial: TrialId,
        /// Step of the checkpoint.
        step: u64,
    },
    /// A message of a worker that is not, or no longer, a member. It must say hello again.
    #[error("worker {0} is not a member; it must open a new session")]
    UnknownWorker(WorkerId),
    /// The network held a hello up until a later one of the same worker had come.
    #[error("a later session of worker {0} came first")]
    Overtaken(WorkerId),
    /// A message about an attempt that is not, or no longer, current on its sender.
    #[error("attempt {0} is not current")]
    StaleAttempt(AttemptId),
    /// A checkpoint that is not newer than the newest one. Its sender drops it and goes on.
    #[error("trial {trial} already has a checkpoint of step {newest}; one of step {step} is not newer")]
    StaleCheckpoint {
        /// The trial.
        trial: TrialId,
        /// Step of the refused checkpoint.
        step: u64,
        /// Step of the newest one.
        newest: u64,
    },
    /// A checkpoint that neither the trial nor one that it needs has.
    #[error("attempt {attempt} was not given a checkpoint {digest}")]
    UnknownCheckpoint {
        /// The attempt.
        attempt: AttemptId,
        /// Digest that it reported.
        digest: Digest,
    },
}
