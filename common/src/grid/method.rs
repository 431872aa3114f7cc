//! `[[method]]`: one row of the table each, with the settings that its kind has.

use super::read::{At, Located, Log, Section, Setting, Value};
use super::recipe::{BELOW_ONE, NON_NEGATIVE, RecipeLayer};
use crate::spec::{
    BatchEnsembleSettings, BatchMode, KlReduction, LatentSampling, LogVariance, LossDivisor, LpBnnPreset,
    LpBnnSettings, NormMode, Predictor, TrainMethod,
};

/// Methods by the names that grid files use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Deterministic,
    McDropout,
    DeepEnsemble,
    BatchEnsemble,
    LpBnn,
}

impl Kind {
    pub const ALL: [Self; 5] =
        [Self::Deterministic, Self::McDropout, Self::DeepEnsemble, Self::BatchEnsemble, Self::LpBnn];

    pub fn name(self) -> &'static str {
        match self {
            Self::Deterministic => "deterministic",
            Self::McDropout => "mc-dropout",
            Self::DeepEnsemble => "deep-ensemble",
            Self::BatchEnsemble => "batch-ensemble",
            Self::LpBnn => "lp-bnn",
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
    /// Label of the deterministic entry that the members of a Deep Ensemble are like.
    pub baseline: Option<Located<String>>,
    pub slots: Setting<u32>,
    /// What the kind brings, below what the file says for the entry.
    pub implied: RecipeLayer,
    pub recipe: RecipeLayer,
}

pub(super) fn slots(value: &Value<'_>) -> Option<Located<u32>> {
    value.integer(1..=4_096)
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
    let mut baseline = None;
    let mut preset = LpBnnPreset::Paper;
    let mut work = None;
    if let Some(kind) = kind {
        work = match kind {
            Kind::Deterministic => Some(network(TrainMethod::Deterministic, 1)),
            Kind::McDropout => mc_dropout(&mut section),
            Kind::DeepEnsemble => {
                baseline = section.take("baseline").and_then(|value| value.text());
                deep_ensemble(&mut section)
            }
            Kind::BatchEnsemble => batch_ensemble(&mut section),
            Kind::LpBnn => {
                preset = preset_of(&mut section);
                lp_bnn(log, preset, &mut section)
            }
        };
    }
    let work = work.filter(|_| log.len() == before);
    let slots = section.set("slots", slots);
    let recipe = section.take("recipe").map_or_else(RecipeLayer::default, |value| RecipeLayer::read(&value));
    if kind.is_some() {
        // Which keys are valid is only known with the kind.
        section.finish();
    }
    let label = label.unwrap_or_else(|| Located { value: default_label(kind, preset), at: at.clone() });
    let baseline = baseline.map(|text| Located { value: text.value.to_owned(), at: text.at });
    let implied = if kind == Some(Kind::LpBnn) { implied(preset, &at) } else { RecipeLayer::default() };
    Some(MethodEntry { at, label, kind, work, baseline, slots, implied, recipe })
}

fn default_label(kind: Option<Kind>, preset: LpBnnPreset) -> String {
    match kind {
        Some(Kind::LpBnn) => format!("{}-{}", Kind::LpBnn.name(), preset.name()),
        Some(kind) => kind.name().to_owned(),
        None => String::new(),
    }
}

/// With a summed KL term and unscaled draws, training at the usual learning rates diverges unless the
/// gradient is bounded; the other presets do without, as the code that they follow does.
fn implied(preset: LpBnnPreset, at: &At) -> RecipeLayer {
    match preset {
        LpBnnPreset::Paper => RecipeLayer {
            clip_norm: Setting::Is(Located { value: Some(1.0), at: at.clone() }),
            warmup_epochs: Setting::Is(Located { value: 1.0, at: at.clone() }),
            ..RecipeLayer::default()
        },
        LpBnnPreset::Official | LpBnnPreset::Official2020 | LpBnnPreset::TorchUncertainty => {
            RecipeLayer::default()
        }
    }
}

fn network(train: TrainMethod, samples_per_member: u32) -> Work {
    Work::Network { train, predictor: Predictor::Direct { samples_per_member } }
}

fn mc_dropout(section: &mut Section<'_>) -> Option<Work> {
    let rate = section.set("rate", |v| v.real(&BELOW_ONE)).or(0.3);
    let samples = section.set("samples", |v| v.integer(1..=10_000)).or(10);
    Some(Work::Network {
        train: TrainMethod::Dropout { rate: rate? },
        predictor: Predictor::McDropout { samples: samples? },
    })
}

fn deep_ensemble(section: &mut Section<'_>) -> Option<Work> {
    let networks = section.set("networks", |v| v.integer(2..=64)).or(4);
    Some(Work::Ensemble { networks: networks? })
}

fn members(section: &mut Section<'_>, default: u32) -> Option<u32> {
    section.set("members", |v| v.integer(1..=64)).or(default)
}

fn deviation(section: &mut Section<'_>, key: &'static str, default: f64) -> Option<f64> {
    section.set(key, |v| v.real(&NON_NEGATIVE)).or(default)
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
const SAMPLING: [(&str, LatentSampling); 2] =
    [("sampled", LatentSampling::Sampled), ("autoencoder", LatentSampling::Autoencoder)];
const LOG_VARIANCE: [(&str, LogVariance); 2] =
    [("separate", LogVariance::Separate), ("mean-head", LogVariance::MeanHead)];
const REDUCTION: [(&str, KlReduction); 2] = [("sum", KlReduction::Sum), ("mean", KlReduction::Mean)];
const DIVISOR: [(&str, LossDivisor); 2] =
    [("layers-plus-one", LossDivisor::LayersPlusOne), ("layers", LossDivisor::Layers)];

fn batch_ensemble(section: &mut Section<'_>) -> Option<Work> {
    let default = BatchEnsembleSettings::default();
    let members = members(section, default.members);
    let scale_std = deviation(section, "scale-std", default.scale_std);
    let shortcuts = section.set("convert-shortcuts", Value::boolean).or(default.convert_shortcuts);
    let batch = word(section, "batch", &BATCH, default.batch);
    let norm = word(section, "norm", &NORM, default.norm);
    let settings = BatchEnsembleSettings {
        members: members?,
        scale_std: scale_std?,
        convert_shortcuts: shortcuts?,
        batch: batch?,
        norm: norm?,
    };
    Some(network(TrainMethod::BatchEnsemble(settings), 1))
}

fn preset_of(section: &mut Section<'_>) -> LpBnnPreset {
    let presets = LpBnnPreset::ALL.map(|preset| (preset.name(), preset));
    let preset = section.set("preset", |v| v.choice("preset", &presets));
    preset.or(LpBnnPreset::Paper).unwrap_or(LpBnnPreset::Paper)
}

fn lp_bnn(log: &Log<'_>, preset: LpBnnPreset, section: &mut Section<'_>) -> Option<Work> {
    let default = preset.settings();
    let members = members(section, default.members);
    let latent = section.set("latent", |v| v.integer(1..=4_096)).or(default.latent);
    let std_factor = deviation(section, "std-factor", default.std_factor);
    let conv_sampling = word(section, "conv-sampling", &SAMPLING, default.conv_sampling);
    let linear_sampling = word(section, "linear-sampling", &SAMPLING, default.linear_sampling);
    let conv_codes = section.set("conv-codes-trainable", Value::boolean).or(default.conv_codes_trainable);
    let linear_codes =
        section.set("linear-codes-trainable", Value::boolean).or(default.linear_codes_trainable);
    let code_std = deviation(section, "code-std", default.code_std);
    let scale_std = deviation(section, "scale-std", default.scale_std);
    let log_variance = word(section, "log-variance", &LOG_VARIANCE, default.log_variance);
    let kl_reduction = word(section, "kl-reduction", &REDUCTION, default.kl_reduction);
    let kl_weight = deviation(section, "kl-weight", default.kl_weight);
    let reconstruction = deviation(section, "reconstruction-weight", default.reconstruction_weight);
    let loss_divisor = word(section, "loss-divisor", &DIVISOR, default.loss_divisor);
    let norm = word(section, "norm", &NORM, default.norm);
    let batch = word(section, "batch", &BATCH, default.batch);
    let samples: Setting<u32> = section.set("samples-per-member", |v| v.integer(1..=10_000));
    let settings = LpBnnSettings {
        members: members?,
        latent: latent?,
        std_factor: std_factor?,
        conv_sampling: conv_sampling?,
        linear_sampling: linear_sampling?,
        conv_codes_trainable: conv_codes?,
        linear_codes_trainable: linear_codes?,
        code_std: code_std?,
        scale_std: scale_std?,
        log_variance: log_variance?,
        kl_reduction: kl_reduction?,
        kl_weight: kl_weight?,
        reconstruction_weight: reconstruction?,
        loss_divisor: loss_divisor?,
        norm: norm?,
        batch: batch?,
    };
    check_samples(log, &settings, &samples);
    Some(network(TrainMethod::LpBnn(settings), samples.or(1)?))
}

/// Several passes that cannot differ are refused: they cost as much, and look like an average.
fn check_samples(log: &Log<'_>, settings: &LpBnnSettings, samples: &Setting<u32>) {
    let drawn = [settings.conv_sampling, settings.linear_sampling].contains(&LatentSampling::Sampled);
    if let Setting::Is(samples) = samples
        && samples.value > 1
        && (!drawn || settings.std_factor == 0.0)
    {
        let hint =
            "leave `samples-per-member` at 1, or let a layer sample with a `std-factor` above 0".to_owned();
        log.problem(
            &samples.at,
            "no layer of these settings draws anything, so all passes are equal",
            Some(hint),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_words<T: Copy + serde::Serialize>(words: &[(&str, T)]) {
        for (word, value) in words {
            assert_eq!(serde_json::to_value(value).unwrap(), *word);
        }
    }

    #[test]
    fn words_of_grid_files_are_those_of_specifications() {
        assert_words(&BATCH);
        assert_words(&NORM);
        assert_words(&SAMPLING);
        assert_words(&LOG_VARIANCE);
        assert_words(&REDUCTION);
        assert_words(&DIVISOR);
        assert_words(&LpBnnPreset::ALL.map(|preset| (preset.name(), preset)));
    }
}
