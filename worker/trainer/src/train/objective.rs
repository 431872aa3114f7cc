//! What is minimised: from a forward pass to the terms of the loss.

use common::spec::TrainMethod;
use tch::Tensor;

use crate::model::{Forward, Network};

/// Where a step stands in training.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// Steps done before it.
    pub done: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps in all.
    pub total_steps: u64,
    /// Images of an epoch, over all ranks.
    pub epoch_images: u64,
}

impl Position {
    /// Epochs done, with their fraction.
    pub fn epoch(self) -> f64 {
        self.done as f64 / self.steps_per_epoch.max(1) as f64
    }

    /// Part of training done, from 0 to 1.
    pub fn part(self) -> f64 {
        self.done as f64 / self.total_steps.max(1) as f64
    }
}

/// Terms of the loss of one step; both scalars on the device.
pub struct Terms {
    /// How well the labels are predicted.
    pub data: Tensor,
    /// What is added to it, weighted.
    pub regulariser: Option<Tensor>,
}

/// Names of the terms in metric rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermNames {
    /// Of the data term.
    pub data: &'static str,
    /// Of the regulariser, of methods that have one.
    pub regulariser: Option<&'static str>,
}

/// The loss of a method.
#[derive(Clone, Debug)]
pub enum Objective {
    /// Mean cross-entropy over all rows, plus the latent loss of methods that have one.
    CrossEntropy,
    /// Cross-entropy summed over heads, mean over the batch.
    SummedCrossEntropy {
        /// Heads.
        heads: i64,
    },
}

impl Objective {
    /// The loss of `method`.
    pub fn of(method: &TrainMethod) -> Self {
        match method {
            TrainMethod::Deterministic
            | TrainMethod::Dropout(_)
            | TrainMethod::BatchEnsemble(_)
            | TrainMethod::LpBnn(_)
            | TrainMethod::RankOne(_)
            | TrainMethod::Packed(_)
            | TrainMethod::Masksembles(_)
            | TrainMethod::Evidential(_)
            | TrainMethod::Duq(_)
            | TrainMethod::Sngp(_)
            | TrainMethod::Tradi(_)
            | TrainMethod::Swag(_)
            | TrainMethod::Snapshots(_) => Self::CrossEntropy,
            TrainMethod::Mimo(settings) => Self::SummedCrossEntropy { heads: i64::from(settings.members) },
        }
    }

    /// Names of the terms.
    pub fn names(&self, network: &Network) -> TermNames {
        let latent = network.latent_layers().next().is_some();
        match self {
            Self::CrossEntropy => {
                TermNames { data: "cross_entropy", regulariser: latent.then_some("latent_loss") }
            }
            Self::SummedCrossEntropy { .. } => TermNames { data: "cross_entropy", regulariser: None },
        }
    }

    /// Terms of a step.
    ///
    /// Shapes: `images` as the network took them, `targets` one for each row of the logits.
    pub fn terms(&self, _images: &Tensor, targets: &Tensor, forward: &Forward, _position: Position) -> Terms {
        let regulariser = forward.latent.as_ref().map(|latent| latent.total.shallow_clone());
        match self {
            Self::CrossEntropy => {
                Terms { data: forward.logits.cross_entropy_for_logits(targets), regulariser }
            }
            Self::SummedCrossEntropy { heads } => {
                let sum = forward.logits.log_softmax(-1, None).nll_loss(targets);
                Terms { data: sum * *heads as f64, regulariser }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn heads_are_summed_and_inputs_averaged_in_the_precision_of_the_logits() {
        let logits = (Tensor::arange(3 * 4 * 5, (Kind::Double, Device::Cpu)) * 1.7).sin().view([12, 5]) * 3.0;
        let targets = Tensor::arange(12, (Kind::Int64, Device::Cpu)).remainder(5);
        let mut expected = 0.0;
        for head in 0..3 {
            for input in 0..4 {
                let row: Vec<f64> = logits.get(head * 4 + input).try_into().unwrap();
                let label = targets.int64_value(&[head * 4 + input]) as usize;
                expected += (row.iter().map(|z| z.exp()).sum::<f64>().ln() - row[label]) / 4.0;
            }
        }
        let forward = Forward { features: logits.shallow_clone(), logits, latent: None };
        let position = Position { done: 0, steps_per_epoch: 1, total_steps: 1, epoch_images: 4 };
        let objective = Objective::SummedCrossEntropy { heads: 3 };
        let terms = objective.terms(&forward.features, &targets, &forward, position);
        assert_eq!(terms.data.kind(), Kind::Double);
        assert!((terms.data.double_value(&[]) - expected).abs() < 1e-13);
        assert!(terms.regulariser.is_none());
    }
}
