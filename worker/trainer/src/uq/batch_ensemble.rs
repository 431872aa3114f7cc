//! BatchEnsemble: one shared weight and a pair of scales per member and layer.
//!
//! Member j computes with the weight W ⊙ (γⱼ αⱼᵀ) and its own bias (where the model has biases), but no member's
//! weight is ever formed:
//! y = (W (x ⊙ αⱼ)) ⊙ γⱼ + bⱼ, so all members' rows go through one convolution.
//!
//! LP-BNN and rank-1 BNN use the same layer, with vectors that are decoded or drawn instead of stored.
//!
//! Activations are **example-major** here: row i·J + j of a layer's input is example i as member j sees it.
//! The channels of the J members of an example are then neighbours in memory, and both member-wise scaling
//! and per-member normalisation are views of the same tensor: nothing is copied. Outside of a network rows
//! are member-major; [`crate::model::Network`] turns them round.
//!
//! Source: Wen, Tran, Ba, *BatchEnsemble*, ICLR 2020, §3.

use common::spec::{BatchEnsembleSettings, BiasMode, ScaleInit};
use tch::{TchError, Tensor};

use crate::model::builder::{Builder, Init};

/// Where a layer's member-wise vectors of one side come from.
pub(crate) enum Scale {
    /// A tensor of the layer, `[J, C]`.
    Stored(Tensor),
    /// Drawn or decoded for each forward pass; the place among the vectors of the pass.
    Drawn(usize),
}

impl Scale {
    /// `[J, C]`, or `[N, J, C]` where each example has a draw of its own.
    fn of<'a>(&'a self, drawn: &'a [Tensor]) -> &'a Tensor {
        match self {
            Self::Stored(vectors) => vectors,
            Self::Drawn(place) => &drawn[*place],
        }
    }
}

/// Which part of a network a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerKind {
    Convolution,
    Linear,
}

/// What the scales and biases of a layer follow from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScaleShape {
    pub(crate) kind: LayerKind,
    pub(crate) members: i64,
    pub(crate) inputs: i64,
    pub(crate) outputs: i64,
    /// First values of the biases, if the model has any in this layer.
    pub(crate) bias: Option<Init>,
}

/// Scales and biases of the members of one layer with I inputs and O outputs (channels or features).
pub(crate) struct MemberScales {
    pub(crate) members: i64,
    pub(crate) alpha: Scale,
    pub(crate) gamma: Scale,
    /// `[J, O]`.
    pub(crate) bias: Option<Tensor>,
}

impl MemberScales {
    /// Creates α, γ and b of BatchEnsemble below `path`.
    pub(crate) fn new(
        builder: &mut Builder,
        settings: &BatchEnsembleSettings,
        path: &str,
        shape: ScaleShape,
    ) -> Result<Self, TchError> {
        let init = match settings.init {
            ScaleInit::Gaussian => Init::Normal { mean: 1.0, std: settings.scale_std },
            ScaleInit::RandomSign { probability } => Init::Sign { probability },
        };
        let ScaleShape { members, inputs, outputs, .. } = shape;
        Ok(Self {
            members,
            alpha: Scale::Stored(builder.scale(format!("{path}.alpha"), &[members, inputs], init)?),
            gamma: Scale::Stored(builder.scale(format!("{path}.gamma"), &[members, outputs], init)?),
            bias: bias(builder, settings.bias, path, shape)?,
        })
    }

    /// x ⊙ αⱼ.
    ///
    /// Shapes: `x` is `[N, J, I, ..]`, or `[N, 1, I, ..]` when all members see the same examples;
    /// `drawn` holds the vectors of the pass; returns `[N·J, I, ..]`.
    pub(crate) fn scale_input(&self, x: &Tensor, drawn: &[Tensor]) -> Tensor {
        (x * over_space(self.alpha.of(drawn), x.dim()).to_kind(x.kind())).flatten(0, 1)
    }

    /// y ⊙ γⱼ + bⱼ.
    ///
    /// Shapes: `y` is `[N·J, O, ..]`, and so is what is returned.
    pub(crate) fn scale_output(&self, y: &Tensor, drawn: &[Tensor]) -> Tensor {
        let y = split_members(y, self.members);
        // In mixed precision y is in half of it, and the vectors would make it whole again.
        let gamma = over_space(self.gamma.of(drawn), y.dim()).to_kind(y.kind());
        let y = match &self.bias {
            Some(bias) => over_space(bias, y.dim()).to_kind(y.kind()).addcmul(&y, &gamma),
            None => y * gamma,
        };
        y.flatten(0, 1)
    }
}

/// Creates the member-wise biases of a layer, where it has them.
pub(crate) fn bias(
    builder: &mut Builder,
    mode: BiasMode,
    path: &str,
    shape: ScaleShape,
) -> Result<Option<Tensor>, TchError> {
    match (mode, shape.kind, shape.bias) {
        (BiasMode::LinearOnly, LayerKind::Convolution, _) | (_, _, None) => Ok(None),
        (BiasMode::PerMember, _, Some(init)) | (BiasMode::LinearOnly, LayerKind::Linear, Some(init)) => {
            let rows = [shape.members, shape.outputs];
            builder.member_weight(format!("{path}.bias"), &rows, init).map(Some)
        }
    }
}

/// `[N·J, C, ..]` as `[N, J, C, ..]`, without a copy.
pub(crate) fn split_members(rows: &Tensor, members: i64) -> Tensor {
    rows.unflatten(0, [-1, members])
}

/// `[J, C]` or `[N, J, C]` with as many axes of size 1 behind as a tensor `[N, J, C, ..]` of `dims` axes has.
fn over_space(vectors: &Tensor, dims: usize) -> Tensor {
    let mut shape = vectors.size();
    shape.resize(shape.len() + dims - 3, 1);
    vectors.view(&shape[..])
}
