//! MIMO: M images side by side in the channels of one input, and a head for each.
//!
//! Only a training batch is made here; a wider first layer and a last layer of M·K outputs follow from the plan.
//!
//! Source: Havasi et al., *Training independent subnetworks for robust prediction*, ICLR 2021, and `mimo.py` of
//! Uncertainty Baselines, commit 163351d.

use common::spec::MimoSettings;
use tch::{Device, Kind, Tensor};

use crate::model::ModelError;

/// How images of a batch meet in inputs.
#[derive(Clone, Debug)]
pub(crate) struct Mixing {
    heads: i64,
    /// Probability that all images of an input are the same.
    input_repetition: f64,
    /// How often each image stands in a batch, for each head.
    repetitions: i64,
}

impl Mixing {
    pub(crate) fn new(settings: &MimoSettings) -> Result<Self, ModelError> {
        let &MimoSettings { members, input_repetition, batch_repetitions } = settings;
        if !(0.0..=1.0).contains(&input_repetition) {
            return Err(ModelError::Probability { setting: "input-repetition", value: input_repetition });
        }
        Ok(Self {
            heads: i64::from(members),
            input_repetition,
            repetitions: i64::from(batch_repetitions.max(1)),
        })
    }

    /// Inputs and the labels of the rows of their logits.
    ///
    /// Shapes: `x` `[B, C, H, W]`, `y` `[B]`; returns `[R·B, M·C, H, W]`, and `[M·R·B]`, member-major.
    pub(crate) fn batch(&self, x: &Tensor, y: &Tensor) -> (Tensor, Tensor) {
        assemble(x, y, &self.indices(x.size()[0], x.device()))
    }

    /// Which image each head sees in each input: `[M, R·B]`.
    ///
    /// The batch R times, shuffled; then the first ⌊(1−ρ)·R·B⌋ shuffled again for each head, so that the others are
    /// the same for all heads.
    fn indices(&self, batch: i64, device: Device) -> Tensor {
        let count = batch * self.repetitions;
        let main = shuffled(&Tensor::arange(batch, (Kind::Int64, device)).repeat([self.repetitions]));
        // Rounding must not take one away: 10 · (1 − 0.9) is a little less than 1.
        let apart = ((1.0 - self.input_repetition) * count as f64 + 1e-9).floor() as i64;
        let [first, rest] = [main.narrow(0, 0, apart), main.narrow(0, apart, count - apart)];
        let heads: Vec<Tensor> =
            (0..self.heads).map(|_| Tensor::cat(&[shuffled(&first), rest.shallow_clone()], 0)).collect();
        Tensor::stack(&heads, 0)
    }
}

fn shuffled(values: &Tensor) -> Tensor {
    values.index_select(0, &Tensor::randperm(values.size()[0], (Kind::Int64, values.device())))
}

/// Inputs of the images that `indices` names, `[M, N]`.
pub(crate) fn assemble(x: &Tensor, y: &Tensor, indices: &Tensor) -> (Tensor, Tensor) {
    let heads = indices.size()[0];
    let images = x.index_select(0, &indices.transpose(0, 1).flatten(0, -1));
    (images.unflatten(0, [-1, heads]).flatten(1, 2), y.index_select(0, &indices.flatten(0, -1)))
}

/// Inputs of evaluation, of the same image `times` times.
///
/// Shapes: `x` `[B, C, H, W]`; returns `[B, M·C, H, W]`.
pub(crate) fn tile(x: &Tensor, times: i64) -> Tensor {
    if times == 1 { x.shallow_clone() } else { x.repeat([1, times, 1, 1]) }
}

#[cfg(test)]
mod tests {
    use common::spec::{ModelSpec, TrainMethod, WideResNetVariant};
    use tch::no_grad;

    use super::*;
    use crate::model::{Mode, Network};

    fn build(depth: u32, widen: u32, members: u32, input: [i64; 3], classes: i64) -> Network {
        let spec = ModelSpec::WideResNet { depth, widen, variant: WideResNetVariant::Authors };
        let method = TrainMethod::Mimo(MimoSettings { members, ..MimoSettings::default() });
        Network::new(&spec, &method, input, classes, 3, Device::Cpu).unwrap()
    }

    fn mixing(heads: u32, input_repetition: f64, batch_repetitions: u32) -> Mixing {
        Mixing::new(&MimoSettings { members: heads, input_repetition, batch_repetitions }).unwrap()
    }

    fn indices(mixing: &Mixing, batch: i64) -> Vec<Vec<i64>> {
        Vec::try_from(mixing.indices(batch, Device::Cpu)).unwrap()
    }

