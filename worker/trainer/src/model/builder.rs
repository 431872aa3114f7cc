//! Creates the tensors of a network: names them, draws their first values, records what each is for.
//!
//! Every tensor has a generator of its own, keyed by the network's seed and the tensor's name. So the same
//! seed gives the same bits on every device, whatever else draws random numbers, and networks of different
//! methods start from the same shared weights: a comparison of methods at one seed is a paired one.

use tch::{Device, Kind, TchError, Tensor};

/// What a tensor of a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Trained by gradient descent.
    Weight {
        /// Whether weight decay applies. The member-wise scales and trained codes have none.
        decay: bool,
    },
    /// Part of the model that training leaves as it was drawn.
    Frozen,
    /// Running statistics of batch normalisation, changed by forward passes in training mode.
    Buffer,
}

/// A tensor of a network, with its name and use.
///
/// `tensor` shares its storage with the network: what is written into it (under `no_grad`) is what the
/// network computes with.
#[derive(Debug)]
pub struct NamedTensor {
    /// Dotted path, unique in the network.
    pub name: String,
    /// The tensor itself.
    pub tensor: Tensor,
    /// Use.
    pub role: Role,
}

impl NamedTensor {
    pub(crate) fn share(&self) -> Self {
        Self { name: self.name.clone(), tensor: self.tensor.shallow_clone(), role: self.role }
    }
}

/// First values of a tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Init {
    Constant(f64),
    /// Uniform on ±`bound`.
    Uniform {
        bound: f64,
    },
    Normal {
        mean: f64,
        std: f64,
    },
    /// Normal around 0, drawn again where it is beyond two standard deviations.
    TruncatedNormal {
        std: f64,
    },
}

impl Init {
    /// PyTorch's default for the weight and the bias of linear layers and convolutions: uniform on
    /// ±1/√`fan_in`. (Its `kaiming_uniform_` with a = √5 comes to the same bound.)
    pub(crate) fn fan_in(fan_in: i64) -> Self {
        Self::Uniform { bound: 1.0 / (fan_in as f64).sqrt() }
    }
}

/// Collects the tensors of a network in the order of their creation.
pub(crate) struct Builder {
    seed: u64,
    kind: Kind,
    device: Device,
    #[cfg(test)]
    blank: bool,
    tensors: Vec<NamedTensor>,
}

impl Builder {
    pub(crate) fn new(seed: u64, kind: Kind, device: Device) -> Self {
        Self {
            seed,
            kind,
            device,
            #[cfg(test)]
            blank: false,
            tensors: Vec::new(),
        }
    }

    /// Draws nothing: all values are 0. For tests that set or count tensors, not their values.
    #[cfg(test)]
    pub(crate) fn blank(kind: Kind, device: Device) -> Self {
        Self { blank: true, ..Self::new(0, kind, device) }
    }

    /// A trained tensor that weight decay pulls to zero.
    pub(crate) fn weight(&mut self, name: String, shape: &[i64], init: Init) -> Result<Tensor, TchError> {
        self.create(name, shape, init, Role::Weight { decay: true })
    }

    /// A trained tensor without weight decay: pulling a factor towards zero would shrink the layer, not its
    /// complexity.
    pub(crate) fn scale(&mut self, name: String, shape: &[i64], init: Init) -> Result<Tensor, TchError> {
        self.create(name, shape, init, Role::Weight { decay: false })
    }

    pub(crate) fn frozen(&mut self, name: String, shape: &[i64], init: Init) -> Result<Tensor, TchError> {
        self.create(name, shape, init, Role::Frozen)
    }

    pub(crate) fn buffer(&mut self, name: String, shape: &[i64], init: Init) -> Result<Tensor, TchError> {
        self.create(name, shape, init, Role::Buffer)
    }

    pub(crate) fn finish(self) -> Vec<NamedTensor> {
        self.tensors
    }

    fn create(&mut self, name: String, shape: &[i64], init: Init, role: Role) -> Result<Tensor, TchError> {
        #[cfg(test)]
        let init = if self.blank { Init::Constant(0.0) } else { init };
        // Drawn on the host whatever the device, so that the bits do not depend on it.
        let values = draw(self.seed, &name, shape.iter().product::<i64>() as usize, init);
        let tensor =
            Tensor::f_from_slice(&values)?.f_view_(shape)?.f_to_device(self.device)?.f_to_kind(self.kind)?;
        let tensor = match role {
            Role::Weight { .. } => tensor.f_set_requires_grad(true)?,
            Role::Frozen | Role::Buffer => tensor,
        };
        self.tensors.push(NamedTensor { name, tensor: tensor.shallow_clone(), role });
        Ok(tensor)
    }
}

