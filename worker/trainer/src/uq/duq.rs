//! DUQ: the distance of an input to a centroid of each class, in a space of the class's own.
//!
//! A linear map Wᶜ takes the features to class c's space, where Kᶜ = exp(−mean over dimensions of (z − eᶜ)² / 2σ²). Each
//! Kᶜ is trained as the probability of a yes-or-no question, and a two-sided penalty keeps the norm of the gradient of
//! Σ K by the image near 1, so that the features stay sensitive to what is in the image. Centroids eᶜ = mᶜ / Nᶜ are not
//! trained by gradients: they are moving averages of what the network makes of the images of the class.
//!
//! The logits are **ln K**: their order is that of the kernels, and the largest is the method's own certainty.
//!
//! Source: van Amersfoort, Smith, Teh, Gal, *Uncertainty estimation using a single deep deterministic neural network*,
//! ICML 2020, and the authors' program; `docs/methods/duq.md` says what differs.

use common::spec::DuqSettings;
use tch::{Kind, Tensor, no_grad};

use crate::group::{Group, GroupError};
use crate::model::ModelError;
use crate::model::builder::{Builder, Init};

/// Images of a class that the first centroids stand for: a batch of 128 has about 13 of each of 10 classes.
const FIRST_COUNT: f64 = 13.0;

/// Deviation of the first centroids around 0.
const FIRST_STD: f64 = 0.05;

/// Least 1 − K that the loss distinguishes from 0: the ε of PyTorch's binary cross-entropy.
const EPS: f64 = 1e-12;

/// Class spaces and centroids.
pub(crate) struct DuqHead {
    /// `[n, K, F]`: dimensions of a space, classes, features.
    weight: Tensor,
    /// m, `[n, K]`.
    sums: Tensor,
    /// N, `[K]`.
    counts: Tensor,
    length_scale: f64,
    momentum: f64,
}

impl DuqHead {
    /// Creates the head below the path `duq`.
    pub(crate) fn new(
        builder: &mut Builder,
        settings: &DuqSettings,
        features: i64,
        classes: i64,
    ) -> Result<Self, ModelError> {
        let dimensions = settings.embedding.map_or(features, i64::from);
        // What PyTorch's `kaiming_normal_` makes of three axes: the first is outputs, the others are fan-in.
        let weight = Init::Normal { mean: 0.0, std: (2.0 / (classes * features) as f64).sqrt() };
        let sums = Init::Normal { mean: 0.0, std: FIRST_STD * FIRST_COUNT };
        Ok(Self {
            weight: builder.weight("duq.weight".to_owned(), &[dimensions, classes, features], weight)?,
            sums: builder.state("duq.sums".to_owned(), &[dimensions, classes], sums)?,
            counts: builder.state("duq.counts".to_owned(), &[classes], Init::Constant(FIRST_COUNT))?,
            length_scale: settings.length_scale,
            momentum: settings.centroid_momentum,
        })
    }

    /// z: shapes `[B, F]` to `[B, n, K]`.
    fn embed(&self, features: &Tensor) -> Tensor {
        Tensor::einsum("ij,mnj->imn", &[features, &self.weight], None::<i64>)
    }

    /// ln K.
    ///
    /// Shapes: `features` `[B, F]`; returns `[B, K]`.
    pub(crate) fn forward(&self, features: &Tensor) -> Tensor {
        let centroids = &self.sums / &self.counts;
        let distance = (self.embed(features) - centroids).square();
        let mean = distance.mean_dim([1i64].as_slice(), false, None::<Kind>);
        mean * (-0.5 / (self.length_scale * self.length_scale))
    }

    /// Moves the centroids towards what the network makes of a batch, of all ranks. A collective.
    ///
    /// Shapes: `features` `[B, F]`, of evaluation mode; `targets` `[B]`.
    pub(crate) fn update(
        &self,
        features: &Tensor,
        targets: &Tensor,
        group: &Group,
    ) -> Result<(), GroupError> {
        no_grad(|| {
            let y = targets.one_hot(self.counts.size()[0]).to_kind(features.kind());
            let sums = Tensor::einsum("ijk,ik->jk", &[&self.embed(features), &y], None::<i64>);
            let counts = y.sum_dim_intlist([0i64].as_slice(), true, None::<Kind>);
            // One collective: the sums, and the counts as a row below them.
            let both = group.sum(&Tensor::cat(&[&sums, &counts], 0))?;
            let dimensions = sums.size()[0];
            for (average, batch) in
                [(&self.sums, both.narrow(0, 0, dimensions)), (&self.counts, both.get(dimensions))]
            {
                let new = average * self.momentum + batch * (1.0 - self.momentum);
                average.shallow_clone().copy_(&new);
            }
            Ok(())
        })
    }
}

