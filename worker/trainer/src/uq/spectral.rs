//! Spectral normalisation with a bound: W̄ = W · min(1, c / σ), where σ is the largest singular value of the layer.
//!
//! The singular value is that of the layer as an operator on images of the size that it sees, found by power iteration
//! with the convolution and its transpose; it is not the one of the kernel reshaped to a matrix, which bounds it
//! poorly. Each training pass makes `iterations` steps from where the last one ended. Passes in evaluation mode make
//! the same steps and forget them.
//!
//! The gradient by W is the gradient by W̄, as it is: neither σ nor the factor is differentiated, as in edward2,
//! where the layer computes with W̄ in the place of W, and the optimizer then moves W.
//!
//! Source: Gouk, Frank, Pfahringer, Cree, *Regularisation of neural networks by enforcing Lipschitz continuity*, 2018;
//! `SpectralNormalizationConv2D` of edward2.

use std::rc::Rc;

use c10d::Autocast;
use tch::{Kind, Tensor, no_grad};

use crate::model::builder::{Builder, Deferred};

/// Least norm that a vector is divided by.
const LEAST_NORM: f64 = 1e-6;

/// How a layer's norm is bounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bound {
    /// c.
    pub(crate) norm: f64,
    /// Power iterations per pass.
    pub(crate) iterations: u32,
}

/// Whether a pass keeps the vector that it arrives at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Vector,
    Nothing,
}

/// A layer as a linear operator, without its bias.
pub(crate) trait Operator {
    /// Shapes: `v` is one input of the layer.
    fn apply(&self, v: &Tensor) -> Tensor;
    /// Shapes: `u` is one output of the layer.
    fn transpose(&self, u: &Tensor) -> Tensor;
}

/// The bound of one layer, and its left singular vector so far.
pub(crate) struct SpectralNorm {
    bound: Bound,
    /// u, an output of the layer for one example.
    vector: Rc<Deferred>,
}

impl SpectralNorm {
    /// Creates the vector below `path`, once the first pass shows its shape.
    pub(crate) fn new(builder: &mut Builder, path: &str, bound: Bound) -> Self {
        Self { bound, vector: builder.deferred(format!("{path}.u")) }
    }

    /// W̄ of `weight`, whose gradient is passed on to `weight` unchanged.
    ///
    /// `output` is the shape of what the layer makes of one example.
    pub(crate) fn normalise(
        &self,
        weight: &Tensor,
        operator: &impl Operator,
        output: &[i64],
        keep: Keep,
    ) -> Tensor {
        let Some(vector) = self.vector.get_or_expect(output) else { return weight.shallow_clone() };
        // An iteration in half precision would not converge to the norm.
        let _full = Autocast::full(weight.device());
        let change = no_grad(|| {
            let (sigma, u) = power_iteration(operator, vector, self.bound.iterations);
            if keep == Keep::Vector {
                vector.shallow_clone().copy_(&u);
            }
            let factor = (self.bound.norm / sigma).clamp_max(1.0);
            weight * factor - weight
        });
        weight + change
    }
}

/// The largest singular value as `iterations` steps from `start` find it, and the left vector that they end at.
fn power_iteration(operator: &impl Operator, start: &Tensor, iterations: u32) -> (Tensor, Tensor) {
    let mut u = start.shallow_clone();
    let mut sigma = Tensor::ones([], (start.kind(), start.device()));
    for _ in 0..iterations {
        let (v, _) = unit(&operator.transpose(&u));
        // ‖W v‖ is what u · W v is for the u of the next line.
        (u, sigma) = unit(&operator.apply(&v));
    }
    (sigma, u)
}

fn unit(vector: &Tensor) -> (Tensor, Tensor) {
    let norm = vector.square().sum(None::<Kind>).sqrt();
    (vector / norm.clamp_min(LEAST_NORM), norm)
}

/// A convolution of images of height and width `size`.
pub(crate) struct ConvOperator<'a> {
    pub(crate) weight: &'a Tensor,
    pub(crate) stride: i64,
    pub(crate) padding: i64,
    pub(crate) size: [i64; 2],
}

impl ConvOperator<'_> {
    /// Height, or width, of an output.
    fn output(&self, axis: usize) -> i64 {
        let kernel = self.weight.size()[2 + axis];
        (self.size[axis] + 2 * self.padding - kernel) / self.stride + 1
    }

    /// Shape of what the layer makes of one image.
    pub(crate) fn output_shape(&self) -> [i64; 4] {
        [1, self.weight.size()[0], self.output(0), self.output(1)]
    }
}

impl Operator for ConvOperator<'_> {
    fn apply(&self, v: &Tensor) -> Tensor {
        v.conv2d::<&Tensor>(self.weight, None, self.stride, self.padding, 1, 1)
    }

    fn transpose(&self, u: &Tensor) -> Tensor {
        // Rows and columns that the stride leaves over are inputs all the same.
        let left = [0, 1].map(|axis| {
            let kernel = self.weight.size()[2 + axis];
            (self.size[axis] + 2 * self.padding - kernel) % self.stride
        });
        u.conv_transpose2d::<&Tensor>(self.weight, None, self.stride, self.padding, left.as_slice(), 1, 1)
    }
}

/// A matrix `[O, I]`.
pub(crate) struct LinearOperator<'a>(pub(crate) &'a Tensor);

