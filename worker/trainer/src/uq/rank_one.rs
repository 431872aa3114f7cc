//! Rank-1 BNN: BatchEnsemble whose rank-1 vectors have Gaussian posteriors.
//!
//! Each entry of αⱼ and γⱼ is N(m, σ²) with m and σ = softplus(ρ) + 10⁻⁷ trained. A forward pass draws a vector
//! **for each example**, member and layer, in training and in prediction, as the authors' layers do. The loss adds the
//! divergence from the prior N(1, prior-std²), summed over everything that is drawn.
//!
//! The noise of a pass is one tensor `[N, J, C]`, where C runs over the channels of all vectors of the network.
//!
//! Source: Dusenberry, Jerfel et al., *Efficient and Scalable Bayesian Neural Nets with Rank-1 Factors*, ICML 2020,
//! and the programs edward2 (`Conv2DRank1`, `DenseRank1`) and Uncertainty Baselines (`docs/methods/rank-1-bnn.md`).

use common::spec::{BiasMode, RankOneSettings};
use tch::{Kind, TchError, Tensor, no_grad};

use super::batch_ensemble::{MemberScales, Scale, ScaleShape, bias};
use super::posterior::{Side, Spread, VectorPosterior};
use crate::model::builder::{Builder, Init};

/// Least standard deviation: the epsilon of Keras, which edward2 adds to the softplus.
const EPSILON: f64 = 1e-7;

/// Draws are cut here, as in edward2. Far out of reach of a posterior that trains.
const LARGEST_DRAW: f64 = 10.0;

/// Mean of the prior.
const PRIOR_MEAN: f64 = 1.0;

/// Deviation of the initial ρ around the value that gives the initial standard deviation.
const RHO_STD: f64 = 0.1;

/// Posterior over one side of a layer.
struct VectorLayer {
    path: String,
    side: Side,
    /// `[J, C]`.
    mean: Tensor,
    /// `[J, C]`.
    rho: Tensor,
}

impl VectorLayer {
    fn channels(&self) -> i64 {
        self.mean.size()[1]
    }
}

/// The posteriors of a network, in the order of its layers, input side first.
pub(crate) struct RankOneSpace {
    settings: RankOneSettings,
    vectors: Vec<VectorLayer>,
}

impl RankOneSpace {
    pub(crate) fn new(settings: &RankOneSettings) -> Self {
        Self { settings: settings.clone(), vectors: Vec::new() }
    }

    /// Creates posteriors and biases of the next layer below `path`.
    pub(crate) fn scales(
        &mut self,
        builder: &mut Builder,
        path: &str,
        shape: ScaleShape,
    ) -> Result<MemberScales, TchError> {
        Ok(MemberScales {
            members: shape.members,
            alpha: self.add(builder, path, Side::Alpha, shape.inputs)?,
            gamma: self.add(builder, path, Side::Gamma, shape.outputs)?,
            bias: bias(builder, BiasMode::LinearOnly, path, shape)?,
        })
    }

    fn add(
        &mut self,
        builder: &mut Builder,
        path: &str,
        side: Side,
        channels: i64,
    ) -> Result<Scale, TchError> {
        let settings = &self.settings;
        let shape = [i64::from(settings.members), channels];
        let name = format!("{path}.{}", side.name());
        let sign = Init::Sign { probability: settings.sign_probability };
        let std = (settings.initial_dropout_rate / (1.0 - settings.initial_dropout_rate)).sqrt();
        // A rate of 0 has no finite ρ; −30 is a deviation of 1e-13, which the epsilon hides.
        let rho = std.exp_m1().ln().max(-30.0);
        let rho = Init::TruncatedNormal { mean: rho, std: RHO_STD };
        self.vectors.push(VectorLayer {
            path: path.to_owned(),
            side,
            rho: builder.scale(format!("{name}_rho"), &shape, rho)?,
            mean: builder.scale(name, &shape, sign)?,
        });
        Ok(Scale::Drawn(self.vectors.len() - 1))
    }

    /// Shape of the noise of a pass: examples, members, channels of all vectors.
    pub(crate) fn noise_shape(&self, examples: i64) -> [i64; 3] {
        let channels = self.vectors.iter().map(VectorLayer::channels).sum();
        [examples, i64::from(self.settings.members), channels]
    }

    pub(crate) fn draw_noise(&self, examples: i64) -> Tensor {
        let mean = &self.vectors[0].mean;
        Tensor::randn(self.noise_shape(examples), (mean.kind(), mean.device()))
    }

    /// Vectors `[N, J, C]` of each side of each layer.
    pub(crate) fn draw(&self, noise: &Tensor) -> Vec<Tensor> {
        let (means, stds) = self.moments();
        let channels: Vec<i64> = self.vectors.iter().map(VectorLayer::channels).collect();
        (means + stds * noise).clamp(-LARGEST_DRAW, LARGEST_DRAW).split_with_sizes(&channels[..], 2)
    }

    /// Means and standard deviations of all vectors, side by side: `[J, C]` each.
    fn moments(&self) -> (Tensor, Tensor) {
        // One operation for all layers: they are small and many, and would be bound by launches.
        let all = |part: fn(&VectorLayer) -> &Tensor| {
            Tensor::cat(&self.vectors.iter().map(part).collect::<Vec<_>>(), 1)
        };
        (all(|vector| &vector.mean), deviation(&all(|vector| &vector.rho)))
    }

    /// KL(q ‖ prior) in nats, summed over layers, sides, members and channels.
    pub(crate) fn divergence(&self) -> Tensor {
        let (means, stds) = self.moments();
        let prior = self.settings.prior_std;
        let distance = (stds.square() + (means - PRIOR_MEAN).square()) / (2.0 * prior * prior);
        (distance - stds.log() + (prior.ln() - 0.5)).sum(None::<Kind>)
    }

    pub(crate) fn posteriors(&self) -> Vec<VectorPosterior> {
        let of_vector = |vector: &VectorLayer| VectorPosterior {
            layer: vector.path.clone(),
            side: vector.side,
            mean: vector.mean.detach(),
            spread: Spread::Independent(no_grad(|| deviation(&vector.rho))),
            codes: None,
        };
        self.vectors.iter().map(of_vector).collect()
    }
}

/// σ of ρ.
fn deviation(rho: &Tensor) -> Tensor {
    rho.softplus() + EPSILON
}
