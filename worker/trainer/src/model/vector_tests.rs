//! Members' vectors and what they imply for the weights: rank-1 BNN, the posteriors of LP-BNN, the cosine of members.

use common::spec::{
    BatchEnsemblePreset, BatchEnsembleSettings, Encode, LpBnnPreset, LpBnnSettings, ModelSpec, NormMode,
    RankOneSettings, ScaleInit, TrainMethod, WideResNetVariant,
};
use tch::{Device, Kind, Tensor, no_grad};

use super::builder::{Builder, Init, Owner};
use super::{Mode, Network, Role};
use crate::uq::posterior::VectorSource;
use crate::uq::{Side, Spread};

const SMALL: ModelSpec = ModelSpec::WideResNet { depth: 10, widen: 1, variant: WideResNetVariant::Authors };

fn build(method: &TrainMethod) -> Network {
    Network::build(&SMALL, method, [2, 8, 8], 4, Builder::new(3, Kind::Double, Device::Cpu)).unwrap()
}

fn normal(name: &str, shape: &[i64]) -> Tensor {
    let mut builder = Builder::new(11, Kind::Double, Device::Cpu);
    builder.frozen(name.to_owned(), shape, Init::Normal { mean: 0.0, std: 1.0 }).unwrap()
}

fn images() -> Tensor {
    normal("images", &[6, 2, 8, 8])
}

fn rank_one() -> RankOneSettings {
    RankOneSettings { members: 3, ..RankOneSettings::default() }
}

fn original() -> BatchEnsembleSettings {
    BatchEnsembleSettings { members: 3, ..BatchEnsemblePreset::Original.settings() }
}

fn encoding(encode: Encode) -> TrainMethod {
    let settings = LpBnnSettings { members: 3, latent: 4, std_factor: 0.7, ..LpBnnPreset::Paper.settings() };
    TrainMethod::LpBnn(LpBnnSettings { encode, ..settings })
}

fn set(network: &Network, choose: impl Fn(&str) -> bool, value: impl Fn(&Tensor) -> Tensor) {
    for mut named in network.named_tensors().into_iter().filter(|named| choose(&named.name)) {
        no_grad(|| named.tensor.copy_(&value(&named.tensor)));
    }
}

fn space(network: &Network) -> &crate::uq::rank_one::RankOneSpace {
    match network.latent.as_ref() {
        Some(VectorSource::RankOne(space)) => space,
        Some(VectorSource::LpBnn(_)) | None => panic!("no rank-1 BNN"),
    }
}

fn assert_close(actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(actual.size(), expected.size());
    let worst = (actual - expected).abs().max().double_value(&[]);
    assert!(worst <= tolerance, "off by {worst:e}");
}

#[test]
fn rank_one_vectors_that_do_not_vary_are_those_of_batch_ensemble() {
    let network = build(&TrainMethod::RankOne(rank_one()));
    let base = build(&TrainMethod::BatchEnsemble(BatchEnsembleSettings {
        init: ScaleInit::RandomSign { probability: 0.5 },
        ..original()
    }));
    // Same names and initial values: only the deviations are more.
    let names = |network: &Network| -> Vec<String> {
        network.named_tensors().into_iter().map(|named| named.name).collect()
    };
    let without: Vec<String> = names(&network).into_iter().filter(|name| !name.ends_with("_rho")).collect();
    assert_eq!(without, names(&base));
    for (rank_one, base) in
        network.named_tensors().iter().filter(|named| !named.name.ends_with("_rho")).zip(base.named_tensors())
    {
        assert_eq!(rank_one.tensor, base.tensor, "{}", rank_one.name);
        assert_eq!(rank_one.role, base.role, "{}", rank_one.name);
    }
    let shape = space(&network).noise_shape(6);
    let expected = no_grad(|| base.forward(&images(), Mode::Evaluate)).logits;
    let logits =
        |noise: &Tensor| no_grad(|| network.forward_with(&images(), Mode::Evaluate, Some(noise))).logits;
    assert_close(&logits(&Tensor::zeros(shape, (Kind::Double, Device::Cpu))), &expected, 1e-12);
    let noise = normal("noise", &shape);
    assert!((logits(&noise) - &expected).abs().max().double_value(&[]) > 1e-3);
    // Only the epsilon of the deviation is left: 1e-7 of each vector.
    set(&network, |name| name.ends_with("_rho"), |rho| rho.full_like(-60.0));
    assert_close(&logits(&noise), &expected, 1e-4);
}

