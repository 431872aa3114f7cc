//! Whole networks and single layers against PyTorch: `fixtures/*.safetensors`, written by
//! `fixtures/make_golden.py` with torch 2.11.0 on a CPU, in double precision. The reference computes one
//! member after the other and shares no layout with the code under test.

mod distance;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::spec::{
    BatchEnsembleSettings, BatchMode, BiasMode, DropoutSettings, Encode, KlReduction, LpBnnPreset,
    LpBnnSettings, MasksemblesSettings, MimoSettings, ModelSpec, NormMode, PackedSettings, RankOneSettings,
    TrainMethod, WideResNetVariant,
};
use tch::{Device, Kind, Reduction, Tensor, no_grad};

use super::builder::Builder;
use super::layers::{Construction, Conv, ConvShape, LayerRole, Linear};
use super::norm::{BatchNorm, Place, Statistics};
use super::plan::Plan;
use super::{Dropout, Mode, NamedTensor, Network, Pass, Role};
use crate::uq::posterior::{Drawn, VectorSource};
use crate::uq::{Side, mimo};

/// Both sides compute in double precision, so they differ by the order of summation only: some 1e-15 of the
/// largest term, amplified where few values are normalised and added up over ten layers. 1e-13 was seen to
/// hold; another processor may sum in another order.
pub(super) const TOLERANCE: f64 = 1e-11;

/// Where networks are compared: on the CPU, unless `cargo xtask test --gpu` says otherwise.
pub(crate) fn device() -> Device {
    static DEVICE: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
    *DEVICE.get_or_init(|| {
        if !std::env::var("CREDENCE_TEST_DEVICE").is_ok_and(|device| device == "cuda") {
            return Device::Cpu;
        }
        let install = common::cuda::find(None, common::cuda::environment).unwrap();
        c10d::cuda::load(&install.lib).unwrap();
        c10d::cuda::initialise().unwrap();
        Device::Cuda(0)
    })
}

/// `count` numbers in (-1, 1), as `unit` of `make_golden.py`.
pub(crate) fn unit(name: &str, count: usize) -> Vec<f64> {
    let key = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |key, byte| (key ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (1..=count as u64)
        .map(|position| {
            let z = key.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let z = z ^ (z >> 31);
            ((z >> 11) as f64 + 0.5) / (1u64 << 52) as f64 - 1.0
        })
        .collect()
}

/// Values of a tensor from its name, as `fill` of `make_golden.py`.
pub(crate) fn fill(name: &str, shape: &[i64]) -> Tensor {
    let device = device();
    let values =
        Tensor::from_slice(&unit(name, shape.iter().product::<i64>() as usize)).view(shape).to_device(device);
    let last = name.rsplit('.').next().unwrap();
    let norm = name.split('.').any(|part| part.starts_with("bn"));
    match last {
        "alpha" | "gamma" | "running_var" => 1.0 + 0.5 * values,
        "weight" if norm => 1.0 + 0.5 * values,
        "mask" => values.gt(-0.2).to_kind(Kind::Double),
        "weight" => values * (3.0 / shape[1..].iter().product::<i64>() as f64).sqrt(),
        "bias" | "running_mean" => 0.2 * values,
        _ => 1.5 * values,
    }
}

fn refill(tensors: &[NamedTensor]) {
    for named in tensors {
        let values = fill(&named.name, &named.tensor.size());
        no_grad(|| named.tensor.shallow_clone().copy_(&values));
    }
}

fn digest(name: &str, tensor: &Tensor) -> Tensor {
    let flat = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double).flatten(0, -1);
    let mut numbers: Vec<Tensor> = (0..3)
        .map(|probe| flat.dot(&Tensor::from_slice(&unit(&format!("probe {probe} of {name}"), flat.numel()))))
        .collect();
    numbers.push(flat.norm());
    Tensor::stack(&numbers, 0)
}

pub(super) struct Golden {
    name: String,
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    pub(super) fn load(name: &str) -> Self {
        let path: PathBuf =
            [env!("CARGO_MANIFEST_DIR"), "fixtures", &format!("{name}.safetensors")].iter().collect();
        let tensors = Tensor::read_safetensors(path).unwrap().into_iter().collect();
        Self { name: name.to_owned(), tensors }
    }

