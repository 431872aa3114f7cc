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
    use super::*;

    fn mixing(heads: u32, input_repetition: f64, batch_repetitions: u32) -> Mixing {
        Mixing::new(&MimoSettings { members: heads, input_repetition, batch_repetitions }).unwrap()
    }

    fn indices(mixing: &Mixing, batch: i64) -> Vec<Vec<i64>> {
        tch::manual_seed(5);
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
    fn the_generator_alone_decides_the_mixture() {
        let mixing = mixing(2, 0.5, 2);
        assert_eq!(indices(&mixing, 8), indices(&mixing, 8));
        tch::manual_seed(6);
        let other = Vec::<Vec<i64>>::try_from(mixing.indices(8, Device::Cpu)).unwrap();
        assert_ne!(indices(&mixing, 8), other);
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
}
