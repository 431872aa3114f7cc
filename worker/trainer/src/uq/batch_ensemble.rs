//! BatchEnsemble: one shared weight and a pair of scales per member and layer.
//!
//! Member j computes with the weight W ⊙ (γⱼ αⱼᵀ) and its own bias (where the model has biases), but no member's weight is ever formed:
//! y = (W (x ⊙ αⱼ)) ⊙ γⱼ + bⱼ, so all members' rows go through one convolution.
//!
//! LP-BNN uses the same layer, with an αⱼ that is decoded instead of stored.
//!
//! Activations are **example-major** here: row i·J + j of a layer's input is example i as member j sees it.
//! The channels of the J members of an example are then neighbours in memory, and both member-wise scaling
//! and per-member normalisation are views of the same tensor: nothing is copied. Outside of a network rows
//! are member-major; [`crate::model::Network`] turns them round.
//!
//! Source: Wen, Tran, Ba, *BatchEnsemble*, ICLR 2020, §3.

use tch::{TchError, Tensor};

use crate::model::builder::{Builder, Init};

/// Where a layer's input-side vectors come from.
pub(crate) enum InputScale {
    /// A tensor of the layer, `[J, I]`.
    Stored(Tensor),
    /// Decoded for each forward pass; the place among the vectors of the pass.
    Decoded(usize),
}

/// Scales and biases of the members of one layer with I inputs and O outputs (channels or features).
pub(crate) struct MemberScales {
    alpha: InputScale,
    /// `[J, O]`.
    gamma: Tensor,
    /// `[J, O]`; `None` where the layer has no biases without members either.
    bias: Option<Tensor>,
}

impl MemberScales {
    /// Creates γ and b below `path`.
    pub(crate) fn new(
        builder: &mut Builder,
        path: &str,
        alpha: InputScale,
        shape: ScaleShape,
        std: f64,
    ) -> Result<Self, TchError> {
        let rows = [shape.members, shape.outputs];
        let gamma = builder.scale(format!("{path}.gamma"), &rows, Init::Normal { mean: 1.0, std })?;
        let bias = shape.bias.map(|init| builder.weight(format!("{path}.bias"), &rows, init));
        Ok(Self { alpha, gamma, bias: bias.transpose()? })
    }

    pub(crate) fn members(&self) -> i64 {
        self.gamma.size()[0]
    }

    /// x ⊙ αⱼ.
    ///
    /// Shapes: `x` is `[N, J, I, ..]`, or `[N, 1, I, ..]` when all members see the same examples;
    /// `decoded` holds the decoded vectors of the pass; returns `[N·J, I, ..]`.
    pub(crate) fn scale_input(&self, x: &Tensor, decoded: &[Tensor]) -> Tensor {
        let alpha = match &self.alpha {
            InputScale::Stored(alpha) => alpha,
            InputScale::Decoded(place) => &decoded[*place],
        };
        (x * over_space(alpha, x.dim())).flatten(0, 1)
    }

    /// y ⊙ γⱼ + bⱼ.
    ///
    /// Shapes: `y` is `[N·J, O, ..]`, and so is what is returned.
    pub(crate) fn scale_output(&self, y: &Tensor) -> Tensor {
        let members = split_members(y, self.members());
        let dims = members.dim();
        let gamma = over_space(&self.gamma, dims);
        let scaled = match &self.bias {
            Some(bias) => over_space(bias, dims).addcmul(&members, &gamma),
            None => members * gamma,
        };
        scaled.flatten(0, 1)
    }
}

/// What the scales and biases of a layer follow from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScaleShape {
    pub(crate) members: i64,
    pub(crate) outputs: i64,
    /// First values of the biases, if there are any.
    pub(crate) bias: Option<Init>,
}

/// `[N·J, C, ..]` as `[N, J, C, ..]`, without a copy.
pub(crate) fn split_members(rows: &Tensor, members: i64) -> Tensor {
    rows.unflatten(0, [-1, members])
}

/// `[J, C]` with as many axes of size 1 behind as a tensor `[N, J, C, ..]` of `dims` axes has.
fn over_space(vectors: &Tensor, dims: usize) -> Tensor {
    let mut shape = vectors.size();
    shape.resize(dims - 1, 1);
    vectors.view(&shape[..])
}