impl Operator for LinearOperator<'_> {
    fn apply(&self, v: &Tensor) -> Tensor {
        v.linear::<&Tensor>(self.0, None)
    }

    fn transpose(&self, u: &Tensor) -> Tensor {
        u.matmul(self.0)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const OPTIONS: (Kind, Device) = (Kind::Double, Device::Cpu);

    /// Numbers without a pattern.
    fn values(shape: &[i64]) -> Tensor {
        let count = shape.iter().product::<i64>();
        (Tensor::arange(count, OPTIONS) * 12.9898 + 1.0).sin().view(shape) * 0.7
    }

    /// The matrix of an operator, column by column, from its `apply`.
    fn matrix(operator: &impl Operator, input: &[i64]) -> Tensor {
        let size = input.iter().product::<i64>();
        let basis = Tensor::eye(size, OPTIONS);
        let columns: Vec<Tensor> =
            (0..size).map(|index| operator.apply(&basis.get(index).view(input)).view(-1)).collect();
        Tensor::stack(&columns, 1)
    }

    fn largest_singular_value(matrix: &Tensor) -> f64 {
        matrix.matmul(&matrix.tr()).linalg_eigvalsh("L").max().sqrt().double_value(&[])
    }

    fn assert_converges(operator: &impl Operator, input: &[i64], output: &[i64]) {
        let matrix = matrix(operator, input);
        let expected = largest_singular_value(&matrix);
        let (few, _) = power_iteration(operator, &values(output), 1);
        let (many, u) = power_iteration(operator, &values(output), 3_000);
        assert!(few.double_value(&[]) <= expected * (1.0 + 1e-12), "a Rayleigh quotient is never too large");
        assert!((many.double_value(&[]) / expected - 1.0).abs() < 1e-9, "{many:?} is not {expected}");
        assert!((u.norm().double_value(&[]) - 1.0).abs() < 1e-12);
        // The transpose is the transpose.
        let transposed = matrix.tr().matmul(&values(output).view(-1));
        let error = (operator.transpose(&values(output)).view(-1) - transposed).abs().max();
        assert!(error.double_value(&[]) < 1e-12);
    }

    #[test]
    fn power_iteration_finds_the_norm_of_a_convolution_as_it_is_applied() {
        for (kernel, stride, size) in [(3, 1, [5, 5]), (3, 2, [5, 5]), (3, 2, [6, 4]), (1, 2, [5, 6])] {
            let weight = values(&[3, 2, kernel, kernel]);
            let operator = ConvOperator { weight: &weight, stride, padding: kernel / 2, size };
            let shape = operator.output_shape();
            assert_converges(&operator, &[1, 2, size[0], size[1]], &shape);
        }
    }

    #[test]
    fn power_iteration_finds_the_norm_of_a_matrix() {
        let weight = values(&[4, 6]);
        assert_converges(&LinearOperator(&weight), &[1, 6], &[1, 4]);
    }

    /// Which is why the kernel is not reshaped: an all-positive kernel adds up nine places.
    #[test]
    fn the_reshaped_kernel_has_another_norm() {
        let weight = values(&[3, 2, 3, 3]).abs();
        let operator = ConvOperator { weight: &weight, stride: 1, padding: 1, size: [8, 8] };
        let of_operator = largest_singular_value(&matrix(&operator, &[1, 2, 8, 8]));
        let of_matrix = largest_singular_value(&weight.view([3, -1]));
        assert!(of_operator > 2.0 * of_matrix, "{of_operator} and {of_matrix}");
    }

    fn settled(weight: &Tensor, bound: f64) -> (SpectralNorm, Tensor) {
        let mut builder = Builder::new(0, Kind::Double, Device::Cpu);
        let norm = SpectralNorm::new(&mut builder, "layer", Bound { norm: bound, iterations: 1 });
        let operator = LinearOperator(weight);
        builder.create_deferred(|_| drop(norm.normalise(weight, &operator, &[1, 4], Keep::Vector))).unwrap();
        let mut bounded = Tensor::new();
        for _ in 0..200 {
            bounded = norm.normalise(weight, &operator, &[1, 4], Keep::Vector);
        }
        (norm, bounded)
    }

    #[test]
    fn a_weight_within_the_bound_is_left_alone_and_one_beyond_it_is_brought_to_it() {
        let weight = values(&[4, 6]).set_requires_grad(true);
        let sigma = largest_singular_value(&weight.detach());
        let (_, same) = settled(&weight, sigma * 1.01);
        assert_eq!(same, weight);
        let (_, bounded) = settled(&weight, sigma * 0.5);
        assert!((largest_singular_value(&bounded.detach()) / (sigma * 0.5) - 1.0).abs() < 1e-9);
        // The gradient is that by the bounded weight, unchanged.
        let cotangent = values(&[4, 6]);
        (&bounded * &cotangent).sum(Kind::Double).backward();
        assert_eq!(weight.grad(), cotangent);
    }

    #[test]
    fn a_pass_that_keeps_nothing_changes_nothing() {
        let weight = values(&[4, 6]);
        let (norm, _) = settled(&weight, 0.1);
        let changed = &weight + values(&[4, 6]).square();
        let operator = LinearOperator(&changed);
        let pass = || norm.normalise(&changed, &operator, &[1, 4], Keep::Nothing);
        assert_eq!(pass(), pass());
    }
}