#[test]
fn each_example_has_rank_one_vectors_of_its_own() {
    let x = images().narrow(0, 0, 1).repeat([4, 1, 1, 1]);
    let rows = |method: &TrainMethod| {
        let logits = no_grad(|| build(method).forward(&x, Mode::Evaluate)).logits.unflatten(0, [3, -1]);
        (logits.narrow(1, 1, 3) - logits.narrow(1, 0, 1))
            .abs()
            .amin([0i64, 1, 2].as_slice(), false)
            .double_value(&[])
    };
    assert!(rows(&TrainMethod::RankOne(rank_one())) > 0.0);
    // One draw a pass: the same image gives the same row.
    assert_eq!(rows(&encoding(Encode::Both)), 0.0);
}

#[test]
fn the_divergence_of_rank_one_vectors_is_zero_only_at_the_prior() {
    let network = build(&TrainMethod::RankOne(RankOneSettings { prior_std: 0.2, ..rank_one() }));
    let kl = || no_grad(|| space(&network).divergence()).double_value(&[]);
    assert!(kl() > 0.0);
    let rho = (0.2f64 - 1e-7).exp_m1().ln();
    let vector = |name: &str| name.ends_with(".alpha") || name.ends_with(".gamma");
    set(&network, vector, |mean| mean.ones_like());
    set(&network, |name| name.ends_with("_rho"), |values| values.full_like(rho));
    assert!(kl().abs() < 1e-10, "{}", kl());
    let channels = space(&network).noise_shape(1)[2] as f64;
    for (suffix, value, each) in [
        // ((μ − 1) / σ)² / 2
        (".alpha", 1.1, 0.125),
        // ln(σ / τ) + τ² / 2σ² − 1/2 for τ = 2σ
        ("_rho", (0.4f64 - 1e-7).exp_m1().ln(), 1.5 - 2f64.ln()),
    ] {
        let name = format!("stem{suffix}");
        let (name, count) = if suffix == "_rho" { ("_rho".to_owned(), channels) } else { (name, 2.0) };
        let before: Vec<_> = network.named_tensors();
        let kept: Vec<Tensor> = before.iter().map(|named| named.tensor.detach().copy()).collect();
        set(&network, |other| other.ends_with(&name), |values| values.full_like(value));
        let expected = 3.0 * count * each;
        assert!((kl() / expected - 1.0).abs() < 1e-9, "{suffix}: {} is not {expected}", kl());
        for (mut named, kept) in before.into_iter().zip(kept) {
            no_grad(|| named.tensor.copy_(&kept));
        }
    }
}

#[test]
fn rank_one_vectors_start_as_their_settings_say() {
    let network = build(&TrainMethod::RankOne(RankOneSettings {
        members: 8,
        sign_probability: 0.25,
        initial_dropout_rate: 0.2,
        ..RankOneSettings::default()
    }));
    let (mut signs, mut stds) = (Vec::new(), Vec::new());
    for posterior in network.vector_posteriors() {
        let Spread::Independent(std) = &posterior.spread else { panic!("{posterior:?} does not vary") };
        signs.push(posterior.mean.flatten(0, -1));
        stds.push(std.flatten(0, -1));
    }
    let [signs, stds] = [signs, stds].map(|parts| Tensor::cat(&parts, 0));
    assert_eq!(signs.abs().min().double_value(&[]), 1.0);
    let positive = signs.gt(0.0).to_kind(Kind::Double).mean(None).double_value(&[]);
    // 3,800 signs: five standard errors are 0.035.
    assert!((positive - 0.25).abs() < 0.035, "{positive}");
    // √(0.2 / 0.8) = 1/2 where ρ is at its middle, and ρ varies by 0.2 at most.
    let [low, high] = [stds.min(), stds.max()].map(|value| value.double_value(&[]));
    let at = |rho: f64| rho.exp().ln_1p();
    let middle = 0.5f64.exp_m1().ln();
    assert!(low >= at(middle - 0.2) && high <= at(middle + 0.2) + 1e-6, "{low} to {high}");
    assert!((stds.mean(None).double_value(&[]) - 0.5).abs() < 0.005);
}

