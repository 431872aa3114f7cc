//! Creates the tensors of a network: names them, draws their first values, records what each is for.
//!
//! Every tensor has a generator of its own, keyed by the network's seed and the tensor's name. So the same
//! seed gives the same bits on every device, whatever else draws random numbers, and networks of different
//! methods start from the same shared weights: a comparison of methods at one seed is a paired one.

use std::cell::OnceCell;
use std::rc::Rc;

use tch::{Device, Kind, TchError, Tensor};

/// What a tensor of a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Trained by gradient descent.
    Weight {
        /// Whether weight decay applies. The member-wise scales and trained codes have none.
        decay: bool,
        /// Whose it is.
        owner: Owner,
    },
    /// Part of the model that training leaves as it was drawn.
    Frozen,
    /// Running statistics of batch normalisation, changed by forward passes in training mode. Each rank has its own.
    Buffer,
    /// Changed by training other than by gradients, in the same way on every rank: centroids, singular vectors, sums
    /// over the training images.
    State,
}

/// Whose a trained tensor is, for methods that train what is a member's own at another rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Shared by the members, or a normalisation.
    Network,
    /// Rows of rank-1 vectors or biases, one for each member.
    Member,
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
    /// Normal, drawn again where it lies more than two standard deviations from the mean.
    TruncatedNormal {
        mean: f64,
        std: f64,
    },
    /// +1 with this probability, else −1.
    Sign {
        probability: f64,
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
    deferred: Vec<Rc<Deferred>>,
}

/// A tensor of [`Role::State`] whose shape only a pass through the network shows.
pub(crate) struct Deferred {
    name: String,
    shape: OnceCell<Vec<i64>>,
    tensor: OnceCell<Tensor>,
}

