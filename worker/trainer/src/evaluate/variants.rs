//! The networks that one trained network stands for in prediction: itself, or draws from a posterior over its weights.

use common::spec::Predictor;

use crate::checkpoint::Checkpoint;
use crate::error::TrainerError;
use crate::model::{ModelError, Network};

/// Variants of one network, made one after the other in the network's own tensors.
pub enum Variants {
    /// Only the network as it was trained.
    Trained,
}

impl Variants {
    /// Variants of `network`, which `checkpoint` was restored to.
    ///
    /// # Errors
    ///
    /// [`TrainerError`] when the checkpoint does not hold what the predictor reads.
    pub fn new(
        predictor: &Predictor,
        _checkpoint: &Checkpoint,
        _network: &Network,
    ) -> Result<Self, TrainerError> {
        match predictor {
            Predictor::Direct { .. } | Predictor::McDropout { .. } => Ok(Self::Trained),
            Predictor::Tradi { .. } => Err(ModelError::NotBuilt("tradi").into()),
            Predictor::Swag { .. } => Err(ModelError::NotBuilt("swag").into()),
            Predictor::Snapshots { .. } => Err(ModelError::NotBuilt("snapshots").into()),
            Predictor::LastLayerLaplace(_) => Err(ModelError::NotBuilt("laplace").into()),
        }
    }

    /// How many variants one network has, known before there is one.
    pub fn count(predictor: &Predictor) -> u64 {
        match *predictor {
            Predictor::Direct { .. } | Predictor::McDropout { .. } | Predictor::LastLayerLaplace(_) => 1,
            Predictor::Tradi { samples, .. } | Predictor::Swag { samples, .. } => u64::from(samples),
            Predictor::Snapshots { count } => u64::from(count),
        }
    }

    /// Makes `network` the variant `index`.
    ///
    /// # Errors
    ///
    /// [`TrainerError`] when libtorch refuses.
    pub fn apply(&mut self, _index: u64, _network: &Network) -> Result<(), TrainerError> {
        match self {
            Self::Trained => Ok(()),
        }
    }
}
