//! What holds for every network of a method, whatever its weights.

mod architectures;
mod distance;

use std::collections::BTreeSet;

use common::spec::{
    BatchEnsemblePreset, BatchEnsembleSettings, BatchMode, DropoutSettings, Encode, LatentSampling,
    LpBnnPreset, LpBnnSettings, ModelSpec, NormMode, RankOneSettings, TrainMethod, WideResNetVariant,
};
use tch::{Device, Kind, Tensor, no_grad};

use super::builder::Builder;
use super::{Mode, ModelError, Network, Role};
use crate::uq::posterior::VectorSource;

const SMALL: ModelSpec = ModelSpec::WideResNet { depth: 10, widen: 1, variant: WideResNetVariant::Authors };

/// Double precision, ten layers, values of order 1: rounding is near 1e-14.
const TOLERANCE: f64 = 1e-10;

fn build(method: &TrainMethod) -> Network {
    Network::build(&SMALL, method, [2, 8, 8], 4, Builder::new(3, Kind::Double, Device::Cpu)).unwrap()
}

fn batch_ensemble(settings: BatchEnsembleSettings) -> TrainMethod {
    TrainMethod::BatchEnsemble(settings)
}

fn lp_bnn(preset: LpBnnPreset) -> LpBnnSettings {
    LpBnnSettings { members: 3, latent: 4, ..preset.settings() }
}

/// Smooth values in ±1 that do not repeat, without a generator.
fn wave(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    ((Tensor::arange(count, (Kind::Double, Device::Cpu)) + phase) * 1.7).sin().view(shape)
}

fn images() -> Tensor {
    wave(&[6, 2, 8, 8], 0.3)
}

fn noise(network: &Network) -> Option<Tensor> {
    network.latent.as_ref().map(|source| match source {
        VectorSource::LpBnn(latent) => wave(&latent.noise_shape(), 0.7),
        VectorSource::RankOne(space) => wave(&space.noise_shape(6), 0.7),
    })
}

fn logits(network: &Network, mode: Mode) -> Tensor {
    no_grad(|| network.forward_with(&images(), mode, noise(network).as_ref())).logits
}

/// Overwrites the tensors whose name `choose` accepts.
fn set(network: &Network, choose: impl Fn(&str) -> bool, value: impl Fn(&Tensor) -> Tensor) {
    let mut found = 0;
    for mut named in network.named_tensors().into_iter().filter(|named| choose(&named.name)) {
        no_grad(|| named.tensor.copy_(&value(&named.tensor)));
        found += 1;
    }
    assert!(found > 0, "no such tensor");
}

fn tensor(network: &Network, name: &str) -> Tensor {
    let mut tensors = network.named_tensors().into_iter();
    tensors.find(|named| named.name == name).unwrap_or_else(|| panic!("no `{name}`")).tensor
}

/// Whether a tensor has a row for each member.
fn is_member_wise(name: &str, norm: NormMode, converted: &BTreeSet<String>) -> bool {
    let (path, last) = name.rsplit_once('.').unwrap();
    match last {
        "alpha" | "gamma" | "alpha_rho" | "gamma_rho" => true,
        "running_mean" | "running_var" => norm == NormMode::PerMember,
        "weight" | "bias" if path.rsplit('.').next().unwrap().starts_with("bn") => {
            norm == NormMode::PerMember
        }
        "bias" => converted.contains(path),
        _ => false,
    }
}

fn converted(network: &Network) -> BTreeSet<String> {
    network
        .named_tensors()
        .into_iter()
        .filter_map(|named| named.name.strip_suffix(".gamma").map(str::to_owned))
        .collect()
}

fn assert_close(actual: &Tensor, expected: &Tensor) {
    assert_eq!(actual.size(), expected.size());
    let worst = (actual - expected).abs().max().double_value(&[]);
    assert!(worst <= TOLERANCE, "off by {worst:e}");
}

