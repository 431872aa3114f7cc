//! `[[method]]`: one row of the table each, with the settings that its kind has.

mod length;
mod lp_bnn;
mod members;
mod single;

pub(super) use length::check as check_length;

use super::read::{At, Bounds, Located, Log, Section, Setting, Value};
use super::recipe::{NON_NEGATIVE, RecipeLayer};
use super::slots::{self, Slots};
use crate::spec::{BatchMode, LpBnnPreset, NormMode, Predictor, Recipe, Schedule, TrainMethod};

/// Methods by the names that grid files use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Deterministic,
    McDropout,
    DeepEnsemble,
    BatchEnsemble,
    LpBnn,
    Mimo,
    PackedEnsemble,
    Masksembles,
    RankOneBnn,
    Evidential,
    Duq,
    Sngp,
    Tradi,
    Swag,
    Laplace,
    SnapshotEnsemble,
    CheckpointEnsemble,
}

impl Kind {
    pub const ALL: [Self; 17] = [
        Self::Deterministic,
        Self::McDropout,
        Self::DeepEnsemble,
        Self::BatchEnsemble,
        Self::LpBnn,
        Self::Mimo,
        Self::PackedEnsemble,
        Self::Masksembles,
        Self::RankOneBnn,
        Self::Evidential,
        Self::Duq,
        Self::Sngp,
        Self::Tradi,
        Self::Swag,
        Self::Laplace,
        Self::SnapshotEnsemble,
        Self::CheckpointEnsemble,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Deterministic => "deterministic",
            Self::McDropout => "mc-dropout",
            Self::DeepEnsemble => "deep-ensemble",
            Self::BatchEnsemble => "batch-ensemble",
            Self::LpBnn => "lp-bnn",
            Self::Mimo => "mimo",
            Self::PackedEnsemble => "packed-ensemble",
            Self::Masksembles => "masksembles",
            Self::RankOneBnn => "rank-1-bnn",
            Self::Evidential => "evidential",
            Self::Duq => "duq",
            Self::Sngp => "sngp",
            Self::Tradi => "tradi",
            Self::Swag => "swag",
            Self::Laplace => "laplace",
            Self::SnapshotEnsemble => "snapshot-ensemble",
            Self::CheckpointEnsemble => "checkpoint-ensemble",
        }
    }

    /// Whether its networks are those of a deterministic entry of the grid, whose recipe and slots it starts from.
    pub fn has_baseline(self) -> bool {
        match self {
            Self::DeepEnsemble | Self::Laplace => true,
            Self::Deterministic
            | Self::McDropout
            | Self::BatchEnsemble
            | Self::LpBnn
            | Self::Mimo
            | Self::PackedEnsemble
            | Self::Masksembles
            | Self::RankOneBnn
            | Self::Evidential
            | Self::Duq
            | Self::Sngp
            | Self::Tradi
            | Self::Swag
            | Self::SnapshotEnsemble
            | Self::CheckpointEnsemble => false,
        }
    }
}

/// How the cells of a method are computed.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// One network.
    Network { train: TrainMethod, predictor: Predictor },
    /// Several deterministic networks.
    Ensemble { networks: u32 },
}

/// One entry. Its label is known even when the rest is not, so that `where` can name it.
#[derive(Clone, Debug)]
pub(super) struct MethodEntry {
    pub at: At,
    pub label: Located<String>,
    pub kind: Option<Kind>,
    /// Nothing when it was refused.
    pub work: Option<Work>,
    /// Label of the deterministic entry that the networks are like.
    pub baseline: Option<Located<String>>,
    pub slots: Setting<Slots>,
    /// What the kind brings, below what the file says for the entry.
    pub implied: RecipeLayer,
    pub recipe: RecipeLayer,
}

pub(super) fn read(log: &Log<'_>, value: &Value<'_>) -> Option<MethodEntry> {
    let mut section = value.section()?;
    let at = section.at.clone();
    let before = log.len();
    let kinds = Kind::ALL.map(|kind| (kind.name(), kind));
    let kind = section.require("kind", "which method, like `kind = \"lp-bnn\"`");
    let kind = kind.and_then(|value| value.choice("method", &kinds)).map(|kind| kind.value);
    let label = section.take("label").and_then(|value| value.text());
    let label = label.map(|text| Located { value: text.value.to_owned(), at: text.at });
    if let Some(label) = &label {
        super::check_label(log, label);
    }
    let baseline = match kind.filter(|kind| kind.has_baseline()) {
        Some(_) => section.take("baseline").and_then(|value| value.text()),
        None => None,
    };
    let preset = match kind {
        Some(Kind::LpBnn) => lp_bnn::preset_of(&mut section),
        Some(_) | None => LpBnnPreset::Paper,
    };
    let work = kind.and_then(|kind| work(log, kind, preset, &mut section)).filter(|_| log.len() == before);
    let slots = section.set("slots", slots::read);
    let recipe = section.take("recipe").map_or_else(RecipeLayer::default, |value| RecipeLayer::read(&value));
    if kind.is_some() {
        // Which keys are valid is only known with the kind.
        section.finish();
    }
    let label = label.unwrap_or_else(|| Located { value: default_label(kind, preset), at: at.clone() });
    let baseline = baseline.map(|text| Located { value: text.value.to_owned(), at: text.at });
    let implied = implied(kind, preset, work.as_ref(), &at);
    Some(MethodEntry { at, label, kind, work, baseline, slots, implied, recipe })
}

