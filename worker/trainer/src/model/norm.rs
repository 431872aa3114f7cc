//! Batch normalisation, shared by the members or one for each.

use common::spec::NormMode;
use tch::{TchError, Tensor};

use super::builder::{Builder, Init};
use super::plan::Plan;

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
}

/// Place of a normalisation in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Block,
    Last,
}

/// Batch normalisation over rows and space.
pub(crate) struct BatchNorm {
    momentum: f64,
    /// J, with one normalisation per member.
    members: Option<i64>,
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
        let (members, shape, weight) = match plan.norm {
            NormMode::Shared => (None, vec![channels], Init::Constant(1.0)),
            NormMode::PerMember => (
                Some(plan.members),
                vec![plan.members, channels],
                Init::Normal { mean: 1.0, std: MEMBER_WEIGHT_STD },
            ),
        };
        Ok(Self {
            members,
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

    /// relu(BN(x)), which is all that the network needs of it.
    ///
    /// Shapes: `x` is `[J·N, C, H, W]`, member-major, and so is what is returned.
    pub(crate) fn forward_relu(&self, x: &Tensor, statistics: Statistics) -> Tensor {
        match self.members {
            None => self.normalize(x, statistics, Tensor::shallow_clone),
            Some(members) => {
                let blocks = x.chunk(members, 0);
                let normalized: Vec<Tensor> = (0..members)
                    .zip(&blocks)
                    .map(|(member, block)| self.normalize(block, statistics, |rows| rows.get(member)))
                    .collect();
                Tensor::cat(&normalized, 0)
            }
        }
    }

    fn normalize(&self, x: &Tensor, statistics: Statistics, part: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let mut y = x.batch_norm(
            Some(part(&self.weight)),
            Some(part(&self.bias)),
            Some(part(&self.running_mean)),
            Some(part(&self.running_var)),
            statistics == Statistics::Batch,
            self.momentum,
            EPS,
            true,
        );
        // In place: the gradient of a normalisation does not need its output.
        y.relu_()
    }
}
