//! Uncertainty methods: what each changes in training ([`TrainMethod`]) and in prediction ([`Predictor`]).
//!
//! Defaults are those that the method's authors published; where their programs and papers disagree, the page of the
//! method in `docs/methods/` says which is followed.

mod batch_ensemble;
mod distance;
mod lp_bnn;
mod trajectory;
mod widened;

use serde::{Deserialize, Serialize};

pub use batch_ensemble::{BatchEnsemblePreset, BatchEnsembleSettings, BiasMode, ScaleInit};
pub use distance::{DuqSettings, EvidenceActivation, EvidentialLoss, EvidentialSettings, SngpSettings};
pub use lp_bnn::{Encode, KlReduction, LatentSampling, LogVariance, LossDivisor, LpBnnPreset, LpBnnSettings};
pub use trajectory::{
    LaplaceCurvature, LaplaceSettings, SnapshotPlace, SnapshotSettings, SwagSettings, TradiSettings,
};
pub use widened::{
    DropoutPlace, DropoutSettings, DropoutUnit, MasksemblesSettings, MimoSettings, PackedSettings,
    RankOneSettings,
};

/// What a method changes in training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TrainMethod {
    /// One ordinary network. Also the member of a Deep Ensemble.
    Deterministic,
    /// Dropout, kept on at test time by [`Predictor::McDropout`].
    Dropout(DropoutSettings),
    /// One shared weight and two rank-1 vectors per member and layer.
    BatchEnsemble(BatchEnsembleSettings),
    /// BatchEnsemble whose input-side vectors are decoded from a small VAE per layer.
    LpBnn(LpBnnSettings),
    /// BatchEnsemble whose rank-1 vectors have Gaussian posteriors.
    RankOne(RankOneSettings),
    /// Several inputs through one network, and a head for each.
    Mimo(MimoSettings),
    /// Members side by side in grouped convolutions.
    Packed(PackedSettings),
    /// Members that each see a fixed subset of the channels.
    Masksembles(MasksemblesSettings),
    /// Outputs are evidence for a Dirichlet distribution.
    Evidential(EvidentialSettings),
    /// Distance to a centroid per class, in a space kept sensitive by a gradient penalty.
    Duq(DuqSettings),
    /// Spectrally normalised features below a random-feature Gaussian process.
    Sngp(SngpSettings),
    /// One ordinary network; mean and variance of each weight are tracked by a Kalman filter.
    Tradi(TradiSettings),
    /// One ordinary network; mean and low-rank covariance of its weights late in training.
    Swag(SwagSettings),
    /// One ordinary network, kept as it was at several moments of training.
    Snapshots(SnapshotSettings),
}

impl TrainMethod {
    /// Members that one network holds: predictions of one forward pass.
    pub fn members(&self) -> u32 {
        match self {
            Self::Deterministic
            | Self::Dropout(_)
            | Self::Evidential(_)
            | Self::Duq(_)
            | Self::Sngp(_)
            | Self::Tradi(_)
            | Self::Swag(_)
            | Self::Snapshots(_) => 1,
            Self::BatchEnsemble(settings) => settings.members,
            Self::LpBnn(settings) => settings.members,
            Self::RankOne(settings) => settings.members,
            Self::Mimo(settings) => settings.members,
            Self::Packed(settings) => settings.members,
            Self::Masksembles(settings) => settings.members,
        }
    }

    /// Whether it can predict numbers as well as classes.
    pub fn can_regress(&self) -> bool {
        match self {
            Self::Deterministic
            | Self::Dropout(_)
            | Self::BatchEnsemble(_)
            | Self::LpBnn(_)
            | Self::RankOne(_)
            | Self::Mimo(_)
            | Self::Packed(_)
            | Self::Masksembles(_)
            | Self::Tradi(_)
            | Self::Swag(_)
            | Self::Snapshots(_) => true,
            // A Dirichlet distribution, centroids of classes, a mean field of class scores.
            Self::Evidential(_) | Self::Duq(_) | Self::Sngp(_) => false,
        }
    }

    /// Members that a training batch is divided among; `None` when every member sees the whole batch.
    pub fn split_members(&self) -> Option<u32> {
        let (batch, members) = match self {
            Self::Deterministic
            | Self::Dropout(_)
            | Self::Mimo(_)
            | Self::Packed(_)
            | Self::Evidential(_)
            | Self::Duq(_)
            | Self::Sngp(_)
            | Self::Tradi(_)
            | Self::Swag(_)
            | Self::Snapshots(_) => return None,
            Self::BatchEnsemble(settings) => (settings.batch, settings.members),
            Self::LpBnn(settings) => (settings.batch, settings.members),
            Self::RankOne(settings) => (settings.batch, settings.members),
            Self::Masksembles(settings) => (settings.batch, settings.members),
        };
        match batch {
            BatchMode::Repeat => None,
            BatchMode::Split => Some(members),
        }
    }
}

/// How a batch meets the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchMode {
    /// Every member sees the whole batch: J·B rows.
    Repeat,
    /// The batch is cut in J blocks, one for each member: B rows.
    Split,
}

/// Whose statistics a batch normalisation keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormMode {
    /// One normalisation per member, with its own affine parameters and running statistics.
    PerMember,
    /// One for all members.
    Shared,
}

/// How the members' predictions of an evaluation are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Predictor {
    /// One forward pass of each network; its members are the prediction's members.
    Direct {
        /// Draws per member, averaged into one prediction each. 1 for networks without draws.
        samples_per_member: u32,
    },
    /// Dropout kept on, normalisation in evaluation mode.
    McDropout {
        /// Forward passes.
        samples: u32,
    },
    /// Networks drawn from the weights that [`TrainMethod::Tradi`] tracked.
    Tradi {
        /// Networks.
        samples: u32,
        /// Random features of the approximate Gaussian process over a layer's weights.
        features: u32,
    },
    /// Networks drawn from the posterior that [`TrainMethod::Swag`] collected.
    Swag {
        /// Networks.
        samples: u32,
        /// Factor of the standard deviation; 0 is stochastic weight averaging.
        scale: f64,
    },
    /// Each kept network of [`TrainMethod::Snapshots`] is a member.
    Snapshots {
        /// The last so many of those kept.
        count: u32,
    },
    /// Laplace's approximation in the last linear layer of an ordinary network.
    LastLayerLaplace(LaplaceSettings),
}

impl Predictor {
    /// Passes of one network over each image, of predictors that draw in a pass.
    pub fn samples(&self) -> u32 {
        match *self {
            Self::Direct { samples_per_member } => samples_per_member,
            Self::McDropout { samples } => samples,
            Self::Tradi { .. } | Self::Swag { .. } | Self::Snapshots { .. } | Self::LastLayerLaplace(_) => 1,
        }
    }

    /// Whether it can predict numbers as well as classes.
    pub fn can_regress(&self) -> bool {
        match self {
            Self::Direct { .. }
            | Self::McDropout { .. }
            | Self::Tradi { .. }
            | Self::Swag { .. }
            | Self::Snapshots { .. } => true,
            Self::LastLayerLaplace(_) => false,
        }
    }
}

/// Whether a setting has its default, which specifications leave out: those of before it existed keep their text,
/// and so their name.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
