//! Laplace's approximation in the last linear layer: a Gaussian around the trained weights whose precision is the
//! generalised Gauss-Newton matrix of the training images plus the prior's.
//!
//! Sources: Ritter, Botev, Barber, *A scalable Laplace approximation for neural networks*, ICLR 2018; Daxberger et al.,
//! *Laplace redux*, NeurIPS 2021, whose program laplace-torch is the reference of the tests.

use std::f64::consts::PI;

use common::spec::{LaplaceCurvature, LaplaceSettings};
use tch::{Device, Kind, Tensor};

use crate::model::ModelError;

/// Most weights for which the whole matrix is held and decomposed: half a gigabyte, and minutes on a processor.
const MOST_WEIGHTS: i64 = 8_192;

/// Bounds of the logarithm of the prior precision that is searched for.
const LOG_PRECISION: [f64; 2] = [-30.0, 30.0];

/// Sums over the training images, in double precision.
pub(crate) struct Curvature {
    images: i64,
    sums: Sums,
}

enum Sums {
    /// Σ φφᵀ `[D, D]` and Σ diag(p) − ppᵀ `[K, K]`.
    Kronecker { inputs: Tensor, outputs: Tensor },
    /// Σ (diag(p) − ppᵀ) ⊗ φφᵀ, `[K·D, K·D]`.
    Full(Tensor),
}

impl Curvature {
    /// Of no images. Shapes: `features` F, without the constant one of the bias; `classes` K.
    ///
    /// # Errors
    ///
    /// [`ModelError::LaplaceSize`] when the whole matrix would be too large.
    pub(crate) fn new(
        kind: LaplaceCurvature,
        features: i64,
        classes: i64,
        device: Device,
    ) -> Result<Self, ModelError> {
        let inputs = features + 1;
        let square = |side: i64| Tensor::f_zeros([side, side], (Kind::Double, device));
        let sums = match kind {
            LaplaceCurvature::Kronecker => {
                Sums::Kronecker { inputs: square(inputs)?, outputs: square(classes)? }
            }
            LaplaceCurvature::Full if inputs * classes > MOST_WEIGHTS => {
                return Err(ModelError::LaplaceSize { weights: inputs * classes, most: MOST_WEIGHTS });
            }
            LaplaceCurvature::Full => Sums::Full(square(inputs * classes)?),
        };
        Ok(Self { images: 0, sums })
    }

    /// Adds a batch. Shapes: `features` `[B, F]`, `logits` `[B, K]`.
    pub(crate) fn add(&mut self, features: &Tensor, logits: &Tensor) {
        let _no_grad = tch::no_grad_guard();
        let inputs = with_one(features);
        let p = logits.to_kind(Kind::Double).softmax(-1, Kind::Double);
        self.images += inputs.size()[0];
        match &mut self.sums {
            Sums::Kronecker { inputs: sum, outputs } => {
                let _ = sum.g_add_(&inputs.tr().matmul(&inputs));
                let _ = outputs.g_add_(
                    &(p.sum_dim_intlist([0i64].as_slice(), false, Kind::Double).diag(0) - p.tr().matmul(&p)),
                );
            }
            Sums::Full(sum) => {
                // diag(p) ⊗ φφᵀ is a block for each class, ppᵀ ⊗ φφᵀ the product of rows p ⊗ φ.
                let rows = (p.unsqueeze(2) * inputs.unsqueeze(1)).flatten(1, 2);
                let blocks: Vec<Tensor> = (0..p.size()[1])
                    .map(|class| (&inputs * p.select(1, class).unsqueeze(1)).tr().matmul(&inputs))
                    .collect();
                let _ = sum.g_add_(&(Tensor::block_diag(&blocks) - rows.tr().matmul(&rows)));
            }
        }
    }
}

/// φ with the constant input of the bias behind it, in double precision.
fn with_one(features: &Tensor) -> Tensor {
    let features = features.to_kind(Kind::Double);
    let one = features.narrow(1, 0, 1).ones_like();
    Tensor::cat(&[features, one], 1)
}

