//! What the members' rank-1 vectors imply for the weights.

use std::collections::BTreeMap;

use tch::{Kind, Tensor, no_grad};

use super::Network;
use crate::uq::posterior::VectorSource;
use crate::uq::{Side, Spread, VectorPosterior};

/// Mean and covariance of the weights of a layer, for each member.
///
/// Exact moments of W ⊙ (γⱼ αⱼᵀ) for independent αⱼ and γⱼ. Where one of the two is a point, the distribution is
/// Gaussian; where both vary, it is not, and these are its first two moments.
#[derive(Debug)]
pub struct WeightPosterior {
    /// `[J, O, I, ..]`, as the layer's weight.
    pub mean: Tensor,
    /// `[J, n, r]` for the n weights of the layer in the order of memory: the covariance is its square, F·Fᵀ. r is
    /// the latent size d, or d² + 2d where both vectors are decoded.
    pub factor: Tensor,
}

impl Network {
    /// Posteriors over the rank-1 vectors of every converted layer, in the order of layers, input side first. Vectors
    /// that are plain parameters are among them, as points; empty for methods without such vectors.
    pub fn vector_posteriors(&self) -> Vec<VectorPosterior> {
        let drawn = self.latent.as_ref().map_or_else(Vec::new, VectorSource::posteriors);
        let mut drawn: BTreeMap<(String, &str), VectorPosterior> = drawn
            .into_iter()
            .map(|posterior| ((posterior.layer.clone(), posterior.side.name()), posterior))
            .collect();
        let mut posteriors = Vec::new();
        for named in &self.tensors {
            let Some((path, last)) = named.name.rsplit_once('.') else { continue };
            let Some(side) = [Side::Alpha, Side::Gamma].into_iter().find(|side| side.name() == last) else {
                continue;
            };
            let point = || VectorPosterior {
                layer: path.to_owned(),
                side,
                mean: named.tensor.detach(),
                spread: Spread::Point,
                codes: None,
            };
            posteriors.push(drawn.remove(&(path.to_owned(), last)).unwrap_or_else(point));
        }
        posteriors
    }

    /// Moments of the weights of the layer at `layer`, of LP-BNN; none where no vector of the layer is decoded.
    ///
    /// Holds J·n·r numbers: for looking at single layers.
    pub fn weight_posterior(&self, layer: &str) -> Option<WeightPosterior> {
        let [alpha, gamma] = self.pair(layer)?;
        let weight = self.tensor(&format!("{layer}.weight"))?;
        Some(no_grad(|| {
            let shape = weight.size();
            // [1, O, I, K] against [J, O, 1, 1, r] and [J, 1, I, 1, r].
            let weight = weight.reshape([1, shape[0], shape[1], -1]);
            let over_outputs = |x: &Tensor| x.unsqueeze(2).unsqueeze(3);
            let over_inputs = |x: &Tensor| x.unsqueeze(1).unsqueeze(3);
            let mean = &weight * over_outputs(&gamma.mean) * over_inputs(&alpha.mean);
            let mean = mean.reshape([&[-1][..], &shape].concat());
            let column = |gamma: &Tensor, alpha: &Tensor| {
                weight.unsqueeze(-1) * over_outputs(gamma) * over_inputs(alpha)
            };
            let [point_alpha, point_gamma] = [&alpha.mean, &gamma.mean].map(|mean| mean.unsqueeze(-1));
            let mut columns = Vec::new();
            if let Spread::LowRank(alpha) = &alpha.spread {
                columns.push(column(&point_gamma, alpha));
            }
            if let Spread::LowRank(gamma) = &gamma.spread {
                columns.push(column(gamma, &point_alpha));
            }
            if let (Spread::LowRank(alpha), Spread::LowRank(gamma)) = (&alpha.spread, &gamma.spread) {
                let [rank_alpha, rank_gamma] = [alpha, gamma].map(|factor| factor.size()[2]);
                let alpha = alpha.repeat([1, 1, rank_gamma]);
                let gamma = gamma.repeat_interleave_self_int(rank_alpha, 2, None);
                columns.push(column(&gamma, &alpha));
            }
            if columns.is_empty() {
                return None;
            }
            Some(WeightPosterior { mean, factor: Tensor::cat(&columns, -1).flatten(1, 3) })
        }))?
    }

    /// Mean over pairs of members of the cosine between their weights; none for methods without rank-1 vectors, and
    /// for a single member. 1 where all members have the same weights up to a factor.
    ///
    /// For each converted layer, the cosine of W ⊙ (γⱼ αⱼᵀ) and W ⊙ (γₖ αₖᵀ) as vectors, where posteriors stand for
    /// their means; then the mean over layers, weighted by their numbers of weights. Cosines of layers rather than
    /// of whole networks, because normalisation makes the length of a layer's weights arbitrary. Biases and
    /// normalisations are left out, and so are layers that are not converted.
    ///
    /// No member's weight is formed: with S the squares of W summed over space, the inner product is
    /// (γⱼ ⊙ γₖ)ᵀ S (αⱼ ⊙ αₖ).
    pub fn weight_cosine(&self) -> Option<f64> {
        let _no_grad = tch::no_grad_guard();
        let members = self.plan.members;
        let posteriors = self.vector_posteriors();
        if members < 2 || posteriors.is_empty() {
            return None;
        }
        let (mut sum, mut weights) = (0.0, 0.0);
        for [alpha, gamma] in posteriors.as_chunks().0 {
            let weight = self.tensor(&format!("{}.weight", alpha.layer))?.to_kind(Kind::Double);
            let count = weight.numel() as f64;
            let squares = weight.square().reshape([weight.size()[0], weight.size()[1], -1]);
            let squares = squares.sum_dim_intlist([2i64].as_slice(), false, None::<Kind>);
            let [alpha, gamma] = [alpha, gamma].map(|side| {
                let mean = side.mean.to_kind(Kind::Double);
                mean.unsqueeze(0) * mean.unsqueeze(1)
            });
            let inner =
                (gamma.matmul(&squares) * alpha).sum_dim_intlist([2i64].as_slice(), false, None::<Kind>);
            let norms = inner.diagonal(0, 0, 1).sqrt();
            let cosine = inner / (norms.unsqueeze(0) * norms.unsqueeze(1)).clamp_min(f64::MIN_POSITIVE);
            // sync: one number a layer.
            let pairs = (cosine.sum(None::<Kind>) - cosine.trace()).double_value(&[]);
            sum += count * pairs / (members * (members - 1)) as f64;
            weights += count;
        }
        Some(sum / weights)
    }

    /// Posteriors of both sides of a layer.
    fn pair(&self, layer: &str) -> Option<[VectorPosterior; 2]> {
        let mut sides = self.vector_posteriors().into_iter().filter(|posterior| posterior.layer == layer);
        Some([sides.next()?, sides.next()?])
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|named| named.name == name).map(|named| &named.tensor)
    }
}
