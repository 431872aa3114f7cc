//! TRADI: mean and variance of each weight, tracked over training by two Kalman filters, and networks drawn from them.
//!
//! Source: Franchi et al., *TRADI: Tracking deep neural network weight distributions*, ECCV 2020, as the authors'
//! program computes it; see `docs/methods/tradi.md`.

use std::collections::HashSet;
use std::f64::consts::TAU;

use common::spec::TradiSettings;
use tch::Tensor;

use crate::model::{NamedTensor, Role};

/// What is left of the filters' first values at the end of training, above which a user is warned.
const FORGOTTEN: f64 = 1e-3;

/// Numbers of the largest temporary of a draw.
const CHUNK: i64 = 1 << 22;

/// One scalar filter, whose gain all weights share.
#[derive(Clone, Copy, Debug)]
struct Filter {
    process_noise: f64,
    observation_noise: f64,
    covariance: f64,
}

impl Filter {
    fn new(process_noise: f64, observation_noise: f64) -> Self {
        Self { process_noise, observation_noise, covariance: 0.0 }
    }

    /// Gain of the next step.
    fn advance(&mut self) -> f64 {
        let predicted = self.covariance + self.process_noise;
        let gain = predicted / (predicted + self.observation_noise);
        self.covariance = (1.0 - gain) * predicted;
        gain
    }

    /// Part of the first value that is left after so many steps: Π (1 − K).
    fn left_after(mut self, steps: u64) -> f64 {
        let mut left = 1.0;
        for _ in 0..steps {
            left *= 1.0 - self.advance();
            if left < FORGOTTEN * 1e-3 {
                break;
            }
        }
        left
    }

    /// A process noise with which so many steps forget the first value, of one digit: the smallest such, if there is one
    /// that is not absurd.
    fn noise_to_forget(self, steps: u64) -> Option<f64> {
        let left = |noise: f64| Self::new(noise, self.observation_noise).left_after(steps);
        let (mut low, mut high) = (self.process_noise, 1e3 * self.observation_noise);
        if left(high) > FORGOTTEN {
            return None;
        }
        while high / low > 1.05 {
            let middle = (low * high).sqrt();
            if left(middle) > FORGOTTEN { low = middle } else { high = middle }
        }
        let unit = 10.0_f64.powf(high.log10().floor());
        Some((high / unit).ceil() * unit)
    }
}

/// Mean and variance of one tensor's weights.
struct Tracked {
    /// In the order of the network.
    place: usize,
    name: String,
    mean: Tensor,
    variance: Tensor,
}

/// The filters of one training run.
///
/// Their gains follow from the settings and the number of steps, so only means and variances are kept in checkpoints.
pub(crate) struct TradiTracker {
    mean: Filter,
    variance: Filter,
    steps: u64,
    tracked: Vec<Tracked>,
}

impl TradiTracker {
    /// Filters before the first step: means 0, variances √(2/O) for a tensor of O rows, which is what the authors' program
    /// has where √ is one too many.
    pub(crate) fn new(settings: &TradiSettings, network: &[NamedTensor]) -> Self {
        let tracked = tracked_places(network).map(|place| {
            let NamedTensor { name, tensor, .. } = &network[place];
            let mean = tensor.detach().zeros_like();
            let variance = mean.full_like((2.0 / tensor.size()[0] as f64).sqrt());
            Tracked { place, name: name.clone(), mean, variance }
        });
        Self {
            mean: Filter::new(settings.mean_noise, settings.observation_noise),
            variance: Filter::new(settings.variance_noise, settings.observation_noise),
            steps: 0,
            tracked: tracked.collect(),
        }
    }

    /// Step of the filters after the optimizer's step number `done`, counted from 0.
    pub(crate) fn after_step(&mut self, network: &[NamedTensor], lr: f64, done: u64) {
        let _no_grad = tch::no_grad_guard();
        while self.steps < done {
            // A resumed run: the gains of what was done before.
            self.mean.advance();
            self.variance.advance();
            self.steps += 1;
        }
        let gains = [self.mean.advance(), self.variance.advance()];
        self.steps += 1;
        for Tracked { place, mean, variance, .. } in &mut self.tracked {
            let weight = &network[*place].tensor;
            update(mean, variance, weight, &(weight.grad() * lr), gains);
        }
    }

    /// Means and variances by name.
    pub(crate) fn named_tensors(&self) -> Vec<(String, Tensor)> {
        self.tracked
            .iter()
            .flat_map(|tracked| {
                let Tracked { name, mean, variance, .. } = tracked;
                [(mean_name(name), mean.shallow_clone()), (variance_name(name), variance.shallow_clone())]
            })
            .collect()
    }

