//! What stands on the features of a network: from features to logits.
//!
//! Whatever a head is, the softmax of its logits are the predicted probabilities: a head whose scores are no logits
//! gives the logarithm of what is normalised.

use common::spec::EvidenceActivation;
use tch::Tensor;

use super::layers::{Construction, Linear};
use super::norm::Statistics;
use super::plan::HeadPlan;
use super::{ModelError, Pass};
use crate::uq::duq::DuqHead;
use crate::uq::evidential;
use crate::uq::sngp::GaussianProcess;

/// The last layer of a network.
pub(crate) enum Head {
    Linear(Linear),
    Evidential(Linear, EvidenceActivation),
    Duq(DuqHead),
    GaussianProcess(GaussianProcess),
}

impl Head {
    pub(crate) fn new(at: &mut Construction<'_>, features: i64, classes: i64) -> Result<Self, ModelError> {
        // Members that share rows have their outputs side by side.
        let classes = classes * (at.plan.members / at.plan.rows);
        match &at.plan.head {
            HeadPlan::Linear => Ok(Self::Linear(Linear::last(at, "linear", features, classes)?)),
            HeadPlan::Evidential(activation) => {
                Ok(Self::Evidential(Linear::last(at, "linear", features, classes)?, *activation))
            }
            HeadPlan::Duq(settings) => Ok(Self::Duq(DuqHead::new(at.builder, settings, features, classes)?)),
            HeadPlan::GaussianProcess(settings) => {
                Ok(Self::GaussianProcess(GaussianProcess::new(at.builder, settings, features, classes)?))
            }
        }
    }

    /// Weight and bias of an ordinary linear head.
    pub(crate) fn linear(&self) -> Option<(&Tensor, &Tensor)> {
        match self {
            Self::Linear(linear) => linear.ordinary(),
            Self::Evidential(..) | Self::Duq(_) | Self::GaussianProcess(_) => None,
        }
    }

    /// Shapes: `features` is `[N·J, F]`, example-major; returns logits `[N·J, K]`.
    pub(crate) fn forward(&self, features: &Tensor, pass: &Pass<'_>) -> Tensor {
        match self {
            Self::Linear(linear) => linear.forward(features, pass),
            Self::Evidential(linear, activation) => {
                evidential::log_concentration(&linear.forward(features, pass), *activation)
            }
            Self::Duq(duq) => duq.forward(features),
            Self::GaussianProcess(process) => match pass.statistics {
                Statistics::Batch => process.forward(features),
                Statistics::Running | Statistics::Averaged { .. } => process.forward_mean_field(features),
            },
        }
    }
}
