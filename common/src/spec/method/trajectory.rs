//! Settings of methods that read a posterior off an ordinary network's training, or fit one to its end.

use serde::{Deserialize, Serialize};

/// Settings of TRADI (Franchi et al., ECCV 2020): the noise of its two Kalman filters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TradiSettings {
    /// Process noise of the means.
    pub mean_noise: f64,
    /// Process noise of the variances.
    pub variance_noise: f64,
    /// Observation noise of both.
    pub observation_noise: f64,
}

impl Default for TradiSettings {
    /// Those of the authors' program.
    fn default() -> Self {
        Self { mean_noise: 1e-4, variance_noise: 5e-5, observation_noise: 10.0 }
    }
}

/// Settings of SWAG (Maddox et al., NeurIPS 2019).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SwagSettings {
    /// Part of training after which the learning rate is constant and weights are collected, in (0, 1).
    pub start: f64,
    /// Learning rate from then on.
    pub lr: f64,
    /// Columns of the low-rank part of the covariance.
    pub rank: u32,
    /// Times per epoch that weights are collected, at least 1.
    pub collections_per_epoch: u32,
}

impl Default for SwagSettings {
    fn default() -> Self {
        Self { start: 0.75, lr: 0.01, rank: 20, collections_per_epoch: 1 }
    }
}

/// Which networks a snapshot ensemble keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotPlace {
    /// That at the end of each equal part of training: with a cyclic schedule, a snapshot ensemble
    /// (Huang et al., ICLR 2017).
    CycleEnds,
    /// Those at the end of the last epochs: a checkpoint ensemble (Chen et al., 2017).
    LastEpochs,
}

/// Settings of snapshot and checkpoint ensembles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSettings {
    /// Networks to keep, M.
    pub count: u32,
    /// Which.
    pub place: SnapshotPlace,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self { count: 4, place: SnapshotPlace::CycleEnds }
    }
}

/// Form of the last layer's curvature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LaplaceCurvature {
    /// Kronecker product of the features' second moment and the outputs' curvature.
    Kronecker,
    /// The whole generalised Gauss-Newton matrix.
    Full,
}

/// Settings of Laplace's approximation in the last layer (Daxberger et al., NeurIPS 2021).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaplaceSettings {
    /// Curvature.
    pub curvature: LaplaceCurvature,
    /// Precision of the prior; `None`: that of the largest marginal likelihood.
    pub prior_precision: Option<f64>,
}

impl Default for LaplaceSettings {
    fn default() -> Self {
        Self { curvature: LaplaceCurvature::Kronecker, prior_precision: None }
    }
}
