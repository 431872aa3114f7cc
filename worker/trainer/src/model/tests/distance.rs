//! Evidential networks, DUQ and SNGP.

use common::spec::{DuqSettings, EvidentialSettings, SngpSettings};

use super::super::layers::{Construction, Linear};
use super::super::norm::Statistics;
use super::super::plan::Plan;
use super::super::{Dropout, Pass};
use super::*;

fn methods() -> [TrainMethod; 3] {
    [
        TrainMethod::Evidential(EvidentialSettings::default()),
        TrainMethod::Duq(DuqSettings::default()),
        TrainMethod::Sngp(SngpSettings { features: 128, ..SngpSettings::default() }),
    ]
}

/// A bound that no layer meets.
fn unbounded() -> SngpSettings {
    SngpSettings { spectral_bound: 1e9, features: 32, ..SngpSettings::default() }
}

#[test]
fn wide_resnet_28_10_has_the_parameters_of_its_head_and_body() {
    let spec = ModelSpec::WideResNet { depth: 28, widen: 10, variant: WideResNetVariant::Authors };
    let body = 36_489_290 - (640 * 10 + 10);
    for (method, head) in [
        (TrainMethod::Duq(DuqSettings::default()), 640 * 10 * 640),
        // Frequencies and phases, which are frozen, and output weights without a bias.
        (TrainMethod::Sngp(SngpSettings::default()), 1024 * 640 + 1024 + 10 * 1024),
    ] {
        let network = Network::new(&spec, &method, [3, 32, 32], 10, 0, Device::Cpu).unwrap();
        assert_eq!(network.parameter_count(), body + head, "{method:?}");
    }
}

#[test]
fn their_bodies_start_from_the_weights_of_the_deterministic_network() {
    let deterministic = build(&TrainMethod::Deterministic);
    for method in methods() {
        let network = build(&method);
        for named in deterministic.named_tensors() {
            let mut tensors = network.named_tensors().into_iter();
            match tensors.find(|other| other.name == named.name) {
                Some(other) => assert_eq!(other.tensor, named.tensor, "{}", named.name),
                None => assert!(named.name.starts_with("linear."), "{}", named.name),
            }
        }
    }
}

#[test]
fn every_trained_tensor_of_theirs_gets_a_gradient() {
    for method in methods() {
        let network = build(&method);
        network.forward(&images(), Mode::Train).logits.square().sum(Kind::Double).backward();
        for named in network.named_tensors() {
            let trained = matches!(named.role, Role::Weight { .. });
            assert_eq!(named.tensor.grad().defined(), trained, "{} of {method:?}", named.name);
        }
    }
}

#[test]
fn a_bound_that_no_layer_meets_leaves_the_features_of_the_deterministic_network() {
    let (bounded, free) = (build(&TrainMethod::Sngp(unbounded())), build(&TrainMethod::Deterministic));
    for mode in [Mode::Train, Mode::Evaluate] {
        let features = |network: &Network| no_grad(|| network.forward(&images(), mode)).features;
        assert_eq!(features(&bounded), features(&free), "{mode:?}");
    }
    let tight = build(&TrainMethod::Sngp(SngpSettings { spectral_bound: 0.1, ..unbounded() }));
    let features = |network: &Network| no_grad(|| network.forward(&images(), Mode::Evaluate)).features;
    assert_ne!(features(&tight), features(&free));
}

#[test]
fn evaluations_of_sngp_are_alike_and_leave_no_trace() {
    let network = build(&TrainMethod::Sngp(SngpSettings { spectral_bound: 0.5, ..unbounded() }));
    let state = || -> Vec<Tensor> {
        let tensors = network.named_tensors().into_iter();
        tensors.filter(|named| named.role == Role::State).map(|named| named.tensor.copy()).collect()
    };
    let before = state();
    assert_eq!(logits(&network, Mode::Evaluate), logits(&network, Mode::Evaluate));
    assert_eq!(before, state());
    let _ = logits(&network, Mode::Train);
    assert_ne!(before, state(), "training moves the singular vectors");
}

#[test]
fn a_linear_layer_within_the_bound_is_an_ordinary_one() {
    let x = wave(&[5, 6], 0.1);
    let pass = Pass { vectors: &[], statistics: Statistics::Running, dropout: Dropout::Off };
    let output = |method: &TrainMethod| {
        let plan = Plan::of(method).unwrap();
        let mut builder = Builder::new(0, Kind::Double, Device::Cpu);
        let mut at = Construction { builder: &mut builder, plan: &plan, latent: &mut None };
        let linear = Linear::new(&mut at, "hidden", 6, 4).unwrap();
        builder.create_deferred(|_| drop(linear.forward(&x, &pass))).unwrap();
        linear.forward(&x, &pass)
    };
    let plain = output(&TrainMethod::Deterministic);
    assert_eq!(output(&TrainMethod::Sngp(unbounded())), plain);
    assert_ne!(output(&TrainMethod::Sngp(SngpSettings { spectral_bound: 0.01, ..unbounded() })), plain);
}

/// Of a kernel at most 1.
#[test]
fn logits_of_duq_are_logarithms_of_kernels() {
    let network = build(&TrainMethod::Duq(DuqSettings::default()));
    for mode in [Mode::Train, Mode::Evaluate] {
        assert!(logits(&network, mode).max().double_value(&[]) <= 0.0);
    }
}

#[test]
fn settings_of_theirs_that_make_no_network_are_refused_by_name() {
    let refused = |method: TrainMethod| match Plan::of(&method) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{method:?}"),
    };
    let duq = DuqSettings::default;
    let sngp = SngpSettings::default;
    for (method, name) in [
        (TrainMethod::Duq(DuqSettings { length_scale: 0.0, ..duq() }), "length-scale"),
        (TrainMethod::Duq(DuqSettings { gradient_penalty: -1.0, ..duq() }), "gradient-penalty"),
        (TrainMethod::Duq(DuqSettings { embedding: Some(0), ..duq() }), "embedding"),
        (TrainMethod::Duq(DuqSettings { centroid_momentum: 1.0, ..duq() }), "centroid-momentum"),
        (TrainMethod::Sngp(SngpSettings { spectral_bound: 0.0, ..sngp() }), "spectral-bound"),
        (TrainMethod::Sngp(SngpSettings { power_iterations: 0, ..sngp() }), "power-iterations"),
        (TrainMethod::Sngp(SngpSettings { features: 0, ..sngp() }), "features"),
        (TrainMethod::Sngp(SngpSettings { ridge: f64::NAN, ..sngp() }), "ridge"),
        (TrainMethod::Sngp(SngpSettings { mean_field_factor: -1.0, ..sngp() }), "mean-field-factor"),
        (
            TrainMethod::Evidential(EvidentialSettings {
                annealing_epochs: -1.0,
                ..EvidentialSettings::default()
            }),
            "annealing-epochs",
        ),
    ] {
        assert!(refused(method).contains(name), "{name}");
    }
}
