//! Settings of single networks whose outputs know how far an input is from the training data.

use serde::{Deserialize, Serialize};

/// Loss of an evidential network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvidentialLoss {
    /// Bayes risk of the squared error: Σ (y − p̂)² + p̂ (1 − p̂) / (S + 1).
    SquaredError,
    /// Negative log of the marginal likelihood: Σ y (ln S − ln α).
    Log,
    /// Bayes risk of the cross-entropy: Σ y (ψ(S) − ψ(α)).
    Digamma,
}

/// From outputs to evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvidenceActivation {
    /// max(0, ·), as in the paper.
    Relu,
    /// ln(1 + exp ·).
    Softplus,
    /// exp ·, of outputs limited to ±10.
    Exp,
}

/// Settings of evidential deep learning (Sensoy et al., NeurIPS 2018).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidentialSettings {
    /// Loss.
    pub loss: EvidentialLoss,
    /// Evidence.
    pub activation: EvidenceActivation,
    /// Epochs over which the weight of the KL term rises from 0 to 1.
    pub annealing_epochs: f64,
}

impl Default for EvidentialSettings {
    fn default() -> Self {
        Self {
            loss: EvidentialLoss::SquaredError,
            activation: EvidenceActivation::Relu,
            annealing_epochs: 10.0,
        }
    }
}

/// Settings of DUQ (van Amersfoort et al., ICML 2020).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DuqSettings {
    /// Dimensions of the space of each class; `None`: as many as features.
    pub embedding: Option<u32>,
    /// Length scale σ of the kernel.
    pub length_scale: f64,
    /// Weight of the old centroids in each update, γ.
    pub centroid_momentum: f64,
    /// Weight of the two-sided gradient penalty; 0 for none.
    pub gradient_penalty: f64,
}

impl Default for DuqSettings {
    fn default() -> Self {
        Self { embedding: None, length_scale: 0.1, centroid_momentum: 0.999, gradient_penalty: 0.5 }
    }
}

/// Settings of SNGP (Liu et al., NeurIPS 2020).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SngpSettings {
    /// Largest spectral norm of a hidden layer.
    pub spectral_bound: f64,
    /// Power iterations per step.
    pub power_iterations: u32,
    /// Random features of the Gaussian process.
    pub features: u32,
    /// Length scale ℓ of its kernel exp(−‖x − x'‖² / 2ℓ²).
    pub length_scale: f64,
    /// Ridge of the precision matrix.
    pub ridge: f64,
    /// Factor λ of the mean-field approximation of the predictive; 0 for plain logits.
    pub mean_field_factor: f64,
}

impl Default for SngpSettings {
    /// Those of Uncertainty Baselines for CIFAR-10, where the frequencies have a fixed deviation of 0.05: a length
    /// scale of 20 with frequencies of deviation 1.
    fn default() -> Self {
        Self {
            spectral_bound: 6.0,
            power_iterations: 1,
            features: 1024,
            length_scale: 20.0,
            ridge: 1.0,
            mean_field_factor: 20.0,
        }
    }
}
