//! What attempts leave: checkpoints, artifacts, results, and causes of failure.

use common::FailureCause;
use common::result::{Artifact, Checkpoint, Score, TrialResult};

use super::{ConvertError, Converted, digest, narrow};
use crate::v1;

impl From<Checkpoint> for v1::Checkpoint {
    fn from(checkpoint: Checkpoint) -> Self {
        let Checkpoint { step, digest, bytes, score } = checkpoint;
        Self { step, digest: digest.to_string(), bytes, score: score.map(Score::value) }
    }
}

impl TryFrom<v1::Checkpoint> for Checkpoint {
    type Error = ConvertError;

    fn try_from(wire: v1::Checkpoint) -> Converted<Self> {
        let digest = digest(&wire.digest, "checkpoint.digest")?;
        Ok(Self::new(wire.step, digest, wire.bytes).scored(wire.score.and_then(Score::new)))
    }
}

impl From<Artifact> for v1::Artifact {
    fn from(artifact: Artifact) -> Self {
        let Artifact { name, digest, bytes } = artifact;
        Self { name, digest: digest.to_string(), bytes }
    }
}

impl TryFrom<v1::Artifact> for Artifact {
    type Error = ConvertError;

    fn try_from(wire: v1::Artifact) -> Converted<Self> {
        Ok(Self { name: wire.name, digest: digest(&wire.digest, "artifact.digest")?, bytes: wire.bytes })
    }
}

impl From<TrialResult> for v1::TrialResult {
    fn from(result: TrialResult) -> Self {
        Self {
            metrics: result.metrics.iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            artifacts: result.artifacts.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::TrialResult> for TrialResult {
    type Error = ConvertError;

    fn try_from(wire: v1::TrialResult) -> Converted<Self> {
        let artifacts = wire.artifacts.into_iter().map(Artifact::try_from).collect::<Converted<_>>()?;
        Ok(Self { metrics: wire.metrics.into_iter().collect(), artifacts })
    }
}

impl From<FailureCause> for v1::FailureCause {
    fn from(cause: FailureCause) -> Self {
        use v1::FailureKind as Wire;
        let mut wire = Self::default();
        let (kind, number, message) = match cause {
            FailureCause::WorkerLost => (Wire::WorkerLost, 0, String::new()),
            FailureCause::Preempted => (Wire::Preempted, 0, String::new()),
            FailureCause::TrainerExit { code } => (Wire::TrainerExit, code.into(), String::new()),
            FailureCause::TrainerSignal { signal } => (Wire::TrainerSignal, signal.into(), String::new()),
            FailureCause::LaunchFailed { message } => (Wire::LaunchFailed, 0, message),
            FailureCause::OutOfMemory => (Wire::OutOfMemory, 0, String::new()),
            FailureCause::Stalled => (Wire::Stalled, 0, String::new()),
            FailureCause::Hung { rank, worker, step, phase, silent_ms } => {
                (wire.worker, wire.step, wire.silent_ms) = (worker, step, silent_ms);
                (Wire::Hung, rank.into(), phase)
            }
            FailureCause::StorageFull { message } => (Wire::StorageFull, 0, message),
            FailureCause::Unhealthy { message } => (Wire::Unhealthy, 0, message),
            FailureCause::CollectiveFailed { rank } => (Wire::CollectiveFailed, rank.into(), String::new()),
            FailureCause::NonFiniteLoss { step } => {
                (Wire::NonFiniteLoss, i64::try_from(step).unwrap_or(i64::MAX), String::new())
            }
            FailureCause::SpecRejected { message } => (Wire::SpecRejected, 0, message),
            FailureCause::DataMissing { message } => (Wire::DataMissing, 0, message),
            FailureCause::CheckpointIncompatible { message } => (Wire::CheckpointIncompatible, 0, message),
        };
        Self { kind: kind.into(), number, message, ..wire }
    }
}

impl TryFrom<v1::FailureCause> for FailureCause {
    type Error = ConvertError;

    fn try_from(wire: v1::FailureCause) -> Converted<Self> {
        use v1::FailureKind as Wire;
        let unknown = ConvertError::UnknownEnum { field: "failure.kind", value: wire.kind };
        let v1::FailureCause { kind, number, message, worker, step, silent_ms } = wire;
        let kind = Wire::try_from(kind)
            .map_err(|_| ConvertError::UnknownEnum { field: "failure.kind", value: kind })?;
        Ok(match kind {
            Wire::Unspecified => return Err(unknown),
            Wire::WorkerLost => Self::WorkerLost,
            Wire::Preempted => Self::Preempted,
            Wire::TrainerExit => Self::TrainerExit { code: narrow(number, "failure.number")? },
            Wire::TrainerSignal => Self::TrainerSignal { signal: narrow(number, "failure.number")? },
            Wire::LaunchFailed => Self::LaunchFailed { message },
            Wire::OutOfMemory => Self::OutOfMemory,
            Wire::Stalled => Self::Stalled,
            Wire::Hung => {
                let rank = narrow(number, "failure.number")?;
                Self::Hung { rank, worker, step, phase: message, silent_ms }
            }
            Wire::StorageFull => Self::StorageFull { message },
            Wire::Unhealthy => Self::Unhealthy { message },
            Wire::CollectiveFailed => Self::CollectiveFailed { rank: narrow(number, "failure.number")? },
            Wire::NonFiniteLoss => Self::NonFiniteLoss { step: narrow(number, "failure.number")? },
            Wire::SpecRejected => Self::SpecRejected { message },
            Wire::DataMissing => Self::DataMissing { message },
            Wire::CheckpointIncompatible => Self::CheckpointIncompatible { message },
        })
    }
}
