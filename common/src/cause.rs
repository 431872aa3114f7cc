//! Why an attempt failed, and what follows from it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an attempt failed.
///
/// "May it be tried again?" and "does it count against the trial's budget?" are two questions with
/// independent answers: losing a node is retryable and free, a bad specification is neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FailureCause {
    /// A worker of the placement was lost, or came back without the attempt.
    WorkerLost,
    /// The coordinator took the slots back for something else.
    Preempted,
    /// A trainer exited with a status that names no other cause.
    TrainerExit {
        /// Exit status.
        code: i32,
    },
    /// A trainer was ended by a signal.
    TrainerSignal {
        /// Signal number.
        signal: i32,
    },
    /// A trainer could not be started.
    LaunchFailed {
        /// What the operating system said.
        message: String,
    },
    /// A trainer ran out of memory.
    OutOfMemory,
    /// No rank made a step for longer than its own step times make plausible.
    Stalled,
    /// A rank went silent for longer than its own step times make plausible, and does not compute.
    Hung {
        /// The rank that the others wait for.
        rank: u32,
        /// Name of its worker.
        worker: String,
        /// Last step that it began.
        step: u64,
        /// What it was doing.
        phase: String,
        /// How long it had been silent, in milliseconds.
        silent_ms: u64,
    },
    /// No space was left for what the trial writes.
    StorageFull {
        /// Which folder, and what the operating system said.
        message: String,
    },
    /// The worker is to blame: a line of a log or a health check says so.
    Unhealthy {
        /// What says so.
        message: String,
    },
    /// A collective operation did not end within its limit, or lost a peer.
    CollectiveFailed {
        /// Rank that reported it.
        rank: u32,
    },
    /// The loss became NaN or infinite.
    NonFiniteLoss {
        /// Optimizer step at which it was seen.
        step: u64,
    },
    /// The trainer does not accept the specification.
    SpecRejected {
        /// What it objects to.
        message: String,
    },
    /// A data set is not where the worker looks for it, or is damaged.
    DataMissing {
        /// Where it looked, and how to get the data.
        message: String,
    },
    /// A checkpoint does not belong to this model.
    CheckpointIncompatible {
        /// What differs.
        message: String,
    },
}

impl FailureCause {
    /// Whether another attempt could end differently.
    pub fn retryable(&self) -> bool {
        match self {
            Self::WorkerLost
            | Self::Preempted
            | Self::TrainerExit { .. }
            | Self::TrainerSignal { .. }
            | Self::LaunchFailed { .. }
            | Self::OutOfMemory
            | Self::Stalled
            | Self::Hung { .. }
            | Self::StorageFull { .. }
            | Self::Unhealthy { .. }
            | Self::CollectiveFailed { .. } => true,
            Self::NonFiniteLoss { .. }
            | Self::SpecRejected { .. }
            | Self::DataMissing { .. }
            | Self::CheckpointIncompatible { .. } => false,
        }
    }

    /// Whether the trial, not the cluster, is to blame.
    pub fn counts(&self) -> bool {
        match self {
            Self::WorkerLost | Self::Preempted | Self::StorageFull { .. } | Self::Unhealthy { .. } => false,
            Self::TrainerExit { .. }
            | Self::TrainerSignal { .. }
            | Self::LaunchFailed { .. }
            | Self::OutOfMemory
            | Self::Stalled
            | Self::Hung { .. }
            | Self::CollectiveFailed { .. }
            | Self::NonFiniteLoss { .. }
            | Self::SpecRejected { .. }
            | Self::DataMissing { .. }
            | Self::CheckpointIncompatible { .. } => true,
        }
    }
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkerLost => write!(f, "a worker was lost"),
            Self::Preempted => write!(f, "preempted"),
            Self::TrainerExit { code } => write!(f, "a trainer exited with status {code}"),
            Self::TrainerSignal { signal } => write!(f, "a trainer was ended by signal {signal}"),
            Self::LaunchFailed { message } => write!(f, "a trainer could not be started: {message}"),
            Self::OutOfMemory => write!(f, "out of memory"),
            Self::Stalled => write!(f, "no progress"),
            Self::Hung { rank, worker, step, phase, silent_ms } => write!(
                f,
                "rank {rank} on {worker} hung: silent for {:.1} s at step {step}, {phase}",
                std::time::Duration::from_millis(*silent_ms).as_secs_f64()
            ),
            Self::StorageFull { message } => write!(f, "no space left: {message}"),
            Self::Unhealthy { message } => write!(f, "the worker is unhealthy: {message}"),
            Self::CollectiveFailed { rank } => write!(f, "a collective failed on rank {rank}"),
            Self::NonFiniteLoss { step } => write!(f, "the loss was not finite at step {step}"),
            Self::SpecRejected { message } => write!(f, "specification rejected: {message}"),
            Self::DataMissing { message } => write!(f, "data missing: {message}"),
            Self::CheckpointIncompatible { message } => write!(f, "checkpoint incompatible: {message}"),
        }
    }
}