    /// What a user should know of filters that have so many steps.
    pub(crate) fn warnings(&self, total_steps: u64) -> Vec<String> {
        let filters = [("mean-noise", "means", self.mean), ("variance-noise", "variances", self.variance)];
        let slow = filters.into_iter().filter_map(|(key, what, filter)| {
            let fresh = Filter { covariance: 0.0, ..filter };
            let left = fresh.left_after(total_steps);
            let way_out = match fresh.noise_to_forget(total_steps) {
                Some(noise) => format!("train for longer, or raise `{key}` to {noise:.0e} or more"),
                None => "train for longer".to_owned(),
            };
            (left > FORGOTTEN).then(|| {
                format!(
                    "after {total_steps} steps the weights' {what} that TRADI tracks still hold {:.1} % of \
                     their first values, which say nothing of training: {way_out}",
                    100.0 * left
                )
            })
        });
        slow.collect()
    }
}

fn mean_name(weight: &str) -> String {
    format!("tradi.mean/{weight}")
}

fn variance_name(weight: &str) -> String {
    format!("tradi.variance/{weight}")
}

/// Trained tensors that do not belong to a batch normalisation.
fn tracked_places(network: &[NamedTensor]) -> impl Iterator<Item = usize> {
    let norms: HashSet<&str> =
        network.iter().filter_map(|named| named.name.strip_suffix(".running_mean")).collect();
    network.iter().enumerate().filter_map(move |(place, named)| {
        let path = named.name.rsplit_once('.').map_or("", |(path, _)| path);
        (matches!(named.role, Role::Weight { .. }) && !norms.contains(path)).then_some(place)
    })
}

/// One step of both filters for one tensor. `drift` is lr·g.
///
/// ```text
/// μ ← (1 − K)(μ − lr·g) + K·w
/// v ← (1 − K′)(v + (lr·g)²) + K′(w − μ)²      with the new μ
/// ```
fn update(mean: &mut Tensor, variance: &mut Tensor, weight: &Tensor, drift: &Tensor, gains: [f64; 2]) {
    let [mean_gain, variance_gain] = gains;
    let _ = mean.g_sub_(drift).g_mul_scalar_(1.0 - mean_gain).g_add_(&(weight * mean_gain));
    let seen = (weight - &*mean).square() * variance_gain;
    let _ = variance.g_add_(&drift.square()).g_mul_scalar_(1.0 - variance_gain).g_add_(&seen);
}

/// A tensor whose weights are drawn.
struct Drawn {
    /// Shares storage with the network.
    target: Tensor,
    /// Flat: the weights as trained, their means, their standard deviations.
    trained: Tensor,
    mean: Tensor,
    deviation: Tensor,
}

/// Networks around the tracked means.
pub(crate) struct TradiPosterior {
    drawn: Vec<Drawn>,
    features: i64,
}

impl TradiPosterior {
    /// The posterior over the weights of `network`, which are as trained; `stored` finds what the tracker kept.
    pub(crate) fn new<E>(
        network: &[NamedTensor],
        features: u32,
        stored: impl Fn(&str) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        let _no_grad = tch::no_grad_guard();
        let drawn = tracked_places(network).map(|place| {
            let NamedTensor { name, tensor, .. } = &network[place];
            let flat = |tensor: &Tensor| tensor.flatten(0, -1);
            Ok(Drawn {
                target: tensor.shallow_clone(),
                trained: flat(&tensor.detach().copy()),
                mean: flat(&stored(&mean_name(name))?).to_device(tensor.device()),
                deviation: flat(&stored(&variance_name(name))?)
                    .to_device(tensor.device())
                    .clamp_min(0.0)
                    .sqrt(),
            })
        });
        Ok(Self { drawn: drawn.collect::<Result<_, E>>()?, features: i64::from(features) })
    }

    /// Numbers beside the network itself.
    pub(crate) fn stored_count(&self) -> i64 {
        self.drawn.iter().map(|drawn| 2 * drawn.mean.numel() as i64).sum()
    }

    /// Overwrites the network's weights with a draw from libtorch's generator. Normalisations stay as they are.
    pub(crate) fn draw(&self) {
        let _no_grad = tch::no_grad_guard();
        for Drawn { target, trained, mean, deviation } in &self.drawn {
            let options = (mean.kind(), mean.device());
            let frequencies = Tensor::randn([1, self.features], options);
            let coefficients = Tensor::randn([self.features], options);
            let count = mean.numel() as i64;
            let length = (CHUNK / self.features).max(1);
            // A phase for each weight and feature: too many to hold at once.
            let parts: Vec<Tensor> = (0..count)
                .step_by(usize::try_from(length).unwrap_or(usize::MAX))
                .map(|from| {
                    let part = |tensor: &Tensor| tensor.narrow(0, from, length.min(count - from));
                    let size = [length.min(count - from), self.features];
                    let phases = Tensor::rand(size, options) * TAU;
                    let field = Field { frequencies: &frequencies, coefficients: &coefficients };
                    field.weights(&part(mean), &part(deviation), &part(trained), &phases)
                })
                .collect();
            target.shallow_clone().copy_(&Tensor::cat(&parts, 0).view_as(target));
        }
    }
}

