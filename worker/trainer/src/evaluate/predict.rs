//! Forward passes over a set of images, with draws that depend on what they are for alone.

use std::rc::Rc;

use common::beacon::Phase;
use common::spec::{Predictor, Task};
use datasets::Batch;
use tch::{Device, Kind, Tensor};

use super::sets::{ImageSet, Members};
use super::variants::Variants;
use crate::beacon::Beacon;
use crate::data;
use crate::model::{Mode, Network};
use crate::seed;
use crate::train::Progress;

/// Counts batches for the progress reports.
pub struct Recorder {
    progress: Progress,
    beacon: Rc<Beacon>,
    done: u64,
}

impl Recorder {
    /// A recorder that reports to `progress`, and says at each batch that it is there.
    pub fn new(progress: Progress, beacon: Rc<Beacon>) -> Self {
        Self { progress, beacon, done: 0 }
    }

    /// Does something other than predicting.
    pub fn during<T>(&self, phase: Phase, body: impl FnOnce() -> T) -> T {
        self.beacon.during(phase, body)
    }

    /// Counts a batch, of predictions or of training images.
    pub fn batch_done(&mut self) {
        self.done += 1;
        self.beacon.enter(Phase::Evaluating, self.done);
        if self.progress.is_due() || self.done == self.progress.total_steps() {
            self.progress.report(self.done, None);
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
        u64::from(match *self.predictor {
            Predictor::Direct { samples_per_member } => samples_per_member,
            Predictor::McDropout { samples } => samples,
            Predictor::Tradi { .. }
            | Predictor::Swag { .. }
            | Predictor::Snapshots { .. }
            | Predictor::LastLayerLaplace(_) => 1,
        })
    }

    /// Predicts all `sets` with one network, and adds the result to them. `network_index` counts all networks
    /// that predict, variants included.
    pub fn predict(
        &self,
        network_index: u64,
        network: &Network,
        variants: &Variants<'_>,
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
                let (images, _) = data::tensors(&batch, set.batcher.shape(), self.task, set.device);
                let place = [network_index, set.number, batch_index as u64];
                let members = self.members(network, variants, &images, place, recorder);
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
        variants: &Variants<'_>,
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
                let logits = variants.logits(&network.forward(images, mode));
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
