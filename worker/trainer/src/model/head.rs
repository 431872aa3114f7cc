//! What stands on the features of a network: from features to logits.
//!
//! Whatever a head is, the softmax of its logits are the predicted probabilities: a head whose scores are no logits
//! gives the logarithm of what is normalised.

use tch::Tensor;

use super::layers::{Construction, Linear};
use super::plan::HeadPlan;
use super::{ModelError, Pass};

/// The last layer of a network.
pub(crate) enum Head {
    Linear(Linear),
}

impl Head {
    pub(crate) fn new(at: &mut Construction<'_>, features: i64, classes: i64) -> Result<Self, ModelError> {
        // Members that share rows have their outputs side by side.
        let classes = classes * (at.plan.members / at.plan.rows);
        match &at.plan.head {
            HeadPlan::Linear => Ok(Self::Linear(Linear::new(at, "linear", features, classes)?)),
            HeadPlan::Duq(_) => Err(ModelError::NotBuilt("duq")),
            HeadPlan::GaussianProcess(_) => Err(ModelError::NotBuilt("sngp")),
        }
    }

    /// Weight and bias of an ordinary linear head.
    pub(crate) fn linear(&self) -> Option<(&Tensor, &Tensor)> {
        match self {
            Self::Linear(linear) => linear.ordinary(),
        }
    }

    /// Shapes: `features` is `[N·J, F]`, example-major; returns logits `[N·J, K]`.
    pub(crate) fn forward(&self, features: &Tensor, pass: &Pass<'_>) -> Tensor {
        match self {
            Self::Linear(linear) => linear.forward(features, pass),
        }
    }
}
