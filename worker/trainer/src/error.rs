//! Why a rank cannot go on, and what the agent is told about it.

use std::error::Error;

use common::{FailureCause, TrialKey};
use datasets::ShardingError;
use metrics::{GaussianError, PredictionsError, ReportError, ShiftNameError};
use tch::TchError;

use crate::checkpoint::CheckpointError;
use crate::data::DataProblem;
use crate::device::DeviceError;
use crate::group::GroupError;
use crate::model::ModelError;
use crate::pretrained::PretrainedError;
use crate::storage::StorageError;

/// Why a rank cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    /// The specification was made for another trainer.
    #[error(
        "the specification is of numerics {found}, this trainer computes numerics {expected}: \
         use the trainer that belongs to the coordinator"
    )]
    Numerics {
        /// What the specification says.
        found: u32,
        /// What this trainer computes.
        expected: u32,
    },
    /// The launch starts another number of ranks than the trial has.
    #[error("the trial runs with {allowed} ranks, but {found} were launched")]
    WorldSize {
        /// What the specification allows, in words.
        allowed: String,
        /// Of the launch.
        found: u32,
    },
    /// An evaluation without networks, or with other checkpoints than it needs.
    #[error("the evaluation needs the networks {}, but was given {}", keys(expected), keys(found))]
    Networks {
        /// Trials of the specification.
        expected: Vec<TrialKey>,
        /// Trials of the launch.
        found: Vec<TrialKey>,
    },
    /// The networks of an ensemble do not classify the same thing.
    #[error("the networks of an ensemble must have the same data and model")]
    MixedEnsemble,
    /// A prediction of nothing.
    #[error("{what} must be at least 1")]
    Zero {
        /// The setting.
        what: &'static str,
    },
    /// More kept networks than the training kept.
    #[error("the evaluation asks for the last {asked} kept networks, the training kept {kept}")]
    Snapshots {
        /// Of the evaluation.
        asked: u32,
        /// Of the training.
        kept: u32,
    },
    /// The network cannot be built.
    #[error("the model is refused")]
    Model(#[from] ModelError),
    /// The data is not there, or the specification of it is wrong.
    #[error("no data")]
    Data(#[from] DataProblem),
    /// The weights to start from are not there, or are others.
    #[error("the network cannot start")]
    Pretrained(#[from] PretrainedError),
    /// The batch cannot be divided.
    #[error("the batch size is refused")]
    Sharding(#[from] ShardingError),
    /// A checkpoint of another trial, or one that an evaluation needs and cannot read.
    #[error("a checkpoint cannot be used")]
    Checkpoint(#[from] CheckpointError),
    /// A result cannot be written.
    #[error("cannot write a result")]
    Storage(#[from] StorageError),
    /// Loss or gradient became NaN or infinite.
    #[error(
        "loss or gradient were not finite at step {step}: lower the learning rate, add a warm-up, \
         or set a limit for the gradient's norm (`clip_norm`)"
    )]
    NonFiniteLoss {
        /// The first such step, counted from 1.
        step: u64,
    },
    /// A collective failed, or ranks that must agree do not.
    #[error("the process group failed")]
    Group(#[from] GroupError),
    /// There is no device for the rank.
    #[error("the rank has no device")]
    Device(#[from] DeviceError),
    /// A method that reads gradients, in half precision.
    #[error("the method reads gradients, which `precision = \"fp16\"` scales: use `bf16`, `tf32` or `fp32`")]
    ReadsGradients,
    /// libtorch refused.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
    /// libtorch refused what tch does not offer.
    #[error("libtorch failed")]
    Shim(#[from] c10d::ErrorKind),
    /// The network's outputs are no probabilities.
    #[error("the predictions cannot be scored")]
    Predictions(#[from] PredictionsError),
    /// A corrupted test set has a name or a severity that no table has.
    #[error("the corrupted test images are refused")]
    Shift(#[from] ShiftNameError),
    /// The network's outputs are no Gaussians.
    #[error("the predictions cannot be scored")]
    Gaussian(#[from] GaussianError),
    /// A method or predictor that is about classes.
    #[error("{0} predicts classes, and the data set has none")]
    OnlyClasses(&'static str),
    /// The metrics cannot be computed.
    #[error("the predictions cannot be compared")]
    Report(#[from] ReportError),
}

impl TrainerError {
    /// What the agent is told. `rank` is the rank that reports it.
    pub fn cause(&self, rank: u32) -> FailureCause {
        match self {
            Self::Numerics { .. }
            | Self::WorldSize { .. }
            | Self::Networks { .. }
            | Self::MixedEnsemble
            | Self::Zero { .. }
            | Self::Snapshots { .. }
            | Self::Sharding(_)
            | Self::Shift(_)
            | Self::OnlyClasses(_)
            | Self::ReadsGradients
            | Self::Report(_) => self.spec_rejected(),
            Self::Device(_) => FailureCause::LaunchFailed { message: chain(self) },
            Self::Shim(error) => cause_of_text(&error.to_string()),
            Self::Model(ModelError::Torch(error)) => torch_cause(error),
            Self::Model(_) => self.spec_rejected(),
            Self::Data(problem) => self.data_cause(problem),
            Self::Pretrained(error) => match error {
                PretrainedError::File { .. } | PretrainedError::Digest { .. } => {
                    FailureCause::DataMissing { message: chain(error) }
                }
                PretrainedError::Model(_) | PretrainedError::Mismatch { .. } => self.spec_rejected(),
            },
            Self::Checkpoint(error) => match error {
                CheckpointError::Incompatible { .. } => {
                    FailureCause::CheckpointIncompatible { message: chain(error) }
                }
                CheckpointError::Unreadable(_)
                | CheckpointError::NoHeader { .. }
                | CheckpointError::Damaged { .. } => FAILED,
            },
            Self::NonFiniteLoss { step } => FailureCause::NonFiniteLoss { step: *step },
            Self::Group(error) => group_cause(error, rank),
            Self::Torch(error) => torch_cause(error),
            Self::Storage(error) if error.is_full() => FailureCause::StorageFull { message: chain(error) },
            Self::Storage(_) | Self::Predictions(_) | Self::Gaussian(_) => FAILED,
        }
    }

    fn data_cause(&self, problem: &DataProblem) -> FailureCause {
        match problem {
            DataProblem::Files(_) => FailureCause::DataMissing { message: chain(problem) },
            DataProblem::HeldOut(_)
            | DataProblem::NothingHeldOut
            | DataProblem::Validation(_)
            | DataProblem::Corruption(_)
            | DataProblem::Severity(_)
            | DataProblem::NotFar { .. }
            | DataProblem::NoImages
            | DataProblem::OtherShape { .. }
            | DataProblem::AugmentationOrder
            | DataProblem::AugmentationSize(_)
            | DataProblem::Batcher(_) => self.spec_rejected(),
        }
    }

    fn spec_rejected(&self) -> FailureCause {
        FailureCause::SpecRejected { message: chain(self) }
    }
}

/// No cause of the contract fits; the log and a warning say more.
const FAILED: FailureCause = FailureCause::TrainerExit { code: common::report::exit::FAILED };

/// Backward runs within the process group, so a lack of memory there comes as its failure.
fn group_cause(error: &GroupError, rank: u32) -> FailureCause {
    match error {
        GroupError::Collective(error) if is_out_of_memory(&error.to_string()) => FailureCause::OutOfMemory,
        GroupError::Collective(error) if error.rank.world_size() == 1 => FAILED,
        GroupError::Collective(_)
        | GroupError::Rank { .. }
        | GroupError::Host { .. }
        | GroupError::Address(_)
        | GroupError::NoRendezvous(_)
        | GroupError::Diverged => FailureCause::CollectiveFailed { rank },
    }
}

fn torch_cause(error: &TchError) -> FailureCause {
    cause_of_text(&error.to_string())
}

/// Cause of a failure of which only text is known: a panic, or an exception of libtorch.
pub fn cause_of_text(text: &str) -> FailureCause {
    if is_out_of_memory(text) { FailureCause::OutOfMemory } else { FAILED }
}

/// Knows the words of c10's CPU and CUDA allocators.
fn is_out_of_memory(text: &str) -> bool {
    text.contains("can't allocate memory") || text.contains("out of memory")
}

/// The error and its sources, outermost first.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Some libraries print their source themselves.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

fn keys(keys: &[TrialKey]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| key.0.short()).collect();
    format!("[{}]", keys.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocators_complaint_is_out_of_memory() {
        let cpu = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes";
        for text in [cpu, "CUDA out of memory. Tried to allocate 2 GiB"] {
            assert_eq!(cause_of_text(text), FailureCause::OutOfMemory);
        }
        assert_eq!(cause_of_text("index out of range"), FAILED);
    }

    #[test]
    fn a_missing_data_set_and_a_wrong_one_have_different_causes() {
        let wrong = TrainerError::Data(DataProblem::NothingHeldOut);
        assert!(matches!(wrong.cause(0), FailureCause::SpecRejected { .. }));
        let folder = std::path::Path::new("no such folder");
        let data = common::spec::DataSpec {
            set: common::spec::DatasetName::Cifar10,
            held_out: Vec::new(),
            train_limit: None,
            test_limit: None,
            allow_subset: true,
            validation: 0,
        };
        let missing = TrainerError::from(crate::data::test(&data, folder).unwrap_err());
        assert!(matches!(missing.cause(0), FailureCause::DataMissing { .. }));
    }
}
