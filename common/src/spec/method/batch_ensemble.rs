//! Settings of BatchEnsemble.

use serde::{Deserialize, Serialize};

use super::{BatchMode, NormMode, is_default};

/// Whose biases a converted layer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BiasMode {
    /// One row of biases per member.
    #[default]
    PerMember,
    /// None in convolutions, one per member in the last linear layer.
    LinearOnly,
}

/// First values of a member's rank-1 vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ScaleInit {
    /// Gaussian around 1, of the settings' `scale_std`.
    #[default]
    Gaussian,
    /// +1 with this probability, else −1.
    RandomSign {
        /// Probability of +1, from 0 to 1.
        probability: f64,
    },
}

/// Settings of BatchEnsemble.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchEnsembleSettings {
    /// Members J.
    pub members: u32,
    /// Standard deviation of the Gaussian around 1 that initialises both rank-1 vectors.
    pub scale_std: f64,
    /// Whether the 1×1 convolutions of shortcuts get member-wise vectors too.
    pub convert_shortcuts: bool,
    /// How a batch meets the members.
    pub batch: BatchMode,
    /// Batch normalisation.
    pub norm: NormMode,
    /// How the rank-1 vectors start.
    #[serde(default, skip_serializing_if = "is_default")]
    pub init: ScaleInit,
    /// Biases of convolutions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bias: BiasMode,
    /// Learning rate of the rank-1 vectors and of everything else that is a member's own, as a part of the recipe's.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub member_lr_factor: f64,
}

fn whole() -> f64 {
    1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_whole(factor: &f64) -> bool {
    *factor == 1.0
}

impl Default for BatchEnsembleSettings {
    fn default() -> Self {
        BatchEnsemblePreset::Authors.settings()
    }
}

/// Named settings of BatchEnsemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchEnsemblePreset {
    /// The version of LP-BNN's authors: shared normalisation, ordinary shortcuts, repeated batch.
    Authors,
    /// That of BatchEnsemble's own authors, in Uncertainty Baselines: every layer converted, no biases in
    /// convolutions, member-wise parameters at half of the learning rate.
    Original,
}

impl BatchEnsemblePreset {
    /// Every preset.
    pub const ALL: [Self; 2] = [Self::Authors, Self::Original];

    /// Name as written in grid files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Authors => "authors",
            Self::Original => "original",
        }
    }

    /// The settings that the name stands for.
    pub fn settings(self) -> BatchEnsembleSettings {
        let authors = BatchEnsembleSettings {
            members: 4,
            scale_std: 0.5,
            convert_shortcuts: false,
            batch: BatchMode::Repeat,
            norm: NormMode::Shared,
            init: ScaleInit::Gaussian,
            bias: BiasMode::PerMember,
            member_lr_factor: 1.0,
        };
        match self {
            Self::Authors => authors,
            Self::Original => BatchEnsembleSettings {
                convert_shortcuts: true,
                bias: BiasMode::LinearOnly,
                member_lr_factor: 0.5,
                ..authors
            },
        }
    }
}