/// Both ensemble methods, with normalisation of both kinds.
fn ensembles() -> Vec<(TrainMethod, NormMode)> {
    let mut methods = Vec::new();
    for norm in [NormMode::Shared, NormMode::PerMember] {
        let settings = BatchEnsembleSettings { members: 3, norm, ..BatchEnsembleSettings::default() };
        methods.push((batch_ensemble(settings), norm));
        methods.push((TrainMethod::LpBnn(LpBnnSettings { norm, ..lp_bnn(LpBnnPreset::Paper) }), norm));
        methods.push((TrainMethod::LpBnn(LpBnnSettings { norm, ..lp_bnn(LpBnnPreset::Official) }), norm));
        let encoding = |encode| LpBnnSettings { norm, encode, ..lp_bnn(LpBnnPreset::Paper) };
        methods.push((TrainMethod::LpBnn(encoding(Encode::Gamma)), norm));
        methods.push((TrainMethod::LpBnn(encoding(Encode::Both)), norm));
    }
    methods
}

fn rank_one() -> RankOneSettings {
    RankOneSettings { members: 3, ..RankOneSettings::default() }
}

fn original() -> BatchEnsembleSettings {
    BatchEnsembleSettings { members: 3, ..BatchEnsemblePreset::Original.settings() }
}

/// The methods of [`ensembles`], and those without biases in convolutions.
fn all_ensembles() -> Vec<(TrainMethod, NormMode)> {
    let mut methods = ensembles();
    methods.push((batch_ensemble(original()), NormMode::Shared));
    methods.push((TrainMethod::RankOne(rank_one()), NormMode::Shared));
    methods.push((
        TrainMethod::RankOne(RankOneSettings { norm: NormMode::PerMember, ..rank_one() }),
        NormMode::PerMember,
    ));
    methods
}

#[test]
fn wide_resnet_28_10_has_the_parameters_of_the_published_networks() {
    let counts = |method: &TrainMethod| {
        [10, 100].map(|classes| {
            let spec = ModelSpec::WideResNet { depth: 28, widen: 10, variant: WideResNetVariant::Authors };
            Network::new(&spec, method, [3, 32, 32], classes, 0, Device::Cpu).unwrap().parameter_count()
        })
    };
    let lp_bnn = |preset: LpBnnPreset| TrainMethod::LpBnn(preset.settings());
    assert_eq!(counts(&TrainMethod::Deterministic), [36_489_290, 36_546_980]);
    assert_eq!(counts(&batch_ensemble(BatchEnsembleSettings::default())), [36_588_108, 36_646_428]);
    assert_eq!(counts(&lp_bnn(LpBnnPreset::Official)), [37_329_839, 37_388_159]);
    assert_eq!(counts(&lp_bnn(LpBnnPreset::Paper)), [37_329_839, 37_388_159]);
}

#[test]
fn wide_resnet_28_10_converts_the_layers_of_the_published_networks() {
    let spec = ModelSpec::WideResNet { depth: 28, widen: 10, variant: WideResNetVariant::Authors };
    let build = |method: &TrainMethod| Network::new(&spec, method, [3, 32, 32], 10, 0, Device::Cpu).unwrap();
    let official = build(&TrainMethod::LpBnn(LpBnnPreset::Official.settings()));
    assert_eq!(converted(&official).len(), 29);
    assert_eq!(official.latent_layers().count(), 29);
    let frozen: usize = official
        .named_tensors()
        .iter()
        .filter(|named| named.role == Role::Frozen)
        .map(|named| named.tensor.numel())
        .sum();
    assert_eq!(frozen, 35_340);
    let ensemble = build(&batch_ensemble(BatchEnsembleSettings::default()));
    assert_eq!(converted(&ensemble).len(), 26);
    assert!(converted(&ensemble).iter().all(|path| !path.ends_with("shortcut")));
}

