//! Forward passes over a set of images, with draws that depend on what they are for alone.

use std::rc::Rc;

use common::beacon::Phase;
use common::spec::{Predictor, Task};
use datasets::Batch;
use tch::{Device, Kind, Tensor};

use super::sets::{ImageSet, Members};
use crate::beacon::Beacon;
use crate::data;
use crate::model::{Forward, Mode, Network};
use crate::seed;
use crate::timing;
use crate::train::Progress;

/// Says at each batch that the rank is there, and counts those of an evaluation for its progress.
pub struct Recorder {
    work: Work,
    beacon: Rc<Beacon>,
}

/// What batches are predicted for.
enum Work {
    /// An evaluation, whose steps they are.
    Evaluation { progress: Progress, done: u64 },
    /// The score of a network that is trained, after so many steps.
    Score { step: u64 },
}

impl Recorder {
    /// A recorder of an evaluation, which reports to `progress`.
    pub fn new(progress: Progress, beacon: Rc<Beacon>) -> Self {
        Self { work: Work::Evaluation { progress, done: 0 }, beacon }
    }

    /// A recorder of the score of a checkpoint.
    pub fn of_score(step: u64, beacon: Rc<Beacon>) -> Self {
        Self { work: Work::Score { step }, beacon }
    }

    /// Does something other than predicting.
    pub fn during<T>(&self, phase: Phase, body: impl FnOnce() -> T) -> T {
        self.beacon.during(phase, body)
    }

    /// Counts a batch, of predictions or of training images.
    pub fn batch_done(&mut self) {
        match &mut self.work {
            Work::Evaluation { progress, done } => {
                *done += 1;
                self.beacon.enter(Phase::Evaluating, *done);
                if progress.is_due() || *done == progress.total_steps() {
                    progress.report(*done, None);
                }
            }
            Work::Score { step } => self.beacon.enter(Phase::Checkpoint, *step),
        }
    }
}

/// How the networks are used.
pub struct Pass<'a> {
    /// What makes a member's prediction.
    pub predictor: &'a Predictor,
    /// What is predicted.
    pub task: Task,
    /// Seed of the evaluation.
    pub seed: u64,
    /// Images of a forward pass.
    pub batch_size: u32,
}

impl Pass<'_> {
    /// Batches of one pass over so many images.
    pub fn batches(&self, images: u64) -> u64 {
        images.div_ceil(u64::from(self.batch_size))
    }

    /// Passes of one network over each set.
    pub fn draws(&self) -> u64 {
        u64::from(self.predictor.samples())
    }

    /// Predicts all `sets` with one network, and adds the result to them. `network_index` counts all networks
    /// that predict, variants included; `logits_of` is what a forward pass comes to.
    pub fn predict(
        &self,
        network_index: u64,
        network: &Network,
        logits_of: impl Fn(&Forward) -> Tensor,
        sets: &mut [ImageSet],
        recorder: &mut Recorder,
    ) {
        let _no_grad = tch::no_grad_guard();
        for set in sets {
            let (mut probabilities, mut logits) = (Vec::new(), Vec::new());
            let count = u32::try_from(set.batcher.images().len()).expect("images are counted in 32 bits");
            let indices: Vec<u32> = (0..count).collect();
            let mut batch = Batch::default();
            for (batch_index, indices) in indices.chunks(self.batch_size as usize).enumerate() {
                set.batcher.fill(indices, 0, &mut batch);
                timing::begins(batch_index as u64);
                let (images, _) = data::tensors(&batch, set.batcher.shape(), self.task, set.device);
                let place = [network_index, set.number, batch_index as u64];
                let members = self.members(network, &logits_of, &images, place, recorder);
                // sync: copies the batch's predictions to the host.
                probabilities.push(members.probabilities.to_device(Device::Cpu));
                logits.push(members.logits.to_device(Device::Cpu));
            }
            let [probabilities, logits] = [probabilities, logits].map(|parts| Tensor::cat(&parts, 1));
            set.add(Members { probabilities, logits });
        }
    }

    /// Predictions of the members for one batch.
    ///
    /// Shapes: `images` `[B, C, H, W]`; returns `[J, B, K]` each, where each pass of MC Dropout is a member, and
    /// the latent draws of a member are averaged.
    fn members(
        &self,
        network: &Network,
        logits_of: impl Fn(&Forward) -> Tensor,
        images: &Tensor,
        place: [u64; 3],
        recorder: &mut Recorder,
    ) -> Members {
        let mode = match self.predictor {
            Predictor::Direct { .. }
            | Predictor::Tradi { .. }
            | Predictor::Swag { .. }
            | Predictor::Snapshots { .. }
            | Predictor::LastLayerLaplace(_) => Mode::Evaluate,
            Predictor::McDropout { .. } => Mode::SampleDropout,
        };
        let [network_index, set, batch] = place;
        let draws: Vec<Tensor> = (0..self.draws())
            .map(|draw| {
                seed::reseed(self.seed, seed::PREDICT, &[network_index, set, batch, draw]);
                let logits = logits_of(&network.forward(images, mode));
                recorder.batch_done();
                logits.unflatten(0, [network.members(), -1])
            })
            .collect();
        let probabilities: Vec<Tensor> = draws.iter().map(|logits| logits.softmax(-1, Kind::Float)).collect();
        let join = |parts: &[Tensor]| match self.predictor {
            // Gaussians are not averaged: each draw is a part of the mixture.
            Predictor::Direct { .. } if self.task == Task::Classification => {
                Tensor::stack(parts, 0).mean_dim([0i64].as_slice(), false, Kind::Float)
            }
            Predictor::Direct { .. }
            | Predictor::McDropout { .. }
            | Predictor::Tradi { .. }
            | Predictor::Swag { .. }
            | Predictor::Snapshots { .. }
            | Predictor::LastLayerLaplace(_) => Tensor::cat(parts, 0),
        };
        Members { probabilities: join(&probabilities), logits: join(&draws) }
    }
}
