//! Settings of LP-BNN.

use super::super::read::{At, Located, Log, Section, Setting, Value};
use super::super::recipe::RecipeLayer;
use super::{BATCH, NORM, Work, deviation, members, network, word};
use crate::spec::{
    Encode, KlReduction, LatentSampling, LogVariance, LossDivisor, LpBnnPreset, LpBnnSettings, Recipe,
    TrainMethod,
};

const SAMPLING: [(&str, LatentSampling); 2] =
    [("sampled", LatentSampling::Sampled), ("autoencoder", LatentSampling::Autoencoder)];
const LOG_VARIANCE: [(&str, LogVariance); 2] =
    [("separate", LogVariance::Separate), ("mean-head", LogVariance::MeanHead)];
const REDUCTION: [(&str, KlReduction); 2] = [("sum", KlReduction::Sum), ("mean", KlReduction::Mean)];
const DIVISOR: [(&str, LossDivisor); 2] =
    [("layers-plus-one", LossDivisor::LayersPlusOne), ("layers", LossDivisor::Layers)];
const ENCODE: [(&str, Encode); 3] =
    [("alpha", Encode::Alpha), ("gamma", Encode::Gamma), ("both", Encode::Both)];

/// With a summed KL term and unscaled draws, training at the usual learning rates diverges unless the
/// gradient is bounded; the other presets do without, as the code that they follow does.
pub(super) fn implied(preset: LpBnnPreset, at: &At) -> RecipeLayer {
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

/// Warns of draws at full scale under a gradient without bounds, which failed in most runs that were tried
/// (`docs/methods/lp-bnn.md`).
pub(super) fn warn(log: &Log<'_>, at: &At, label: &str, settings: &LpBnnSettings, recipe: &Recipe) {
    let drawn = settings.conv_sampling == LatentSampling::Sampled && settings.std_factor >= 0.5;
    if drawn && recipe.clip_norm.is_none() && recipe.lr >= 0.05 {
        let message = format!(
            "`{label}` samples its convolutions with `std-factor` {} and has no `clip-norm`: at learning rate {} \
             training is likely to diverge, or not to learn",
            settings.std_factor, recipe.lr
        );
        let hint = "keep `clip-norm = 1.0` and `warmup-epochs = 1`, which preset `paper` brings, or lower `std-factor`";
        log.warning(at, message, Some(hint.to_owned()));
    }
}

pub(super) fn preset_of(section: &mut Section<'_>) -> LpBnnPreset {
    let presets = LpBnnPreset::ALL.map(|preset| (preset.name(), preset));
    let preset = section.set("preset", |v| v.choice("preset", &presets));
    preset.or(LpBnnPreset::Paper).unwrap_or(LpBnnPreset::Paper)
}

pub(super) fn lp_bnn(log: &Log<'_>, preset: LpBnnPreset, section: &mut Section<'_>) -> Option<Work> {
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
    let encode = word(section, "encode", &ENCODE, default.encode);
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
        encode: encode?,
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
    use super::super::tests::assert_words;
    use super::*;

    #[test]
    fn words_of_grid_files_are_those_of_specifications() {
        assert_words(&SAMPLING);
        assert_words(&LOG_VARIANCE);
        assert_words(&REDUCTION);
        assert_words(&DIVISOR);
        assert_words(&ENCODE);
        assert_words(&LpBnnPreset::ALL.map(|preset| (preset.name(), preset)));
    }
}
