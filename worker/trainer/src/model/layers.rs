//! Convolutions and linear layers, ordinary or with members.

use tch::Tensor;

use super::builder::{Builder, Init};
use super::norm::Statistics;
use super::plan::{Conversion, Plan};
use super::{ModelError, Pass};
use crate::uq::batch_ensemble::{LayerKind, MemberScales, ScaleShape, split_members};
use crate::uq::lp_bnn::LatentSpace;
use crate::uq::masksembles::MaskedRows;
use crate::uq::packed::{self, Place, Widths};
use crate::uq::posterior::VectorSource;
use crate::uq::rank_one::RankOneSpace;
use crate::uq::spectral::{ConvOperator, Keep, LinearOperator, SpectralNorm};

/// Where layers are created: the tensors so far, the method, and the posteriors over vectors so far.
pub(crate) struct Construction<'a> {
    pub(crate) builder: &'a mut Builder,
    pub(crate) plan: &'a Plan,
    pub(crate) latent: &'a mut Option<VectorSource>,
}

/// What becomes of a layer's output.
enum Output {
    /// A bias, `[O]`, if the layer has one.
    Ordinary(Option<Tensor>),
    Members(MemberScales),
    /// A bias, behind an input that members see parts of.
    Masked(MaskedRows, Option<Tensor>),
    /// A bias, and the bound of the weight.
    Spectral(Option<Tensor>, SpectralNorm),
}

impl Construction<'_> {
    /// Creates what goes around the weight of the layer at `path`.
    fn output(&mut self, path: &str, layer: Layer) -> Result<Output, ModelError> {
        let Layer { kind, role, place, inputs, outputs, fan_in } = layer;
        let bias = self.plan.style.bias(kind, fan_in);
        let shape = ScaleShape { kind, members: self.plan.members, inputs, outputs, bias };
        let scales = match (&self.plan.conversion, role) {
            (Conversion::Ordinary, _) => return self.ordinary(path, outputs, bias),
            (Conversion::BatchEnsemble(settings), LayerRole::Shortcut) if !settings.convert_shortcuts => {
                return self.ordinary(path, outputs, bias);
            }
            (Conversion::Masksembles { scale }, _) => {
                let rows = MaskedRows::new(self.builder, path, place, (shape.members, inputs), *scale)?;
                return Ok(Output::Masked(rows, self.bias(path, outputs, bias)?));
            }
            (Conversion::Spectral(bound), _) => {
                let bias = self.bias(path, outputs, bias)?;
                return Ok(Output::Spectral(bias, SpectralNorm::new(self.builder, path, *bound)));
            }
            // What it changes is the shape of the weight.
            (Conversion::Packed(_), _) => return self.ordinary(path, outputs, bias),
            (Conversion::BatchEnsemble(settings), _) => {
                MemberScales::new(self.builder, settings, path, shape)?
            }
            (Conversion::LpBnn(settings), _) => {
                let new = || VectorSource::LpBnn(LatentSpace::new(settings));
                self.latent.get_or_insert_with(new).scales(self.builder, path, shape)?
            }
            (Conversion::RankOne(settings), _) => {
                let new = || VectorSource::RankOne(RankOneSpace::new(settings));
                self.latent.get_or_insert_with(new).scales(self.builder, path, shape)?
            }
        };
        Ok(Output::Members(scales))
    }

    fn ordinary(&mut self, path: &str, outputs: i64, bias: Option<Init>) -> Result<Output, ModelError> {
        Ok(Output::Ordinary(self.bias(path, outputs, bias)?))
    }

    fn bias(&mut self, path: &str, outputs: i64, init: Option<Init>) -> Result<Option<Tensor>, ModelError> {
        let bias = init.map(|init| self.builder.weight(format!("{path}.bias"), &[outputs], init));
        Ok(bias.transpose()?)
    }

    /// Place of a layer that is not the head's.
    fn place(&self) -> Place {
        if self.builder.is_empty() { Place::First } else { Place::Hidden }
    }
}

/// Whether BatchEnsemble may leave a layer as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerRole {
    Main,
    Shortcut,
}