    /// Lines of three words that describe the tensors of a state.
    pub(super) fn state(&self) -> Vec<[String; 3]> {
        let bytes = Vec::<u8>::try_from(&self.tensors["state"]).unwrap();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
        std::str::from_utf8(&bytes).unwrap().lines().map(words).collect()
    }

    pub(super) fn assert_close(&self, key: &str, actual: &Tensor, tolerance: f64) {
        let expected = &self.tensors[key];
        assert_eq!(actual.size(), expected.size(), "shape of `{key}` in {}", self.name);
        let expected = expected.to_kind(Kind::Double);
        let actual = actual.detach().to_device(Device::Cpu).to_kind(Kind::Double);
        let error = (actual - &expected).abs() / expected.abs().clamp_min(1.0);
        let worst = error.max().double_value(&[]);
        assert!(worst <= tolerance, "`{key}` of {} is off by {worst:e}", self.name);
    }

    /// Compares tensors that the file holds as digests, and that there are no others.
    pub(super) fn assert_table(&self, key: &str, actual: &BTreeMap<String, Tensor>) {
        let Some(bytes) = self.tensors.get(&format!("{key}.names")) else {
            return assert!(actual.is_empty(), "{} has no {key}", self.name);
        };
        let bytes = Vec::<u8>::try_from(bytes).unwrap();
        let names: Vec<&str> = std::str::from_utf8(&bytes).unwrap().lines().collect();
        assert_eq!(names, actual.keys().collect::<Vec<_>>(), "names of {key} in {}", self.name);
        for (row, name) in names.into_iter().enumerate() {
            let expected = self.tensors[key].get(row as i64);
            let error = (digest(name, &actual[name]) - &expected).abs().max().double_value(&[]);
            let scale = expected.double_value(&[3]).max(1.0);
            assert!(error <= TOLERANCE * scale, "{key} of `{name}` in {} is off by {error:e}", self.name);
        }
    }
}

/// What the divergence of rank-1 BNN is multiplied by: weight 1, a quarter of the annealing, 40 images.
const KL_FACTOR: f64 = 0.25 / 40.0;

/// The noise of a pass, from the names of what it is for.
fn noise(source: &VectorSource, examples: i64) -> Tensor {
    match source {
        VectorSource::LpBnn(latent) => {
            let [_, members, size] = latent.noise_shape();
            let row = |name: &str| fill(&format!("noise of {name}"), &[members, size]);
            Tensor::stack(&latent.names().map(row).collect::<Vec<_>>(), 0)
        }
        VectorSource::RankOne(space) => {
            let of_vector = |posterior: crate::uq::VectorPosterior| {
                let shape = posterior.mean.size();
                let name = format!("noise of {}.{}", posterior.layer, posterior.side.name());
                fill(&name, &[examples, shape[0], shape[1]])
            };
            Tensor::cat(&space.posteriors().into_iter().map(of_vector).collect::<Vec<_>>(), 2)
        }
    }
}

pub(super) struct Case {
    golden: Golden,
    network: Network,
    images: Tensor,
    labels: Tensor,
    /// What is trained on instead, with the labels of all rows.
    mixed: Option<(Tensor, Tensor)>,
}

impl Case {
    fn new(name: &str, method: &TrainMethod, images: [i64; 4], kind: Kind) -> Self {
        let spec = ModelSpec::WideResNet { depth: 10, widen: 1, variant: WideResNetVariant::Authors };
        Self::with_model(&spec, name, method, images, kind)
    }

    pub(super) fn with_model(
        spec: &ModelSpec,
        name: &str,
        method: &TrainMethod,
        images: [i64; 4],
        kind: Kind,
    ) -> Self {
        const CLASSES: i64 = 5;
        let [batch, channels, height, width] = images;
        let builder = Builder::blank(kind, device());
        let network = Network::build(spec, method, [channels, height, width], CLASSES, builder).unwrap();
        refill(&network.named_tensors());
        let labels = (Tensor::arange(batch, (Kind::Int64, device())) * 2).remainder(CLASSES);
        let images = fill("images", &images).to_kind(kind);
        Self { golden: Golden::load(name), network, images, labels, mixed: None }
    }