#[test]
fn only_scales_and_codes_escape_weight_decay() {
    for (method, _) in all_ensembles() {
        let network = build(&method);
        let names: BTreeSet<String> = network.named_tensors().into_iter().map(|named| named.name).collect();
        assert_eq!(names.len(), network.named_tensors().len(), "a name is used twice");
        for named in network.named_tensors() {
            let vector = named.name.ends_with(".alpha") || named.name.ends_with(".gamma");
            let scale = vector || named.name.ends_with("_rho");
            let running = named.name.contains(".running_");
            match named.role {
                Role::Weight { decay, .. } => assert_eq!(decay, !scale, "{}", named.name),
                Role::Frozen => assert!(vector, "{}", named.name),
                Role::Buffer => assert!(running, "{}", named.name),
                Role::State => panic!("{}", named.name),
            }
            assert_eq!(named.tensor.requires_grad(), matches!(named.role, Role::Weight { .. }));
        }
    }
}

#[test]
fn members_with_neutral_scales_are_the_base_network() {
    let base = build(&TrainMethod::Deterministic);
    for (method, norm) in ensembles() {
        let network = build(&method);
        set(&network, |name| name.ends_with(".alpha") || name.ends_with(".gamma"), Tensor::ones_like);
        if network.latent.is_some() {
            set(&network, |name| name.ends_with("decoder.weight"), Tensor::zeros_like);
            set(&network, |name| name.ends_with("decoder.bias"), Tensor::ones_like);
        }
        for path in converted(&network) {
            let name = format!("{path}.bias");
            let bias = tensor(&base, &name);
            set(&network, |other| other == name, |rows| bias.expand_as(rows));
        }
        if norm == NormMode::PerMember {
            set(&network, |name| name.contains("bn") && name.ends_with(".weight"), Tensor::ones_like);
        }
        for mode in [Mode::Train, Mode::Evaluate] {
            assert_close(&logits(&network, mode), &logits(&base, mode).repeat([3, 1]));
            // Last normalisations differ in momentum, so go on from the same statistics.
            for net in [&base, &network] {
                set(net, |name| name.ends_with("running_mean"), |values| values.full_like(0.1));
                set(net, |name| name.ends_with("running_var"), |values| values.full_like(1.5));
            }
        }
    }
}

/// A network of one member, with the values of member `member` of `all`.
fn extract(all: &Network, method: &TrainMethod, norm: NormMode, member: i64) -> Network {
    let method = match method.clone() {
        TrainMethod::BatchEnsemble(settings) => {
            batch_ensemble(BatchEnsembleSettings { members: 1, ..settings })
        }
        TrainMethod::LpBnn(settings) => TrainMethod::LpBnn(LpBnnSettings { members: 1, ..settings }),
        TrainMethod::RankOne(settings) => TrainMethod::RankOne(RankOneSettings { members: 1, ..settings }),
        other => panic!("{other:?} has no members of this kind"),
    };
    let one = build(&method);
    let converted = converted(all);
    for (mut to, from) in one.named_tensors().into_iter().zip(all.named_tensors()) {
        assert_eq!(to.name, from.name);
        let values = match is_member_wise(&from.name, norm, &converted) {
            true => from.tensor.narrow(0, member, 1),
            false => from.tensor,
        };
        no_grad(|| to.tensor.copy_(&values));
    }
    one
}

#[test]
fn one_pass_with_all_members_is_a_pass_of_each() {
    for (method, norm) in all_ensembles() {
        let all = build(&method);
        // Statistics of a training pass, so that members differ in them too.
        let _ = logits(&all, Mode::Train);
        let together = logits(&all, Mode::Evaluate);
        let noise = noise(&all);
        for member in 0..3 {
            let one = extract(&all, &method, norm, member);
            let noise = noise.as_ref().map(|noise| noise.narrow(1, member, 1));
            let apart = no_grad(|| one.forward_with(&images(), Mode::Evaluate, noise.as_ref())).logits;
            assert_close(&together.narrow(0, member * 6, 6), &apart);
        }
    }
}

#[test]
fn permuting_members_permutes_their_rows() {
    let order = Tensor::from_slice(&[2i64, 0, 1]);
    for (method, norm) in all_ensembles() {
        let network = build(&method);
        let before = network.forward_with(&images(), Mode::Train, noise(&network).as_ref());
        let converted = converted(&network);
        set(&network, |name| is_member_wise(name, norm, &converted), |rows| rows.index_select(0, &order));
        let noise = noise(&network).map(|noise| noise.index_select(1, &order));
        let after = network.forward_with(&images(), Mode::Train, noise.as_ref());
        let blocks = before.logits.unflatten(0, [3, -1]).index_select(0, &order).flatten(0, 1);
        assert_close(&after.logits, &blocks);
        if let (Some(before), Some(after)) = (before.latent, after.latent) {
            assert_close(&after.total, &before.total);
        }
    }
}

