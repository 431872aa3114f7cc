//! Forward passes over a set of images, with draws that depend on what they are for alone.

use common::spec::Predictor;
use datasets::{Batch, Batcher};
use metrics::Shape;
use tch::{Device, Kind, Tensor};

use crate::data;
use crate::model::{Mode, Network};
use crate::seed;
use crate::train::Progress;

/// Images and what has been predicted of them.
pub struct ImageSet {
    /// Name of an out-of-distribution set; none of the test set.
    name: Option<String>,
    batcher: Batcher,
    device: Device,
    /// Probabilities on the host, `[J, N, K]` each, in the order of members.
    members: Vec<Tensor>,
}

/// Predictions of a set of images, as they are stored.
///
/// Shapes: probabilities `[J, N, K]`, labels and ids `[N]`.
pub struct Predicted {
    /// Name of an out-of-distribution set; none of the test set.
    pub name: Option<String>,
    /// J, N, K.
    pub shape: Shape,
    /// Member-major.
    pub probabilities: Vec<f32>,
    /// Numbered as the network's outputs in the test set, as in the data set elsewhere.
    pub labels: Vec<i64>,
    /// Positions in the official file.
    pub ids: Vec<u64>,
}

impl ImageSet {
    /// Images of which nothing has been predicted.
    pub fn new(name: Option<String>, batcher: Batcher, device: Device) -> Self {
        Self { name, batcher, device, members: Vec::new() }
    }

    fn len(&self) -> u64 {
        self.batcher.images().len() as u64
    }

    /// Puts the predictions of all networks together.
    pub fn finish(self) -> Predicted {
        let images = self.batcher.images();
        let all = Tensor::cat(&self.members, 0);
        let [members, samples, classes] = [0, 1, 2].map(|axis| all.size()[axis] as usize);
        let mut probabilities = vec![0.0; all.numel()];
        all.copy_data(&mut probabilities, all.numel());
        Predicted {
            name: self.name,
            shape: Shape { members, samples, classes },
            probabilities,
            labels: images.labels().iter().map(|&label| i64::from(label)).collect(),
            ids: images.ids().iter().map(|&id| u64::from(id)).collect(),
        }
    }
}

/// Counts batches for the progress reports.
pub struct Recorder {
    progress: Progress,
    done: u64,
}

impl Recorder {
    /// A recorder that reports to `progress`.
    pub fn new(progress: Progress) -> Self {
        Self { progress, done: 0 }
    }

    fn batch_done(&mut self) {
        self.done += 1;
        if self.progress.is_due() || self.done == self.progress.total_steps() {
            self.progress.report(self.done, None);
        }
    }
}

/// How the networks are used.
pub struct Pass<'a> {
    /// What makes a member's prediction.
    pub predictor: &'a Predictor,
    /// Seed of the evaluation.
    pub seed: u64,
    /// Images of a forward pass.
    pub batch_size: u32,
}

impl Pass<'_> {
    /// Batches of one pass over `set`.
    pub fn batches(&self, set: &ImageSet) -> u64 {
        set.len().div_ceil(u64::from(self.batch_size))
    }

    /// Passes over each set.
    pub fn draws(&self) -> u64 {
        u64::from(match *self.predictor {
            Predictor::Direct { samples_per_member } => samples_per_member,
            Predictor::McDropout { samples } => samples,
        })
    }

    /// Predicts all `sets` with one network, and adds the result to them.
    pub fn predict(
        &self,
        network_index: u64,
        network: &Network,
        sets: &mut [ImageSet],
        recorder: &mut Recorder,
    ) {
        let _no_grad = tch::no_grad_guard();
        for (set_index, set) in sets.iter_mut().enumerate() {
            let mut parts = Vec::new();
            let count = u32::try_from(set.batcher.images().len()).expect("images are counted in 32 bits");
            let indices: Vec<u32> = (0..count).collect();
            let mut batch = Batch::default();
            for (batch_index, indices) in indices.chunks(self.batch_size as usize).enumerate() {
                set.batcher.fill(indices, 0, &mut batch);
                let (images, _) = data::tensors(&batch, set.batcher.shape(), set.device);
                let place = [network_index, set_index as u64, batch_index as u64];
                // sync: copies the batch's probabilities to the host.
                parts.push(self.members(network, &images, place, recorder).to_device(Device::Cpu));
            }
            set.members.push(Tensor::cat(&parts, 1));
        }
    }

    /// Probabilities of the members for one batch.
    ///
    /// Shapes: `images` `[B, C, H, W]`; returns `[J, B, K]`, where each pass of MC Dropout is a member, and
    /// the latent draws of a member are averaged.
    fn members(
        &self,
        network: &Network,
        images: &Tensor,
        place: [u64; 3],
        recorder: &mut Recorder,
    ) -> Tensor {
        let mode = match self.predictor {
            Predictor::Direct { .. } => Mode::Evaluate,
            Predictor::McDropout { .. } => Mode::SampleDropout,
        };
        let [network_index, set, batch] = place;
        let draws: Vec<Tensor> = (0..self.draws())
            .map(|draw| {
                seed::reseed(self.seed, seed::PREDICT, &[network_index, set, batch, draw]);
                let logits = network.forward(images, mode).logits;
                recorder.batch_done();
                logits.softmax(-1, Kind::Float).unflatten(0, [network.members(), -1])
            })
            .collect();
        match self.predictor {
            Predictor::Direct { .. } => {
                Tensor::stack(&draws, 0).mean_dim([0i64].as_slice(), false, Kind::Float)
            }
            Predictor::McDropout { .. } => Tensor::cat(&draws, 0),
        }
    }
}
