//! What a trial computes. A specification is complete: with the data it determines the result, and its
//! digest names the trial (see [`TrialSpec::key`]).
//!
//! How often a checkpoint is written or progress is shown is not part of it, because the result does not
//! depend on it; see [`RunPolicy`].

mod data;
mod method;
mod model;
mod recipe;
mod workload;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use data::{Corruption, DataSpec, DatasetName, OodSource, ShiftSource, ShiftSpec, Task};
pub use method::{
    BatchEnsemblePreset, BatchEnsembleSettings, BatchMode, BiasMode, DropoutPlace, DropoutSettings,
    DropoutUnit, DuqSettings, Encode, EvidenceActivation, EvidentialLoss, EvidentialSettings, KlReduction,
    LaplaceCurvature, LaplaceSettings, LatentSampling, LogVariance, LossDivisor, LpBnnPreset, LpBnnSettings,
    MasksemblesSettings, MimoSettings, NormMode, PackedSettings, Predictor, RankOneSettings, ScaleInit,
    SnapshotPlace, SnapshotSettings, SngpSettings, SwagSettings, TradiSettings, TrainMethod,
};
pub use model::{MlpNorm, ModelSpec, ParseModelError, ResNetDepth, ResNetForm, WideResNetVariant};
pub use recipe::{Augmentation, Precision, Recipe, Schedule};
pub use workload::Workload;

use crate::{Digest, TrialKey};

/// Version of the trainer's arithmetic. Raised when the same specification would give other numbers, so
/// that old results are not reused for new ones.
pub const NUMERICS: u32 = 1;

/// Version of what evaluations compute and report. Raised by itself: new scores are no reason to train again.
pub const EVALUATION_NUMERICS: u32 = 2;

/// One unit of scheduling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "trial", rename_all = "kebab-case")]
pub enum TrialSpec {
    /// Fit one network.
    Train(TrainSpec),
    /// Predict with trained networks, and score the predictions.
    Evaluate(EvaluateSpec),
}

/// Fit one network with `world_size` data-parallel ranks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSpec {
    /// Uncertainty method, as far as it changes training.
    pub method: TrainMethod,
    /// Data set and split.
    pub data: DataSpec,
    /// Network.
    pub model: ModelSpec,
    /// Optimisation.
    pub recipe: Recipe,
    /// Weights to start from instead of random ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<Pretrained>,
    /// Seed of every draw of the trial.
    pub seed: u64,
    /// Ranks. The global batch does not depend on it, the last bits of the sums do.
    pub world_size: u32,
    /// Fewest ranks that an elastic trial may run with; `world_size` is then the most. `None`: exactly `world_size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_world_size: Option<u32>,
    /// [`NUMERICS`] of the build that expanded the grid.
    pub numerics: u32,
}

/// A file of weights in torchvision's layout, named by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pretrained {
    /// Name of the safetensors file in the folder `weights` of the workers' data folder.
    pub file: String,
    /// BLAKE3 digest of its bytes.
    pub digest: Digest,
}

/// Predict on the test split and on out-of-distribution data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluateSpec {
    /// How members' predictions are made.
    pub predictor: Predictor,
    /// The networks to predict with, at least one; several form an ensemble, in this order. All have the
    /// same data and model.
    pub networks: Vec<TrainSpec>,
    /// Out-of-distribution sets to detect. May be empty.
    pub ood: Vec<OodSource>,
    /// Corrupted test images to predict. `None` for no such evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<ShiftSpec>,
    /// Seed of the draws at test time.
    pub seed: u64,
    /// Images per forward pass and member. Fixed here, because it decides the draws of stochastic layers.
    pub batch_size: u32,
    /// [`EVALUATION_NUMERICS`] of the build that expanded the grid.
    pub numerics: u32,
}

impl TrialSpec {
    /// Name of the trial: digest of the canonical JSON form.
    ///
    /// Fields are written in the order of their declaration and numbers in their shortest exact form, so
    /// equal specifications have equal text.
    pub fn key(&self) -> TrialKey {
        let mut text = b"credence trial 1\n".to_vec();
        text.extend(self.to_json().into_bytes());
        TrialKey(Digest::of(&text))
    }

