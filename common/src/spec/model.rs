//! Networks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::method::is_default;

/// A network, without the changes that a method makes to its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "kebab-case")]
pub enum ModelSpec {
    /// WideResNet-d-k.
    WideResNet {
        /// Depth, 6n + 4.
        depth: u32,
        /// Factor of the widths 16, 32, 64.
        widen: u32,
        /// Which of the programs is followed.
        #[serde(default, skip_serializing_if = "is_default")]
        variant: WideResNetVariant,
    },
    /// ResNet.
    #[serde(rename = "resnet")]
    ResNet {
        /// Depth.
        depth: ResNetDepth,
        /// First layers.
        form: ResNetForm,
    },
    /// Multilayer perceptron on flattened inputs.
    Mlp {
        /// Hidden layers.
        layers: u32,
        /// Units of each.
        width: u32,
        /// Whether hidden layers are normalised by batch.
        #[serde(default, skip_serializing_if = "is_default")]
        norm: MlpNorm,
    },
}

/// Programs that differ in what a WideResNet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WideResNetVariant {
    /// That of LP-BNN's authors: biases in convolutions, stride on the second convolution of a block, shortcut on the
    /// raw input, PyTorch's initial values.
    #[default]
    Authors,
    /// That of the paper's authors: no biases in convolutions, stride on the first convolution of a block, shortcut on
    /// the input after normalisation and ReLU, He's initial values.
    Original,
    /// Uncertainty Baselines': as the original, with shortcuts on the raw input.
    UncertaintyBaselines,
}

/// Depths of ResNet that are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub enum ResNetDepth {
    /// Basic blocks, 2-2-2-2.
    D18,
    /// Basic blocks, 3-4-6-3.
    D34,
    /// Bottlenecks, 3-4-6-3.
    D50,
}

impl From<ResNetDepth> for u32 {
    fn from(depth: ResNetDepth) -> Self {
        match depth {
            ResNetDepth::D18 => 18,
            ResNetDepth::D34 => 34,
            ResNetDepth::D50 => 50,
        }
    }
}

impl TryFrom<u32> for ResNetDepth {
    type Error = ParseModelError;

    fn try_from(depth: u32) -> Result<Self, ParseModelError> {
        match depth {
            18 => Ok(Self::D18),
            34 => Ok(Self::D34),
            50 => Ok(Self::D50),
            other => Err(ParseModelError::ResNetDepth(other)),
        }
    }
}

/// First layers of a ResNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResNetForm {
    /// 7×7 convolution of stride 2 and max pooling, as torchvision has it.
    ImageNet,
    /// 3×3 convolution of stride 1, no pooling, for images of 32×32.
    Cifar,
}

/// Normalisation of a perceptron's hidden layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MlpNorm {
    /// None.
    #[default]
    None,
    /// By batch, before the activation.
    Batch,
}

/// Text that names no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseModelError {
    /// Not of a known form.
    #[error(
        "`{0}` is not a model: expected `wrn-DEPTH-WIDEN`, like `wrn-28-10`, with `-original` or `-ub` behind \
         for other variants; `resnet-18`, `-34` or `-50`, for small images with `-cifar` behind; or `mlp-LAYERS-WIDTH`, with batch \
         normalisation `mlp-LAYERS-WIDTH-bn`"
    )]
    Unknown(String),
    /// No WideResNet has this depth.
    #[error("depth {0} is not 6n + 4 with n ≥ 1: try 10, 16, 22, 28, 40")]
    Depth(u32),
    /// A width of zero, or beyond any machine.
    #[error("widening factor {0} is not between 1 and 64")]
    Widen(u32),
    /// No ResNet of this depth is built.
    #[error("there is no ResNet of depth {0} here: take 18, 34 or 50")]
    ResNetDepth(u32),
    /// Layers or width of zero, or beyond any machine.
    #[error("a perceptron of {0} hidden layers of {1} units: take 1 to 64 layers of 1 to 65536 units")]
    Mlp(u32, u32),
}

impl FromStr for ModelSpec {
    type Err = ParseModelError;

