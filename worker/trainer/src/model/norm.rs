//! Batch normalisation, shared by the members or one for each.

use common::spec::NormMode;
use tch::{TchError, Tensor};

use super::builder::{Builder, Init};
use super::plan::Plan;
use crate::uq::packed;

const EPS: f64 = 1e-5;

/// Deviation around 1 of the initial weights where each member has its own, as in the authors' code.
const MEMBER_WEIGHT_STD: f64 = 0.1;

/// Which statistics normalise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statistics {
    /// The batch's; the running ones are updated.
    Batch,
    /// The running ones.
    Running,
    /// The batch's; the running ones become the mean over all images since `seen` was 0, as bn_update of the programs
    /// of SWAG and TRADI has it.
    Averaged {
        /// Images before the batch.
        seen: i64,
        /// Images of the batch.
        batch: i64,
    },
}

impl Statistics {
    fn are_of_batch(self) -> bool {
        match self {
            Self::Batch | Self::Averaged { .. } => true,
            Self::Running => false,
        }
    }

    /// Weight of the newest batch in the running statistics.
    fn momentum(self, usual: f64) -> f64 {
        match self {
            Self::Batch | Self::Running => usual,
            Self::Averaged { seen, batch } => batch as f64 / (seen + batch) as f64,
        }
    }
}

/// Place of a normalisation in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Block,
    /// Before the last layer, where the authors' WideResNet has another momentum.
    Last,
}

/// Batch normalisation over rows and space.
///
/// Per member, the J·C channels of an example are normalised as the channels of one image: with rows
/// example-major that is a view, so J normalisations cost one kernel and no copy.
///
/// Images stay in the order C, H, W in memory. With channels last the kernels are faster, but on processors
/// they then sum in single precision: with 512 images of 32×32 the variance is off by 2e-4 of itself, where
/// these are off by 6e-8.
pub(crate) struct BatchNorm {
    momentum: f64,
    /// `[C]`, or `[J, C]` with one normalisation per member; likewise the other three.
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

impl BatchNorm {
    pub(crate) fn new(
        builder: &mut Builder,
        path: &str,
        plan: &Plan,
        place: Place,
        channels: i64,
    ) -> Result<Self, TchError> {
        let channels = packed::widened(plan, channels);
        let (shape, weight) = match plan.norm {
            NormMode::Shared => (vec![channels], Init::Constant(1.0)),
            NormMode::PerMember => {
                (vec![plan.rows, channels], Init::Normal { mean: 1.0, std: MEMBER_WEIGHT_STD })
            }
        };
        Ok(Self {
            momentum: match place {
                Place::Block => plan.momentum,
                Place::Last => plan.last_momentum,
            },
            weight: builder.weight(format!("{path}.weight"), &shape, weight)?,
            bias: builder.weight(format!("{path}.bias"), &shape, Init::Constant(0.0))?,
            running_mean: builder.buffer(format!("{path}.running_mean"), &shape, Init::Constant(0.0))?,
            running_var: builder.buffer(format!("{path}.running_var"), &shape, Init::Constant(1.0))?,
        })
    }

    /// relu(BN(x)).
    ///
    /// Shapes: as [`forward`](Self::forward).
    pub(crate) fn forward_relu(&self, x: &Tensor, statistics: Statistics) -> Tensor {
        // In place: the gradient of a normalisation does not need its output.
        self.forward(x, statistics).relu_()
    }

    /// BN(x).
    ///
    /// Shapes: `x` is `[N·J, C, ..]`, example-major, and so is what is returned.
    pub(crate) fn forward(&self, x: &Tensor, statistics: Statistics) -> Tensor {
        let shape = x.size();
        let mut by_member = vec![-1, self.weight.numel() as i64];
        by_member.extend(&shape[2..]);
        let y = x.reshape(&by_member[..]).batch_norm(
            Some(self.weight.flatten(0, -1)),
            Some(self.bias.flatten(0, -1)),
            Some(self.running_mean.flatten(0, -1)),
            Some(self.running_var.flatten(0, -1)),
            statistics.are_of_batch(),
            statistics.momentum(self.momentum),
            EPS,
            true,
        );
        y.reshape(&shape[..])
    }
}
