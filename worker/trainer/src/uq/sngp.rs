//! SNGP's last layer: a Gaussian process over the features, with random Fourier features in the place of its kernel.
//!
//! φ(x) = cos(Ω h(x) / ℓ + b), logits β φ. Rows of Ω are orthogonal in blocks as long as the features are many, with
//! the lengths of Gaussian rows. β is trained as any last layer; its posterior is Gaussian with precision
//! s I + Σ φ φᵀ over the training images (of a squared error, so one matrix for all classes), and in evaluation the
//! logits are divided by √(1 + λ var), var = s φᵀ (s I + Σ φ φᵀ)⁻¹ φ: the mean-field approximation of the mean of the
//! softmax.
//!
//! Source: Liu, Lin, Padhy, Tran, Bedrax-Weiss, Lakshminarayanan, *Simple and principled uncertainty estimation with
//! deterministic deep learning via distance awareness*, NeurIPS 2020; `gaussian_process` of edward2 as the CIFAR program
//! of Uncertainty Baselines uses it (`docs/methods/sngp.md`). The bound of hidden layers is in `spectral`.

use std::cell::RefCell;
use std::f64::consts::TAU;

use common::spec::SngpSettings;
use tch::{Kind, Tensor, no_grad};

use crate::group::{Group, GroupError};
use crate::model::ModelError;
use crate::model::builder::{Builder, Init};

/// Random features, output weights and the precision of their posterior.
pub(crate) struct GaussianProcess {
    /// Ω, `[D, F]`, frozen.
    frequencies: Tensor,
    /// b, `[D]`, frozen.
    phases: Tensor,
    /// β, `[K, D]`.
    weight: Tensor,
    /// Σ φ φᵀ, `[D, D]`, in double precision: summed over an epoch in single precision it is off by a matrix whose norm
    /// is near that of the ridge, and nothing else bounds its smallest eigenvalue.
    precision: Tensor,
    /// Inverse of ridge and precision, with the version of the precision that it is of.
    covariance: RefCell<Option<(i64, Tensor)>>,
    length_scale: f64,
    ridge: f64,
    factor: f64,
}

impl GaussianProcess {
    /// Creates the layer below the path `gp`.
    pub(crate) fn new(
        builder: &mut Builder,
        settings: &SngpSettings,
        inputs: i64,
        classes: i64,
    ) -> Result<Self, ModelError> {
        let features = i64::from(settings.features);
        // Glorot's, the default of the layer in edward2.
        let bound = (6.0 / (features + classes) as f64).sqrt();
        let frequencies = orthogonal_features(builder, features, inputs)?;
        Ok(Self {
            frequencies: builder.frozen_tensor("gp.frequencies".to_owned(), &frequencies)?,
            // Any interval of length 2π will do.
            phases: builder.frozen(
                "gp.phases".to_owned(),
                &[features],
                Init::Uniform { bound: TAU / 2.0 },
            )?,
            weight: builder.scale("gp.weight".to_owned(), &[classes, features], Init::Uniform { bound })?,
            precision: builder.accumulator("gp.precision".to_owned(), &[features, features])?,
            covariance: RefCell::new(None),
            length_scale: settings.length_scale,
            ridge: settings.ridge,
            factor: settings.mean_field_factor,
        })
    }

    /// φ: shapes `[B, F]` to `[B, D]`.
    fn random_features(&self, features: &Tensor) -> Tensor {
        (features / self.length_scale).linear(&self.frequencies, Some(&self.phases)).cos()
    }

    /// Logits of training: β φ.
    ///
    /// Shapes: `features` `[B, F]`; returns `[B, K]`.
    pub(crate) fn forward(&self, features: &Tensor) -> Tensor {
        self.random_features(features).linear::<&Tensor>(&self.weight, None)
    }

