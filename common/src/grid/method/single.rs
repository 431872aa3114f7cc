//! Settings of methods that train one ordinary network, or one with another head.

use super::super::read::{At, Bounds, Located, Section, Setting};
use super::super::recipe::{NON_NEGATIVE, POSITIVE, RecipeLayer};
use super::{Work, count, network, real, word};
use crate::spec::{
    DuqSettings, EvidenceActivation, EvidentialLoss, EvidentialSettings, LaplaceCurvature, LaplaceSettings,
    Predictor, SnapshotPlace, SnapshotSettings, SngpSettings, SwagSettings, TradiSettings, TrainMethod,
};

const LOSS: [(&str, EvidentialLoss); 3] = [
    ("squared-error", EvidentialLoss::SquaredError),
    ("log", EvidentialLoss::Log),
    ("digamma", EvidentialLoss::Digamma),
];
const ACTIVATION: [(&str, EvidenceActivation); 3] = [
    ("relu", EvidenceActivation::Relu),
    ("softplus", EvidenceActivation::Softplus),
    ("exp", EvidenceActivation::Exp),
];
const CURVATURE: [(&str, LaplaceCurvature); 2] =
    [("kronecker", LaplaceCurvature::Kronecker), ("full", LaplaceCurvature::Full)];
const INSIDE: Bounds = Bounds { text: "a number above 0 and below 1", hold: |x| x > 0.0 && x < 1.0 };
const MOMENTUM: Bounds =
    Bounds { text: "a number of at least 0 and below 1", hold: |x| (0.0..1.0).contains(&x) };

pub(super) fn evidential(section: &mut Section<'_>) -> Option<Work> {
    let default = EvidentialSettings::default();
    let loss = word(section, "loss", &LOSS, default.loss);
    let activation = word(section, "activation", &ACTIVATION, default.activation);
    let annealing = real(section, "annealing-epochs", &NON_NEGATIVE, default.annealing_epochs);
    let settings = EvidentialSettings { loss: loss?, activation: activation?, annealing_epochs: annealing? };
    Some(network(TrainMethod::Evidential(settings), 1))
}

pub(super) fn duq(section: &mut Section<'_>) -> Option<Work> {
    let default = DuqSettings::default();
    let embedding = section.set("embedding", |v| v.or_none(|v| v.integer(1..=65_536))).or(default.embedding);
    let length_scale = real(section, "length-scale", &POSITIVE, default.length_scale);
    let momentum = real(section, "centroid-momentum", &MOMENTUM, default.centroid_momentum);
    let penalty = real(section, "gradient-penalty", &NON_NEGATIVE, default.gradient_penalty);
    let settings = DuqSettings {
        embedding: embedding?,
        length_scale: length_scale?,
        centroid_momentum: momentum?,
        gradient_penalty: penalty?,
    };
    Some(network(TrainMethod::Duq(settings), 1))
}

pub(super) fn sngp(section: &mut Section<'_>) -> Option<Work> {
    let default = SngpSettings::default();
    let bound = real(section, "spectral-bound", &POSITIVE, default.spectral_bound);
    let iterations = count(section, "power-iterations", 100, default.power_iterations);
    let features = count(section, "features", 65_536, default.features);
    let length_scale = real(section, "length-scale", &POSITIVE, default.length_scale);
    let ridge = real(section, "ridge", &POSITIVE, default.ridge);
    let factor = real(section, "mean-field-factor", &NON_NEGATIVE, default.mean_field_factor);
    let settings = SngpSettings {
        spectral_bound: bound?,
        power_iterations: iterations?,
        features: features?,
        length_scale: length_scale?,
        ridge: ridge?,
        mean_field_factor: factor?,
    };
    Some(network(TrainMethod::Sngp(settings), 1))
}

/// Random features are as long as they are many, so that the first steps of the output weights overshoot; without a
/// bound some seeds of a small network do not recover.
pub(super) fn sngp_implied(at: &At) -> RecipeLayer {
    RecipeLayer {
        clip_norm: Setting::Is(Located { value: Some(1.0), at: at.clone() }),
        ..RecipeLayer::default()
    }
}

pub(super) fn tradi(section: &mut Section<'_>) -> Option<Work> {
    let default = TradiSettings::default();
    let mean = real(section, "mean-noise", &POSITIVE, default.mean_noise);
    let variance = real(section, "variance-noise", &POSITIVE, default.variance_noise);
    let observation = real(section, "observation-noise", &POSITIVE, default.observation_noise);
    let samples = count(section, "samples", 1_000, 10);
    let features = count(section, "features", 1_000, 10);
    let settings =
        TradiSettings { mean_noise: mean?, variance_noise: variance?, observation_noise: observation? };
    Some(Work::Network {
        train: TrainMethod::Tradi(settings),
        predictor: Predictor::Tradi { samples: samples?, features: features? },
    })
}

pub(super) fn swag(section: &mut Section<'_>) -> Option<Work> {
    let default = SwagSettings::default();
    let start = real(section, "start", &INSIDE, default.start);
    let lr = real(section, "collection-lr", &POSITIVE, default.lr);
    let rank = section.set("rank", |v| v.integer(2..=1_000)).or(default.rank);
    let collections = count(section, "collections-per-epoch", 1_000, default.collections_per_epoch);
    let scale = real(section, "scale", &NON_NEGATIVE, 1.0);
    // Without deviations all draws are the mean.
    let (most, usual) = if scale == Some(0.0) { (1, 1) } else { (1_000, 16) };
    let samples = count(section, "samples", most, usual);
    let settings = SwagSettings { start: start?, lr: lr?, rank: rank?, collections_per_epoch: collections? };
    Some(Work::Network {
        train: TrainMethod::Swag(settings),
        predictor: Predictor::Swag { samples: samples?, scale: scale? },
    })
}

pub(super) fn laplace(section: &mut Section<'_>) -> Option<Work> {
    let default = LaplaceSettings::default();
    let curvature = word(section, "curvature", &CURVATURE, default.curvature);
    let precision = section.set("prior-precision", |v| v.or_none(|v| v.real(&POSITIVE)));
    let settings =
        LaplaceSettings { curvature: curvature?, prior_precision: precision.or(default.prior_precision)? };
    Some(Work::Network {
        train: TrainMethod::Deterministic,
        predictor: Predictor::LastLayerLaplace(settings),
    })
}

pub(super) fn snapshots(section: &mut Section<'_>) -> Option<Work> {
    kept_networks(section, SnapshotPlace::CycleEnds)
}

pub(super) fn checkpoints(section: &mut Section<'_>) -> Option<Work> {
    kept_networks(section, SnapshotPlace::LastEpochs)
}

fn kept_networks(section: &mut Section<'_>, place: SnapshotPlace) -> Option<Work> {
    let default = SnapshotSettings::default();
    let kept: u32 = section.set("networks", |v| v.integer(2..=64)).or(default.count)?;
    let used = section.set("use-last", |v| v.integer(1..=u64::from(kept))).or(kept)?;
    Some(Work::Network {
        train: TrainMethod::Snapshots(SnapshotSettings { count: kept, place }),
        predictor: Predictor::Snapshots { count: used },
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_words;
    use super::*;

    #[test]
    fn words_of_grid_files_are_those_of_specifications() {
        assert_words(&LOSS);
        assert_words(&ACTIVATION);
        assert_words(&CURVATURE);
    }
}
