//! Multilayer perceptron: hidden layers of one width on flattened inputs, each linear, (BN,) ReLU, dropout.

use common::spec::MlpNorm;
use tch::Tensor;

use super::layers::{Construction, Linear};
use super::norm::{BatchNorm, Place};
use super::plan::DropoutPlan;
use super::{ModelError, Pass};

struct Hidden {
    linear: Linear,
    bn: Option<BatchNorm>,
}

pub(crate) struct Mlp {
    hidden: Vec<Hidden>,
    dropout: DropoutPlan,
    features: i64,
}

impl Mlp {
    /// `inputs` are the numbers of one input.
    pub(crate) fn new(
        at: &mut Construction<'_>,
        (layers, width): (i64, i64),
        norm: MlpNorm,
        inputs: i64,
    ) -> Result<Self, ModelError> {
        let mut hidden = Vec::new();
        let mut inputs = inputs;
        for layer in 0..layers {
            let path = format!("hidden.{layer}");
            let linear = Linear::new(at, &format!("{path}.linear"), inputs, width)?;
            let bn = match norm {
                MlpNorm::None => None,
                MlpNorm::Batch => {
                    Some(BatchNorm::new(at.builder, &format!("{path}.bn"), at.plan, Place::Block, width)?)
                }
            };
            hidden.push(Hidden { linear, bn });
            inputs = width;
        }
        Ok(Self { hidden, dropout: at.plan.dropout, features: inputs })
    }

    /// Features that an example has.
    pub(crate) fn features(&self) -> i64 {
        self.features
    }

    /// Shapes: `x` is `[N, J, C, H, W]`, or `[N, 1, C, H, W]` when the members see the same inputs;
    /// returns features `[N·J, F]`, example-major.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        let mut rows = x.flatten(2, -1);
        for (place, Hidden { linear, bn }) in self.hidden.iter().enumerate() {
            let y = match place {
                0 => linear.forward_inputs(&rows, pass),
                _ => linear.forward(&rows, pass),
            };
            let y = match bn {
                Some(bn) => bn.forward_relu(&y, pass.statistics),
                None => y.relu(),
            };
            // There is no residual branch to tell the two places apart.
            rows = self.dropout.behind_layer(self.dropout.in_residual(y, pass), pass);
        }
        rows
    }
}