    /// Logits of evaluation: those of training, smaller where the posterior is wide.
    ///
    /// Shapes: as [`forward`](Self::forward).
    pub(crate) fn forward_mean_field(&self, features: &Tensor) -> Tensor {
        let phi = self.random_features(features);
        let logits = phi.linear::<&Tensor>(&self.weight, None);
        if self.factor == 0.0 {
            return logits;
        }
        let scale = (self.variance(&phi) * self.factor + 1.0).sqrt();
        logits / scale.to_kind(phi.kind()).unsqueeze(-1)
    }

    /// Shapes: `phi` `[B, D]`; returns `[B]`, in double precision.
    fn variance(&self, phi: &Tensor) -> Tensor {
        let version = self.precision.internal_version();
        let mut cached = self.covariance.borrow_mut();
        let covariance = match &*cached {
            Some((of, covariance)) if *of == version => covariance.shallow_clone(),
            Some(_) | None => {
                let covariance = self.invert();
                *cached = Some((version, covariance.shallow_clone()));
                covariance
            }
        };
        let phi = phi.to_kind(Kind::Double);
        let products = phi.matmul(&covariance) * &phi;
        products.sum_dim_intlist([-1i64].as_slice(), false, Kind::Double) * self.ridge
    }

    fn invert(&self) -> Tensor {
        no_grad(|| {
            let size = self.precision.size()[0];
            let identity = Tensor::eye(size, (Kind::Double, self.precision.device()));
            (&self.precision + identity * self.ridge).linalg_cholesky(false).cholesky_inverse(false)
        })
    }

    /// Adds the images of a step, of all ranks, to the precision. A collective.
    ///
    /// Features of the ranks are put together, not their matrices: those are of a batch's size, not of D², and every rank
    /// then adds up the same rows in the same order.
    ///
    /// Shapes: `features` `[B, F]`, of the training pass.
    pub(crate) fn accumulate(&self, features: &Tensor, group: &Group) -> Result<(), GroupError> {
        no_grad(|| {
            let phi = group.gather_rows(&self.random_features(features))?.to_kind(Kind::Double);
            let mut precision = self.precision.shallow_clone();
            let _ = precision.addmm_(&phi.tr(), &phi);
            Ok(())
        })
    }
}

