//! WideResNet-d-k in the variants of three programs, which differ in their blocks:
//!
//! | variant | stride on | shortcut on | dropout | biases, initial values |
//! |---|---|---|---|---|
//! | LP-BNN's authors | second convolution | raw input | before the second BN-ReLU | see `style` |
//! | original | first | input after BN-ReLU | behind the second BN-ReLU | |
//! | Uncertainty Baselines | first | raw input | before the second BN-ReLU | |
//!
//! None has normalisation or ReLU after the first convolution.
//!
//! Source: Zagoruyko, Komodakis, *Wide Residual Networks*, BMVC 2016.

use common::spec::WideResNetVariant;
use tch::{Kind, Tensor};

use super::layers::{Construction, Conv, ConvShape, LayerRole};
use super::norm::{BatchNorm, Place};
use super::plan::DropoutPlan;
use super::{ModelError, Pass};

/// Channels after the first convolution.
const STEM: i64 = 16;

/// Channels of the three groups before widening, and the stride of each group's first block.
const GROUPS: [(i64, i64); 3] = [(16, 1), (32, 2), (64, 2)];

/// BN-ReLU-conv, dropout, BN-ReLU-conv, plus the input. Dropout stands elsewhere when it is behind every layer.
struct Block {
    bn1: BatchNorm,
    conv1: Conv,
    dropout: DropoutPlan,
    bn2: BatchNorm,
    conv2: Conv,
    /// `None` where the shapes agree: the identity.
    shortcut: Option<Conv>,
    variant: WideResNetVariant,
}

impl Block {
    fn new(
        at: &mut Construction<'_>,
        path: &str,
        (inputs, outputs): (i64, i64),
        stride: i64,
        variant: WideResNetVariant,
    ) -> Result<Self, ModelError> {
        let (first, second) = match variant {
            WideResNetVariant::Authors => (1, stride),
            WideResNetVariant::Original | WideResNetVariant::UncertaintyBaselines => (stride, 1),
        };
        let main = ConvShape { inputs, outputs, kernel: 3, stride: 1, role: LayerRole::Main };
        Ok(Self {
            bn1: BatchNorm::new(at.builder, &format!("{path}.bn1"), at.plan, Place::Block, inputs)?,
            conv1: Conv::new(at, &format!("{path}.conv1"), ConvShape { stride: first, ..main })?,
            dropout: at.plan.dropout,
            bn2: BatchNorm::new(at.builder, &format!("{path}.bn2"), at.plan, Place::Block, outputs)?,
            conv2: Conv::new(
                at,
                &format!("{path}.conv2"),
                ConvShape { inputs: outputs, stride: second, ..main },
            )?,
            shortcut: if stride == 1 && inputs == outputs {
                None
            } else {
                let shape = ConvShape { kernel: 1, stride, role: LayerRole::Shortcut, ..main };
                Some(Conv::new(at, &format!("{path}.shortcut"), shape)?)
            },
            variant,
        })
    }

    fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        let dropout = self.dropout;
        let activated = dropout.behind_layer(self.bn1.forward_relu(x, pass.statistics), pass);
        let y = self.conv1.forward(&activated, pass);
        let (y, input) = match self.variant {
            WideResNetVariant::Authors | WideResNetVariant::UncertaintyBaselines => {
                (self.bn2.forward_relu(&dropout.in_residual(y, pass), pass.statistics), x)
            }
            WideResNetVariant::Original => {
                (dropout.in_residual(self.bn2.forward_relu(&y, pass.statistics), pass), &activated)
            }
        };
        let y = self.conv2.forward(&dropout.behind_layer(y, pass), pass);
        let y = dropout.behind_layer(y, pass);
        match &self.shortcut {
            Some(shortcut) => y + dropout.behind_layer(shortcut.forward(input, pass), pass),
            None => y + x,
        }
    }
}

pub(crate) struct WideResNet {
    stem: Conv,
    dropout: DropoutPlan,
    blocks: Vec<Block>,
    bn: BatchNorm,
    features: i64,
}

impl WideResNet {
    pub(crate) fn new(
        at: &mut Construction<'_>,
        (depth, widen): (i64, i64),
        variant: WideResNetVariant,
        channels: i64,
    ) -> Result<Self, ModelError> {
        let stem = ConvShape { inputs: channels, outputs: STEM, kernel: 3, stride: 1, role: LayerRole::Main };
        let stem = Conv::new(at, "stem", stem)?;
        let mut blocks = Vec::new();
        let mut inputs = STEM;
        for (group, (width, stride)) in GROUPS.into_iter().enumerate() {
            for block in 0..(depth - 4) / 6 {
                let path = format!("groups.{group}.{block}");
                let stride = if block == 0 { stride } else { 1 };
                blocks.push(Block::new(at, &path, (inputs, width * widen), stride, variant)?);
                inputs = width * widen;
            }
        }
        let place = match variant {
            WideResNetVariant::Authors => Place::Last,
            WideResNetVariant::Original | WideResNetVariant::UncertaintyBaselines => Place::Block,
        };
        let bn = BatchNorm::new(at.builder, "bn", at.plan, place, inputs)?;
        Ok(Self { stem, dropout: at.plan.dropout, blocks, bn, features: inputs })
    }

