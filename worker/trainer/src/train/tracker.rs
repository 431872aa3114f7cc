//! What some methods remember of training beside the network: means, covariances, earlier weights.
//!
//! A tracker is the same on every rank but for running statistics, which are rank 0's own. It belongs to the
//! checkpoint: a resumed run goes on with the tracker as it was.

use common::spec::TrainMethod;
use tch::Tensor;

use super::objective::Position;
use crate::model::{ModelError, NamedTensor};
use crate::uq::snapshots::SnapshotTracker;
use crate::uq::swag::SwagTracker;
use crate::uq::tradi::TradiTracker;

/// Memory of a training run.
pub enum Tracker {
    /// None.
    Nothing,
    /// Means and variances of TRADI.
    Tradi(TradiTracker),
    /// Moments of SWAG.
    Swag(SwagTracker),
    /// Kept networks.
    Snapshots(SnapshotTracker),
}

impl Tracker {
    /// The tracker of `method` for a network with these tensors, as before the first step of a training of `length`.
    ///
    /// # Errors
    ///
    /// [`ModelError`] when the settings make none, or training is too short for it.
    pub fn new(method: &TrainMethod, network: &[NamedTensor], length: Position) -> Result<Self, ModelError> {
        match method {
            TrainMethod::Deterministic
            | TrainMethod::Dropout(_)
            | TrainMethod::BatchEnsemble(_)
            | TrainMethod::LpBnn(_)
            | TrainMethod::RankOne(_)
            | TrainMethod::Mimo(_)
            | TrainMethod::Packed(_)
            | TrainMethod::Masksembles(_)
            | TrainMethod::Evidential(_)
            | TrainMethod::Duq(_)
            | TrainMethod::Sngp(_) => Ok(Self::Nothing),
            TrainMethod::Tradi(settings) => Ok(Self::Tradi(TradiTracker::new(settings, network))),
            TrainMethod::Swag(settings) => Ok(Self::Swag(SwagTracker::new(settings, network, length)?)),
            TrainMethod::Snapshots(settings) => {
                Ok(Self::Snapshots(SnapshotTracker::new(settings, network, length)?))
            }
        }
    }

    /// Learning rate of the step at `position`, where the schedule says `scheduled`.
    pub fn learning_rate(&self, scheduled: f64, position: Position) -> f64 {
        match self {
            Self::Nothing | Self::Tradi(_) | Self::Snapshots(_) => scheduled,
            Self::Swag(swag) => swag.learning_rate(scheduled, position.done),
        }
    }

    /// Takes note of the step at `position`: the weights are those after it, the gradients (without weight
    /// decay) and the learning rate those that it was made with.
    pub fn after_step(&mut self, network: &[NamedTensor], lr: f64, position: Position) {
        match self {
            Self::Nothing => {}
            Self::Tradi(tradi) => tradi.after_step(network, lr, position.done),
            Self::Swag(swag) => swag.after_step(network, position.done),
            Self::Snapshots(snapshots) => snapshots.after_step(network, position.done),
        }
    }

    /// All that a checkpoint has to hold of it, by name. The tensors share storage with the tracker, and their
    /// names, shapes and kinds do not change over training.
    pub fn named_tensors(&self) -> Vec<(String, Tensor)> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Tradi(tradi) => tradi.named_tensors(),
            Self::Swag(swag) => swag.named_tensors(),
            Self::Snapshots(snapshots) => snapshots.named_tensors(),
        }
    }

    /// Of these tensors, those that must be the same on every rank.
    pub fn learned(&self) -> Vec<Tensor> {
        match self {
            Self::Nothing | Self::Tradi(_) | Self::Swag(_) => {
                self.named_tensors().into_iter().map(|(_, tensor)| tensor).collect()
            }
            Self::Snapshots(snapshots) => snapshots.learned(),
        }
    }

    /// What a user should know before a training of so many steps.
    pub fn warnings(&self, total_steps: u64) -> Vec<String> {
        match self {
            Self::Nothing | Self::Swag(_) | Self::Snapshots(_) => Vec::new(),
            Self::Tradi(tradi) => tradi.warnings(total_steps),
        }
    }
}