/// Frequencies whose rows are orthogonal in blocks of `inputs`, each as long as a Gaussian vector: `[D, F]` in double
/// precision.
///
/// Source: Yu et al., *Orthogonal random features*, NeurIPS 2016, theorem 1.
fn orthogonal_features(builder: &Builder, features: i64, inputs: i64) -> Result<Tensor, ModelError> {
    let draw = |what: &str, shape: [i64; 2]| -> Result<Tensor, ModelError> {
        Ok(builder.normals(&format!("gp.frequencies {what}"), &shape)?.to_kind(Kind::Double))
    };
    let mut blocks = Vec::new();
    for (block, start) in (0..features).step_by(inputs as usize).enumerate() {
        let columns = inputs.min(features - start);
        let gaussian = draw(&format!("block {block}"), [inputs, columns])?;
        let (q, r) = Tensor::f_linalg_qr(&gaussian, "reduced")?;
        // Without the signs the directions would not be uniform.
        blocks.push((q * r.diagonal(0, 0, 1).sign()).tr());
    }
    let lengths = draw("lengths", [features, inputs])?;
    let lengths = lengths.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Double).sqrt();
    Ok(Tensor::cat(&blocks, 0) * lengths)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn process(settings: SngpSettings, inputs: i64) -> GaussianProcess {
        let mut builder = Builder::new(5, Kind::Double, Device::Cpu);
        GaussianProcess::new(&mut builder, &settings, inputs, 3).unwrap()
    }

    fn inputs(rows: i64, columns: i64) -> Tensor {
        (Tensor::arange(rows * columns, (Kind::Double, Device::Cpu)) * 78.233).sin().view([rows, columns])
    }

    #[test]
    fn frequencies_are_orthogonal_in_blocks_and_as_long_as_gaussian_vectors() {
        let builder = Builder::new(1, Kind::Double, Device::Cpu);
        let frequencies = orthogonal_features(&builder, 40, 16).unwrap();
        assert_eq!(frequencies.size(), [40, 16]);
        let lengths = frequencies.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Double);
        let directions = &frequencies / lengths.sqrt();
        for (start, rows) in [(0, 16), (16, 16), (32, 8)] {
            let block = directions.narrow(0, start, rows);
            let error = block.matmul(&block.tr()) - Tensor::eye(rows, (Kind::Double, Device::Cpu));
            assert!(error.abs().max().double_value(&[]) < 1e-12);
        }
        let across = directions.narrow(0, 0, 16).matmul(&directions.narrow(0, 16, 16).tr());
        assert!(across.abs().max().double_value(&[]) > 0.1, "blocks are independent");
        // χ² with 16 degrees of freedom: 40 of them have a mean of 16 ± 0.9.
        assert!((lengths.mean(Kind::Double).double_value(&[]) - 16.0).abs() < 4.0);
        assert!(lengths.std(true).double_value(&[]) > 1.0);
    }

    #[test]
    fn products_of_random_features_are_a_gaussian_kernel() {
        let length_scale = 3.0;
        let settings = SngpSettings { features: 8192, length_scale, ..SngpSettings::default() };
        let process = process(settings, 6);
        let x = inputs(5, 6);
        let phi = process.random_features(&x);
        let products = phi.matmul(&phi.tr()) * (2.0 / 8192.0);
        let squares = (x.unsqueeze(0) - x.unsqueeze(1)).square();
        let distances = squares.sum_dim_intlist([2i64].as_slice(), false, Kind::Double);
        let kernel = (distances * (-0.5 / (length_scale * length_scale))).exp();
        // The deviation of an entry is at most 1 / √4096.
        assert!((products - kernel).abs().max().double_value(&[]) < 5.0 / 64.0);
    }

    #[test]
    fn the_variance_shrinks_where_images_were_seen_and_stays_that_of_the_prior_elsewhere() {
        let settings =
            SngpSettings { features: 256, length_scale: 0.1, ridge: 1.0, ..SngpSettings::default() };
        let process = process(settings, 4);
        let (seen, unseen) = (inputs(6, 4), inputs(6, 4) + 3.0);
        let variance = |x: &Tensor| process.variance(&process.random_features(x)).mean(Kind::Double);
        let prior = variance(&seen).double_value(&[]);
        for _ in 0..50 {
            process.accumulate(&seen, &Group::alone()).unwrap();
        }
        assert!(variance(&seen).double_value(&[]) < 0.01 * prior);
        assert!(variance(&unseen).double_value(&[]) > 0.9 * prior);
    }

    #[test]
    fn without_the_factor_evaluation_gives_the_logits_of_training() {
        let settings = SngpSettings { features: 32, mean_field_factor: 0.0, ..SngpSettings::default() };
        let process = process(settings, 4);
        let x = inputs(3, 4);
        assert_eq!(process.forward(&x), process.forward_mean_field(&x));
    }

    /// A class is never changed by the mean field, only how sure the network is of it.
    #[test]
    fn the_mean_field_shrinks_all_logits_of_an_image_alike() {
        let process = process(SngpSettings { features: 32, ..SngpSettings::default() }, 4);
        let x = inputs(3, 4);
        process.accumulate(&x, &Group::alone()).unwrap();
        let ratio = process.forward_mean_field(&(&x * 2.0)) / process.forward(&(&x * 2.0));
        let spread = ratio.amax([1i64].as_slice(), false) - ratio.amin([1i64].as_slice(), false);
        assert!(spread.max().double_value(&[]) < 1e-12);
        assert!(ratio.max().double_value(&[]) < 1.0 && ratio.min().double_value(&[]) > 0.0);
    }
}
