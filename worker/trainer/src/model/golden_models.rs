//! Models other than the authors' WideResNet against PyTorch: `fixtures/make_golden_models.py`, in double precision.

use common::spec::{
    BatchEnsembleSettings, BatchMode, DropoutSettings, LpBnnPreset, LpBnnSettings, ModelSpec, NormMode,
    TrainMethod,
};
use tch::Kind;

use super::golden::Case;

fn model(name: &str) -> ModelSpec {
    name.parse().unwrap()
}

fn check(name: &str, spec: &str, method: &TrainMethod) {
    Case::of(&model(spec), name, method, [6, 1, 8, 8], Kind::Double).check();
}

fn batch_ensemble() -> BatchEnsembleSettings {
    BatchEnsembleSettings { members: 3, ..BatchEnsembleSettings::default() }
}

fn converted() -> BatchEnsembleSettings {
    BatchEnsembleSettings { convert_shortcuts: true, ..batch_ensemble() }
}

fn lp_bnn() -> TrainMethod {
    TrainMethod::LpBnn(LpBnnSettings { members: 3, latent: 5, ..LpBnnPreset::Paper.settings() })
}

#[test]
fn the_original_wide_resnet_matches_pytorch() {
    check("wrn_original_deterministic", "wrn-10-1-original", &TrainMethod::Deterministic);
}

#[test]
fn the_original_wide_resnet_with_lp_bnn_matches_pytorch() {
    check("wrn_original_lp_bnn", "wrn-10-1-original", &lp_bnn());
}

#[test]
fn the_wide_resnet_of_uncertainty_baselines_matches_pytorch() {
    check("wrn_ub_deterministic", "wrn-10-1-ub", &TrainMethod::Deterministic);
}

#[test]
fn the_wide_resnet_of_uncertainty_baselines_with_batch_ensemble_matches_pytorch() {
    check("wrn_ub_batch_ensemble", "wrn-10-1-ub", &TrainMethod::BatchEnsemble(converted()));
}

#[test]
fn resnet_18_for_small_images_matches_pytorch() {
    check("resnet_18_cifar_deterministic", "resnet-18-cifar", &TrainMethod::Deterministic);
    let none = DropoutSettings { rate: 0.0, ..DropoutSettings::default() };
    check("resnet_18_cifar_deterministic", "resnet-18-cifar", &TrainMethod::Dropout(none));
}

#[test]
fn resnet_18_with_batch_ensemble_matches_pytorch() {
    let method = TrainMethod::BatchEnsemble(batch_ensemble());
    check("resnet_18_cifar_batch_ensemble", "resnet-18-cifar", &method);
}

#[test]
fn resnet_18_with_batch_ensemble_in_shortcuts_and_own_norms_matches_pytorch() {
    let method =
        TrainMethod::BatchEnsemble(BatchEnsembleSettings { norm: NormMode::PerMember, ..converted() });
    check("resnet_18_cifar_batch_ensemble_converted", "resnet-18-cifar", &method);
}

#[test]
fn resnet_18_with_lp_bnn_matches_pytorch() {
    check("resnet_18_cifar_lp_bnn", "resnet-18-cifar", &lp_bnn());
}

#[test]
fn resnet_18_for_large_images_with_batch_ensemble_matches_pytorch() {
    let method = TrainMethod::BatchEnsemble(batch_ensemble());
    Case::of(&model("resnet-18"), "resnet_18_batch_ensemble", &method, [6, 3, 32, 32], Kind::Double).check();
}

#[test]
fn perceptrons_match_pytorch() {
    check("mlp_deterministic", "mlp-2-7", &TrainMethod::Deterministic);
    check("mlp_bn_deterministic", "mlp-2-7-bn", &TrainMethod::Deterministic);
}

#[test]
fn perceptrons_with_members_match_pytorch() {
    let settings =
        BatchEnsembleSettings { norm: NormMode::PerMember, batch: BatchMode::Split, ..batch_ensemble() };
    check("mlp_bn_batch_ensemble", "mlp-2-7-bn", &TrainMethod::BatchEnsemble(settings));
    check("mlp_bn_lp_bnn", "mlp-2-7-bn", &lp_bnn());
}
