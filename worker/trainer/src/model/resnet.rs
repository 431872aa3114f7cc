//! ResNet-18, -34 and -50 as torchvision has them: normalisation and ReLU behind convolutions, no biases in
//! convolutions, the stride of a bottleneck on its 3×3 convolution.
//!
//! Source: He, Zhang, Ren, Sun, *Deep residual learning for image recognition*, CVPR 2016; the stride's place is that
//! of "ResNet v1.5". The form for small images has a first convolution of 3×3 and no pooling behind it, as in the
//! CIFAR ResNets of most benchmark programs.

use common::spec::{ResNetDepth, ResNetForm};
use tch::{Kind, Tensor};

use super::layers::{Construction, Conv, ConvShape, LayerRole};
use super::norm::{BatchNorm, Place};
use super::plan::DropoutPlan;
use super::{ModelError, Pass};

/// Channels after the first convolution.
const STEM: i64 = 64;

/// Width of the four groups' blocks, and the stride of each group's first block.
const GROUPS: [(i64, i64); 4] = [(64, 1), (128, 2), (256, 2), (512, 2)];

/// A block's convolutions.
#[derive(Clone, Copy)]
enum BlockKind {
    /// 3×3, 3×3.
    Basic,
    /// 1×1, 3×3, 1×1 to four times the width.
    Bottleneck,
}

/// Kind of the blocks, and how many each group has.
fn layout(depth: ResNetDepth) -> (BlockKind, [usize; 4]) {
    match depth {
        ResNetDepth::D18 => (BlockKind::Basic, [2, 2, 2, 2]),
        ResNetDepth::D34 => (BlockKind::Basic, [3, 4, 6, 3]),
        ResNetDepth::D50 => (BlockKind::Bottleneck, [3, 4, 6, 3]),
    }
}

impl BlockKind {
    /// Outputs, side of the kernel and stride of each convolution of a block.
    fn convolutions(self, width: i64, stride: i64) -> Vec<(i64, i64, i64)> {
        match self {
            Self::Basic => vec![(width, 3, stride), (width, 3, 1)],
            Self::Bottleneck => vec![(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)],
        }
    }
}

/// A convolution and its normalisation.
struct Unit {
    conv: Conv,
    bn: BatchNorm,
}

impl Unit {
    fn new(at: &mut Construction<'_>, [conv, bn]: [String; 2], shape: ConvShape) -> Result<Self, ModelError> {
        Ok(Self {
            conv: Conv::new(at, &conv, shape)?,
            bn: BatchNorm::new(at.builder, &bn, at.plan, Place::Block, shape.outputs)?,
        })
    }

    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        self.bn.forward(&self.conv.forward(x, pass), pass.statistics)
    }
}

/// Conv-BN-ReLU up to the last convolution, dropout, conv-BN, plus the input, ReLU. Dropout behind every layer stands
/// where Uncertainty Baselines' ResNet-50 has it: behind each ReLU inside a block, and behind the shortcut's BN.
struct Block {
    inner: Vec<Unit>,
    dropout: DropoutPlan,
    last: Unit,
    /// `None` where the shapes agree: the identity.
    shortcut: Option<Unit>,
}

impl Block {
    fn new(
        at: &mut Construction<'_>,
        path: &str,
        inputs: i64,
        convolutions: &[(i64, i64, i64)],
    ) -> Result<Self, ModelError> {
        let mut inner = Vec::new();
        let mut width = inputs;
        let mut total_stride = 1;
        for (place, &(outputs, kernel, stride)) in (1..).zip(convolutions) {
            let names = [format!("{path}.conv{place}"), format!("{path}.bn{place}")];
            let shape = ConvShape { inputs: width, outputs, kernel, stride, role: LayerRole::Main };
            inner.push(Unit::new(at, names, shape)?);
            width = outputs;
            total_stride *= stride;
        }
        let shortcut = if total_stride == 1 && inputs == width {
            None
        } else {
            let names = [format!("{path}.shortcut"), format!("{path}.bn_shortcut")];
            let role = LayerRole::Shortcut;
            let shape = ConvShape { inputs, outputs: width, kernel: 1, stride: total_stride, role };
            Some(Unit::new(at, names, shape)?)
        };
        let last = inner.pop().expect("a block has convolutions");
        Ok(Self { inner, dropout: at.plan.dropout, last, shortcut })
    }

    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        let dropout = self.dropout;
        let mut y = x.shallow_clone();
        for unit in &self.inner {
            y = dropout.behind_layer(unit.forward(&y, pass).relu_(), pass);
        }
        let y = self.last.forward(&dropout.in_residual(y, pass), pass);
        let mut sum = match &self.shortcut {
            Some(shortcut) => y + dropout.behind_layer(shortcut.forward(x, pass), pass),
            None => y + x,
        };
        sum.relu_()
    }
}

