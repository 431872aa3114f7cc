//! Models as they are built: sizes, initial values, places of dropout.

use common::spec::{
    BatchEnsemblePreset, DropoutPlace, DropoutUnit, MasksemblesSettings, MimoSettings, PackedSettings,
    SngpSettings,
};
use tch::Reduction;

use super::*;

/// Parameters for images of 32×32 in colour.
fn count(model: &str, method: &TrainMethod, classes: i64) -> i64 {
    let builder = Builder::blank(Kind::Float, Device::Cpu);
    Network::build(&model.parse().unwrap(), method, [3, 32, 32], classes, builder).unwrap().parameter_count()
}

/// As `fixtures/make_golden_models.py` prints them, of torchvision's networks; those of the original WideResNet are
/// what its program prints (36.5 million).
#[test]
fn models_have_the_parameters_of_the_published_networks() {
    for (model, classes, expected) in [
        ("wrn-28-10-original", 10, 36_479_194),
        ("wrn-28-10-ub", 10, 36_479_194),
        ("wrn-28-10-ub", 100, 36_536_884),
        ("resnet-18", 1000, 11_689_512),
        ("resnet-34", 1000, 21_797_672),
        ("resnet-50", 1000, 25_557_032),
        ("resnet-18-cifar", 10, 11_173_962),
        ("resnet-18-cifar", 100, 11_220_132),
        ("resnet-34-cifar", 10, 21_282_122),
        ("resnet-50-cifar", 10, 23_520_842),
        ("resnet-50-cifar", 100, 23_705_252),
    ] {
        assert_eq!(
            count(model, &TrainMethod::Deterministic, classes),
            expected,
            "{model}, {classes} classes"
        );
    }
}

#[test]
fn a_perceptron_has_a_weight_for_each_pair_of_units_and_normalisation_two_for_each_unit() {
    let inputs = 3 * 32 * 32;
    let plain = inputs * 200 + 200 + 2 * (200 * 200 + 200) + 200 * 10 + 10;
    assert_eq!(count("mlp-3-200", &TrainMethod::Deterministic, 10), plain);
    assert_eq!(count("mlp-3-200-bn", &TrainMethod::Deterministic, 10), plain + 3 * 2 * 200);
    // Both vectors of four members of each layer, and three more rows of biases.
    let ensemble = plain + 4 * (inputs + 3 * 200 + 3 * 200 + 10) + 3 * (3 * 200 + 10);
    assert_eq!(count("mlp-3-200", &batch_ensemble(BatchEnsembleSettings::default()), 10), ensemble);
}

/// Inputs and outputs of the convolutions of ResNet-18 for small images and of its head: 17 convolutions, 3 shortcuts.
#[test]
fn a_converted_resnet_has_vectors_for_the_convolutions_that_are_asked_for() {
    let base = count("resnet-18-cifar", &TrainMethod::Deterministic, 10);
    let sides = [3 + 64, 4 * 128, 64 + 128 + 3 * 256, 128 + 256 + 3 * 512, 256 + 512 + 3 * 1024, 512 + 10];
    let main: i64 = sides.iter().sum();
    let shortcuts = 64 + 128 + 128 + 256 + 256 + 512;
    let settings = BatchEnsembleSettings::default();
    let head_bias = 3 * 10;
    assert_eq!(count("resnet-18-cifar", &batch_ensemble(settings.clone()), 10), base + 4 * main + head_bias);
    let settings = BatchEnsembleSettings { convert_shortcuts: true, ..settings };
    assert_eq!(
        count("resnet-18-cifar", &batch_ensemble(settings), 10),
        base + 4 * (main + shortcuts) + head_bias
    );
    let network = |method: &TrainMethod| {
        let builder = Builder::blank(Kind::Float, Device::Cpu);
        Network::build(&"resnet-50".parse().unwrap(), method, [3, 32, 32], 10, builder).unwrap()
    };
    let paths = converted(&network(&TrainMethod::LpBnn(LpBnnPreset::Paper.settings())));
    assert_eq!(paths.len(), 1 + 16 * 3 + 4 + 1);
    let paths = converted(&network(&batch_ensemble(BatchEnsembleSettings::default())));
    assert_eq!(paths.len(), 1 + 16 * 3 + 1);
    assert!(paths.iter().all(|path| !path.contains("shortcut")));
}

/// A network of the model for images of one channel, with drawn values.
fn drawn(model: &str, method: &TrainMethod) -> Network {
    Network::build(&model.parse().unwrap(), method, [1, 8, 8], 4, Builder::new(3, Kind::Double, Device::Cpu))
        .unwrap()
}

/// Largest weight of a convolution, in standard deviations of He's initial values for `fan`; and that it has no bias.
fn assert_he_convolutions(network: &Network, fan: impl Fn(&[i64]) -> i64) -> f64 {
    let named = network.named_tensors();
    let mut largest: f64 = 0.0;
    for convolution in named.iter().filter(|named| named.tensor.dim() == 4) {
        let size = convolution.tensor.size();
        let std = (2.0 / (fan(&size) * size[2] * size[3]) as f64).sqrt();
        assert_normal(&convolution.tensor.detach(), 0.0, std);
        largest = largest.max(convolution.tensor.abs().max().double_value(&[]) / std);
        let bias = convolution.name.replace(".weight", ".bias");
        assert!(named.iter().all(|other| other.name != bias), "{bias}");
    }
    largest
}