#[test]
fn what_trains_at_the_members_rate_is_all_that_a_member_has_of_its_own_but_norms() {
    let network =
        build(&TrainMethod::BatchEnsemble(BatchEnsembleSettings { norm: NormMode::PerMember, ..original() }));
    for named in network.named_tensors() {
        let last = named.name.rsplit('.').next().unwrap();
        let own = matches!(last, "alpha" | "gamma") || named.name == "linear.bias";
        if let Role::Weight { owner, .. } = named.role {
            assert_eq!(owner == Owner::Member, own, "{}", named.name);
        }
        assert!(!(last == "bias" && named.name.contains("conv")), "{}", named.name);
    }
}

#[test]
fn networks_without_convolution_biases_have_the_parameters_of_the_arithmetic() {
    let count = |method: &TrainMethod, classes| {
        let spec = ModelSpec::WideResNet { depth: 28, widen: 10, variant: WideResNetVariant::Authors };
        Network::new(&spec, method, [3, 32, 32], classes, 0, Device::Cpu).unwrap().parameter_count()
    };
    // (inputs, outputs) of the 28 convolutions: stem, then 4 blocks of each group with one shortcut.
    let mut convolutions = vec![(3, 16)];
    for (before, width) in [(16, 160), (160, 320), (320, 640)] {
        convolutions.extend([(before, width), (before, width)]);
        convolutions.extend([(width, width); 7]);
    }
    let channels: i64 = convolutions.iter().map(|(inputs, outputs)| inputs + outputs).sum();
    for classes in [10, 100] {
        let vectors = 4 * (channels + 640 + classes);
        let deterministic = count(&TrainMethod::Deterministic, classes);
        // Without the biases of convolutions, and with three more rows of the last layer's.
        let biases: i64 = convolutions.iter().map(|(_, outputs)| outputs).sum();
        let ensemble = deterministic - biases + vectors + 3 * classes;
        let original = BatchEnsemblePreset::Original.settings();
        assert_eq!(count(&TrainMethod::BatchEnsemble(original), classes), ensemble);
        let rank_one = TrainMethod::RankOne(RankOneSettings::default());
        assert_eq!(count(&rank_one, classes), ensemble + vectors);
    }
}

/// Weights of each member of a layer, formed: `[J, n]`.
fn formed(weight: &Tensor, alpha: &Tensor, gamma: &Tensor) -> Tensor {
    let shape = weight.size();
    let weight = weight.reshape([1, shape[0], shape[1], -1]);
    (weight * gamma.unsqueeze(2).unsqueeze(3) * alpha.unsqueeze(1).unsqueeze(3)).flatten(1, -1)
}

#[test]
fn moments_of_weights_are_those_of_twenty_thousand_draws() {
    const DRAWS: i64 = 40;
    const ROWS: i64 = 500;
    for encode in [Encode::Alpha, Encode::Gamma, Encode::Both] {
        let TrainMethod::LpBnn(settings) = encoding(encode) else { unreachable!() };
        let settings = LpBnnSettings { members: ROWS as u32, norm: NormMode::Shared, ..settings };
        let network = build(&TrainMethod::LpBnn(settings));
        // All members are the first: each is a draw of the same posterior.
        let row = |name: &str| name.ends_with(".alpha") || name.ends_with(".gamma");
        set(&network, row, |rows| rows.narrow(0, 0, 1).expand_as(rows));
        let latent = network.vaes().unwrap();
        let [vaes, members, size] = latent.noise_shape();
        let noise = normal("noise", &[DRAWS, vaes, members, size]);
        let layer = "linear";
        let posteriors = network.vector_posteriors();
        let point = |side: Side| {
            let found =
                posteriors.iter().find(|posterior| posterior.layer == layer && posterior.side == side);
            found.unwrap().mean.shallow_clone()
        };
        let place = |name: &str| latent.names().position(|other| other == name);
        let weight = network.tensor("linear.weight").unwrap();
        let draws: Vec<Tensor> = (0..DRAWS)
            .map(|draw| {
                let scales = no_grad(|| latent.decode(&noise.get(draw))).scales;
                let pick =
                    |name: &str, side| place(name).map_or_else(|| point(side), |place| scales[place].copy());
                no_grad(|| formed(weight, &pick("linear", Side::Alpha), &pick("linear/gamma", Side::Gamma)))
            })
            .collect();
        let draws = Tensor::cat(&draws, 0);
        let count = (DRAWS * ROWS) as f64;
        let posterior = network.weight_posterior(layer).unwrap();
        let mean = posterior.mean.get(0).flatten(0, -1);
        let factor = posterior.factor.get(0);
        let covariance = factor.matmul(&factor.tr());

        let variance = covariance.diagonal(0, 0, 1);
        let found = draws.mean_dim([0i64].as_slice(), false, None::<Kind>);
        let errors = (&found - &mean).abs() / (variance / count).sqrt().clamp_min(1e-12);
        assert!(errors.max().double_value(&[]) < 5.0, "{encode:?}: a mean is {} off", errors.max());
        // 6 standard errors, of 51,360 entries; each from the draws' own fourth moment.
        let centred = &draws - &mean;
        let found = centred.tr().matmul(&centred) / count;
        let fourth = centred.square().tr().matmul(&centred.square()) / count;
        let errors =
            (&found - &covariance).abs() / ((fourth - found.square()) / count).sqrt().clamp_min(1e-12);
        assert!(errors.max().double_value(&[]) < 6.0, "{encode:?}: a covariance is {} off", errors.max());
        let spectrum = covariance.linalg_eigvalsh("L").flip([0i64].as_slice());
        let largest = spectrum.double_value(&[0]);
        // γ has only the 4 channels of its classes, so rank-4 factors both: 4 + 4 + 16.
        let rank = if encode == Encode::Both { 24 } else { 4 };
        assert!(spectrum.double_value(&[rank]).abs() < 1e-12 * largest, "{encode:?} has rank above {rank}");
        assert!(covariance.triu(1).abs().max().double_value(&[]) > 1e-2 * largest / 320.0);
    }
}

