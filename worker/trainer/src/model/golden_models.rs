//! Models other than the authors' WideResNet against PyTorch: `fixtures/make_golden_models.py`, in double precision.

use std::collections::BTreeMap;

use common::spec::{
    BatchEnsembleSettings, BatchMode, DropoutSettings, LpBnnPreset, LpBnnSettings, ModelSpec, NormMode,
    TrainMethod,
};
use tch::{Kind, Tensor, no_grad};

use super::builder::Builder;
use super::golden::{Case, Golden, TOLERANCE, fill};
use super::{Mode, NamedTensor, Network, Role};
use crate::pretrained;

fn model(name: &str) -> ModelSpec {
    name.parse().unwrap()
}

fn check(name: &str, spec: &str, method: &TrainMethod) {
    Case::with_model(&model(spec), name, method, [6, 1, 8, 8], Kind::Double).check();
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
    Case::with_model(&model("resnet-18"), "resnet_18_batch_ensemble", &method, [6, 3, 32, 32], Kind::Double)
        .check();
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

/// torchvision's network with the weights that `make_golden_models.py` filled, and what it gives.
struct Torchvision {
    golden: Golden,
    /// As a file of its weights has them.
    file: BTreeMap<String, Tensor>,
}

impl Torchvision {
    fn new(name: &str) -> Self {
        let golden = Golden::load(name);
        let file = golden.state().into_iter().map(|[name, filled, shape]| {
            let shape: Vec<i64> = shape.split(',').map(|axis| axis.parse().unwrap()).collect();
            (name, fill(&filled, &shape))
        });
        Self { file: file.collect(), golden }
    }

    fn images() -> Tensor {
        fill("images", &[3, 3, 32, 32])
    }

    /// A network of ours that starts from the file.
    fn import(&self, spec: &str, method: &TrainMethod) -> Network {
        let builder = Builder::blank(Kind::Double, super::golden::device());
        let network = Network::build(&model(spec), method, [3, 32, 32], 7, builder).unwrap();
        pretrained::assign(&self.file, &network.named_tensors()).unwrap();
        network
    }

    fn assert_logits(&self, key: &str, network: &Network, mode: Mode) {
        let noise = network.latent.as_ref().map(|source| source.draw_noise(3).zeros_like());
        let logits = no_grad(|| network.forward_with(&Self::images(), mode, noise.as_ref())).logits;
        for rows in logits.split(3, 0) {
            self.golden.assert_close(key, &rows, TOLERANCE);
        }
    }

    fn check(&self, spec: &str) {
        let network = self.import(spec, &TrainMethod::Deterministic);
        self.assert_logits("evaluate.logits", &network, Mode::Evaluate);
        self.assert_logits("train.logits", &network, Mode::Train);
        self.assert_logits("moved.logits", &network, Mode::Evaluate);
        let buffers = |named: &NamedTensor| named.role == Role::Buffer;
        let buffers = network.named_tensors().into_iter().filter(buffers);
        let buffers = buffers.map(|named| (pretrained::name_in_file(&named.name).unwrap(), named.tensor));
        self.golden.assert_table("buffers", &buffers.collect());
    }
}

#[test]
fn an_imported_resnet_18_is_torchvisions() {
    Torchvision::new("torchvision_resnet18").check("resnet-18");
}

#[test]
fn an_imported_resnet_50_is_torchvisions() {
    Torchvision::new("torchvision_resnet50").check("resnet-50");
}

#[test]
fn each_member_of_an_imported_network_with_neutral_scales_is_torchvisions() {
    let torchvision = Torchvision::new("torchvision_resnet18");
    let settings = BatchEnsembleSettings { norm: NormMode::PerMember, ..converted() };
    for method in [TrainMethod::BatchEnsemble(settings), lp_bnn()] {
        let network = torchvision.import("resnet-18", &method);
        for named in network.named_tensors() {
            let last = named.name.rsplit('.').next().unwrap();
            if matches!(last, "alpha" | "gamma") || named.name.ends_with("decoder.bias") {
                let _ = no_grad(|| named.tensor.shallow_clone().fill_(1.0));
            }
        }
        torchvision.assert_logits("evaluate.logits", &network, Mode::Evaluate);
    }
}