/// Mean over examples and classes of the binary cross-entropy of K and the one-hot labels.
///
/// Shapes: `logits` (ln K) `[B, K]`, `targets` `[B]`.
pub(crate) fn binary_cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    let y = targets.one_hot(logits.size()[1]).to_kind(logits.kind());
    // 1 − K as −expm1(ln K), which keeps its digits where K is near 1.
    let other = (-logits.expm1()).clamp_min(EPS).log();
    let likelihood: Tensor = &y * logits + (1.0 - &y) * other;
    -likelihood.mean(None::<Kind>)
}

/// Mean over examples of (‖∂ Σ K / ∂ image‖₂ − 1)², with a graph for its own gradient.
///
/// Shapes: `images` `[B, C, H, W]`, which `logits` (ln K) were computed from with gradients on.
pub(crate) fn gradient_penalty(images: &Tensor, logits: &Tensor) -> Tensor {
    let sum = logits.exp().sum(None::<Kind>);
    let gradients = Tensor::run_backward(&[&sum], &[images], true, true);
    let norms = gradients[0].flatten(1, -1).norm_scalaropt_dim(2.0, [1i64].as_slice(), false);
    (norms - 1.0).square().mean(None::<Kind>)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn head(momentum: f64) -> DuqHead {
        let mut builder = Builder::new(3, Kind::Double, Device::Cpu);
        let settings = DuqSettings { centroid_momentum: momentum, ..DuqSettings::default() };
        DuqHead::new(&mut builder, &settings, 4, 3).unwrap()
    }

    #[test]
    fn a_centroid_that_forgets_at_once_is_the_mean_of_its_class() {
        let head = head(0.0);
        let features = Tensor::arange(20, (Kind::Double, Device::Cpu)).view([5, 4]) / 20.0;
        let targets = Tensor::from_slice(&[0i64, 1, 1, 2, 2]);
        head.update(&features, &targets, &Group::alone()).unwrap();
        assert_eq!(Vec::<f64>::try_from(&head.counts).unwrap(), [1.0, 2.0, 2.0]);
        // The only image of class 0 is on its centroid.
        let logits = head.forward(&features);
        assert_eq!(logits.double_value(&[0, 0]), 0.0);
        // Two images of a class are equally far from their mean.
        assert!((logits.double_value(&[1, 1]) - logits.double_value(&[2, 1])).abs() < 1e-9);
        assert!(logits.double_value(&[1, 1]) < 0.0);
    }

    #[test]
    fn a_class_that_is_not_in_the_batch_keeps_its_centroid() {
        let head = head(0.9);
        let centroid = || (&head.sums / &head.counts).select(1, 2);
        let before = centroid();
        let features = Tensor::ones([2, 4], (Kind::Double, Device::Cpu));
        head.update(&features, &Tensor::from_slice(&[0i64, 1]), &Group::alone()).unwrap();
        assert!((before - centroid()).abs().max().double_value(&[]) < 1e-12);
    }

    #[test]
    fn an_image_on_a_centroid_has_a_finite_loss_and_gradient_whatever_its_label() {
        let logits = Tensor::from_slice(&[0.0f32, -200.0, -1e4]).view([1, 3]).set_requires_grad(true);
        let loss = binary_cross_entropy(&logits, &Tensor::from_slice(&[1i64]));
        loss.backward();
        assert!(
            loss.isfinite().int64_value(&[]) == 1 && logits.grad().isfinite().all().int64_value(&[]) == 1
        );
        // Far from its own centroid an image is still pulled: the kernel underflows, its logarithm does not.
        assert!((logits.grad().double_value(&[0, 1]) + 1.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn the_penalty_is_that_of_a_kernel_whose_gradient_is_known() {
        // ln K = a · x, so the gradient of K is a exp(a · x).
        let images = Tensor::zeros([1, 1, 1, 2], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        let slope = Tensor::from_slice(&[3.0f64, 4.0]).set_requires_grad(true);
        let logits = (images.flatten(1, -1) * &slope).sum_dim_intlist([1i64].as_slice(), true, None::<Kind>);
        let penalty = gradient_penalty(&images, &logits);
        assert!((penalty.double_value(&[]) - 16.0).abs() < 1e-12);
        penalty.backward();
        // d/da (|a| − 1)² = 2 (|a| − 1) a / |a|.
        assert!((slope.grad().double_value(&[0]) - 2.0 * 4.0 * 0.6).abs() < 1e-12);
    }
}
