//! The score of a network in training: how well it predicts the images that are held out of it.

use std::path::Path;
use std::rc::Rc;

use common::spec::{Predictor, Scoring, Task, TrainMethod, TrainSpec};
use datasets::Batcher;
use metrics::negative_log_likelihood;
use tch::Device;

use super::predict::{Pass, Recorder};
use super::scores;
use super::sets::{ImageSet, SetKind};
use crate::beacon::Beacon;
use crate::data::{self, DataProblem};
use crate::error::TrainerError;
use crate::model::Network;

/// Held-out images, and how networks predict them.
pub struct HeldOut {
    images: Batcher,
    predictor: Predictor,
    batch_size: u32,
    seed: u64,
    device: Device,
}

impl HeldOut {
    /// The images that are held out of the training `spec`; none where it trains on all, or predicts a number.
    ///
    /// # Errors
    ///
    /// [`DataProblem`] when they cannot be read.
    pub fn load(
        spec: &TrainSpec,
        scoring: Scoring,
        folder: &Path,
        device: Device,
    ) -> Result<Option<Self>, DataProblem> {
        if spec.data.set.task() == Task::Regression {
            return Ok(None);
        }
        let images = data::held_out_validation(&spec.data, folder)?;
        let predictor = predictor(&spec.method, scoring.samples.max(1));
        let batch_size = scoring.batch_size.max(1);
        Ok(images.map(|images| Self { images, predictor, batch_size, seed: spec.seed, device }))
    }

    /// Mean negative log-likelihood of the mean prediction of the members of `network`, as it is after `step` steps.
    ///
    /// The network is left as it is. Draws depend on the seed of the training alone, so equal weights have equal scores.
    ///
    /// # Errors
    ///
    /// [`TrainerError::Predictions`] when the predictions are none.
    pub fn score(&self, network: &Network, step: u64, beacon: &Rc<Beacon>) -> Result<f64, TrainerError> {
        let pass = Pass {
            predictor: &self.predictor,
            task: Task::Classification,
            seed: self.seed,
            batch_size: self.batch_size,
        };
        let mut sets = [ImageSet::new(SetKind::HeldOut, 0, self.images.clone(), self.device)];
        let mut recorder = Recorder::of_score(step, Rc::clone(beacon));
        pass.predict(0, network, |forward| forward.logits.shallow_clone(), &mut sets, &mut recorder);
        let [images] = sets;
        Ok(negative_log_likelihood(&scores::labelled(&images.finish())?))
    }
}

/// How the network of a method predicts while it trains: posteriors and collections of networks are made afterwards.
fn predictor(method: &TrainMethod, samples: u32) -> Predictor {
    match method {
        TrainMethod::Dropout(_) => Predictor::McDropout { samples },
        TrainMethod::Deterministic
        | TrainMethod::BatchEnsemble(_)
        | TrainMethod::LpBnn(_)
        | TrainMethod::RankOne(_)
        | TrainMethod::Mimo(_)
        | TrainMethod::Packed(_)
        | TrainMethod::Masksembles(_)
        | TrainMethod::Evidential(_)
        | TrainMethod::Duq(_)
        | TrainMethod::Sngp(_)
        | TrainMethod::Tradi(_)
        | TrainMethod::Swag(_)
        | TrainMethod::Snapshots(_) => Predictor::Direct { samples_per_member: samples },
    }
}