struct Layer {
    kind: LayerKind,
    role: LayerRole,
    place: Place,
    inputs: i64,
    outputs: i64,
    fan_in: i64,
}

/// Shape of a square convolution that keeps the size at stride 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvShape {
    pub(crate) inputs: i64,
    pub(crate) outputs: i64,
    /// Side of the kernel, odd.
    pub(crate) kernel: i64,
    pub(crate) stride: i64,
    pub(crate) role: LayerRole,
}

pub(crate) struct Conv {
    weight: Tensor,
    output: Output,
    stride: i64,
    padding: i64,
    groups: i64,
}

impl Conv {
    pub(crate) fn new(at: &mut Construction<'_>, path: &str, shape: ConvShape) -> Result<Self, ModelError> {
        let ConvShape { inputs, outputs, kernel, stride, role } = shape;
        let place = at.place();
        let Widths { inputs, outputs, groups } = packed::widths(at.plan, path, place, (inputs, outputs))?;
        let fan_in = inputs / groups * kernel * kernel;
        // Of one group: members side by side start as networks of their own.
        let fan_out = outputs / groups * kernel * kernel;
        let init = at.plan.style.weight(LayerKind::Convolution, fan_in, fan_out);
        let shape = [outputs, inputs / groups, kernel, kernel];
        let weight = at.builder.weight(format!("{path}.weight"), &shape, init)?;
        let layer = Layer { kind: LayerKind::Convolution, role, place, inputs, outputs, fan_in };
        let output = at.output(path, layer)?;
        Ok(Self { weight, output, stride, padding: kernel / 2, groups })
    }

    /// Shapes: `x` is `[N·J, I, H, W]`, example-major; returns `[N·J, O, H', W']`.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        match &self.output {
            Output::Ordinary(bias) => self.convolve(x, bias.as_ref()),
            Output::Members(scales) => self.forward_members(&split_members(x, scales.members), scales, pass),
            Output::Masked(rows, bias) => self.convolve(&rows.mask(x), bias.as_ref()),
            Output::Spectral(bias, norm) => self.forward_bounded(x, bias.as_ref(), norm, pass),
        }
    }

    /// The first layer, whose input need not have a row for each member.
    ///
    /// Shapes: `x` is `[N, J, I, H, W]`, or `[N, 1, I, H, W]`; returns `[N·J, O, H', W']`.
    pub(crate) fn forward_images(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        match &self.output {
            Output::Ordinary(bias) => self.convolve(&x.flatten(0, 1), bias.as_ref()),
            Output::Members(scales) => self.forward_members(x, scales, pass),
            // The first layer is not masked, so what all members see is convolved once.
            Output::Masked(rows, bias) => {
                rows.spread(&self.convolve(&x.flatten(0, 1), bias.as_ref()), x.size()[0])
            }
            Output::Spectral(bias, norm) => self.forward_bounded(&x.flatten(0, 1), bias.as_ref(), norm, pass),
        }
    }

    fn forward_bounded(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        norm: &SpectralNorm,
        pass: &Pass<'_>,
    ) -> Tensor {
        let Self { weight, stride, padding, .. } = self;
        let shape = x.size();
        let (stride, padding, size) = (*stride, *padding, [shape[2], shape[3]]);
        let operator = ConvOperator { weight, stride, padding, size };
        let weight = norm.normalise(weight, &operator, &operator.output_shape(), keep(pass));
        x.conv2d(&weight, bias, stride, padding, 1, 1)
    }

    fn forward_members(&self, x: &Tensor, scales: &MemberScales, pass: &Pass<'_>) -> Tensor {
        let y = self.convolve(&scales.scale_input(x, pass.vectors), None);
        scales.scale_output(&y, pass.vectors)
    }

    fn convolve(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        x.conv2d(&self.weight, bias, self.stride, self.padding, 1, self.groups)
    }
}

fn keep(pass: &Pass<'_>) -> Keep {
    match pass.statistics {
        Statistics::Batch => Keep::Vector,
        Statistics::Running | Statistics::Averaged { .. } => Keep::Nothing,
    }
}

