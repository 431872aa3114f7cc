//! Optimisation: everything of training that is not the method, the model or the data.

use serde::{Deserialize, Serialize};

/// Stochastic gradient descent with momentum, as all methods here use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Passes over the training data.
    pub epochs: u32,
    /// Images per optimizer step, over all ranks and before members repeat them. A last incomplete batch is dropped.
    pub batch_size: u32,
    /// Learning rate before the schedule.
    pub lr: f64,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// Epochs over which the learning rate rises linearly from zero. May be fractional.
    pub warmup_epochs: f64,
    /// Momentum.
    pub momentum: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// L2 penalty added to gradients. Member-wise scales have none.
    pub weight_decay: f64,
    /// Largest global norm of the gradient. `None` for no limit.
    pub clip_norm: Option<f64>,
    /// Forget momentum at the start of each epoch, as the authors' code does.
    pub reset_momentum_each_epoch: bool,
    /// Changes of training images, applied in this order.
    pub augmentation: Vec<Augmentation>,
    /// How exactly training computes.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
}

/// Arithmetic of training. Weights, the optimizer, the last layer and the loss are in single precision with each of them, and
/// so is all of evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single precision.
    #[default]
    Fp32,
    /// As `Fp32`, with products and convolutions that round their inputs to 10 bits of mantissa, on GPUs that can.
    Tf32,
    /// Products and convolutions in bfloat16.
    Bf16,
    /// Products and convolutions in half precision, with a loss that is scaled so that gradients stay in its range.
    Fp16,
}

impl Precision {
    /// Every precision, by its name.
    pub const ALL: [(&'static str, Self); 4] =
        [("fp32", Self::Fp32), ("tf32", Self::Tf32), ("bf16", Self::Bf16), ("fp16", Self::Fp16)];

    /// Name in grid files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
        }
    }

    /// Whether specifications leave it out.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Learning rate as a factor over training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Schedule {
    /// Factor 1.
    Constant,
    /// Half a cosine from 1 to 0 over all steps after the warm-up.
    Cosine,
    /// Multiplied by `factor` after each of these epochs (epoch 80 means: from the 81st on).
    Step {
        /// Epochs, ascending.
        milestones: Vec<u32>,
        /// Factor at each milestone.
        factor: f64,
    },
    /// Half a cosine from 1 to 0 in each of so many equal parts of training; no warm-up after the first.
    Cyclic {
        /// Parts.
        cycles: u32,
    },
}

/// A random change of a training image that keeps its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Augmentation {
    /// Pad with zeros on each side, then crop the original size at a uniform position.
    Crop {
        /// Pixels on each side.
        padding: u32,
    },
    /// Mirror left and right with probability one half. Not for digits.
    Flip,
    /// After normalisation, set a square around a uniform centre to 0, cut at the borders.
    Cutout {
        /// Side of the square in pixels.
        size: u32,
    },
}