impl Deferred {
    /// The tensor; before there is one, nothing, and its shape is noted.
    pub(crate) fn get_or_expect(&self, shape: &[i64]) -> Option<&Tensor> {
        let tensor = self.tensor.get();
        if tensor.is_none() {
            self.shape.get_or_init(|| shape.to_vec());
        }
        tensor
    }
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
            deferred: Vec::new(),
        }
    }

    /// Draws nothing: all values are 0. For tests that set or count tensors, not their values.
    #[cfg(test)]
    pub(crate) fn blank(kind: Kind, device: Device) -> Self {
        Self { blank: true, ..Self::new(0, kind, device) }
    }

    /// A trained tensor that weight decay pulls to zero.
    pub(crate) fn weight(&mut self, name: String, shape: &[i64], init: Init) -> Result<Tensor, TchError> {
        self.create(name, shape, init, Role::Weight { decay: true, owner: Owner::Network })
    }

    /// As [`Self::weight`], with a row for each member.
    pub(crate) fn member_weight(
        &mut self,
        name: String,
        shape: &[i64],
        init: Init,
    ) -> Result<Tensor, TchError> {
        self.create(name, shape, init, Role::Weight { decay: true, owner: Owner::Member })
    }

    /// A member-wise tensor without weight decay: pulling a factor towards zero would shrink the layer, not its
    /// complexity.
    pub(crate) fn scale(&mut self, name: String, shape: &[i64], init: Init) -> Result<Tensor, TchError> {
        self.create(name, shape, init, Role::Weight { decay: false, owner: Owner::Member })
    }

    pub(crate) fn frozen(&mut self, name: String, shape: &[i64], init: Init) -> Result<Tensor, TchError> {
        self.create(name, shape, init, Role::Frozen)
    }

    pub(crate) fn buffer(&mut self, name: String, shape: &[i64], init: Init) -> Result<Tensor, TchError> {
        self.create(name, shape, init, Role::Buffer)
    }

    /// A tensor that training leaves as it is, with values of the caller's; [`Self::stream`] draws for them.
    pub(crate) fn frozen_values(
        &mut self,
        name: String,
        shape: &[i64],
        values: &[f32],
    ) -> Result<Tensor, TchError> {
        self.insert(name, shape, values, Role::Frozen)
    }

    /// Random numbers that belong to the tensor called `name`.
    pub(crate) fn stream(&self, name: &str) -> Stream {
        Stream::new(self.seed, name)
    }

    /// Whether no tensor was created yet. Bodies begin with their first layer, which some methods treat apart.
    pub(crate) fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    pub(crate) fn state(&mut self, name: String, shape: &[i64], init: Init) -> Result<Tensor, TchError> {
        self.create(name, shape, init, Role::State)
    }

    /// Zeros of [`Role::State`] in double precision, for sums of many terms.
    pub(crate) fn accumulator(&mut self, name: String, shape: &[i64]) -> Result<Tensor, TchError> {
        let tensor = Tensor::f_zeros(shape, (Kind::Double, self.device))?;
        self.tensors.push(NamedTensor { name, tensor: tensor.shallow_clone(), role: Role::State });
        Ok(tensor)
    }

    /// A tensor of [`Role::Frozen`] with these values.
    pub(crate) fn frozen_tensor(&mut self, name: String, values: &Tensor) -> Result<Tensor, TchError> {
        let tensor = values.f_to_device(self.device)?.f_to_kind(self.kind)?;
        self.tensors.push(NamedTensor { name, tensor: tensor.shallow_clone(), role: Role::Frozen });
        Ok(tensor)
    }

    /// Standard normal numbers that belong to `name`, on the host and in single precision.
    pub(crate) fn normals(&self, name: &str, shape: &[i64]) -> Result<Tensor, TchError> {
        let init = Init::Normal { mean: 0.0, std: 1.0 };
        let values = draw(self.seed, name, shape.iter().product::<i64>() as usize, init);
        Tensor::f_from_slice(&values)?.f_view_(shape)
    }

    /// A tensor of [`Role::State`] that [`create_deferred`](Self::create_deferred) makes, of standard normal numbers.
    pub(crate) fn deferred(&mut self, name: String) -> Rc<Deferred> {
        let deferred = Rc::new(Deferred { name, shape: OnceCell::new(), tensor: OnceCell::new() });
        self.deferred.push(deferred.clone());
        deferred
    }

    /// Makes the deferred tensors of the shapes that `pass` shows, given kind and device of its input. Without such tensors
    /// there is no pass.
    pub(crate) fn create_deferred(&mut self, pass: impl FnOnce((Kind, Device))) -> Result<(), TchError> {
        if self.deferred.is_empty() {
            return Ok(());
        }
        pass((self.kind, self.device));
        for deferred in std::mem::take(&mut self.deferred) {
            let shape = deferred.shape.get().expect("the pass goes through every layer");
            let init = Init::Normal { mean: 0.0, std: 1.0 };
            let tensor = self.create(deferred.name.clone(), shape, init, Role::State)?;
            deferred.tensor.set(tensor).expect("it is made here only");
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Vec<NamedTensor> {
        self.tensors
    }

    fn create(&mut self, name: String, shape: &[i64], init: Init, role: Role) -> Result<Tensor, TchError> {
        #[cfg(test)]
        let init = if self.blank { Init::Constant(0.0) } else { init };
        // Drawn on the host whatever the device, so that the bits do not depend on it.
        let values = draw(self.seed, &name, shape.iter().product::<i64>() as usize, init);
        self.insert(name, shape, &values, role)
    }

    fn insert(
        &mut self,
        name: String,
        shape: &[i64],
        values: &[f32],
        role: Role,
    ) -> Result<Tensor, TchError> {
        let tensor =
            Tensor::f_from_slice(values)?.f_view_(shape)?.f_to_device(self.device)?.f_to_kind(self.kind)?;
        let tensor = match role {
            Role::Weight { .. } => tensor.f_set_requires_grad(true)?,
            Role::Frozen | Role::Buffer | Role::State => tensor,
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
        Init::TruncatedNormal { mean, std } => {
            let mut stream = Stream::new(seed, name);
            (0..count).map(|_| (mean + std * stream.truncated_normal()) as f32).collect()
        }
        Init::Sign { probability } => {
            let mut stream = Stream::new(seed, name);
            (0..count).map(|_| if stream.uniform() < probability { 1.0 } else { -1.0 }).collect()
        }
    }
}

/// SplitMix64: the n-th number is a mix of key + n·γ, so the stream is a function of key and position only.
///
/// Source: Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014.
pub(crate) struct Stream {
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

    /// Uniform in 0..`bound`, which is far below 2⁵³.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // The middle of a cell lies below 1 by 2⁻⁵⁴, so the product rounds to less than `bound`.
        (self.uniform() * bound as f64) as usize
    }

    /// Standard normal, by Box and Muller's transform; the second number of each pair is left unused, which
    /// keeps the value at a position independent of how many were drawn before.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Standard normal within ±2, by rejection: one draw in 22 is made again.
    fn truncated_normal(&mut self) -> f64 {
        loop {
            let draw = self.normal();
            if draw.abs() <= 2.0 {
                return draw;
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
    fn truncated_draws_stay_within_two_deviations() {
        let values = draw(7, "rho", 100_000, Init::TruncatedNormal { mean: -3.0, std: 0.1 });
        let (mean, std) = moments(&values);
        // The deviation of a normal that is cut at ±2 is 0.8796 of what it was.
        assert!((mean + 3.0).abs() < 0.0015, "mean {mean}");
        assert!((std - 0.08796).abs() < 0.001, "standard deviation {std}");
        assert!(values.iter().all(|value| (value + 3.0).abs() <= 0.2 + 1e-6));
    }

    #[test]
    fn signs_are_positive_with_their_probability() {
        let values = draw(7, "alpha", 100_000, Init::Sign { probability: 0.3 });
        let positive = values.iter().filter(|&&value| value == 1.0).count() as f64 / 1e5;
        assert!((positive - 0.3).abs() < 0.0073, "{positive} are +1");
        assert!(values.iter().all(|value| value.abs() == 1.0));
        assert!(draw(7, "alpha", 1000, Init::Sign { probability: 1.0 }).iter().all(|&value| value == 1.0));
        assert!(draw(7, "alpha", 1000, Init::Sign { probability: 0.0 }).iter().all(|&value| value == -1.0));
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