pub(crate) struct Linear {
    /// `[O, I / groups]`.
    weight: Tensor,
    output: Output,
    groups: i64,
}

impl Linear {
    pub(crate) fn new(
        at: &mut Construction<'_>,
        path: &str,
        inputs: i64,
        outputs: i64,
    ) -> Result<Self, ModelError> {
        let place = at.place();
        Self::build(at, path, place, (inputs, outputs))
    }

    /// The last layer, whose outputs are the logits of a row.
    pub(crate) fn last(
        at: &mut Construction<'_>,
        path: &str,
        inputs: i64,
        outputs: i64,
    ) -> Result<Self, ModelError> {
        Self::build(at, path, Place::Last, (inputs, outputs))
    }

    fn build(
        at: &mut Construction<'_>,
        path: &str,
        place: Place,
        widths: (i64, i64),
    ) -> Result<Self, ModelError> {
        let Widths { inputs, outputs, groups } = packed::widths(at.plan, path, place, widths)?;
        let fan_in = inputs / groups;
        let init = at.plan.style.weight(LayerKind::Linear, fan_in, outputs / groups);
        let weight = at.builder.weight(format!("{path}.weight"), &[outputs, fan_in], init)?;
        let layer = Layer { kind: LayerKind::Linear, role: LayerRole::Main, place, inputs, outputs, fan_in };
        Ok(Self { weight, output: at.output(path, layer)?, groups })
    }

    /// Weight `[O, I]` and bias `[O]` of a layer without members.
    pub(crate) fn ordinary(&self) -> Option<(&Tensor, &Tensor)> {
        match &self.output {
            Output::Ordinary(bias) if self.groups == 1 => Some((&self.weight, bias.as_ref()?)),
            Output::Ordinary(_) | Output::Members(_) | Output::Masked(..) | Output::Spectral(..) => None,
        }
    }

    /// Shapes: `x` is `[N·J, I]`, example-major; returns `[N·J, O]`.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        match &self.output {
            Output::Ordinary(bias) => self.multiply(x, bias.as_ref()),
            Output::Masked(rows, bias) => self.multiply(&rows.mask(x), bias.as_ref()),
            Output::Members(scales) => self.forward_members(&split_members(x, scales.members), scales, pass),
            Output::Spectral(bias, norm) => self.forward_bounded(x, bias.as_ref(), norm, pass),
        }
    }

    /// The first layer, whose input need not have a row for each member.
    ///
    /// Shapes: `x` is `[N, J, I]`, or `[N, 1, I]`; returns `[N·J, O]`.
    pub(crate) fn forward_inputs(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        match &self.output {
            Output::Ordinary(bias) => self.multiply(&x.flatten(0, 1), bias.as_ref()),
            // As the first convolution.
            Output::Masked(rows, bias) => {
                rows.spread(&self.multiply(&x.flatten(0, 1), bias.as_ref()), x.size()[0])
            }
            Output::Members(scales) => self.forward_members(x, scales, pass),
            Output::Spectral(bias, norm) => self.forward_bounded(&x.flatten(0, 1), bias.as_ref(), norm, pass),
        }
    }

    fn multiply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match (self.groups, bias) {
            (1, bias) => x.linear(&self.weight, bias),
            (groups, Some(bias)) => packed::linear(x, &self.weight, groups) + bias,
            (groups, None) => packed::linear(x, &self.weight, groups),
        }
    }

    fn forward_members(&self, x: &Tensor, scales: &MemberScales, pass: &Pass<'_>) -> Tensor {
        let y = scales.scale_input(x, pass.vectors).linear::<&Tensor>(&self.weight, None);
        scales.scale_output(&y, pass.vectors)
    }

    fn forward_bounded(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        norm: &SpectralNorm,
        pass: &Pass<'_>,
    ) -> Tensor {
        let operator = LinearOperator(&self.weight);
        let shape = [1, self.weight.size()[0]];
        x.linear(&norm.normalise(&self.weight, &operator, &shape, keep(pass)), bias)
    }
}