#[test]
fn methods_without_decoded_vectors_have_no_moments_of_weights() {
    for method in
        [TrainMethod::Deterministic, TrainMethod::RankOne(rank_one()), TrainMethod::BatchEnsemble(original())]
    {
        assert!(build(&method).weight_posterior("linear").is_none());
    }
    assert!(build(&encoding(Encode::Both)).weight_posterior("groups.0").is_none());
}

#[test]
fn the_cosine_of_members_is_that_of_weights_that_were_formed() {
    for method in [
        TrainMethod::BatchEnsemble(BatchEnsembleSettings { members: 3, ..BatchEnsembleSettings::default() }),
        encoding(Encode::Alpha),
        encoding(Encode::Both),
        TrainMethod::RankOne(rank_one()),
    ] {
        let network = build(&method);
        let (mut sum, mut weights) = (0.0, 0.0);
        for pair in network.vector_posteriors().chunks(2) {
            let weight = network.tensor(&format!("{}.weight", pair[0].layer)).unwrap();
            let members = no_grad(|| formed(weight, &pair[0].mean, &pair[1].mean));
            for (one, other) in [(0, 1), (0, 2), (1, 2)] {
                let [one, other] = [one, other].map(|member| members.get(member));
                let cosine = one.dot(&other) / (one.norm() * other.norm());
                sum += cosine.double_value(&[]) / 3.0 * weight.numel() as f64;
            }
            weights += weight.numel() as f64;
        }
        let found = network.weight_cosine().unwrap();
        assert!((found - sum / weights).abs() < 1e-12, "{found} is not {}", sum / weights);
        assert!(found < 0.99, "members differ: {found}");
        // All members alike, but for a factor.
        let row = |name: &str| name.ends_with(".alpha") || name.ends_with(".gamma");
        set(&network, row, |rows| rows.narrow(0, 0, 1).expand_as(rows));
        assert!((network.weight_cosine().unwrap() - 1.0).abs() < 1e-12);
    }
    assert_eq!(build(&TrainMethod::Deterministic).weight_cosine(), None);
    let single = BatchEnsembleSettings { members: 1, ..BatchEnsembleSettings::default() };
    assert_eq!(build(&TrainMethod::BatchEnsemble(single)).weight_cosine(), None);
}

#[test]
fn each_vae_is_watched() {
    let names = |encode| -> Vec<String> {
        build(&encoding(encode)).diagnostics().into_iter().map(|vae| vae.layer).take(2).collect()
    };
    assert_eq!(names(Encode::Alpha), ["stem", "groups.0.0.conv1"]);
    assert_eq!(names(Encode::Gamma), ["stem/gamma", "groups.0.0.conv1/gamma"]);
    assert_eq!(names(Encode::Both), ["stem", "stem/gamma"]);
}