    fn same(heads: &[Vec<i64>]) -> usize {
        (0..heads[0].len()).filter(|&input| heads.iter().all(|head| head[input] == heads[0][input])).count()
    }

    #[test]
    fn each_head_sees_each_image_as_often_as_asked() {
        for repetition in [0.0, 0.3, 1.0] {
            for mut head in indices(&mixing(3, repetition, 4), 10) {
                assert_eq!(head.len(), 40);
                assert_ne!(head[..10], (0..10).collect::<Vec<i64>>()[..]);
                head.sort_unstable();
                assert_eq!(head, (0..40).map(|place| place / 4).collect::<Vec<i64>>());
            }
        }
    }

    #[test]
    fn a_part_of_the_inputs_holds_one_image_alone() {
        assert_eq!(same(&indices(&mixing(4, 1.0, 1), 64)), 64);
        // ⌊0.75 · 64⌋ = 48 are mixed, and hardly any of them meets itself in all four heads.
        let heads = indices(&mixing(4, 0.25, 1), 64);
        assert_eq!(same(&heads.iter().map(|head| head[48..].to_vec()).collect::<Vec<_>>()), 16);
        assert!(same(&heads) <= 17);
        assert!(same(&indices(&mixing(4, 0.0, 1), 64)) <= 1);
        // 10 · (1 − 0.9), in floating point, is below 1: one input is mixed, whatever head by whatever.
        assert_eq!(same(&indices(&mixing(4, 0.9, 1), 10)), 10);
    }

    #[test]
    fn heads_are_shuffled_apart_from_each_other() {
        let heads = indices(&mixing(3, 0.0, 1), 200);
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let met = (0..200).filter(|&input| heads[one][input] == heads[other][input]).count();
            // One meeting is expected; more than 8 have a probability of 1e-6.
            assert!(met <= 8, "{met} of 200");
        }
    }

    #[test]
    fn an_input_holds_the_image_of_each_label() {
        let x = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([6, 1, 1, 1]).repeat([1, 2, 3, 3]);
        let y = Tensor::arange(6, (Kind::Int64, Device::Cpu)) * 10;
        let (inputs, labels) = mixing(3, 0.0, 2).batch(&x, &y);
        assert_eq!(inputs.size(), [12, 6, 3, 3]);
        for head in 0..3 {
            let seen = inputs.narrow(1, head * 2, 2).amax([1i64, 2, 3].as_slice(), false);
            assert_eq!(seen * 10.0, labels.narrow(0, head * 12, 12).to_kind(Kind::Float));
        }
    }

    #[test]
    fn wide_resnet_28_10_grows_by_its_first_and_last_layer() {
        let count = |members| build(28, 10, members, [3, 32, 32], 10).parameter_count();
        // (M − 1) · (3·16·9 + 640·10 + 10) more than the 36,489,290 of one network.
        assert_eq!(count(3), 36_502_974);
        assert_eq!(count(4), 36_509_816);
    }

    #[test]
    fn evaluation_shows_the_same_image_to_all_heads() {
        let network = build(10, 1, 3, [2, 8, 8], 4);
        let x = (Tensor::arange(5 * 2 * 64, (Kind::Float, Device::Cpu)) * 1.7).sin().view([5, 2, 8, 8]);
        let first = no_grad(|| network.forward(&x, Mode::Evaluate)).logits;
        assert_eq!(first.size(), [3 * 5, 4]);
        let heads = first.unflatten(0, [3, -1]);
        assert_ne!(heads.get(0), heads.get(1));
        // The channels of the third image are the last two of six.
        let stem = network.named_tensors().remove(0);
        assert_eq!(stem.tensor.size(), [16, 6, 3, 3]);
        no_grad(|| {
            let moved = stem.tensor.narrow(1, 0, 2).copy();
            let _ = stem.tensor.narrow(1, 0, 2).zero_();
            let _ = stem.tensor.narrow(1, 4, 2).g_add_(&moved);
        });
        let after = no_grad(|| network.forward(&x, Mode::Evaluate)).logits;
        let error = (after - first).abs().max().double_value(&[]);
        assert!(
            error < 1e-4,
            "what is added to another image's weights sees the same image, off by {error:e}"
        );
    }

    #[test]
    fn a_mixture_beyond_probabilities_is_refused() {
        let settings = MimoSettings { input_repetition: 1.5, ..MimoSettings::default() };
        let error = Mixing::new(&settings).unwrap_err().to_string();
        assert_eq!(error, "`input-repetition` is 1.5: it must be a number from 0 to 1");
    }
}