/// The settings of a kind.
fn work(log: &Log<'_>, kind: Kind, preset: LpBnnPreset, section: &mut Section<'_>) -> Option<Work> {
    match kind {
        Kind::Deterministic => Some(network(TrainMethod::Deterministic, 1)),
        Kind::McDropout => members::mc_dropout(section),
        Kind::DeepEnsemble => members::deep_ensemble(section),
        Kind::BatchEnsemble => members::batch_ensemble(section),
        Kind::LpBnn => lp_bnn::lp_bnn(log, preset, section),
        Kind::Mimo => members::mimo(section),
        Kind::PackedEnsemble => members::packed(section),
        Kind::Masksembles => members::masksembles(section),
        Kind::RankOneBnn => members::rank_one(section),
        Kind::Evidential => single::evidential(section),
        Kind::Duq => single::duq(section),
        Kind::Sngp => single::sngp(section),
        Kind::Tradi => single::tradi(section),
        Kind::Swag => single::swag(section),
        Kind::Laplace => single::laplace(section),
        Kind::SnapshotEnsemble => single::snapshots(section),
        Kind::CheckpointEnsemble => single::checkpoints(section),
    }
}

fn default_label(kind: Option<Kind>, preset: LpBnnPreset) -> String {
    match kind {
        Some(Kind::LpBnn) => format!("{}-{}", Kind::LpBnn.name(), preset.name()),
        Some(kind) => kind.name().to_owned(),
        None => String::new(),
    }
}

/// What a kind changes in the recipe, below what the file says for the entry.
fn implied(kind: Option<Kind>, preset: LpBnnPreset, work: Option<&Work>, at: &At) -> RecipeLayer {
    match (kind, work) {
        (Some(Kind::LpBnn), _) => lp_bnn::implied(preset, at),
        (Some(Kind::Sngp), _) => single::sngp_implied(at),
        (
            Some(Kind::SnapshotEnsemble),
            Some(Work::Network { train: TrainMethod::Snapshots(settings), .. }),
        ) => {
            let cyclic = Schedule::Cyclic { cycles: settings.count };
            RecipeLayer {
                schedule: Setting::Is(Located { value: cyclic, at: at.clone() }),
                ..RecipeLayer::default()
            }
        }
        _ => RecipeLayer::default(),
    }
}

/// Warns of settings that are known to fail with this recipe. `at` is where to point, `label` names the method.
pub(super) fn warn(log: &Log<'_>, at: &At, label: &str, train: &TrainMethod, recipe: &Recipe) {
    match train {
        TrainMethod::LpBnn(settings) => lp_bnn::warn(log, at, label, settings, recipe),
        TrainMethod::Deterministic
        | TrainMethod::Dropout(_)
        | TrainMethod::BatchEnsemble(_)
        | TrainMethod::RankOne(_)
        | TrainMethod::Mimo(_)
        | TrainMethod::Packed(_)
        | TrainMethod::Masksembles(_)
        | TrainMethod::Evidential(_)
        | TrainMethod::Duq(_)
        | TrainMethod::Sngp(_)
        | TrainMethod::Tradi(_)
        | TrainMethod::Swag(_)
        | TrainMethod::Snapshots(_) => {}
    }
}

fn network(train: TrainMethod, samples_per_member: u32) -> Work {
    Work::Network { train, predictor: Predictor::Direct { samples_per_member } }
}

fn members(section: &mut Section<'_>, default: u32) -> Option<u32> {
    section.set("members", |v| v.integer(1..=64)).or(default)
}

fn deviation(section: &mut Section<'_>, key: &'static str, default: f64) -> Option<f64> {
    real(section, key, &NON_NEGATIVE, default)
}

fn real(section: &mut Section<'_>, key: &'static str, bounds: &Bounds, default: f64) -> Option<f64> {
    section.set(key, |v| v.real(bounds)).or(default)
}

fn count(section: &mut Section<'_>, key: &'static str, most: u64, default: u32) -> Option<u32> {
    section.set(key, |v| v.integer(1..=most)).or(default)
}

fn word<T: Copy>(
    section: &mut Section<'_>,
    key: &'static str,
    words: &[(&'static str, T)],
    default: T,
) -> Option<T> {
    section.set(key, |v| v.choice(key, words)).or(default)
}

const BATCH: [(&str, BatchMode); 2] = [("repeat", BatchMode::Repeat), ("split", BatchMode::Split)];
const NORM: [(&str, NormMode); 2] = [("per-member", NormMode::PerMember), ("shared", NormMode::Shared)];

#[cfg(test)]
mod tests {
    use super::*;

    pub fn assert_words<T: Copy + serde::Serialize>(words: &[(&str, T)]) {
        for (word, value) in words {
            assert_eq!(serde_json::to_value(value).unwrap(), *word);
        }
    }

    #[test]
    fn words_of_grid_files_are_those_of_specifications() {
        assert_words(&BATCH);
        assert_words(&NORM);
    }
}