    fn from_str(text: &str) -> Result<Self, ParseModelError> {
        let unknown = || ParseModelError::Unknown(text.to_owned());
        let number = |text: &str| text.parse::<u32>().map_err(|_| unknown());
        let parts: Vec<&str> = text.split('-').collect();
        match parts.as_slice() {
            ["wrn", depth, widen] => wide_resnet(number(depth)?, number(widen)?, WideResNetVariant::Authors),
            ["wrn", depth, widen, "original"] => {
                wide_resnet(number(depth)?, number(widen)?, WideResNetVariant::Original)
            }
            ["wrn", depth, widen, "ub"] => {
                wide_resnet(number(depth)?, number(widen)?, WideResNetVariant::UncertaintyBaselines)
            }
            ["resnet", depth] => {
                Ok(Self::ResNet { depth: number(depth)?.try_into()?, form: ResNetForm::ImageNet })
            }
            ["resnet", depth, "cifar"] => {
                Ok(Self::ResNet { depth: number(depth)?.try_into()?, form: ResNetForm::Cifar })
            }
            ["mlp", layers, width] => mlp(number(layers)?, number(width)?, MlpNorm::None),
            ["mlp", layers, width, "bn"] => mlp(number(layers)?, number(width)?, MlpNorm::Batch),
            _ => Err(unknown()),
        }
    }
}

fn wide_resnet(depth: u32, widen: u32, variant: WideResNetVariant) -> Result<ModelSpec, ParseModelError> {
    if !(10..=1_000).contains(&depth) || depth % 6 != 4 {
        return Err(ParseModelError::Depth(depth));
    }
    if !(1..=64).contains(&widen) {
        return Err(ParseModelError::Widen(widen));
    }
    Ok(ModelSpec::WideResNet { depth, widen, variant })
}

fn mlp(layers: u32, width: u32, norm: MlpNorm) -> Result<ModelSpec, ParseModelError> {
    if !(1..=64).contains(&layers) || !(1..=65_536).contains(&width) {
        return Err(ParseModelError::Mlp(layers, width));
    }
    Ok(ModelSpec::Mlp { layers, width, norm })
}

impl fmt::Display for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::WideResNet { depth, widen, variant } => {
                let suffix = match variant {
                    WideResNetVariant::Authors => "",
                    WideResNetVariant::Original => "-original",
                    WideResNetVariant::UncertaintyBaselines => "-ub",
                };
                write!(f, "wrn-{depth}-{widen}{suffix}")
            }
            Self::ResNet { depth, form } => {
                let suffix = match form {
                    ResNetForm::ImageNet => "",
                    ResNetForm::Cifar => "-cifar",
                };
                write!(f, "resnet-{}{suffix}", u32::from(depth))
            }
            Self::Mlp { layers, width, norm } => {
                let suffix = match norm {
                    MlpNorm::None => "",
                    MlpNorm::Batch => "-bn",
                };
                write!(f, "mlp-{layers}-{width}{suffix}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_reads_back_as_it_was_printed() {
        for name in [
            "wrn-28-10",
            "wrn-28-10-original",
            "wrn-28-10-ub",
            "resnet-18",
            "resnet-50-cifar",
            "mlp-3-100",
            "mlp-2-64-bn",
        ] {
            let model: ModelSpec = name.parse().unwrap();
            assert_eq!(model.to_string(), name);
            let json = serde_json::to_string(&model).unwrap();
            assert_eq!(serde_json::from_str::<ModelSpec>(&json).unwrap(), model, "{json}");
        }
    }

    #[test]
    fn the_name_of_a_trial_of_before_there_were_variants_stays() {
        let json = serde_json::to_string(&"wrn-28-10".parse::<ModelSpec>().unwrap()).unwrap();
        assert_eq!(json, r#"{"family":"wide-res-net","depth":28,"widen":10}"#);
    }

    #[test]
    fn a_depth_that_no_network_has_is_refused() {
        assert_eq!("wrn-12-1".parse::<ModelSpec>(), Err(ParseModelError::Depth(12)));
        assert_eq!("wrn-4-1".parse::<ModelSpec>(), Err(ParseModelError::Depth(4)));
        assert_eq!("resnet-19".parse::<ModelSpec>(), Err(ParseModelError::ResNetDepth(19)));
        assert_eq!("mlp-0-10".parse::<ModelSpec>(), Err(ParseModelError::Mlp(0, 10)));
        assert!(matches!("resnet-18-tiny".parse::<ModelSpec>(), Err(ParseModelError::Unknown(_))));
    }
}