    fn noise(&self, mode: Mode) -> Option<Tensor> {
        let examples = self.network.images(&self.images, mode).size()[0];
        Some(noise(self.network.latent.as_ref()?, examples).to_kind(self.images.kind()))
    }

    fn train(&self) -> Tensor {
        let batch = || self.network.training_batch(&self.images, &self.labels);
        let (images, targets) =
            self.mixed.as_ref().map_or_else(batch, |(x, y)| (x.shallow_clone(), y.shallow_clone()));
        let pass = self.network.forward_with(&images, Mode::Train, self.noise(Mode::Train).as_ref());
        self.golden.assert_close("train.logits", &pass.logits, TOLERANCE);
        // Not tch's `cross_entropy_for_logits`, which rounds to single precision.
        let cross_entropy =
            pass.logits.cross_entropy_loss::<&Tensor>(&targets, None, Reduction::Mean, -100, 0.0)
                * self.network.plan.images as f64;
        if let Some(kl) = pass.kl {
            self.golden.assert_close("kl", &kl, TOLERANCE);
            return cross_entropy + kl * KL_FACTOR;
        }
        let Some(latent) = pass.latent else { return cross_entropy };
        self.assert_latent(&latent.kl, &latent.reconstruction);
        self.golden.assert_close("latent.total", &latent.total, TOLERANCE);
        cross_entropy + latent.total
    }

    fn assert_latent(&self, kl: &Tensor, reconstruction: &Tensor) {
        self.golden.assert_close("latent.kl", kl, TOLERANCE);
        self.golden.assert_close("latent.reconstruction", reconstruction, TOLERANCE);
    }

    /// The step of `network_case`: all of it.
    pub(super) fn check(&self) {
        self.assert_step(&self.train());
        self.assert_evaluation();
    }

    /// Compares loss, gradients and buffers, and makes a step of gradient descent.
    fn assert_step(&self, loss: &Tensor) {
        self.golden.assert_close("loss", loss, TOLERANCE);
        loss.backward();
        let tensors = self.network.named_tensors();
        let weights = || tensors.iter().filter(|named| matches!(named.role, Role::Weight { .. }));
        let gradients = weights().map(|named| (named.name.clone(), named.tensor.grad())).collect();
        self.golden.assert_table("gradients", &gradients);
        let buffers = tensors
            .iter()
            .filter(|named| named.role == Role::Buffer)
            .map(|named| (named.name.clone(), named.tensor.shallow_clone()))
            .collect();
        self.golden.assert_table("buffers", &buffers);
        no_grad(|| {
            for named in weights() {
                let _ = named.tensor.shallow_clone().subtract_(&(named.tensor.grad() * 0.05));
            }
        });
    }

    fn assert_evaluation(&self) {
        let pass = no_grad(|| {
            self.network.forward_with(&self.images, Mode::Evaluate, self.noise(Mode::Evaluate).as_ref())
        });
        self.golden.assert_close("evaluate.logits", &pass.logits, TOLERANCE);
    }
}

fn check(name: &str, method: &TrainMethod) {
    Case::new(name, method, [6, 1, 8, 8], Kind::Double).check();
}

fn batch_ensemble() -> BatchEnsembleSettings {
    BatchEnsembleSettings { members: 3, ..BatchEnsembleSettings::default() }
}

fn lp_bnn(preset: LpBnnPreset) -> LpBnnSettings {
    LpBnnSettings { members: 3, latent: 5, ..preset.settings() }
}

#[test]
fn the_deterministic_network_matches_pytorch() {
    check("wrn_deterministic", &TrainMethod::Deterministic);
}

#[test]
fn a_network_for_images_of_28_by_28_pools_over_what_is_left() {
    let case =
        Case::new("wrn_deterministic_28x28", &TrainMethod::Deterministic, [2, 3, 28, 28], Kind::Double);
    case.check();
}