    /// Canonical JSON form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a specification holds only numbers, strings, lists and structs")
    }

    /// Its own seed, then those of the networks that it reads.
    pub fn seeds_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        let (own, networks) = match self {
            Self::Train(train) => (&mut train.seed, [].as_mut_slice()),
            Self::Evaluate(evaluate) => (&mut evaluate.seed, evaluate.networks.as_mut_slice()),
        };
        std::iter::once(own).chain(networks.iter_mut().map(|network| &mut network.seed))
    }

    /// Slots that an attempt needs: one a rank.
    pub fn slots(&self) -> u32 {
        match self {
            Self::Train(train) => train.world_size,
            Self::Evaluate(_) => 1,
        }
    }

    /// Fewest slots that an attempt needs.
    pub fn min_slots(&self) -> u32 {
        match self {
            Self::Train(train) => train.min_world_size.unwrap_or(train.world_size),
            Self::Evaluate(_) => 1,
        }
    }

    /// Whether attempts may have different numbers of ranks.
    pub fn is_elastic(&self) -> bool {
        self.min_slots() < self.slots()
    }

    /// Whether an attempt may have so many ranks: within the limits, and the global batch is shared evenly.
    pub fn allows(&self, ranks: u32) -> bool {
        match self {
            Self::Train(train) => {
                (self.min_slots()..=train.world_size).contains(&ranks)
                    && (ranks == train.world_size || train.recipe.batch_size.is_multiple_of(ranks))
            }
            Self::Evaluate(_) => ranks == 1,
        }
    }

    /// Trials whose checkpoints this one reads.
    pub fn needs(&self) -> Vec<TrialKey> {
        match self {
            Self::Train(_) => Vec::new(),
            Self::Evaluate(evaluate) => {
                evaluate.networks.iter().map(|train| Self::Train(train.clone()).key()).collect()
            }
        }
    }
}

/// How a trial is run, as far as its result does not depend on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RunPolicy {
    /// Steps between checkpoints; `None` for no limit by steps.
    pub checkpoint_steps: Option<u64>,
    /// Time between checkpoints; `None` for no limit by time.
    pub checkpoint_interval: Option<Duration>,
    /// Steps between metric rows.
    pub metrics_steps: u64,
    /// Failures that count before the trial is given up.
    pub max_failures: u32,
    /// What a worker must have to run it.
    #[serde(default, skip_serializing_if = "Requirements::is_empty")]
    pub requires: Requirements,
    /// How each checkpoint of a train trial is scored, of one whose best checkpoint is kept beside the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_best: Option<Scoring>,
    /// Whether only algorithms are used that give the same bits each time. Always so on a CPU.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deterministic: bool,
    /// Whether images and weights lie in memory pixel by pixel, which tensor cores read faster.
    #[serde(default, skip_serializing_if = "is_false")]
    pub channels_last: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// How a network in training predicts the images that are held out for validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Scoring {
    /// Passes over each image, of methods that draw: as many as its evaluation makes.
    pub samples: u32,
    /// Images per forward pass and member.
    pub batch_size: u32,
}

/// What a worker must have to run a trial. Nothing, unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Requirements {
    /// Labels that the worker must have, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Kind of device, like `cuda`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Memory that each slot must offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
}

impl Requirements {
    /// Whether any worker will do.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.device.is_none() && self.memory_mib.is_none()
    }
}

impl fmt::Display for Requirements {
    /// `device cuda, gpu = h100, 16000 MiB a slot`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.iter().map(|device| format!("device {device}"));
        let labels = self.labels.iter().map(|(key, value)| format!("{key} = {value}"));
        let memory = self.memory_mib.iter().map(|mib| format!("{mib} MiB a slot"));
        f.write_str(&device.chain(labels).chain(memory).collect::<Vec<_>>().join(", "))
    }
}

impl Default for RunPolicy {
    fn default() -> Self {
        Self {
            checkpoint_steps: None,
            checkpoint_interval: Some(Duration::from_secs(60)),
            metrics_steps: 10,
            max_failures: 3,
            requires: Requirements::default(),
            keep_best: None,
            deterministic: false,
            channels_last: false,
        }
    }
}
