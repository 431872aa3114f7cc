//! Random draws of networks. A program of its own, because libtorch has one generator per process and other
//! tests draw from it.

use std::sync::{Mutex, MutexGuard};

use common::spec::{
    DropoutPlace, DropoutSettings, DropoutUnit, LpBnnPreset, LpBnnSettings, MimoSettings, ModelSpec,
    TrainMethod, WideResNetVariant,
};
use tch::{Device, Kind, Tensor, no_grad};
use trainer::model::{Mode, Network};

static GENERATOR: Mutex<()> = Mutex::new(());

/// Keeps the process's generator for one test.
fn generator() -> MutexGuard<'static, ()> {
    GENERATOR.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn build(method: &TrainMethod, seed: u64) -> Network {
    let spec = ModelSpec::WideResNet { depth: 10, widen: 1, variant: WideResNetVariant::Authors };
    Network::new(&spec, method, [1, 8, 8], 10, seed, Device::Cpu).expect("the specification is valid")
}

fn images() -> Tensor {
    (Tensor::arange(8 * 64, (Kind::Float, Device::Cpu)) * 1.7).sin().view([8, 1, 8, 8])
}

fn logits(network: &Network, mode: Mode) -> Tensor {
    no_grad(|| network.forward(&images(), mode)).logits
}

/// MC Dropout as Uncertainty Baselines improved it.
fn improved() -> DropoutSettings {
    DropoutSettings { rate: 0.3, place: DropoutPlace::EveryLayer, unit: DropoutUnit::Channel, repetitions: 4 }
}

fn stochastic() -> Vec<(TrainMethod, Mode)> {
    let lp_bnn = |preset: LpBnnPreset| TrainMethod::LpBnn(preset.settings());
    vec![
        (TrainMethod::Dropout(DropoutSettings { rate: 0.3, ..DropoutSettings::default() }), Mode::Train),
        (
            TrainMethod::Dropout(DropoutSettings { rate: 0.3, ..DropoutSettings::default() }),
            Mode::SampleDropout,
        ),
        (TrainMethod::Dropout(improved()), Mode::Train),
        (TrainMethod::Dropout(improved()), Mode::SampleDropout),
        (lp_bnn(LpBnnPreset::Paper), Mode::Train),
        (lp_bnn(LpBnnPreset::Paper), Mode::Evaluate),
        (lp_bnn(LpBnnPreset::Official), Mode::Evaluate),
        (lp_bnn(LpBnnPreset::TorchUncertainty), Mode::Evaluate),
    ]
}

#[test]
fn a_seeded_pass_can_be_repeated_to_the_bit() {
    let _generator = generator();
    for (method, mode) in stochastic() {
        let network = build(&method, 0);
        tch::manual_seed(5);
        let first = logits(&network, mode);
        let second = logits(&network, mode);
        tch::manual_seed(5);
        assert_eq!(first, logits(&network, mode), "{method:?} {mode:?}");
        assert_ne!(first, second, "{method:?} {mode:?} draws nothing");
    }
}

#[test]
fn initial_values_do_not_depend_on_the_generator_of_libtorch() {
    let _generator = generator();
    let method = TrainMethod::LpBnn(LpBnnPreset::Paper.settings());
    let networks = [(1, 7), (2, 7), (2, 8)].map(|(libtorch, seed)| {
        tch::manual_seed(libtorch);
        build(&method, seed).named_tensors()
    });
    let mut redrawn = 0;
    for ((first, same), other) in networks[0].iter().zip(&networks[1]).zip(&networks[2]) {
        assert_eq!((&first.name, first.role), (&same.name, same.role));
        assert_eq!(first.tensor, same.tensor, "{}", first.name);
        redrawn += usize::from(first.tensor != other.tensor);
    }
    let constant = networks[0].iter().filter(|named| named.name.contains("running_")).count();
    let zero = networks[0].iter().filter(|named| named.name.contains("bn") && named.name.ends_with(".bias"));
    assert_eq!(redrawn, networks[0].len() - constant - zero.count());
}

#[test]
fn building_a_network_does_not_move_the_generator_of_libtorch() {
    let _generator = generator();
    let draw = || Tensor::randn([4], (Kind::Float, Device::Cpu));
    tch::manual_seed(3);
    let expected = draw();
    tch::manual_seed(3);
    let network = build(&TrainMethod::LpBnn(LpBnnPreset::Paper.settings()), 0);
    assert_eq!(network.diagnostics().len(), 10);
    assert_eq!(draw(), expected);
}

#[test]
fn dropout_is_off_in_evaluation() {
    let _generator = generator();
    let dropout =
        build(&TrainMethod::Dropout(DropoutSettings { rate: 0.5, ..DropoutSettings::default() }), 0);
    let plain = build(&TrainMethod::Deterministic, 0);
    assert_eq!(logits(&dropout, Mode::Evaluate), logits(&plain, Mode::Evaluate));
    assert_ne!(logits(&dropout, Mode::SampleDropout), logits(&plain, Mode::SampleDropout));
}