#[test]
fn dropout_of_rate_zero_is_the_deterministic_network() {
    check(
        "wrn_deterministic",
        &TrainMethod::Dropout(DropoutSettings { rate: 0.0, ..DropoutSettings::default() }),
    );
}

#[test]
fn batch_ensemble_matches_pytorch() {
    check("wrn_batch_ensemble", &TrainMethod::BatchEnsemble(batch_ensemble()));
}

#[test]
fn batch_ensemble_with_shortcuts_own_norms_and_split_batches_matches_pytorch() {
    let settings = BatchEnsembleSettings {
        convert_shortcuts: true,
        batch: BatchMode::Split,
        norm: NormMode::PerMember,
        ..batch_ensemble()
    };
    check("wrn_batch_ensemble_converted", &TrainMethod::BatchEnsemble(settings));
}

#[test]
fn the_paper_preset_matches_pytorch() {
    check("wrn_lp_bnn_paper", &TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Paper)));
}

#[test]
fn the_official_preset_matches_pytorch() {
    check("wrn_lp_bnn_official", &TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Official)));
}

#[test]
fn the_official_2020_preset_matches_pytorch() {
    check("wrn_lp_bnn_official_2020", &TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Official2020)));
}

#[test]
fn the_torch_uncertainty_preset_matches_pytorch() {
    check("wrn_lp_bnn_torch_uncertainty", &TrainMethod::LpBnn(lp_bnn(LpBnnPreset::TorchUncertainty)));
}

#[test]
fn weights_of_the_latent_loss_and_trained_codes_match_pytorch() {
    let settings = LpBnnSettings {
        kl_reduction: KlReduction::Mean,
        kl_weight: 0.25,
        reconstruction_weight: 3.0,
        conv_codes_trainable: true,
        ..lp_bnn(LpBnnPreset::Paper)
    };
    check("wrn_lp_bnn_weighted", &TrainMethod::LpBnn(settings));
}

#[test]
fn mimo_matches_pytorch() {
    let settings = MimoSettings { members: 3, input_repetition: 0.25, batch_repetitions: 2 };
    let mut case = Case::new("wrn_mimo", &TrainMethod::Mimo(settings), [6, 1, 8, 8], Kind::Double);
    // As `MIXTURE` of `make_golden_ensembles.py`.
    let mixture = [
        [3i64, 0, 5, 1, 1, 4, 2, 0, 5, 2, 3, 4],
        [1, 5, 0, 4, 3, 2, 1, 5, 0, 2, 3, 4],
        [0, 4, 1, 5, 2, 1, 5, 3, 0, 2, 3, 4],
    ];
    let mixture = Tensor::from_slice2(&mixture);
    case.mixed = Some(mimo::assemble(&case.images, &case.labels, &mixture));
    case.check();
}

#[test]
fn packed_ensembles_match_members_one_by_one_in_pytorch() {
    let settings = PackedSettings { members: 2, alpha: 4, gamma: 2, min_channels: 24 };
    check("wrn_packed", &TrainMethod::Packed(settings));
    let settings = PackedSettings { members: 3, alpha: 3, gamma: 3, min_channels: 1 };
    check("wrn_packed_reduced", &TrainMethod::Packed(settings));
}

#[test]
fn masksembles_match_pytorch_with_both_kinds_of_batch() {
    for (name, batch) in [("wrn_masksembles", BatchMode::Repeat), ("wrn_masksembles_split", BatchMode::Split)]
    {
        let settings = MasksemblesSettings { members: 3, batch, ..MasksemblesSettings::default() };
        check(name, &TrainMethod::Masksembles(settings));
    }
}

#[test]
fn decoded_output_vectors_match_pytorch() {
    let settings = LpBnnSettings { encode: Encode::Gamma, ..lp_bnn(LpBnnPreset::Official) };
    check("wrn_lp_bnn_gamma", &TrainMethod::LpBnn(settings));
}

#[test]
fn two_vaes_a_layer_match_pytorch() {
    check("wrn_lp_bnn_both", &TrainMethod::LpBnn(both()));
}

fn both() -> LpBnnSettings {
    LpBnnSettings { encode: Encode::Both, std_factor: 0.7, ..lp_bnn(LpBnnPreset::Paper) }
}