#[test]
fn a_repeated_batch_has_a_row_for_each_member_and_image() {
    let y = Tensor::from_slice(&[0i64, 1, 2, 3, 0, 1]);
    let network = build(&TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Paper)));
    assert_eq!(network.members(), 3);
    assert_eq!(logits(&network, Mode::Train).size(), [18, 4]);
    assert_eq!(logits(&network, Mode::Evaluate).size(), [18, 4]);
    assert_eq!(network.training_batch(&images(), &y).1, Tensor::cat(&[&y, &y, &y], 0));
    assert!(network.check_batch(7).is_ok());
}

#[test]
fn a_split_batch_has_a_row_for_each_image() {
    let y = Tensor::from_slice(&[0i64, 1, 2, 3, 0, 1]);
    let network = build(&TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Official2020)));
    assert_eq!(logits(&network, Mode::Train).size(), [6, 4]);
    assert_eq!(logits(&network, Mode::Evaluate).size(), [18, 4]);
    assert_eq!(network.training_batch(&images(), &y).1, y);
    assert!(network.check_batch(6).is_ok());
    assert!(matches!(network.check_batch(7), Err(ModelError::Split { batch: 7, members: 3 })));
}

#[test]
fn a_member_of_a_split_batch_sees_its_own_block() {
    let settings = BatchEnsembleSettings {
        members: 3,
        batch: BatchMode::Split,
        norm: NormMode::PerMember,
        ..BatchEnsembleSettings::default()
    };
    let network = build(&batch_ensemble(settings));
    let before = logits(&network, Mode::Train);
    let changed = images();
    let _ = changed.narrow(0, 2, 2).neg_();
    let after = no_grad(|| network.forward(&changed, Mode::Train)).logits;
    let difference = (after - before).abs().amax([1i64].as_slice(), false);
    let moved = Vec::<f64>::try_from(difference).unwrap();
    assert!(moved.iter().enumerate().all(|(row, &by)| (by > 1e-6) == (2..4).contains(&row)), "{moved:?}");
}

#[test]
fn the_divergence_is_zero_only_at_the_prior() {
    let network = build(&TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Paper)));
    let kl = || {
        let pass = network.forward_with(&images(), Mode::Train, noise(&network).as_ref());
        Vec::<f64>::try_from(pass.latent.unwrap().kl).unwrap()
    };
    assert!(kl().iter().all(|&kl| kl > 0.0));
    set(&network, |name| name.contains(".mean.") || name.contains(".log_variance."), Tensor::zeros_like);
    assert!(kl().iter().all(|&kl| kl == 0.0));
    for (head, value) in [("mean", 0.1), ("mean", -0.1), ("log_variance", 0.1), ("log_variance", -0.1)] {
        let name = format!("stem.{head}.bias");
        set(&network, |other| other == name, |bias| bias.full_like(value));
        let kl = kl();
        assert!(kl[0] > 0.0, "{head} {value}");
        assert!(kl[1..].iter().all(|&kl| kl == 0.0));
        set(&network, |other| other == name, Tensor::zeros_like);
    }
}