#[test]
fn sampling_dropout_leaves_running_statistics_alone() {
    let _generator = generator();
    let network =
        build(&TrainMethod::Dropout(DropoutSettings { rate: 0.5, ..DropoutSettings::default() }), 0);
    let statistics = || -> Vec<Tensor> {
        let named = network.named_tensors().into_iter();
        named.filter(|named| named.name.contains("running_")).map(|named| named.tensor.copy()).collect()
    };
    let before = statistics();
    let _ = logits(&network, Mode::SampleDropout);
    assert_eq!(statistics(), before);
    let _ = logits(&network, Mode::Train);
    assert!(statistics().iter().zip(&before).all(|(after, before)| after != before));
}

#[test]
fn the_spread_of_latent_draws_follows_the_deviation_factor() {
    let _generator = generator();
    let spread = |std_factor: f64| {
        let settings = LpBnnSettings { std_factor, ..LpBnnPreset::Paper.settings() };
        let network = build(&TrainMethod::LpBnn(settings), 0);
        tch::manual_seed(0);
        let passes: Vec<Tensor> = (0..16).map(|_| logits(&network, Mode::Evaluate)).collect();
        Tensor::stack(&passes, 0).std_dim([0i64].as_slice(), true, false).mean(None).double_value(&[])
    };
    assert_eq!(spread(0.0), 0.0);
    // For small factors logits are linear in the noise, so ten times the factor is ten times the spread.
    let ratio = spread(1e-3) / spread(1e-4);
    assert!((ratio - 10.0).abs() < 0.5, "{ratio}");
}

/// The network of Uncertainty Baselines' `wide_resnet_dropout.py`, commit 163351d, with `residual_dropout` off and
/// `filterwise_dropout` on, on the tensors of ours.
struct Reference {
    network: Network,
    rate: f64,
}

impl Reference {
    fn tensor(&self, name: &str) -> Tensor {
        let mut tensors = self.network.named_tensors().into_iter();
        tensors.find(|named| named.name == name).unwrap_or_else(|| panic!("no `{name}`")).tensor
    }

    fn conv(&self, x: &Tensor, path: &str, stride: i64) -> Tensor {
        let [weight, bias] = ["weight", "bias"].map(|last| self.tensor(&format!("{path}.{last}")));
        x.conv2d(&weight, Some(&bias), stride, weight.size()[2] / 2, 1, 1)
    }

    fn norm_relu(&self, x: &Tensor, path: &str) -> Tensor {
        let [weight, bias, mean, var] = ["weight", "bias", "running_mean", "running_var"]
            .map(|last| self.tensor(&format!("{path}.{last}")));
        x.batch_norm(Some(weight), Some(bias), Some(mean), Some(var), false, 0.1, 1e-5, true).relu()
    }

    fn drop(&self, x: &Tensor) -> Tensor {
        let mut noise = Tensor::empty([x.size()[0], x.size()[1], 1, 1], (x.kind(), x.device()));
        x * noise.bernoulli_float_(1.0 - self.rate) / (1.0 - self.rate)
    }

    fn logits(&self, images: &Tensor) -> Tensor {
        let mut x = self.drop(&self.conv(images, "stem", 1));
        for (group, stride) in [1, 2, 2].into_iter().enumerate() {
            let path = format!("groups.{group}.0");
            let y = self.drop(&self.norm_relu(&x, &format!("{path}.bn1")));
            let y = self.conv(&y, &format!("{path}.conv1"), 1);
            let y = self.drop(&self.norm_relu(&y, &format!("{path}.bn2")));
            let y = self.drop(&self.conv(&y, &format!("{path}.conv2"), stride));
            if group > 0 {
                x = self.drop(&self.conv(&x, &format!("{path}.shortcut"), stride));
            }
            x += y;
        }
        let features = self.norm_relu(&x, "bn").mean_dim([2i64, 3].as_slice(), false, None::<Kind>);
        features.linear(&self.tensor("linear.weight"), Some(self.tensor("linear.bias")))
    }
}

#[test]
fn dropout_behind_every_layer_stands_where_uncertainty_baselines_has_it() {
    let _generator = generator();
    let reference = Reference { network: build(&TrainMethod::Dropout(improved()), 0), rate: improved().rate };
    tch::manual_seed(7);
    let expected = no_grad(|| reference.logits(&images()));
    tch::manual_seed(7);
    let error = (logits(&reference.network, Mode::SampleDropout) - expected).abs().max();
    // Single precision, normalised seven times; a mask elsewhere changes logits by tenths.
    assert!(error.double_value(&[]) < 1e-4, "off by {error}");
}

#[test]
fn the_generator_alone_decides_what_mimo_mixes() {
    let _generator = generator();
    let settings = MimoSettings { members: 2, input_repetition: 0.5, batch_repetitions: 2 };
    let network = build(&TrainMethod::Mimo(settings), 0);
    let labels = Tensor::arange(8, (Kind::Int64, Device::Cpu));
    let mix = |seed| {
        tch::manual_seed(seed);
        network.training_batch(&images(), &labels)
    };
    assert_eq!(mix(1), mix(1));
    assert_ne!(mix(1).1, mix(2).1);
}