/// The posterior over weight and bias of the last layer.
pub(crate) struct LastLayer {
    precision: f64,
    covariance: Covariance,
}

enum Covariance {
    Kronecker {
        /// Squared eigenvectors of the outputs' matrix, `[K, K]`, an eigenvector a column.
        outputs: Tensor,
        /// Eigenvectors of the inputs' matrix, `[D, D]`, an eigenvector a column.
        inputs: Tensor,
        /// Variances along their products, `[K, D]`.
        variances: Tensor,
    },
    /// Of the weights of each class, `[K, D, D]`.
    Full(Tensor),
}

/// A decomposed curvature.
struct Spectrum {
    values: Tensor,
    vectors: Vectors,
}

enum Vectors {
    Kronecker { outputs: Tensor, inputs: Tensor },
    Full { vectors: Tensor, classes: i64 },
}

impl Spectrum {
    fn of(curvature: &Curvature, classes: i64) -> Self {
        // A sum of squares has no negative eigenvalues but by rounding.
        match &curvature.sums {
            Sums::Kronecker { inputs, outputs } => {
                let (a, input_vectors) = (inputs / curvature.images as f64).linalg_eigh("L");
                let (b, output_vectors) = outputs.linalg_eigh("L");
                let values = b.clamp_min(0.0).outer(&a.clamp_min(0.0));
                Self {
                    values,
                    vectors: Vectors::Kronecker { outputs: output_vectors, inputs: input_vectors },
                }
            }
            Sums::Full(sum) => {
                let (values, vectors) = sum.linalg_eigh("L");
                Self { values: values.clamp_min(0.0), vectors: Vectors::Full { vectors, classes } }
            }
        }
    }

    fn host_values(&self) -> Vec<f64> {
        let flat = self.values.to_device(Device::Cpu).flatten(0, -1);
        let mut values = vec![0.0; flat.numel()];
        flat.copy_data(&mut values, flat.numel());
        values
    }

    fn covariance(self, precision: f64) -> Covariance {
        let variances = (self.values + precision).reciprocal();
        match self.vectors {
            Vectors::Kronecker { outputs, inputs } => {
                Covariance::Kronecker { outputs: outputs.square(), inputs, variances }
            }
            Vectors::Full { vectors, classes } => {
                let rows = vectors.unflatten(0, [classes, -1]);
                Covariance::Full((&rows * variances).matmul(&rows.transpose(1, 2)))
            }
        }
    }
}

impl LastLayer {
    /// The posterior of a layer with these weights. Shapes: `weight` `[K, F]`, `bias` `[K]`.
    pub(crate) fn fit(
        curvature: &Curvature,
        weight: &Tensor,
        bias: &Tensor,
        settings: &LaplaceSettings,
    ) -> Self {
        let _no_grad = tch::no_grad_guard();
        let spectrum = Spectrum::of(curvature, bias.size()[0]);
        let squares = |tensor: &Tensor| tensor.to_kind(Kind::Double).square().sum(Kind::Double);
        // sync: a number and the eigenvalues, once for each network.
        let norm = (squares(weight) + squares(bias)).double_value(&[]);
        let precision =
            settings.prior_precision.unwrap_or_else(|| best_precision(&spectrum.host_values(), norm));
        Self { precision, covariance: spectrum.covariance(precision) }
    }

    /// Precision of the prior.
    pub(crate) fn precision(&self) -> f64 {
        self.precision
    }

    /// Numbers that prediction needs beside the network.
    pub(crate) fn stored_count(&self) -> i64 {
        let numbers = match &self.covariance {
            Covariance::Kronecker { outputs, inputs, variances } => {
                outputs.numel() + inputs.numel() + variances.numel()
            }
            Covariance::Full(blocks) => blocks.numel(),
        };
        numbers as i64
    }

