//! Convolutions and linear layers, ordinary or with members.

use tch::Tensor;

use super::builder::{Builder, Init};
use super::plan::{Conversion, Plan};
use super::{ModelError, Pass};
use crate::uq::batch_ensemble::{InputScale, MemberScales, ScaleShape, split_members};
use crate::uq::lp_bnn::{LatentSpace, LayerKind};

/// Where layers are created: the tensors so far, the method, and the VAEs so far.
pub(crate) struct Construction<'a> {
    pub(crate) builder: &'a mut Builder,
    pub(crate) plan: &'a Plan,
    pub(crate) latent: &'a mut Option<LatentSpace>,
}

/// What becomes of a layer's output.
enum Output {
    /// A bias, `[O]`, if the layer has one.
    Ordinary(Option<Tensor>),
    Members(MemberScales),
}

impl Construction<'_> {
    /// Creates what goes around the weight of the layer at `path`.
    fn output(&mut self, path: &str, layer: Layer) -> Result<Output, ModelError> {
        let Layer { kind, role, inputs, outputs, fan_in } = layer;
        let bias = self.plan.style.bias(kind, fan_in);
        let shape = ScaleShape { members: self.plan.members, outputs, bias };
        let (alpha, std) = match (&self.plan.conversion, &mut *self.latent, role) {
            (Conversion::Ordinary, _, _) => return self.ordinary(path, outputs, bias),
            (Conversion::BatchEnsemble(settings), _, LayerRole::Shortcut) if !settings.convert_shortcuts => {
                return self.ordinary(path, outputs, bias);
            }
            (Conversion::RankOne(_), _, _) => return Err(not_built("rank-1-bnn")),
            (Conversion::Masksembles { .. }, _, _) => return Err(not_built("masksembles")),
            (Conversion::Packed(_), _, _) => return Err(not_built("packed-ensemble")),
            (Conversion::Spectral { .. }, _, _) => return Err(not_built("sngp")),
            (Conversion::BatchEnsemble(settings), _, _) => {
                let init = Init::Normal { mean: 1.0, std: settings.scale_std };
                let alpha = self.builder.scale(format!("{path}.alpha"), &[shape.members, inputs], init)?;
                (InputScale::Stored(alpha), settings.scale_std)
            }
            (Conversion::LpBnn(settings), latent, _) => {
                let latent = latent.get_or_insert_with(|| LatentSpace::new(settings));
                let place = latent.add(self.builder, path, kind, inputs)?;
                (InputScale::Decoded(place), settings.scale_std)
            }
        };
        Ok(Output::Members(MemberScales::new(self.builder, path, alpha, shape, std)?))
    }

    fn ordinary(&mut self, path: &str, outputs: i64, bias: Option<Init>) -> Result<Output, ModelError> {
        let bias = bias.map(|init| self.builder.weight(format!("{path}.bias"), &[outputs], init));
        Ok(Output::Ordinary(bias.transpose()?))
    }
}

fn not_built(what: &'static str) -> ModelError {
    ModelError::NotBuilt(what)
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
}

impl Conv {
    pub(crate) fn new(at: &mut Construction<'_>, path: &str, shape: ConvShape) -> Result<Self, ModelError> {
        let ConvShape { inputs, outputs, kernel, stride, role } = shape;
        let fan_in = inputs * kernel * kernel;
        let init = at.plan.style.weight(LayerKind::Convolution, fan_in, outputs * kernel * kernel);
        let weight = at.builder.weight(format!("{path}.weight"), &[outputs, inputs, kernel, kernel], init)?;
        let layer = Layer { kind: LayerKind::Convolution, role, inputs, outputs, fan_in };
        let output = at.output(path, layer)?;
        Ok(Self { weight, output, stride, padding: kernel / 2 })
    }

    /// Shapes: `x` is `[N·J, I, H, W]`, example-major; returns `[N·J, O, H', W']`.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        match &self.output {
            Output::Ordinary(bias) => self.convolve(x, bias.as_ref()),
            Output::Members(scales) => {
                self.forward_members(&split_members(x, scales.members()), scales, pass)
            }
        }
    }

    /// The first layer, whose input need not have a row for each member.
    ///
    /// Shapes: `x` is `[N, J, I, H, W]`, or `[N, 1, I, H, W]`; returns `[N·J, O, H', W']`.
    pub(crate) fn forward_images(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        match &self.output {
            Output::Ordinary(bias) => self.convolve(&x.flatten(0, 1), bias.as_ref()),
            Output::Members(scales) => self.forward_members(x, scales, pass),
        }
    }

    fn forward_members(&self, x: &Tensor, scales: &MemberScales, pass: &Pass<'_>) -> Tensor {
        scales.scale_output(&self.convolve(&scales.scale_input(x, pass.vectors), None))
    }

    fn convolve(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        x.conv2d(&self.weight, bias, self.stride, self.padding, 1, 1)
    }
}

pub(crate) struct Linear {
    weight: Tensor,
    output: Output,
}

impl Linear {
    pub(crate) fn new(
        at: &mut Construction<'_>,
        path: &str,
        inputs: i64,
        outputs: i64,
    ) -> Result<Self, ModelError> {
        let init = at.plan.style.weight(LayerKind::Linear, inputs, outputs);
        let weight = at.builder.weight(format!("{path}.weight"), &[outputs, inputs], init)?;
        let layer = Layer { kind: LayerKind::Linear, role: LayerRole::Main, inputs, outputs, fan_in: inputs };
        Ok(Self { weight, output: at.output(path, layer)? })
    }

    /// Shapes: `x` is `[N·J, I]`, example-major; returns `[N·J, O]`.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        match &self.output {
            Output::Ordinary(bias) => x.linear(&self.weight, bias.as_ref()),
            Output::Members(scales) => {
                self.forward_members(&split_members(x, scales.members()), scales, pass)
            }
        }
    }

    /// The first layer, whose input need not have a row for each member.
    ///
    /// Shapes: `x` is `[N, J, I]`, or `[N, 1, I]`; returns `[N·J, O]`.
    pub(crate) fn forward_inputs(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        match &self.output {
            Output::Ordinary(bias) => x.flatten(0, 1).linear(&self.weight, bias.as_ref()),
            Output::Members(scales) => self.forward_members(x, scales, pass),
        }
    }

    fn forward_members(&self, x: &Tensor, scales: &MemberScales, pass: &Pass<'_>) -> Tensor {
        let x = scales.scale_input(x, pass.vectors);
        scales.scale_output(&x.linear::<&Tensor>(&self.weight, None))
    }
}
