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
    (u, sigma)
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
        u.conv_transpose2d::<&Tensor>(
            self.weight,
            None,
            self.stride,
            self.padding,
            left.as_slice(),
            1,
            1,
        )
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
