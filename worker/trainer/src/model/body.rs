//! From images to features: one file an architecture.

use common::spec::ModelSpec;
use tch::Tensor;

use super::layers::Construction;
use super::mlp::Mlp;
use super::resnet::ResNet;
use super::wide_resnet::WideResNet;
use super::{ModelError, Pass};

/// A network without its last layer.
pub(crate) enum Body {
    WideResNet(WideResNet),
    ResNet(ResNet),
    Mlp(Mlp),
}

impl Body {
    /// Shapes: `input` is channels, height, width of one input, which may hold several images in its channels.
    pub(crate) fn new(
        at: &mut Construction<'_>,
        spec: &ModelSpec,
        [channels, height, width]: [i64; 3],
    ) -> Result<Self, ModelError> {
        match *spec {
            ModelSpec::WideResNet { depth, widen, variant } => {
                let size = (i64::from(depth), i64::from(widen));
                Ok(Self::WideResNet(WideResNet::new(at, size, variant, channels)?))
            }
            ModelSpec::ResNet { depth, form } => Ok(Self::ResNet(ResNet::new(at, depth, form, channels)?)),
            ModelSpec::Mlp { layers, width: units, norm } => {
                let size = (i64::from(layers), i64::from(units));
                Ok(Self::Mlp(Mlp::new(at, size, norm, channels * height * width)?))
            }
        }
    }

    /// Features that a row of activations has.
    pub(crate) fn features(&self) -> i64 {
        match self {
            Self::WideResNet(net) => net.features(),
            Self::ResNet(net) => net.features(),
            Self::Mlp(net) => net.features(),
        }
    }

    /// Shapes: `x` is `[N, J, C, H, W]`, or `[N, 1, C, H, W]` when the members see the same images;
    /// returns features `[N·J, F]`, example-major.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        match self {
            Self::WideResNet(net) => net.forward(x, pass),
            Self::ResNet(net) => net.forward(x, pass),
            Self::Mlp(net) => net.forward(x, pass),
        }
    }
}