#[test]
fn the_original_wide_resnet_starts_from_normal_draws_by_the_fan_in() {
    for (model, cut) in [("wrn-10-1-original", false), ("wrn-10-1-ub", true)] {
        for method in [TrainMethod::Deterministic, TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Paper))] {
            let network = drawn(model, &method);
            let largest = assert_he_convolutions(&network, |size| size[1]);
            // Two standard deviations of the draws before they are cut.
            assert_eq!(largest < 2.0 / 0.8796, cut, "{model}: {largest}");
            assert_normal(&tensor(&network, "linear.weight").detach(), 0.0, (2.0f64 / 64.0).sqrt());
            assert_eq!(tensor(&network, "linear.bias").abs().max().double_value(&[]), 0.0);
        }
    }
}

#[test]
fn resnets_start_from_normal_draws_by_the_fan_out_and_a_uniform_head() {
    let network = drawn("resnet-18-cifar", &TrainMethod::Deterministic);
    assert_he_convolutions(&network, |size| size[0]);
    let bound = 1.0 / 512.0f64.sqrt();
    let largest = tensor(&network, "linear.weight").abs().max().double_value(&[]);
    assert!(largest <= bound && largest > 0.99 * bound, "{largest}");
    assert!(tensor(&network, "linear.bias").abs().min().double_value(&[]) > 0.0);
}

/// Whether a pass with dropout differs from one without, and from another with dropout.
fn drops(model: &str, settings: DropoutSettings) -> bool {
    let network = drawn(model, &TrainMethod::Dropout(settings));
    let images = wave(&[6, 1, 8, 8], 0.3);
    let logits = |mode| no_grad(|| network.forward(&images, mode)).logits;
    tch::manual_seed(1);
    let [first, second] = [logits(Mode::SampleDropout), logits(Mode::SampleDropout)];
    assert_eq!(first == second, first == logits(Mode::Evaluate));
    first != second
}

#[test]
fn each_model_has_sites_for_dropout_in_residual_branches_and_before_every_layer() {
    for model in ["resnet-18-cifar", "mlp-1-7", "wrn-10-1-original", "wrn-10-1-ub"] {
        assert!(drops(model, DropoutSettings::default()), "{model}");
        assert!(!drops(model, DropoutSettings { rate: 0.0, ..DropoutSettings::default() }), "{model}");
    }
    for model in ["resnet-18-cifar", "mlp-1-7"] {
        for unit in [DropoutUnit::Element, DropoutUnit::Channel] {
            let settings =
                DropoutSettings { place: DropoutPlace::EveryLayer, unit, ..DropoutSettings::default() };
            assert!(drops(model, settings), "{model}");
        }
    }
}

#[test]
fn a_perceptron_that_drops_everything_gives_the_biases_of_its_head() {
    for place in [DropoutPlace::Residual, DropoutPlace::EveryLayer] {
        let settings = DropoutSettings { rate: 1.0 - 1e-15, place, ..DropoutSettings::default() };
        let network = drawn("mlp-2-7-bn", &TrainMethod::Dropout(settings));
        let logits = no_grad(|| network.forward(&wave(&[6, 1, 8, 8], 0.3), Mode::SampleDropout)).logits;
        assert_close(&logits, &tensor(&network, "linear.bias").detach().expand([6, 4], false));
    }
}

/// Every method that changes layers, small enough for small networks.
fn conversions() -> Vec<TrainMethod> {
    vec![
        batch_ensemble(BatchEnsemblePreset::Original.settings()),
        TrainMethod::LpBnn(lp_bnn(LpBnnPreset::Paper)),
        TrainMethod::RankOne(RankOneSettings::default()),
        TrainMethod::Masksembles(MasksemblesSettings::default()),
        TrainMethod::Packed(PackedSettings::default()),
        TrainMethod::Mimo(MimoSettings::default()),
        TrainMethod::Sngp(SngpSettings::default()),
    ]
}

#[test]
fn every_method_trains_every_weight_of_every_model() {
    let images = wave(&[4, 1, 4, 4], 0.3).to_kind(Kind::Float);
    let labels = Tensor::from_slice(&[0i64, 1, 2, 3]);
    for model in ["resnet-18-cifar", "mlp-2-20-bn", "mlp-2-20", "wrn-10-1-original", "wrn-10-1-ub"] {
        for method in conversions() {
            // Drawing the values of a ResNet takes longer than the passes.
            let builder = Builder::blank(Kind::Float, Device::Cpu);
            let network = Network::build(&model.parse().unwrap(), &method, [1, 4, 4], 4, builder).unwrap();
            let (x, y) = network.training_batch(&images, &labels);
            let pass = network.forward(&x, Mode::Train);
            let mut loss = pass.logits.cross_entropy_loss::<&Tensor>(&y, None, Reduction::Mean, -100, 0.0);
            if let Some(latent) = pass.latent {
                loss += latent.total;
            }
            if let Some(kl) = pass.kl {
                loss += kl;
            }
            loss.backward();
            for named in network.named_tensors() {
                if matches!(named.role, Role::Weight { .. }) {
                    assert!(named.tensor.grad().defined(), "{model}, {method:?}: {}", named.name);
                }
            }
            let logits = no_grad(|| network.forward(&images, Mode::Evaluate)).logits;
            assert_eq!(logits.size(), [4 * network.members(), 4], "{model}, {method:?}");
            assert_eq!(logits.isfinite().all().int64_value(&[]), 1, "{model}, {method:?}");
        }
    }
}
