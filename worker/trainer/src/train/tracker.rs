//! What some methods remember of training beside the network: means, covariances, earlier weights.
//!
//! A tracker is the same on every rank but for running statistics, which are rank 0's own. It belongs to the
//! checkpoint: a resumed run goes on with the tracker as it was.

use common::spec::TrainMethod;
use tch::Tensor;

use super::objective::Position;
use crate::model::{ModelError, NamedTensor};

/// Memory of a training run.
pub enum Tracker {
    /// None.
    Nothing,
}

impl Tracker {
    /// The tracker of `method` for a network with these tensors, as before the first step.
    ///
    /// # Errors
    ///
    /// [`ModelError`] when the settings make none.
    pub fn new(method: &TrainMethod, _network: &[NamedTensor]) -> Result<Self, ModelError> {
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
            TrainMethod::Tradi(_) => Err(ModelError::NotBuilt("tradi")),
            TrainMethod::Swag(_) => Err(ModelError::NotBuilt("swag")),
            TrainMethod::Snapshots(_) => Err(ModelError::NotBuilt("snapshot-ensemble")),
        }
    }

    /// Learning rate of the step at `position`, where the schedule says `scheduled`.
    pub fn learning_rate(&self, scheduled: f64, _position: Position) -> f64 {
        match self {
            Self::Nothing => scheduled,
        }
    }

    /// Takes note of the step at `position`: the weights are those after it, the gradients (without weight
    /// decay) and the learning rate those that it was made with.
    pub fn after_step(&mut self, _network: &[NamedTensor], _lr: f64, _position: Position) {
        match self {
            Self::Nothing => {}
        }
    }

    /// All that a checkpoint has to hold of it, by name. The tensors share storage with the tracker, and their
    /// names, shapes and kinds do not change over training.
    pub fn named_tensors(&self) -> Vec<(String, Tensor)> {
        match self {
            Self::Nothing => Vec::new(),
        }
    }
}
