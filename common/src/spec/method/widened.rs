//! Settings of methods that compute several members, or draws of one, with one network's layers.

use serde::{Deserialize, Serialize};

use super::{BatchMode, NormMode, is_default};

/// Where dropout stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropoutPlace {
    /// Between the two convolutions of each residual block.
    #[default]
    Residual,
    /// Behind the first convolution, each ReLU of a block, its last convolution, and the convolution of its shortcut:
    /// where Uncertainty Baselines has it.
    EveryLayer,
}

/// What is dropped together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropoutUnit {
    /// Each value by itself.
    #[default]
    Element,
    /// Whole channels.
    Channel,
}

/// Settings of dropout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DropoutSettings {
    /// Probability of zeroing, in [0, 1).
    pub rate: f64,
    /// Where.
    #[serde(default, skip_serializing_if = "is_default")]
    pub place: DropoutPlace,
    /// What.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unit: DropoutUnit,
    /// How often each image stands in a training batch, each time under another mask; 0 and 1 both mean once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub repetitions: u32,
}

impl Default for DropoutSettings {
    /// The rate of LP-BNN's authors.
    fn default() -> Self {
        Self { rate: 0.3, place: DropoutPlace::Residual, unit: DropoutUnit::Element, repetitions: 0 }
    }
}

/// Settings of MIMO (Havasi et al., ICLR 2021).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MimoSettings {
    /// Inputs and heads M.
    pub members: u32,
    /// Probability ρ that all heads see the same image in training, from 0 to 1.
    pub input_repetition: f64,
    /// How often each image stands in a training batch, R.
    pub batch_repetitions: u32,
}

impl Default for MimoSettings {
    /// Those of Uncertainty Baselines for CIFAR.
    fn default() -> Self {
        Self { members: 3, input_repetition: 0.0, batch_repetitions: 4 }
    }
}

/// Settings of Packed-Ensembles (Laurent et al., ICLR 2023).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PackedSettings {
    /// Members M.
    pub members: u32,
    /// Factor α of all widths.
    pub alpha: u32,
    /// Further groups γ within a member, in hidden layers.
    pub gamma: u32,
    /// A layer has fewer groups when a group would have fewer channels than this.
    pub min_channels: u32,
}

impl Default for PackedSettings {
    /// Those of the paper and of torch-uncertainty.
    fn default() -> Self {
        Self { members: 4, alpha: 2, gamma: 2, min_channels: 64 }
    }
}

/// Settings of Masksembles (Durasov et al., CVPR 2021).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MasksemblesSettings {
    /// Members M.
    pub members: u32,
    /// Scale S, from 1 to 6: the larger, the less the masks overlap.
    pub scale: f64,
    /// How a batch meets the members.
    pub batch: BatchMode,
}

impl Default for MasksemblesSettings {
    /// The authors' layers cut a batch in as many blocks as there are masks.
    fn default() -> Self {
        Self { members: 4, scale: 2.0, batch: BatchMode::Split }
    }
}

/// Settings of rank-1 BNN with Gaussian posteriors (Dusenberry et al., ICML 2020).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankOneSettings {
    /// Components J of the mixture.
    pub members: u32,
    /// Standard deviation of the prior N(1, ·²) of both vectors.
    pub prior_std: f64,
    /// Means start at +1 with this probability, else at −1.
    pub sign_probability: f64,
    /// Standard deviations start at √(p / (1 − p)) for this p.
    pub initial_dropout_rate: f64,
    /// Part of training over which the KL term's weight rises linearly from 0, from 0 to 1.
    pub kl_annealing: f64,
    /// Weight of the KL term beside its division by the number of training images.
    pub kl_weight: f64,
    /// How a batch meets the members.
    pub batch: BatchMode,
    /// Batch normalisation.
    pub norm: NormMode,
}

impl Default for RankOneSettings {
    /// Those of Uncertainty Baselines for CIFAR-10, where the annealing is 200 of 250 epochs.
    fn default() -> Self {
        Self {
            members: 4,
            prior_std: 0.1,
            sign_probability: 0.5,
            initial_dropout_rate: 1e-3,
            kl_annealing: 0.8,
            kl_weight: 1.0,
            batch: BatchMode::Repeat,
            norm: NormMode::Shared,
        }
    }
}