#[test]
fn decoded_vectors_are_gaussian_of_rank_at_most_the_latent_size() {
    let settings = LpBnnSettings { std_factor: 0.7, ..lp_bnn(LpBnnPreset::Paper) };
    let network = build(&TrainMethod::LpBnn(settings));
    let latent = network.vaes().unwrap();
    let [layers, members, size] = latent.noise_shape();
    let zero = Tensor::zeros([layers, members, size], (Kind::Double, Device::Cpu));
    // A decoded vector is affine in its noise: its value at zero is the mean, the change along each axis
    // a column of a root of the covariance.
    let at = |noise: &Tensor| no_grad(|| latent.decode(noise)).scales;
    let center = at(&zero);
    for (place, path) in latent.names().enumerate() {
        let posterior = network.decoded_posterior(path).unwrap();
        assert_close(&posterior.mean, &center[place]);
        let columns: Vec<Tensor> = (0..size)
            .map(|axis| {
                let noise = zero.copy();
                let _ = noise.select(2, axis).fill_(1.0);
                &at(&noise)[place] - &center[place]
            })
            .collect();
        let root = Tensor::stack(&columns, 2);
        assert_close(&posterior.covariance, &root.matmul(&root.transpose(1, 2)));
        let inputs = posterior.mean.size()[1];
        let spectrum = posterior.covariance.linalg_eigvalsh("L");
        let largest = spectrum.max().double_value(&[]);
        if inputs > size {
            let rest = spectrum.narrow(1, 0, inputs - size).abs().max().double_value(&[]);
            assert!(rest < 1e-12 * largest, "{path} has rank above {size}: {rest:e} of {largest:e}");
        }
        let correlated = posterior.covariance.triu(1).abs().max().double_value(&[]);
        assert!(correlated > 1e-3 * largest, "inputs of {path} are independent");
    }
    assert!(network.decoded_posterior("groups.0.0").is_none());
}

#[test]
fn diagnostics_are_the_expectations_of_the_posterior() {
    let network = build(&TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Paper)));
    let pass = network.forward_with(&images(), Mode::Train, noise(&network).as_ref());
    let kl = Vec::<f64>::try_from(pass.latent.unwrap().kl).unwrap();
    let diagnostics = network.diagnostics();
    assert_eq!(diagnostics.len(), kl.len());
    for (layer, kl) in diagnostics.iter().zip(kl) {
        let posterior = network.decoded_posterior(&layer.layer).unwrap();
        let codes = tensor(&network, &format!("{}.alpha", layer.layer));
        let variance = posterior.covariance.diagonal(0, 1, 2);
        let error = ((&posterior.mean - codes).square() + variance).mean(None).double_value(&[]);
        let spread = (&posterior.mean - posterior.mean.mean_dim([0i64].as_slice(), true, None::<Kind>))
            .square()
            .mean_dim([0i64].as_slice(), false, None::<Kind>)
            .sqrt()
            .mean(None)
            .double_value(&[]);
        assert!((layer.kl - kl / 3.0).abs() < 1e-12);
        assert!((layer.reconstruction - error).abs() < 1e-12);
        assert!((layer.spread - spread).abs() < 1e-12 && spread > 0.0);
    }
    set(&network, |name| name.contains(".mean."), Tensor::zeros_like);
    assert!(network.diagnostics().iter().all(|layer| layer.spread.abs() < 1e-12), "collapse is not seen");
}

#[test]
fn an_autoencoder_layer_has_no_covariance() {
    let network = build(&TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Official)));
    let covariance = |path| network.decoded_posterior(path).unwrap().covariance.abs().max().double_value(&[]);
    assert_eq!(covariance("stem"), 0.0);
    assert!(covariance("linear") > 0.0);
}

/// Values of the tensors whose name `choose` accepts, as one.
fn pool(network: &Network, choose: impl Fn(&str) -> bool) -> Tensor {
    let named = network.named_tensors().into_iter().filter(|named| choose(&named.name));
    let values: Vec<Tensor> = named.map(|named| named.tensor.detach().flatten(0, -1)).collect();
    Tensor::cat(&values, 0)
}

fn assert_normal(values: &Tensor, mean: f64, std: f64) {
    // Five standard errors; the draws are fixed by the seed, so this passes or fails for good.
    let error = 5.0 / (values.numel() as f64).sqrt();
    let (actual_std, actual_mean) = values.std_mean(true);
    let (actual_std, actual_mean) = (actual_std.double_value(&[]), actual_mean.double_value(&[]));
    assert!((actual_mean - mean).abs() < error * std, "mean {actual_mean}, not {mean}");
    assert!((actual_std / std - 1.0).abs() < error, "standard deviation {actual_std}, not {std}");
}