    /// Variances of the logits where the network is linear in its last layer, which it is. Shapes: `features` `[B, F]`;
    /// returns `[B, K]`, in double precision.
    fn variances(&self, features: &Tensor) -> Tensor {
        let inputs = with_one(features);
        match &self.covariance {
            Covariance::Kronecker { outputs, inputs: vectors, variances } => {
                inputs.matmul(vectors).square().matmul(&variances.tr()).matmul(&outputs.tr())
            }
            Covariance::Full(blocks) => {
                let along = inputs.matmul(blocks);
                (along * &inputs).sum_dim_intlist([-1i64].as_slice(), false, Kind::Double).tr()
            }
        }
    }

    /// Logits whose softmax is the probit approximation of the mean prediction: f / √(1 + π/8 σ²), class by class.
    ///
    /// Shapes: `features` `[B, F]`, `logits` `[B, K]`, as what is returned, in its kind.
    pub(crate) fn logits(&self, features: &Tensor, logits: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let shrink = (self.variances(features) * (PI / 8.0) + 1.0).rsqrt();
        (logits.to_kind(Kind::Double) * shrink).to_kind(logits.kind())
    }
}

/// The prior precision δ of the largest marginal likelihood, for the eigenvalues λ of the curvature and the squared norm
/// of the weights.
///
/// Up to a constant its logarithm is ½ (P ln δ − Σ ln(λ + δ) − δ ‖θ‖²). The derivative by ln δ is
/// ½ (Σ λ/(λ + δ) − δ ‖θ‖²), which falls, so there is one maximum and bisection finds it (MacKay's fixed point,
/// without his iteration).
fn best_precision(eigenvalues: &[f64], norm: f64) -> f64 {
    let rises = |log: f64| {
        let precision = log.exp();
        eigenvalues.iter().map(|value| value / (value + precision)).sum::<f64>() > precision * norm
    };
    let [mut low, mut high] = LOG_PRECISION;
    // Until the bounds are neighbours, or nearly: 60 / 2⁶⁰.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if rises(middle) { low = middle } else { high = middle }
    }
    (0.5 * (low + high)).exp()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::golden::unit;

    /// `make_golden_posteriors.py`.
    const IMAGES: i64 = 37;
    const FEATURES: i64 = 5;
    const CLASSES: i64 = 4;
    const TESTS: i64 = 6;

    fn values(name: &str, shape: [i64; 2]) -> Tensor {
        Tensor::from_slice(&unit(name, (shape[0] * shape[1]) as usize)).view(shape)
    }

    struct Layer {
        features: Tensor,
        tests: Tensor,
        weight: Tensor,
        bias: Tensor,
    }

    impl Layer {
        fn new() -> Self {
            Self {
                features: values("features", [IMAGES, FEATURES]) * 1.5,
                tests: values("tests", [TESTS, FEATURES]) * 3.0,
                weight: values("weight", [CLASSES, FEATURES]) * 2.0,
                bias: values("bias", [CLASSES, 1]).squeeze(),
            }
        }

        fn logits(&self, features: &Tensor) -> Tensor {
            features.linear(&self.weight, Some(&self.bias))
        }

        fn curvature(&self, kind: LaplaceCurvature, batch: i64) -> Curvature {
            let mut curvature = Curvature::new(kind, FEATURES, CLASSES, Device::Cpu).unwrap();
            for features in self.features.split(batch, 0) {
                curvature.add(&features, &self.logits(&features));
            }
            curvature
        }

        fn posterior(&self, kind: LaplaceCurvature, prior_precision: Option<f64>) -> LastLayer {
            let settings = LaplaceSettings { curvature: kind, prior_precision };
            LastLayer::fit(&self.curvature(kind, 16), &self.weight, &self.bias, &settings)
        }
    }

    const KINDS: [(&str, LaplaceCurvature); 2] =
        [("kronecker", LaplaceCurvature::Kronecker), ("full", LaplaceCurvature::Full)];

    fn largest(difference: &Tensor) -> f64 {
        difference.abs().max().double_value(&[])
    }

    /// Both sides in double precision. The reference finds the best precision by comparing likelihoods, which determines
    /// a maximum to the square root of the precision only, hence 1e-6 of it.
    #[test]
    fn variances_probabilities_and_the_best_precision_are_those_of_laplace_torch() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/laplace.safetensors");
        let golden: BTreeMap<String, Tensor> = Tensor::read_safetensors(path).unwrap().into_iter().collect();
        let layer = Layer::new();
        for (label, kind) in KINDS {
            let best = golden[&format!("{label}.precision")].double_value(&[]);
            let found = layer.posterior(kind, None).precision();
            assert!((found / best - 1.0).abs() < 1e-6, "{label}: {found} is not {best}");
            for (name, precision) in [("best", best), ("fixed", 0.3)] {
                let posterior = layer.posterior(kind, Some(precision));
                let variances = posterior.variances(&layer.tests);
                let off = largest(&(&variances / &golden[&format!("{label}.{name}.variances")] - 1.0));
                assert!(off < 1e-10, "variances, {label}, {name}: {off:e}");
                let logits = posterior.logits(&layer.tests, &layer.logits(&layer.tests));
                let probabilities = logits.softmax(-1, Kind::Double);
                let off = largest(&(probabilities - &golden[&format!("{label}.{name}.probabilities")]));
                assert!(off < 1e-12, "probabilities, {label}, {name}: {off:e}");
            }
        }
    }

    #[test]
    fn how_the_images_are_cut_into_batches_does_not_matter() {
        let layer = Layer::new();
        for (label, kind) in KINDS {
            let variances = |batch| {
                let settings = LaplaceSettings { curvature: kind, prior_precision: Some(1.0) };
                let curvature = layer.curvature(kind, batch);
                LastLayer::fit(&curvature, &layer.weight, &layer.bias, &settings).variances(&layer.tests)
            };
            assert!(largest(&(variances(IMAGES) - variances(1))) < 1e-12, "{label}");
        }
    }

    /// All images alike: then the sum over images of products is the product of sums, and Kronecker's is no approximation.
    #[test]
    fn the_two_curvatures_agree_where_all_images_are_alike() {
        let layer = Layer { features: values("features", [1, FEATURES]).repeat([IMAGES, 1]), ..Layer::new() };
        let variances = |kind| layer.posterior(kind, Some(0.5)).variances(&layer.tests);
        let off =
            largest(&(variances(LaplaceCurvature::Kronecker) / variances(LaplaceCurvature::Full) - 1.0));
        assert!(off < 1e-10, "{off:e}");
    }

    #[test]
    fn a_certain_prior_leaves_the_logits_and_an_uncertain_one_flattens_them() {
        let layer = Layer::new();
        let logits = layer.logits(&layer.tests);
        for (label, kind) in KINDS {
            let certain = layer.posterior(kind, Some(1e14)).logits(&layer.tests, &logits);
            assert!(largest(&(certain - &logits)) < 1e-10, "{label}");
            let uncertain = layer.posterior(kind, Some(1e-12)).logits(&layer.tests, &logits);
            assert!(bool::try_from(uncertain.abs().lt_tensor(&logits.abs()).all()).unwrap(), "{label}");
        }
    }

    #[test]
    fn the_best_precision_is_where_the_marginal_likelihood_is_largest() {
        let eigenvalues = [1e3, 10.0, 0.5, 1e-3, 0.0, 0.0];
        let norm = 2.5;
        let likelihood = |log: f64| {
            let terms: f64 = eigenvalues.iter().map(|value: &f64| log - (value + log.exp()).ln()).sum();
            0.5 * (terms - log.exp() * norm)
        };
        let best = best_precision(&eigenvalues, norm).ln();
        let grid = (-2_000..2_000).map(|step| f64::from(step) * 0.01);
        assert!(grid.clone().all(|log| likelihood(log) <= likelihood(best) + 1e-12), "{best}");
    }

    #[test]
    fn the_whole_matrix_of_a_large_layer_is_refused_with_the_way_out() {
        let large = |kind| Curvature::new(kind, 2_048, 1_000, Device::Cpu);
        let Err(error) = large(LaplaceCurvature::Full) else { panic!("16 terabytes") };
        assert!(error.to_string().contains("curvature = \"kronecker\""), "{error}");
        assert!(large(LaplaceCurvature::Kronecker).is_ok());
    }
}