/// A draw of the random features that all weights of a tensor share.
struct Field<'a> {
    /// ω, `[1, F]`.
    frequencies: &'a Tensor,
    /// ξ, `[F]`.
    coefficients: &'a Tensor,
}

impl Field<'_> {
    /// w̃ = μ + √(2/F) (√v ⊙ cos(w ωᵀ + φ)) ξ.
    ///
    /// Shapes: `phases` φ is `[n, F]`, the others `[n]`.
    fn weights(&self, mean: &Tensor, deviation: &Tensor, trained: &Tensor, phases: &Tensor) -> Tensor {
        let features = self.coefficients.numel() as f64;
        let waves = (trained.unsqueeze(1) * self.frequencies + phases).cos();
        mean + deviation * waves.mv(self.coefficients) * (2.0 / features).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tch::{Device, Kind};

    use super::*;
    use crate::model::golden::unit;

    /// Twelve steps in double precision, where sums are grouped in another way than in the reference.
    const TOLERANCE: f64 = 1e-13;

    fn values(name: &str, shape: &[i64]) -> Tensor {
        Tensor::from_slice(&unit(name, shape.iter().product::<i64>() as usize)).view(shape)
    }

    fn network() -> Vec<NamedTensor> {
        let weight = Role::Weight { decay: true, owner: crate::model::Owner::Network };
        let tensor = |name: &str, shape: &[i64], role| {
            let tensor = Tensor::zeros(shape, (Kind::Double, Device::Cpu)).set_requires_grad(role == weight);
            NamedTensor { name: name.to_owned(), tensor, role }
        };
        vec![
            tensor("bn1.weight", &[4], weight),
            tensor("bn1.bias", &[4], weight),
            tensor("bn1.running_mean", &[4], Role::Buffer),
            tensor("stem.weight", &[4, 3], weight),
            tensor("linear.bias", &[5], weight),
        ]
    }

    /// The walk of `make_golden_posteriors.py`.
    fn walk(network: &mut [NamedTensor], tracker: &mut TradiTracker, steps: std::ops::Range<u64>) {
        for step in steps {
            for NamedTensor { name, tensor, role } in &mut *network {
                if *role == Role::Buffer {
                    continue;
                }
                let shape = tensor.size();
                tensor.zero_grad();
                (&*tensor * values(&format!("gradient of {name} {step}"), &shape))
                    .sum(Kind::Double)
                    .backward();
                let moved = values(&format!("walk of {name} {step}"), &shape) * (0.1 * step as f64);
                let _no_grad = tch::no_grad_guard();
                tensor.copy_(&(values(&format!("start of {name}"), &shape) + moved));
            }
            tracker.after_step(network, 0.1 / (1.0 + step as f64), step);
        }
    }

    fn golden() -> BTreeMap<String, Tensor> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tradi.safetensors");
        Tensor::read_safetensors(path).unwrap().into_iter().collect()
    }

    fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
        assert_eq!(found.size(), expected.size(), "{what}");
        let error = (found - expected).abs().max().double_value(&[]);
        assert!(error < TOLERANCE, "{what} is off by {error:e}");
    }

    fn fast() -> TradiSettings {
        TradiSettings { mean_noise: 0.5, variance_noise: 0.2, observation_noise: 10.0 }
    }

    #[test]
    fn moments_and_draws_are_those_of_the_reference() {
        let golden = golden();
        for (label, settings) in [("published", TradiSettings::default()), ("fast", fast())] {
            let mut network = network();
            let mut tracker = TradiTracker::new(&settings, &network);
            walk(&mut network, &mut tracker, 0..12);
            let found: BTreeMap<String, Tensor> = tracker.named_tensors().into_iter().collect();
            assert_eq!(found.len(), 4, "normalisations are not tracked");
            for name in ["stem.weight", "linear.bias"] {
                let weight = &network.iter().find(|named| named.name == name).unwrap().tensor.detach();
                let [mean, variance] = [&found[&mean_name(name)], &found[&variance_name(name)]];
                let expected = |part: &str| &golden[&format!("{label}.{part}/{name}")];
                assert_close(mean, expected("mean"), name);
                assert_close(variance, expected("variance"), name);
                let field = Field {
                    frequencies: &values(&format!("omega of {name}"), &[1, 6]),
                    coefficients: &values(&format!("xi of {name}"), &[6]),
                };
                let flat = |tensor: &Tensor| tensor.flatten(0, -1);
                let phases = values(&format!("phi of {name}"), &[weight.numel() as i64, 6]);
                let drawn = field.weights(&flat(mean), &flat(variance).sqrt(), &flat(weight), &phases);
                assert_close(&drawn.view_as(weight), expected("draw"), name);
            }
        }
    }

    #[test]
    fn a_tracker_that_is_restored_goes_on_to_the_bit() {
        let run = |restart: Option<u64>| {
            let mut network = network();
            let mut tracker = TradiTracker::new(&fast(), &network);
            walk(&mut network, &mut tracker, 0..restart.unwrap_or(12));
            if let Some(step) = restart {
                let stored = tracker.named_tensors();
                tracker = TradiTracker::new(&fast(), &network);
                for ((_, mut target), (_, source)) in tracker.named_tensors().into_iter().zip(stored) {
                    target.copy_(&source);
                }
                walk(&mut network, &mut tracker, step..12);
            }
            tracker.named_tensors()
        };
        let whole = run(None);
        for step in [0, 1, 7] {
            assert_eq!(run(Some(step)), whole, "restored at step {step}");
        }
    }

    /// A weight's draws have its mean and variance, whatever the frequencies: E 2/F Σ cos² ξ² = 1.
    #[test]
    fn draws_have_the_tracked_mean_and_variance() {
        let weight = Tensor::from_slice(&[0.3f64, -2.0, 1.0]).set_requires_grad(true);
        let network = [NamedTensor {
            name: "w".to_owned(),
            tensor: weight,
            role: Role::Weight { decay: true, owner: crate::model::Owner::Network },
        }];
        let stored = |name: &str| -> Result<Tensor, std::convert::Infallible> {
            Ok(Tensor::from_slice(if name.contains("mean") {
                &[1.0f64, 2.0, 3.0]
            } else {
                &[0.25, 4.0, -1.0]
            }))
        };
        let Ok(posterior) = TradiPosterior::new(&network, 10, stored);
        assert_eq!(posterior.stored_count(), 6);
        tch::manual_seed(3);
        let draws: Vec<Tensor> = (0..4_000)
            .map(|_| {
                posterior.draw();
                network[0].tensor.detach().copy()
            })
            .collect();
        let draws = Tensor::stack(&draws, 0);
        let mean = draws.mean_dim([0i64].as_slice(), false, Kind::Double);
        let std = draws.std_dim([0i64].as_slice(), true, false);
        // Five standard errors: 5 · σ/√4000 and, for near-Gaussian draws, about 5 · σ/√8000.
        for (index, (expected, deviation)) in [(1.0, 0.5), (2.0, 2.0), (3.0, 0.0)].into_iter().enumerate() {
            let index = [index as i64];
            assert!((mean.double_value(&index) - expected).abs() <= 0.08 * deviation, "{index:?}");
            assert!((std.double_value(&index) - deviation).abs() <= 0.07 * deviation, "{index:?}");
        }
    }

    #[test]
    fn a_posterior_is_drawn_in_parts_of_bounded_size() {
        let count = CHUNK / 1_000 + 7;
        let weight = Tensor::zeros([count], (Kind::Float, Device::Cpu));
        let network = [NamedTensor {
            name: "w".to_owned(),
            tensor: weight,
            role: Role::Weight { decay: true, owner: crate::model::Owner::Network },
        }];
        let stored = |_: &str| -> Result<Tensor, std::convert::Infallible> {
            Ok(Tensor::ones([count], (Kind::Float, Device::Cpu)))
        };
        let Ok(posterior) = TradiPosterior::new(&network, 1_000, stored);
        posterior.draw();
        let std = network[0].tensor.std(true).double_value(&[]);
        assert!((std - 1.0).abs() < 0.2, "every part is drawn: {std}");
    }

    /// The gain starts near 0 and rises to K with K² / (1 − K) = noise / observation noise.
    #[test]
    fn short_trainings_are_warned_about_with_a_noise_that_helps() {
        let network = network();
        let warnings =
            |settings: &TradiSettings, steps| TradiTracker::new(settings, &network).warnings(steps);
        assert!(warnings(&TradiSettings::default(), 14_070).is_empty(), "the authors' MNIST run");
        let said = warnings(&TradiSettings::default(), 165);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("`mean-noise`") && said[1].contains("`variance-noise`"), "{said:?}");
        let noise = |message: &str| -> f64 {
            let words: Vec<&str> = message.split(' ').collect();
            words[words.iter().position(|&word| word == "to").unwrap() + 1].parse().unwrap()
        };
        let with = |factor: f64| TradiSettings {
            mean_noise: factor * noise(&said[0]),
            variance_noise: factor * noise(&said[1]),
            observation_noise: 10.0,
        };
        assert!(warnings(&with(1.0), 165).is_empty(), "{said:?}");
        assert_eq!(warnings(&with(0.4), 165).len(), 2, "not more than needed: {said:?}");
    }
}
