//! What trials leave behind: checkpoints, artifacts, results.

mod scores;

use serde::{Deserialize, Serialize};

pub use scores::Scores;

use crate::Digest;

/// A checkpoint that is stored whole. It exists when this record does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Optimizer steps done.
    pub step: u64,
    /// Content of the file.
    pub digest: Digest,
    /// Size in bytes.
    pub bytes: u64,
}

/// A file that a trial leaves for its users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Name within the trial, like `predictions.safetensors`.
    pub name: String,
    /// Content of the file.
    pub digest: Digest,
    /// Size in bytes.
    pub bytes: u64,
}

/// What a trial that succeeded reports about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrialResult {
    /// Scores and costs by name, for example `accuracy` or `train_seconds`.
    pub metrics: Scores,
    /// Files, by name.
    pub artifacts: Vec<Artifact>,
}

/// One measured value of a running trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricRow {
    /// Optimizer steps done.
    pub step: u64,
    /// Name, for example `loss` or `kl/conv1`.
    pub name: String,
    /// Value.
    pub value: f64,
}
