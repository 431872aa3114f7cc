//! What is minimised: from a forward pass to the terms of the loss.

use common::spec::{EvidentialSettings, TrainMethod};
use tch::Tensor;

use crate::model::{Forward, Network};
use crate::uq::{duq, evidential};

/// Where a step stands in training.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// Steps done before it.
    pub done: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps in all.
    pub total_steps: u64,
    /// Images to train on, with those that an epoch drops because they fill no batch.
    pub train_images: u64,
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
    /// Mean cross-entropy over all rows, plus the divergence from the prior, divided by the number of training images.
    Elbo {
        /// Weight of the divergence beside that division.
        weight: f64,
        /// Part of training over which that weight rises linearly.
        annealing: f64,
    },
    /// Loss of the labels and divergence of the evidence for wrong classes.
    Evidential(EvidentialSettings),
    /// Binary cross-entropy of each class, plus the gradient penalty.
    Duq {
        /// Weight of the penalty; 0 for none.
        gradient_penalty: f64,
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
            | TrainMethod::Packed(_)
            | TrainMethod::Masksembles(_)
            | TrainMethod::Sngp(_)
            | TrainMethod::Tradi(_)
            | TrainMethod::Swag(_)
            | TrainMethod::Snapshots(_) => Self::CrossEntropy,
            TrainMethod::RankOne(settings) => {
                Self::Elbo { weight: settings.kl_weight, annealing: settings.kl_annealing }
            }
            TrainMethod::Evidential(settings) => Self::Evidential(settings.clone()),
            TrainMethod::Duq(settings) => Self::Duq { gradient_penalty: settings.gradient_penalty },
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
            Self::Elbo { .. } => TermNames { data: "cross_entropy", regulariser: Some("kl") },
            Self::Evidential(_) => TermNames { data: "evidential_loss", regulariser: Some("evidential_kl") },
            Self::Duq { gradient_penalty } => TermNames {
                data: "binary_cross_entropy",
                regulariser: (*gradient_penalty > 0.0).then_some("gradient_penalty"),
            },
        }
    }

    /// Whether the terms contain gradients by the images, which the network must then be given as a leaf that has them.
    pub fn differentiates_images(&self) -> bool {
        match self {
            Self::CrossEntropy
            | Self::SummedCrossEntropy { .. }
            | Self::Elbo { .. }
            | Self::Evidential(_) => false,
            Self::Duq { gradient_penalty } => *gradient_penalty > 0.0,
        }
    }

    /// Terms of a step.
    ///
    /// Shapes: `images` as the network took them, `targets` one for each row of the logits.
    pub fn terms(&self, images: &Tensor, targets: &Tensor, forward: &Forward, position: Position) -> Terms {
        let regulariser = forward.latent.as_ref().map(|latent| latent.total.shallow_clone());
        match self {
            Self::CrossEntropy => {
                Terms { data: forward.logits.cross_entropy_for_logits(targets), regulariser }
            }
            Self::SummedCrossEntropy { heads } => {
                let sum = forward.logits.log_softmax(-1, None).nll_loss(targets);
                Terms { data: sum * *heads as f64, regulariser }
            }
            Self::Elbo { weight, annealing } => {
                let factor = weight * annealed(position, *annealing) / position.train_images.max(1) as f64;
                let regulariser = forward.kl.as_ref().map(|kl| kl * factor);
                Terms { data: forward.logits.cross_entropy_for_logits(targets), regulariser }
            }
            Self::Evidential(settings) => {
                let (data, kl) = evidential::terms(&forward.logits, targets, settings.loss);
                let weight = evidential::annealing(settings, position.epoch());
                Terms { data, regulariser: Some(kl * weight) }
            }
            Self::Duq { gradient_penalty } => Terms {
                data: duq::binary_cross_entropy(&forward.logits, targets),
                regulariser: (*gradient_penalty > 0.0)
                    .then(|| duq::gradient_penalty(images, &forward.logits) * *gradient_penalty),
            },
        }
    }
}

/// Factor of a weight that rises linearly over the part `annealing` of training and is 1 from its last step on. The
/// first step has one step's share, as in Uncertainty Baselines.
fn annealed(position: Position, annealing: f64) -> f64 {
    let steps = annealing * position.total_steps as f64;
    if steps > 0.0 { ((position.done + 1) as f64 / steps).min(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use common::spec::RankOneSettings;
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn the_divergence_is_shared_among_the_training_images_and_annealed() {
        let settings = RankOneSettings { kl_weight: 3.0, kl_annealing: 0.5, ..RankOneSettings::default() };
        let objective = Objective::of(&TrainMethod::RankOne(settings));
        let logits = Tensor::from_slice(&[1f32, 2.0, 3.0, 0.0]).view([2, 2]);
        let forward = Forward {
            features: logits.shallow_clone(),
            logits,
            latent: None,
            kl: Some(Tensor::from(500f32)),
        };
        let position = Position { done: 4, steps_per_epoch: 5, total_steps: 20, train_images: 43 };
        let targets = Tensor::from_slice(&[1i64, 0]);
        let terms = objective.terms(&forward.logits, &targets, &forward, position);
        let regulariser = terms.regulariser.unwrap().double_value(&[]);
        assert!((regulariser - 500.0 * 3.0 * 0.5 / 43.0).abs() < 1e-5, "{regulariser}");
        // Mean of ln(1 + e⁻¹) and ln(1 + e⁻³).
        let data = f64::midpoint((-1f64).exp().ln_1p(), (-3f64).exp().ln_1p());
        assert!((terms.data.double_value(&[]) - data).abs() < 1e-6);
    }

    #[test]
    fn annealing_is_linear_and_ends_where_it_should() {
        let factor = |done, annealing| {
            annealed(Position { done, steps_per_epoch: 5, total_steps: 20, train_images: 43 }, annealing)
        };
        let rising: Vec<f64> = [0, 1, 9, 15, 16, 19].map(|done| factor(done, 0.8)).to_vec();
        assert_eq!(rising, [1.0 / 16.0, 2.0 / 16.0, 10.0 / 16.0, 1.0, 1.0, 1.0]);
        assert_eq!(factor(0, 0.0), 1.0);
        assert_eq!(factor(19, 1.0), 1.0);
    }

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
        let forward = Forward { features: logits.shallow_clone(), logits, latent: None, kl: None };
        let position = Position { done: 0, steps_per_epoch: 1, total_steps: 1, train_images: 4 };
        let objective = Objective::SummedCrossEntropy { heads: 3 };
        let terms = objective.terms(&forward.features, &targets, &forward, position);
        assert_eq!(terms.data.kind(), Kind::Double);
        assert!((terms.data.double_value(&[]) - expected).abs() < 1e-13);
        assert!(terms.regulariser.is_none());
    }
}
