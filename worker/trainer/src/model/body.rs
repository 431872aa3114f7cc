//! From images to features: one file an architecture.

use common::spec::ModelSpec;
use tch::Tensor;

use super::layers::Construction;
use super::wide_resnet::WideResNet;
use super::{ModelError, Pass};

/// A network without its last layer.
pub(crate) enum Body {
    WideResNet(WideResNet),
}

impl Body {
    /// Shapes: `input` is channels, height, width of one input, which may hold several images in its channels.
    pub(crate) fn new(
        at: &mut Construction<'_>,
        spec: &ModelSpec,
        [channels, _, _]: [i64; 3],
    ) -> Result<Self, ModelError> {
        match *spec {
            ModelSpec::WideResNet { depth, widen, variant: _ } => {
                let size = (i64::from(depth), i64::from(widen));
                Ok(Self::WideResNet(WideResNet::new(at, size, channels)?))
            }
            ModelSpec::ResNet { .. } => Err(ModelError::NotBuilt("resnet")),
            ModelSpec::Mlp { .. } => Err(ModelError::NotBuilt("mlp")),
        }
    }

    /// Features that a row of activations has.
    pub(crate) fn features(&self) -> i64 {
        match self {
            Self::WideResNet(net) => net.features(),
        }
    }

    /// Shapes: `x` is `[N, J, C, H, W]`, or `[N, 1, C, H, W]` when the members see the same images;
    /// returns features `[N·J, F]`, example-major.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        match self {
            Self::WideResNet(net) => net.forward(x, pass),
        }
    }
}
