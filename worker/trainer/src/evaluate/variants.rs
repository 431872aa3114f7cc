//! The networks that one trained network stands for in prediction: itself, or draws from a posterior over its weights.

use common::spec::{EvaluateSpec, LaplaceSettings, Predictor, TrainMethod};
use tch::Tensor;

use super::predict::Recorder;
use super::training::TrainingImages;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::error::TrainerError;
use crate::model::{Forward, Mode, ModelError, Network};
use crate::seed;
use crate::uq::laplace::{Curvature, LastLayer};
use crate::uq::snapshots::Snapshots;
use crate::uq::swag::SwagPosterior;
use crate::uq::tradi::TradiPosterior;

/// What variants are made of.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    /// The evaluation.
    pub spec: &'a EvaluateSpec,
    /// Which of its networks.
    pub index: u64,
    /// That network, as trained.
    pub network: &'a Network,
    /// Training images, of predictors that pass over them.
    pub images: Option<&'a TrainingImages>,
}

/// Variants of one network, made one after the other in the network's own tensors.
pub struct Variants<'a> {
    origin: Origin<'a>,
    posterior: Posterior,
}

enum Posterior {
    /// Only the network as it was trained.
    Trained,
    Tradi(TradiPosterior),
    Swag(SwagPosterior),
    Snapshots(Snapshots),
    Laplace(LastLayer),
}

impl<'a> Variants<'a> {
    /// Variants of the network of `origin`, which `checkpoint` was restored to.
    ///
    /// # Errors
    ///
    /// [`TrainerError`] when the checkpoint does not hold what the predictor reads.
    pub fn new(
        origin: Origin<'a>,
        checkpoint: &Checkpoint,
        recorder: &mut Recorder,
    ) -> Result<Self, TrainerError> {
        let network = origin.network.named_tensors();
        let stored = |name: &str| -> Result<Tensor, CheckpointError> {
            checkpoint.tracked(name).map(Tensor::shallow_clone)
        };
        let posterior = match &origin.spec.predictor {
            Predictor::Direct { .. } | Predictor::McDropout { .. } => Posterior::Trained,
            Predictor::Tradi { features, .. } => {
                Posterior::Tradi(TradiPosterior::new(&network, *features, stored)?)
            }
            Predictor::Swag { scale, .. } => Posterior::Swag(SwagPosterior::new(&network, *scale, stored)?),
            Predictor::Snapshots { count } => {
                let kept = kept(&origin)?;
                if *count > kept {
                    return Err(TrainerError::Snapshots { asked: *count, kept });
                }
                Posterior::Snapshots(Snapshots::new(&network, kept, *count, stored)?)
            }
            Predictor::LastLayerLaplace(settings) => {
                Posterior::Laplace(laplace(&origin, settings, recorder)?)
            }
        };
        Ok(Self { origin, posterior })
    }

    /// How many variants one network has, known before there is one.
    pub fn count(predictor: &Predictor) -> u64 {
        match *predictor {
            Predictor::Direct { .. } | Predictor::McDropout { .. } | Predictor::LastLayerLaplace(_) => 1,
            Predictor::Tradi { samples, .. } | Predictor::Swag { samples, .. } => u64::from(samples),
            Predictor::Snapshots { count } => u64::from(count),
        }
    }

    /// Makes the network the variant `index`.
    pub fn apply(&self, index: u64, recorder: &mut Recorder) {
        match &self.posterior {
            Posterior::Trained | Posterior::Laplace(_) => {}
            Posterior::Snapshots(snapshots) => snapshots.place(index as usize),
            Posterior::Tradi(tradi) => self.draw(index, || tradi.draw(), recorder),
            Posterior::Swag(swag) => self.draw(index, || swag.draw(), recorder),
        }
    }

    /// Draws weights, and estimates the running statistics that go with them.
    fn draw(&self, index: u64, draw: impl FnOnce(), recorder: &mut Recorder) {
        let Origin { spec, network, index: place, images } = self.origin;
        seed::reseed(spec.seed, seed::WEIGHTS, &[place, index]);
        draw();
        let images = images.expect("predictors that draw weights pass over the training images");
        images.average_statistics(network, place * Self::count(&spec.predictor) + index, recorder);
    }

    /// The logits that a forward pass of a variant comes to.
    pub fn logits(&self, forward: &Forward) -> Tensor {
        match &self.posterior {
            Posterior::Trained | Posterior::Tradi(_) | Posterior::Swag(_) | Posterior::Snapshots(_) => {
                forward.logits.shallow_clone()
            }
            Posterior::Laplace(layer) => layer.logits(&forward.features, &forward.logits),
        }
    }

    /// Numbers that prediction reads, of the network and of what its variants are made of; running statistics are not
    /// among them.
    pub fn parameter_count(&self) -> i64 {
        let network = self.origin.network.parameter_count();
        match &self.posterior {
            Posterior::Trained => network,
            Posterior::Tradi(tradi) => network + tradi.stored_count(),
            Posterior::Swag(swag) => swag.stored_count(),
            Posterior::Snapshots(snapshots) => network * snapshots.len(),
            Posterior::Laplace(layer) => network + layer.stored_count(),
        }
    }
}

/// Networks that the training kept.
fn kept(origin: &Origin<'_>) -> Result<u32, TrainerError> {
    match origin.spec.networks.get(origin.index as usize).map(|network| &network.method) {
        Some(TrainMethod::Snapshots(settings)) => Ok(settings.count),
        Some(_) | None => {
            Err(TrainerError::Snapshots { asked: Variants::count(&origin.spec.predictor) as u32, kept: 0 })
        }
    }
}

/// Fits the posterior over the last layer.
fn laplace(
    origin: &Origin<'_>,
    settings: &LaplaceSettings,
    recorder: &mut Recorder,
) -> Result<LastLayer, TrainerError> {
    let images = origin.images.expect("the predictor passes over the training images");
    let network = origin.network;
    let layer = network.last_linear().filter(|_| network.members() == 1);
    let (weight, bias) = layer.ok_or(ModelError::LastLayer("laplace"))?;
    let (classes, features) = weight.size2()?;
    let mut curvature = Curvature::new(settings.curvature, features, classes, weight.device())?;
    let _no_grad = tch::no_grad_guard();
    images.pass(origin.index, recorder, |images| {
        let forward = network.forward(images, Mode::Evaluate);
        curvature.add(&forward.features, &forward.logits);
    });
    let layer = LastLayer::fit(&curvature, weight, bias, settings);
    tracing::info!(prior_precision = layer.precision(), "fitted the last layer");
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use common::spec::{ModelSpec, WideResNetVariant};
    use tch::{Device, Kind};

    use super::*;

    /// What Laplace's approximation takes for granted.
    #[test]
    fn logits_are_the_last_layer_of_the_features_of_a_pass() {
        let model = ModelSpec::WideResNet { depth: 10, widen: 1, variant: WideResNetVariant::Authors };
        let network =
            Network::new(&model, &TrainMethod::Deterministic, [1, 8, 8], 5, 3, Device::Cpu).unwrap();
        let _no_grad = tch::no_grad_guard();
        let forward =
            network.forward(&Tensor::randn([4, 1, 8, 8], (Kind::Float, Device::Cpu)), Mode::Evaluate);
        let (weight, bias) = network.last_linear().unwrap();
        let logits = forward.features.linear(weight, Some(bias));
        assert!((logits - &forward.logits).abs().max().double_value(&[]) < 1e-5);
        assert!(forward.logits.std(true).double_value(&[]) > 1e-3, "not all alike");
    }
}