fn draw(seed: u64, name: &str, count: usize, init: Init) -> Vec<f32> {
    match init {
        Init::Constant(value) => vec![value as f32; count],
        Init::Uniform { bound } => {
            let mut stream = Stream::new(seed, name);
            (0..count).map(|_| (bound * (2.0 * stream.uniform() - 1.0)) as f32).collect()
        }
        Init::Normal { mean, std } => {
            let mut stream = Stream::new(seed, name);
            (0..count).map(|_| (mean + std * stream.normal()) as f32).collect()
        }
        Init::TruncatedNormal { std } => {
            let mut stream = Stream::new(seed, name);
            (0..count).map(|_| (std * stream.truncated_normal()) as f32).collect()
        }
    }
}

/// SplitMix64: the n-th number is a mix of key + n·γ, so the stream is a function of key and position only.
///
/// Source: Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014.
struct Stream {
    state: u64,
}

impl Stream {
    fn new(seed: u64, name: &str) -> Self {
        let mut key = blake3::Hasher::new_derive_key("credence initial values 1");
        key.update(&seed.to_le_bytes()).update(name.as_bytes());
        let mut state = [0; 8];
        key.finalize_xof().fill(&mut state);
        Self { state: u64::from_le_bytes(state) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in (0, 1): the middle of one of 2⁵³ cells, so that its logarithm is finite.
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller's transform; the second number of each pair is left unused, which
    /// keeps the value at a position independent of how many were drawn before.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Standard normal, on condition that it is within ±2.
    fn truncated_normal(&mut self) -> f64 {
        loop {
            let value = self.normal();
            if value.abs() <= 2.0 {
                return value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f32]) -> (f64, f64) {
        let count = values.len() as f64;
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
        let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        (mean, variance.sqrt())
    }

    #[test]
    fn uniform_draws_fill_their_interval() {
        let values = draw(0, "w", 100_000, Init::fan_in(4));
        let (mean, std) = moments(&values);
        // 5 standard errors of 100,000 draws: 5 · 0.2887 / √100000 of an interval of width 1.
        assert!(mean.abs() < 0.0046, "mean {mean}");
        assert!((std - 1.0 / 12f64.sqrt()).abs() < 0.003, "standard deviation {std}");
        assert!(values.iter().all(|value| value.abs() <= 0.5));
        assert!(values.iter().any(|&value| value > 0.4999) && values.iter().any(|&value| value < -0.4999));
    }

    #[test]
    fn normal_draws_have_the_mean_and_deviation_that_were_asked_for() {
        let values = draw(7, "gamma", 100_000, Init::Normal { mean: 1.0, std: 0.5 });
        let (mean, std) = moments(&values);
        assert!((mean - 1.0).abs() < 0.008, "mean {mean}");
        assert!((std - 0.5).abs() < 0.006, "standard deviation {std}");
        let beyond = values.iter().filter(|&&value| (value - 1.0).abs() > 1.0).count() as f64 / 1e5;
        assert!((beyond - 0.0455).abs() < 0.0035, "{beyond} beyond two standard deviations");
    }

    #[test]
    fn truncated_draws_keep_within_two_deviations_of_what_is_cut() {
        let values = draw(7, "w", 100_000, Init::TruncatedNormal { std: 0.5 });
        let (mean, std) = moments(&values);
        assert!(mean.abs() < 0.007, "mean {mean}");
        // What cutting at two standard deviations leaves of one: √(1 − 4φ(2)/(Φ(2) − Φ(−2))).
        assert!((std - 0.5 * 0.879_625_661).abs() < 0.005, "standard deviation {std}");
        assert!(values.iter().all(|value| value.abs() <= 1.0));
        assert!(values.iter().any(|&value| value > 0.99) && values.iter().any(|&value| value < -0.99));
    }

    #[test]
    fn each_name_and_each_seed_has_draws_of_its_own() {
        let first = draw(0, "a", 8, Init::fan_in(1));
        assert_eq!(first, draw(0, "a", 8, Init::fan_in(1)));
        assert_eq!(first[..4], draw(0, "a", 4, Init::fan_in(1))[..]);
        assert_ne!(first, draw(0, "b", 8, Init::fan_in(1)));
        assert_ne!(first, draw(1, "a", 8, Init::fan_in(1)));
    }
}
