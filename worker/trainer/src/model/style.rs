//! What the layers of a model are like before a method changes them: which have biases, and how weights start.

use common::spec::{ModelSpec, WideResNetVariant};

use super::builder::Init;
use crate::uq::batch_ensemble::LayerKind;

/// Standard deviation of a standard normal variable that is kept within two of its standard deviations.
const TRUNCATED_STD: f64 = 0.879_625_661_034_239_8;

/// Conventions of the program that a model is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// PyTorch's defaults: biases in all layers, all uniform on ±1/√fan-in.
    PyTorch,
    /// torchvision's ResNets: convolutions without biases, from N(0, 2/fan-out); linear layers as PyTorch's.
    Torchvision,
    /// Zagoruyko's: convolutions without biases, all weights from N(0, 2/fan-in), biases 0.
    He,
    /// Uncertainty Baselines': as `He`, with normal draws cut at two standard deviations, as Keras draws them.
    TruncatedHe,
}

impl Style {
    pub(crate) fn of(spec: &ModelSpec) -> Self {
        match spec {
            ModelSpec::WideResNet { variant, .. } => match variant {
                WideResNetVariant::Authors => Self::PyTorch,
                WideResNetVariant::Original => Self::He,
                WideResNetVariant::UncertaintyBaselines => Self::TruncatedHe,
            },
            ModelSpec::ResNet { .. } => Self::Torchvision,
            ModelSpec::Mlp { .. } => Self::PyTorch,
        }
    }

    /// First values of a weight.
    pub(crate) fn weight(self, kind: LayerKind, fan_in: i64, fan_out: i64) -> Init {
        let std = |fan: i64| (2.0 / fan as f64).sqrt();
        match (self, kind) {
            (Self::PyTorch, _) | (Self::Torchvision, LayerKind::Linear) => Init::fan_in(fan_in),
            (Self::Torchvision, LayerKind::Convolution) => Init::Normal { mean: 0.0, std: std(fan_out) },
            (Self::He, _) => Init::Normal { mean: 0.0, std: std(fan_in) },
            (Self::TruncatedHe, _) => Init::TruncatedNormal { mean: 0.0, std: std(fan_in) / TRUNCATED_STD },
        }
    }

    /// First values of the biases of a layer that has some.
    pub(crate) fn bias(self, kind: LayerKind, fan_in: i64) -> Option<Init> {
        match (self, kind) {
            (Self::PyTorch, _) | (Self::Torchvision, LayerKind::Linear) => Some(Init::fan_in(fan_in)),
            (Self::He | Self::TruncatedHe, LayerKind::Linear) => Some(Init::Constant(0.0)),
            (Self::Torchvision | Self::He | Self::TruncatedHe, LayerKind::Convolution) => None,
        }
    }
}