#[test]
fn scales_codes_and_member_norms_start_as_their_settings_say() {
    let settings = LpBnnSettings { code_std: 0.3, scale_std: 0.6, ..LpBnnPreset::Paper.settings() };
    let network = build(&TrainMethod::LpBnn(settings));
    assert_normal(&pool(&network, |name| name.ends_with(".alpha")), 1.0, 0.3);
    assert_normal(&pool(&network, |name| name.ends_with(".gamma")), 1.0, 0.6);
    assert_normal(&pool(&network, |name| name.contains("bn") && name.ends_with(".weight")), 1.0, 0.1);
    let settings = BatchEnsembleSettings { scale_std: 0.4, ..BatchEnsembleSettings::default() };
    let network = build(&batch_ensemble(settings));
    let scales = pool(&network, |name| name.ends_with(".alpha") || name.ends_with(".gamma"));
    assert_normal(&scales, 1.0, 0.4);
    assert_eq!(
        pool(&network, |name| name.contains("bn") && name.ends_with(".weight")).min(),
        Tensor::from(1.0)
    );
}

#[test]
fn weights_and_biases_start_uniform_within_the_inverse_root_of_the_fan_in() {
    let network = build(&TrainMethod::LpBnn(LpBnnPreset::Paper.settings()));
    for named in network.named_tensors() {
        let Some((path, "weight" | "bias")) = named.name.rsplit_once('.') else { continue };
        if path.rsplit('.').next().unwrap().starts_with("bn") {
            continue;
        }
        let fan_in: i64 = tensor(&network, &format!("{path}.weight")).size()[1..].iter().product();
        let unit = named.tensor.detach() * (fan_in as f64).sqrt();
        let largest = unit.abs().max().double_value(&[]);
        assert!(largest <= 1.0 + 1e-6, "{} exceeds its bound {largest} times", named.name);
        // The largest of n uniform draws misses the bound by 1/n on average; by 10/n once in 20,000.
        let margin = 10.0 / named.tensor.numel() as f64;
        assert!(largest > 1.0 - margin, "{} keeps to {largest} of its bound", named.name);
    }
}

#[test]
fn methods_start_from_the_same_shared_weights() {
    let base = build(&TrainMethod::Deterministic);
    let network = build(&TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Paper)));
    for named in base
        .named_tensors()
        .iter()
        .filter(|named| named.name.ends_with(".weight") && !named.name.contains("bn"))
    {
        assert_eq!(tensor(&network, &named.name), named.tensor, "{}", named.name);
    }
}

#[test]
fn settings_that_make_no_network_are_refused_by_name() {
    let error = |method: &TrainMethod, input, classes| match Network::new(
        &SMALL,
        method,
        input,
        classes,
        0,
        Device::Cpu,
    ) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    };
    let paper = LpBnnPreset::Paper.settings();
    let lp_bnn = |settings| error(&TrainMethod::LpBnn(settings), [1, 8, 8], 10);
    assert_eq!(
        error(&TrainMethod::Deterministic, [1, 0, 8], 10),
        "images of shape 1×0×8 hold nothing to classify"
    );
    assert_eq!(
        error(&TrainMethod::Deterministic, [1, 8, 8], 1),
        "a classifier needs at least 2 classes, not 1"
    );
    assert_eq!(
        error(
            &TrainMethod::Dropout(DropoutSettings { rate: 1.0, ..DropoutSettings::default() }),
            [1, 8, 8],
            10
        ),
        "dropout rate 1 is not in [0, 1)"
    );
    assert_eq!(
        lp_bnn(LpBnnSettings { members: 0, ..paper.clone() }),
        "an ensemble needs at least 1 member: set `members`"
    );
    assert_eq!(
        lp_bnn(LpBnnSettings { latent: 0, ..paper.clone() }),
        "the latent size is 0: set `latent` to at least 1"
    );
    assert_eq!(
        lp_bnn(LpBnnSettings { code_std: f64::NAN, conv_sampling: LatentSampling::Autoencoder, ..paper }),
        "`code-std` is NaN: it must be finite and not negative"
    );
}
