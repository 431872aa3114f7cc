//! Settings of methods with several members, or several draws of one network.

use super::super::read::{Bounds, Located, Section, Value};
use super::super::recipe::{BELOW_ONE, NON_NEGATIVE, POSITIVE};
use super::{BATCH, NORM, Work, count, deviation, members, network, real, word};
use crate::spec::{
    BatchEnsemblePreset, BatchEnsembleSettings, BiasMode, DropoutPlace, DropoutSettings, DropoutUnit,
    MasksemblesSettings, MimoSettings, PackedSettings, Predictor, RankOneSettings, ScaleInit, TrainMethod,
};

const PLACE: [(&str, DropoutPlace); 2] =
    [("residual", DropoutPlace::Residual), ("every-layer", DropoutPlace::EveryLayer)];
const UNIT: [(&str, DropoutUnit); 2] = [("element", DropoutUnit::Element), ("channel", DropoutUnit::Channel)];
const BIAS: [(&str, BiasMode); 2] =
    [("per-member", BiasMode::PerMember), ("linear-only", BiasMode::LinearOnly)];
const PROBABILITY: Bounds = Bounds { text: "a number from 0 to 1", hold: |x| (0.0..=1.0).contains(&x) };
const MASK_SCALE: Bounds = Bounds { text: "a number from 1 to 6", hold: |x| (1.0..=6.0).contains(&x) };

pub(super) fn mc_dropout(section: &mut Section<'_>) -> Option<Work> {
    let rate = real(section, "rate", &BELOW_ONE, 0.3);
    let samples = count(section, "samples", 10_000, 10);
    let place = word(section, "place", &PLACE, DropoutPlace::Residual);
    let unit = word(section, "unit", &UNIT, DropoutUnit::Element);
    let repetitions = count(section, "repetitions", 64, 1);
    let settings = DropoutSettings {
        rate: rate?,
        place: place?,
        unit: unit?,
        // Once is the absence of repetition, and has the text of specifications that do not know of it.
        repetitions: repetitions.map(|times| if times == 1 { 0 } else { times })?,
    };
    Some(Work::Network {
        train: TrainMethod::Dropout(settings),
        predictor: Predictor::McDropout { samples: samples? },
    })
}

pub(super) fn deep_ensemble(section: &mut Section<'_>) -> Option<Work> {
    let networks = section.set("networks", |v| v.integer(2..=64)).or(4);
    Some(Work::Ensemble { networks: networks? })
}

pub(super) fn batch_ensemble(section: &mut Section<'_>) -> Option<Work> {
    let presets = BatchEnsemblePreset::ALL.map(|preset| (preset.name(), preset));
    let preset = section.set("preset", |v| v.choice("preset", &presets));
    let default = preset.or(BatchEnsemblePreset::Authors).unwrap_or(BatchEnsemblePreset::Authors).settings();
    let members = members(section, default.members);
    let scale_std = deviation(section, "scale-std", default.scale_std);
    let init = section.set("sign-probability", sign_probability).or(default.init);
    let shortcuts = section.set("convert-shortcuts", Value::boolean).or(default.convert_shortcuts);
    let bias = word(section, "bias", &BIAS, default.bias);
    let factor = real(section, "member-lr-factor", &POSITIVE, default.member_lr_factor);
    let batch = word(section, "batch", &BATCH, default.batch);
    let norm = word(section, "norm", &NORM, default.norm);
    let settings = BatchEnsembleSettings {
        members: members?,
        scale_std: scale_std?,
        convert_shortcuts: shortcuts?,
        batch: batch?,
        norm: norm?,
        init: init?,
        bias: bias?,
        member_lr_factor: factor?,
    };
    Some(network(TrainMethod::BatchEnsemble(settings), 1))
}

fn sign_probability(value: &Value<'_>) -> Option<Located<ScaleInit>> {
    let probability = value.or_none(|value| value.real(&PROBABILITY))?;
    let init =
        probability.value.map_or(ScaleInit::Gaussian, |probability| ScaleInit::RandomSign { probability });
    Some(value.located(init))
}

pub(super) fn mimo(section: &mut Section<'_>) -> Option<Work> {
    let default = MimoSettings::default();
    let members = members(section, default.members);
    let input_repetition = real(section, "input-repetition", &PROBABILITY, default.input_repetition);
    let batch_repetitions = count(section, "batch-repetitions", 64, default.batch_repetitions);
    let settings = MimoSettings {
        members: members?,
        input_repetition: input_repetition?,
        batch_repetitions: batch_repetitions?,
    };
    Some(network(TrainMethod::Mimo(settings), 1))
}

pub(super) fn packed(section: &mut Section<'_>) -> Option<Work> {
    let default = PackedSettings::default();
    let members = members(section, default.members);
    let alpha = count(section, "alpha", 64, default.alpha);
    let gamma = count(section, "gamma", 64, default.gamma);
    let min_channels = count(section, "min-channels", 65_536, default.min_channels);
    let settings =
        PackedSettings { members: members?, alpha: alpha?, gamma: gamma?, min_channels: min_channels? };
    Some(network(TrainMethod::Packed(settings), 1))
}

pub(super) fn masksembles(section: &mut Section<'_>) -> Option<Work> {
    let default = MasksemblesSettings::default();
    let members = members(section, default.members);
    let scale = real(section, "scale", &MASK_SCALE, default.scale);
    let batch = word(section, "batch", &BATCH, default.batch);
    let settings = MasksemblesSettings { members: members?, scale: scale?, batch: batch? };
    Some(network(TrainMethod::Masksembles(settings), 1))
}

pub(super) fn rank_one(section: &mut Section<'_>) -> Option<Work> {
    let default = RankOneSettings::default();
    let members = members(section, default.members);
    let prior_std = real(section, "prior-std", &POSITIVE, default.prior_std);
    let sign = real(section, "sign-probability", &PROBABILITY, default.sign_probability);
    let rate = real(section, "initial-dropout-rate", &BELOW_ONE, default.initial_dropout_rate);
    let annealing = real(section, "kl-annealing", &PROBABILITY, default.kl_annealing);
    let kl_weight = real(section, "kl-weight", &NON_NEGATIVE, default.kl_weight);
    let batch = word(section, "batch", &BATCH, default.batch);
    let norm = word(section, "norm", &NORM, default.norm);
    let samples = count(section, "samples-per-member", 10_000, 1);
    let settings = RankOneSettings {
        members: members?,
        prior_std: prior_std?,
        sign_probability: sign?,
        initial_dropout_rate: rate?,
        kl_annealing: annealing?,
        kl_weight: kl_weight?,
        batch: batch?,
        norm: norm?,
    };
    Some(network(TrainMethod::RankOne(settings), samples?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_words;
    use super::*;

    #[test]
    fn words_of_grid_files_are_those_of_specifications() {
        assert_words(&PLACE);
        assert_words(&UNIT);
        assert_words(&BIAS);
        assert_words(&BatchEnsemblePreset::ALL.map(|preset| (preset.name(), preset)));
    }
}
