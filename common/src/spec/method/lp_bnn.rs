//! Settings of LP-BNN, and the presets that name them.

use serde::{Deserialize, Serialize};

use super::{BatchMode, NormMode, is_default};

/// Whether a layer's decoded vector is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LatentSampling {
    /// Decode a sample of the latent posterior, in training and in prediction.
    Sampled,
    /// Decode the encoder's hidden layer, as the authors' convolutions do: an auto-encoder.
    Autoencoder,
}

/// How the KL term of a layer is reduced over members and latent dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KlReduction {
    /// Sum over J·d.
    Sum,
    /// Mean over J·d.
    Mean,
}

/// What the sum of the layers' latent losses is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossDivisor {
    /// L + 1: the counter of the authors' code starts at 1.
    LayersPlusOne,
    /// L.
    Layers,
}

/// Where the latent log-variance comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogVariance {
    /// A head of its own.
    Separate,
    /// The mean's head, once more: the bug of the authors' code before June 2023.
    MeanHead,
}

/// Which of a member's two vectors a layer's VAE encodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encode {
    /// The input side, α, as in every published program.
    #[default]
    Alpha,
    /// The output side, γ.
    Gamma,
    /// Both, each by a VAE of its own.
    Both,
}

/// Settings of LP-BNN. See `docs/methods/lp-bnn.md` for the equations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LpBnnSettings {
    /// Members J.
    pub members: u32,
    /// Latent size d of every layer's VAE.
    pub latent: u32,
    /// Factor s of the latent standard deviation.
    pub std_factor: f64,
    /// Sampling in convolutions.
    pub conv_sampling: LatentSampling,
    /// Sampling in the last linear layer.
    pub linear_sampling: LatentSampling,
    /// Whether the code vectors of convolutions are trained.
    pub conv_codes_trainable: bool,
    /// Whether the code vectors of the last linear layer are trained.
    pub linear_codes_trainable: bool,
    /// Standard deviation of the Gaussian around 1 that initialises codes.
    pub code_std: f64,
    /// Standard deviation of the Gaussian around 1 that initialises γ.
    pub scale_std: f64,
    /// Source of the log-variance.
    pub log_variance: LogVariance,
    /// Reduction of the KL term.
    pub kl_reduction: KlReduction,
    /// Weight of the KL term.
    pub kl_weight: f64,
    /// Weight of the reconstruction term.
    pub reconstruction_weight: f64,
    /// Divisor of the sum over layers.
    pub loss_divisor: LossDivisor,
    /// Batch normalisation.
    pub norm: NormMode,
    /// How a batch meets the members.
    pub batch: BatchMode,
    /// What is encoded. A vector that is not encoded is trained as in BatchEnsemble.
    #[serde(default, skip_serializing_if = "is_default")]
    pub encode: Encode,
}

/// Named settings of LP-BNN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LpBnnPreset {
    /// What the paper describes: sampled in every layer, frozen codes.
    Paper,
    /// The authors' code since June 2023.
    Official,
    /// The authors' code at publication.
    #[serde(rename = "official-2020")]
    Official2020,
    /// The torch-uncertainty library's version, with the row layout put right.
    TorchUncertainty,
}

impl LpBnnPreset {
    /// Every preset.
    pub const ALL: [Self; 4] = [Self::Paper, Self::Official, Self::Official2020, Self::TorchUncertainty];

    /// Name as written in grid files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Official => "official",
            Self::Official2020 => "official-2020",
            Self::TorchUncertainty => "torch-uncertainty",
        }
    }

    /// The settings that the name stands for.
    pub fn settings(self) -> LpBnnSettings {
        let paper = LpBnnSettings {
            members: 4,
            latent: 32,
            std_factor: 1.0,
            conv_sampling: LatentSampling::Sampled,
            linear_sampling: LatentSampling::Sampled,
            conv_codes_trainable: false,
            linear_codes_trainable: false,
            code_std: 0.5,
            scale_std: 0.5,
            log_variance: LogVariance::Separate,
            kl_reduction: KlReduction::Sum,
            kl_weight: 1.0,
            reconstruction_weight: 1.0,
            loss_divisor: LossDivisor::LayersPlusOne,
            norm: NormMode::PerMember,
            batch: BatchMode::Repeat,
            encode: Encode::Alpha,
        };
        let official = LpBnnSettings {
            conv_sampling: LatentSampling::Autoencoder,
            linear_codes_trainable: true,
            ..paper.clone()
        };
        match self {
            Self::Paper => paper,
            Self::Official => official,
            Self::Official2020 => {
                LpBnnSettings { log_variance: LogVariance::MeanHead, batch: BatchMode::Split, ..official }
            }
            Self::TorchUncertainty => LpBnnSettings {
                std_factor: 0.01,
                code_std: 0.1,
                scale_std: 0.1,
                loss_divisor: LossDivisor::Layers,
                norm: NormMode::Shared,
                ..paper
            },
        }
    }
}
