//! Why a worker is given nothing new, in the form that the log keeps.

use std::fmt;

use common::{AttemptId, FailureCause, TrialId};
use serde::{Deserialize, Serialize};

use crate::Millis;

/// A worker that an operator took out of service. It outlives the worker's membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Drain {
    /// What the operator said.
    pub reason: String,
    /// When.
    pub since: Millis,
}

/// A worker that was taken out of service because of what happened there. It outlives the worker's membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Quarantine {
    /// What happened.
    pub reason: QuarantineReason,
    /// When.
    pub since: Millis,
}

/// What a worker is quarantined for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum QuarantineReason {
    /// Attempts of several trials failed there one after the other, while another worker did well.
    Failures {
        /// The failures, oldest first.
        strikes: Vec<Strike>,
    },
    /// A line of a rank's log says that the worker is broken.
    Incident {
        /// The attempt.
        attempt: AttemptId,
        /// The rank.
        rank: u32,
        /// Name of the pattern that the line matched.
        pattern: String,
        /// The line.
        line: String,
    },
    /// The worker says that it is broken.
    Unhealthy {
        /// What it says.
        message: String,
    },
}

/// A failure that may be the fault of the worker on which it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strike {
    /// The trial.
    pub trial: TrialId,
    /// The attempt that failed.
    pub attempt: AttemptId,
    /// Why.
    pub cause: FailureCause,
}

impl fmt::Display for Drain {
    /// Completes "the worker is …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.as_str() {
            "" => f.write_str("drained"),
            reason => write!(f, "drained: {reason}"),
        }
    }
}

impl fmt::Display for Quarantine {
    /// Completes "the worker is …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in quarantine: {}", self.reason)
    }
}

impl fmt::Display for QuarantineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures { strikes } => {
                write!(f, "{} attempts failed there in a row: ", strikes.len())?;
                for (i, Strike { trial, attempt, cause }) in strikes.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{attempt} of {trial} ({cause})")?;
                }
                Ok(())
            }
            Self::Incident { attempt, rank, pattern, line } => {
                write!(f, "the log of rank {rank} of {attempt} matches `{pattern}`: {line}")
            }
            Self::Unhealthy { message } => f.write_str(message),
        }
    }
}

/// Whether the worker may be to blame, rather than the trial or another worker.
pub(crate) fn may_blame_worker(cause: &FailureCause) -> bool {
    match cause {
        FailureCause::TrainerExit { .. }
        | FailureCause::TrainerSignal { .. }
        | FailureCause::LaunchFailed { .. }
        | FailureCause::OutOfMemory
        | FailureCause::Stalled
        | FailureCause::Hung { .. }
        | FailureCause::StorageFull { .. }
        | FailureCause::Unhealthy { .. }
        | FailureCause::DataMissing { .. } => true,
        FailureCause::WorkerLost
        | FailureCause::Preempted
        | FailureCause::CollectiveFailed { .. }
        | FailureCause::NonFiniteLoss { .. }
        | FailureCause::SpecRejected { .. }
        | FailureCause::CheckpointIncompatible { .. } => false,
    }
}

/// Whether an attempt lost its worker, by its own fault or the worker's: no budget counts that, so it is bounded
/// apart.
pub(crate) fn loses_worker(cause: &FailureCause) -> bool {
    match cause {
        FailureCause::WorkerLost | FailureCause::Unhealthy { .. } => true,
        FailureCause::Preempted
        | FailureCause::TrainerExit { .. }
        | FailureCause::TrainerSignal { .. }
        | FailureCause::LaunchFailed { .. }
        | FailureCause::OutOfMemory
        | FailureCause::Stalled
        | FailureCause::Hung { .. }
        | FailureCause::StorageFull { .. }
        | FailureCause::CollectiveFailed { .. }
        | FailureCause::NonFiniteLoss { .. }
        | FailureCause::SpecRejected { .. }
        | FailureCause::DataMissing { .. }
        | FailureCause::CheckpointIncompatible { .. } => false,
    }
}