#[test]
fn moments_of_vectors_and_weights_match_pytorch() {
    let gamma = LpBnnSettings { encode: Encode::Gamma, ..lp_bnn(LpBnnPreset::Official) };
    for (name, settings) in [("wrn_lp_bnn_gamma", gamma), ("wrn_lp_bnn_both", both())] {
        let case = Case::new(name, &TrainMethod::LpBnn(settings), [6, 1, 8, 8], Kind::Double);
        let mut moments = BTreeMap::new();
        let mut insert = |name: String, mean: Tensor, covariance: Tensor| {
            moments.insert(format!("{name}.mean"), mean);
            moments.insert(format!("{name}.covariance"), covariance);
        };
        for vae in case.network.latent_layers() {
            let posterior = case.network.decoded_posterior(vae).unwrap();
            let name = match vae.strip_suffix("/gamma") {
                Some(layer) => format!("{layer}.{}", Side::Gamma.name()),
                None => format!("{vae}.{}", Side::Alpha.name()),
            };
            insert(name, posterior.mean, posterior.covariance);
        }
        for layer in ["stem", "linear"] {
            let posterior = case.network.weight_posterior(layer).unwrap();
            let covariance = posterior.factor.matmul(&posterior.factor.transpose(1, 2));
            insert(layer.to_owned(), posterior.mean, covariance);
        }
        case.golden.assert_table("moments", &moments);
    }
}

#[test]
fn the_original_batch_ensemble_matches_pytorch() {
    let settings = BatchEnsembleSettings {
        convert_shortcuts: true,
        bias: BiasMode::LinearOnly,
        member_lr_factor: 0.5,
        ..batch_ensemble()
    };
    check("wrn_batch_ensemble_original", &TrainMethod::BatchEnsemble(settings));
}

fn rank_one() -> RankOneSettings {
    RankOneSettings { members: 3, prior_std: 0.3, ..RankOneSettings::default() }
}

#[test]
fn rank_one_bnn_matches_pytorch() {
    check("wrn_rank_one", &TrainMethod::RankOne(rank_one()));
}

#[test]
fn rank_one_bnn_with_split_batches_and_own_norms_matches_pytorch() {
    let settings = RankOneSettings { batch: BatchMode::Split, norm: NormMode::PerMember, ..rank_one() };
    check("wrn_rank_one_split", &TrainMethod::RankOne(settings));
}

#[test]
fn single_precision_gives_the_same_logits_to_its_own_accuracy() {
    let method = TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Paper));
    let case = Case::new("wrn_lp_bnn_paper", &method, [6, 1, 8, 8], Kind::Float);
    let noise = case.noise(Mode::Train);
    let pass = case.network.forward_with(&case.images, Mode::Train, noise.as_ref());
    // 1e-4 is seen: rounding of 6e-8, amplified a thousandfold by normalising few values seven times.
    case.golden.assert_close("train.logits", &pass.logits, 1e-3);
}

/// A layer alone, with the inputs, noise and cotangent of `layer_case`.
struct LayerCase {
    golden: Golden,
    plan: Plan,
    builder: Builder,
    latent: Option<VectorSource>,
}

impl LayerCase {
    fn new(name: &str, method: &TrainMethod) -> Self {
        Self {
            golden: Golden::load(name),
            plan: Plan::of(method).unwrap(),
            builder: Builder::new(0, Kind::Double, device()),
            latent: None,
        }
    }