pub(crate) struct ResNet {
    stem: Conv,
    bn: BatchNorm,
    form: ResNetForm,
    blocks: Vec<Block>,
    dropout: DropoutPlan,
    features: i64,
}

impl ResNet {
    pub(crate) fn new(
        at: &mut Construction<'_>,
        depth: ResNetDepth,
        form: ResNetForm,
        channels: i64,
    ) -> Result<Self, ModelError> {
        let (kernel, stride) = match form {
            ResNetForm::ImageNet => (7, 2),
            ResNetForm::Cifar => (3, 1),
        };
        let stem = ConvShape { inputs: channels, outputs: STEM, kernel, stride, role: LayerRole::Main };
        let stem = Conv::new(at, "stem", stem)?;
        let bn = BatchNorm::new(at.builder, "bn", at.plan, Place::Block, STEM)?;
        let (kind, counts) = layout(depth);
        let mut blocks = Vec::new();
        let mut inputs = STEM;
        for (group, ((width, stride), count)) in GROUPS.into_iter().zip(counts).enumerate() {
            for block in 0..count {
                let convolutions = kind.convolutions(width, if block == 0 { stride } else { 1 });
                blocks.push(Block::new(at, &format!("groups.{group}.{block}"), inputs, &convolutions)?);
                inputs = convolutions[convolutions.len() - 1].0;
            }
        }
        Ok(Self { stem, bn, form, blocks, dropout: at.plan.dropout, features: inputs })
    }

    /// Features that an example has.
    pub(crate) fn features(&self) -> i64 {
        self.features
    }

    /// Shapes: `x` is `[N, J, C, H, W]`, or `[N, 1, C, H, W]` when the members see the same images;
    /// returns features `[N·J, F]`, example-major.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        let rows = self.bn.forward_relu(&self.stem.forward_images(x, pass), pass.statistics);
        let rows = self.dropout.behind_layer(rows, pass);
        let mut rows = match self.form {
            ResNetForm::ImageNet => rows.max_pool2d(3, 2, 1, 1, false),
            ResNetForm::Cifar => rows,
        };
        for block in &self.blocks {
            rows = block.forward(&rows, pass);
        }
        rows.mean_dim([2i64, 3].as_slice(), false, None::<Kind>)
    }
}

#[cfg(test)]
mod tests {
    use common::spec::{DropoutSettings, TrainMethod};
    use tch::{Device, no_grad};

    use super::super::Dropout;
    use super::super::builder::Builder;
    use super::super::norm::Statistics;
    use super::super::plan::Plan;
    use super::super::style::Style;
    use super::*;

    #[test]
    fn residual_dropout_lies_right_before_the_last_convolution_of_a_block() {
        for kind in [BlockKind::Basic, BlockKind::Bottleneck] {
            // So high a rate zeroes everything: nothing before it matters, what is behind does.
            let settings = DropoutSettings { rate: 1.0 - 1e-15, ..DropoutSettings::default() };
            let plan = Plan::of(&TrainMethod::Dropout(settings)).unwrap();
            let plan = Plan { style: Style::Torchvision, ..plan };
            let mut builder = Builder::new(0, Kind::Double, Device::Cpu);
            let mut at = Construction { builder: &mut builder, plan: &plan, latent: &mut None };
            let convolutions = kind.convolutions(2, 1);
            let block = Block::new(&mut at, "block", 2, &convolutions).unwrap();
            let tensors = builder.finish();
            let x = Tensor::arange(2 * 2 * 16, (Kind::Double, Device::Cpu)).view([2, 2, 4, 4]);
            let pass = Pass { vectors: &[], statistics: Statistics::Running, dropout: Dropout::Drawn };
            let run = || no_grad(|| block.forward(&x, &pass));
            let before = run();
            let last = convolutions.len();
            let changed = |name: String| {
                let named = tensors.iter().find(|named| named.name == name).unwrap();
                let _ = no_grad(|| named.tensor.shallow_clone().fill_(3.0));
                run() != before
            };
            for place in 1..last {
                assert!(!changed(format!("block.conv{place}.weight")));
                assert!(!changed(format!("block.bn{place}.bias")));
            }
            assert!(!changed(format!("block.conv{last}.weight")), "it sees zeros only");
            assert!(changed(format!("block.bn{last}.bias")));
        }
    }
}
