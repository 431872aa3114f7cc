//! Distributions over the rank-1 vectors of a network's members: what a forward pass draws from, and what is
//! told about them.

use tch::{TchError, Tensor};

use super::batch_ensemble::{MemberScales, ScaleShape};
use super::lp_bnn::{Decoded, LatentSpace};
use super::rank_one::RankOneSpace;
use crate::model::builder::Builder;

/// Which of a layer's two vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// α, which scales a layer's inputs.
    Alpha,
    /// γ, which scales its outputs.
    Gamma,
}

impl Side {
    /// Name in tensors and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alpha => "alpha",
            Self::Gamma => "gamma",
        }
    }
}

/// How a vector varies around its mean; each is a root of the covariance.
#[derive(Debug)]
pub enum Spread {
    /// Not at all: the vector is a parameter.
    Point,
    /// Standard deviation of each channel by itself, `[J, C]`.
    Independent(Tensor),
    /// Covariance F·Fᵀ of this factor, `[J, C, d]`.
    LowRank(Tensor),
}

/// Posterior over one of a layer's vectors: a Gaussian for each member.
#[derive(Debug)]
pub struct VectorPosterior {
    /// Path of the layer.
    pub layer: String,
    /// Which vector.
    pub side: Side,
    /// `[J, C]`.
    pub mean: Tensor,
    /// Around the mean.
    pub spread: Spread,
    /// What a VAE encodes, `[J, C]`; none for methods without.
    pub codes: Option<Tensor>,
}

/// Where the vectors of a forward pass come from.
pub(crate) enum VectorSource {
    LpBnn(LatentSpace),
    RankOne(RankOneSpace),
}

/// Vectors that were drawn for a pass.
pub(crate) enum Drawn {
    LpBnn(Decoded),
    RankOne(Vec<Tensor>),
}

impl Drawn {
    /// By the places that layers know.
    pub(crate) fn vectors(&self) -> &[Tensor] {
        match self {
            Self::LpBnn(decoded) => &decoded.scales,
            Self::RankOne(vectors) => vectors,
        }
    }
}

impl VectorSource {
    /// Creates the vectors, biases and whatever else the next layer has below `path`.
    pub(crate) fn scales(
        &mut self,
        builder: &mut Builder,
        path: &str,
        shape: ScaleShape,
    ) -> Result<MemberScales, TchError> {
        match self {
            Self::LpBnn(latent) => latent.scales(builder, path, shape),
            Self::RankOne(space) => space.scales(builder, path, shape),
        }
    }

    /// Standard normal noise for a pass of `examples` examples a member, from libtorch's generator of the device.
    pub(crate) fn draw_noise(&self, examples: i64) -> Tensor {
        match self {
            Self::LpBnn(latent) => latent.draw_noise(),
            Self::RankOne(space) => space.draw_noise(examples),
        }
    }

    /// Vectors for noise as [`Self::draw_noise`] gives it.
    pub(crate) fn draw(&self, noise: &Tensor) -> Drawn {
        match self {
            Self::LpBnn(latent) => Drawn::LpBnn(latent.decode(noise)),
            Self::RankOne(space) => Drawn::RankOne(space.draw(noise)),
        }
    }

    pub(crate) fn posteriors(&self) -> Vec<VectorPosterior> {
        match self {
            Self::LpBnn(latent) => latent.posteriors(),
            Self::RankOne(space) => space.posteriors(),
        }
    }

    /// The VAEs, of LP-BNN.
    pub(crate) fn latent(&self) -> Option<&LatentSpace> {
        match self {
            Self::LpBnn(latent) => Some(latent),
            Self::RankOne(_) => None,
        }
    }
}