    fn construction(&mut self) -> Construction<'_> {
        Construction { builder: &mut self.builder, plan: &self.plan, latent: &mut self.latent }
    }

    /// Runs `layer` on rows made of members' inputs, and compares output and gradients.
    fn check(self, shape: &[i64], layer: impl Fn(&Tensor, &Pass<'_>) -> Tensor) {
        let members = self.plan.members;
        let tensors = self.builder.finish();
        refill(&tensors);
        let x = fill("images", shape).set_requires_grad(true);
        let source = self.latent.as_ref();
        let drawn = source.map(|source| source.draw(&noise(source, shape[1])));
        let vectors = drawn.as_ref().map_or(&[][..], Drawn::vectors);
        let pass = Pass { vectors, statistics: Statistics::Batch, dropout: Dropout::Off };
        let y = layer(&x.transpose(0, 1).flatten(0, 1), &pass);
        let y = y.unflatten(0, [-1, members]).transpose(0, 1);
        self.golden.assert_close("y", &y, TOLERANCE);
        let mut total = (&y * fill("cotangent", &y.size())).sum(None);
        match (source, &drawn) {
            (Some(VectorSource::LpBnn(latent)), Some(Drawn::LpBnn(decoded))) => {
                let loss = latent.loss(decoded).total;
                self.golden.assert_close("latent.total", &loss, TOLERANCE);
                total += loss;
            }
            (Some(VectorSource::RankOne(space)), _) => {
                let kl = space.divergence();
                self.golden.assert_close("kl", &kl, TOLERANCE);
                total += kl * KL_FACTOR;
            }
            (Some(VectorSource::LpBnn(_)) | None, _) => {}
        }
        total.backward();
        self.golden.assert_close("gradient.x", &x.grad(), TOLERANCE);
        for named in tensors.iter().filter(|named| matches!(named.role, Role::Weight { .. })) {
            self.golden.assert_close(&format!("gradient.{}", named.name), &named.tensor.grad(), TOLERANCE);
        }
    }
}

fn check_conv(name: &str, method: &TrainMethod) {
    let mut case = LayerCase::new(name, method);
    let shape = ConvShape { inputs: 4, outputs: 3, kernel: 3, stride: 2, role: LayerRole::Main };
    let conv = Conv::new(&mut case.construction(), "layer", shape).unwrap();
    case.check(&[3, 2, 4, 5, 5], |x, pass| conv.forward(x, pass));
}

fn check_linear(name: &str, method: &TrainMethod) {
    let mut case = LayerCase::new(name, method);
    let linear = Linear::new(&mut case.construction(), "layer", 4, 3).unwrap();
    case.check(&[3, 3, 4], |x, pass| linear.forward(x, pass));
}

#[test]
fn layers_of_batch_ensemble_match_pytorch() {
    let method = TrainMethod::BatchEnsemble(batch_ensemble());
    check_conv("batch_ensemble_conv", &method);
    check_linear("batch_ensemble_linear", &method);
}

#[test]
fn layers_of_lp_bnn_match_pytorch() {
    check_conv("lp_bnn_conv", &TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Paper)));
    check_linear("lp_bnn_linear", &TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Official)));
}

#[test]
fn layers_of_rank_one_bnn_match_pytorch() {
    let method = TrainMethod::RankOne(rank_one());
    check_conv("rank_one_conv", &method);
    check_linear("rank_one_linear", &method);
}

#[test]
fn normalisation_per_member_matches_one_normalisation_after_the_other() {
    let mut case = LayerCase::new("per_member_norm", &TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Paper)));
    let norm = BatchNorm::new(&mut case.builder, "bn", &case.plan, Place::Block, 3).unwrap();
    let tensors = case.builder.finish();
    refill(&tensors);
    let x = fill("images", &[3, 4, 3, 2, 2]).set_requires_grad(true);
    let forward = |statistics| {
        let rows = x.transpose(0, 1).flatten(0, 1);
        norm.forward_relu(&rows, statistics).unflatten(0, [-1, 3]).transpose(0, 1)
    };
    let y = forward(Statistics::Batch);
    case.golden.assert_close("train.y", &y, TOLERANCE);
    (&y * fill("cotangent", &y.size())).sum(None).backward();
    case.golden.assert_close("gradient.x", &x.grad(), TOLERANCE);
    for named in &tensors {
        match named.role {
            Role::Weight { .. } => {
                case.golden.assert_close(
                    &format!("gradient.{}", named.name),
                    &named.tensor.grad(),
                    TOLERANCE,
                );
            }
            Role::Buffer => {
                case.golden.assert_close(&format!("buffer.{}", named.name), &named.tensor, TOLERANCE);
            }
            Role::Frozen | Role::State => panic!("`{}` is neither", named.name),
        }
    }
    case.golden.assert_close("evaluate.y", &forward(Statistics::Running), TOLERANCE);
}