    /// Features that an example has.
    pub(crate) fn features(&self) -> i64 {
        self.features
    }

    /// Shapes: `x` is `[N, J, C, H, W]`, or `[N, 1, C, H, W]` when the members see the same images;
    /// returns features `[N·J, F]`, example-major.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        let mut rows = self.dropout.behind_layer(self.stem.forward_images(x, pass), pass);
        for block in &self.blocks {
            rows = block.forward(&rows, pass);
        }
        let rows = self.bn.forward_relu(&rows, pass.statistics);
        // Over what is left of the image, 8×8 for the 32×32 images that the network was made for.
        rows.mean_dim([2i64, 3].as_slice(), false, None::<Kind>)
    }
}

#[cfg(test)]
mod tests {
    use common::spec::{DropoutSettings, TrainMethod};
    use tch::{Device, no_grad};

    use super::super::Dropout;
    use super::super::builder::{Builder, NamedTensor};
    use super::super::norm::Statistics;
    use super::super::plan::Plan;
    use super::*;

    /// One block of one channel, with `rate` of dropout, that evaluates with dropout on.
    struct Lone {
        block: Block,
        tensors: Vec<NamedTensor>,
    }

    impl Lone {
        fn new(rate: f64) -> Self {
            let plan =
                Plan::of(&TrainMethod::Dropout(DropoutSettings { rate, ..DropoutSettings::default() }))
                    .unwrap();
            let mut builder = Builder::new(0, Kind::Double, Device::Cpu);
            let mut at = Construction { builder: &mut builder, plan: &plan, latent: &mut None };
            let block = Block::new(&mut at, "block", (1, 1), 1, WideResNetVariant::Authors).unwrap();
            Self { block, tensors: builder.finish() }
        }

        fn tensor(&self, name: &str) -> Tensor {
            self.tensors.iter().find(|named| named.name == name).unwrap().share().tensor
        }

        fn set(&self, name: &str, value: f64) {
            let _ = no_grad(|| self.tensor(name).fill_(value));
        }

        /// What the block adds to its input.
        fn residual(&self) -> Tensor {
            let x = Tensor::arange(2 * 64, (Kind::Double, Device::Cpu)).view([2, 1, 8, 8]) / 64.0;
            let pass = Pass { vectors: &[], statistics: Statistics::Running, dropout: Dropout::Drawn };
            no_grad(|| self.block.forward(&x, &pass)) - x
        }
    }

    #[test]
    fn dropout_lies_between_the_first_convolution_and_the_second_normalisation() {
        // So high a rate zeroes everything: nothing before it matters, what is behind does.
        let lone = Lone::new(1.0 - 1e-15);
        lone.set("block.bn2.bias", 1.0);
        let before = lone.residual();
        assert!(before.abs().max().double_value(&[]) > 0.0);
        for name in ["block.bn1.bias", "block.conv1.weight", "block.conv1.bias"] {
            lone.set(name, 3.0);
            assert_eq!(lone.residual(), before, "{name}");
        }
        lone.set("block.bn2.bias", 2.0);
        assert_ne!(lone.residual(), before);
    }

    #[test]
    fn dropout_is_element_wise_and_keeps_the_mean() {
        let lone = Lone::new(0.5);
        // The first convolution gives 1 everywhere, the second passes on the middle of its window.
        lone.set("block.conv1.weight", 0.0);
        lone.set("block.conv1.bias", 1.0);
        lone.set("block.conv2.weight", 0.0);
        lone.set("block.conv2.bias", 0.0);
        let _ = no_grad(|| lone.tensor("block.conv2.weight").select(3, 1).select(2, 1).fill_(1.0));
        let residual = lone.residual();
        let kept = residual.max().double_value(&[]);
        assert!((kept - 2.0).abs() < 1e-4, "what is kept is doubled, not {kept}");
        for image in 0..2 {
            let dropped = residual.get(image).eq(0.0).sum(Kind::Int64).int64_value(&[]);
            assert!((1..64).contains(&dropped), "{dropped} of 64 pixels of the only channel dropped");
        }
    }
}
