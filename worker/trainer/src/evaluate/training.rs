//! Passes over the training images that an evaluation needs, without augmentation.

use std::path::Path;

use common::spec::{Predictor, Task, TrainSpec};
use datasets::{Batch, Batcher, epoch_order};
use tch::{Device, Tensor};

use super::predict::Recorder;
use crate::data;
use crate::error::TrainerError;
use crate::model::Network;

/// Training images of the networks of an evaluation.
pub struct TrainingImages {
    batcher: Batcher,
    task: Task,
    batch_size: usize,
    seed: u64,
    device: Device,
}

/// How often one network's predictor passes over the training images.
pub fn passes(predictor: &Predictor) -> u64 {
    match *predictor {
        Predictor::Direct { .. } | Predictor::McDropout { .. } | Predictor::Snapshots { .. } => 0,
        Predictor::LastLayerLaplace(_) => 1,
        Predictor::Tradi { samples, .. } | Predictor::Swag { samples, .. } => u64::from(samples),
    }
}

/// Where batches begin and end: a last image that would be alone joins the batch before it.
fn parts(images: usize, size: usize) -> impl Iterator<Item = (usize, usize)> {
    let (whole, left) = (images / size, images % size);
    let count = if left == 0 || (left == 1 && whole > 0) { whole } else { whole + 1 };
    (0..count).map(move |index| (index * size, if index + 1 == count { images } else { (index + 1) * size }))
}

impl TrainingImages {
    /// The images that `network` was trained on, in batches of its recipe's size. `seed` is the evaluation's.
    ///
    /// # Errors
    ///
    /// [`TrainerError::Data`] when they cannot be read.
    pub fn load(network: &TrainSpec, seed: u64, folder: &Path, device: Device) -> Result<Self, TrainerError> {
        let batcher = data::training_plain(&network.data, folder)?;
        // A batch of one image has no variance.
        let batch_size = (network.recipe.batch_size as usize).max(2);
        Ok(Self { batcher, task: network.data.set.task(), batch_size, seed, device })
    }

    /// Batches of a pass.
    pub fn batches(&self) -> u64 {
        parts(self.batcher.images().len(), self.batch_size).count() as u64
    }

    /// Shows all images, in an order of pass number `pass`, to `each`.
    pub fn pass(&self, pass: u64, recorder: &mut Recorder, mut each: impl FnMut(&Tensor)) {
        let order = epoch_order(self.seed, pass, self.batcher.images().len());
        let mut batch = Batch::default();
        for (from, to) in parts(order.len(), self.batch_size) {
            self.batcher.fill(&order[from..to], 0, &mut batch);
            let (images, _) = data::tensors(&batch, self.batcher.shape(), self.task, self.device);
            each(&images);
            recorder.batch_done();
        }
    }

    /// Estimates the running statistics of `network` anew, for weights that were not trained with them.
    pub fn average_statistics(&self, network: &Network, pass: u64, recorder: &mut Recorder) {
        let mut seen = 0;
        self.pass(pass, recorder, |images| {
            network.average_statistics(images, seen);
            seen += images.size()[0];
        });
    }
}

#[cfg(test)]
mod tests {
    use common::spec::{ModelSpec, TrainMethod, WideResNetVariant};
    use tch::Kind;

    use super::*;
    use crate::model::Role;

    /// In a pass with the statistics of its batch no layer sees the running ones, so those of two batches are the
    /// weighted mean of each alone.
    #[test]
    fn averaged_statistics_weigh_batches_by_their_images_and_forget_what_was_before() {
        let model = ModelSpec::WideResNet { depth: 10, widen: 1, variant: WideResNetVariant::Authors };
        let network =
            Network::new(&model, &TrainMethod::Deterministic, [1, 8, 8], 4, 1, Device::Cpu).unwrap();
        let buffers = || -> Vec<Tensor> {
            let tensors = network.named_tensors().into_iter();
            tensors.filter(|named| named.role == Role::Buffer).map(|named| named.tensor.copy()).collect()
        };
        tch::manual_seed(0);
        let [first, second] = [6, 2].map(|count| Tensor::randn([count, 1, 8, 8], (Kind::Float, Device::Cpu)));
        let alone = [&first, &second].map(|images| {
            network.average_statistics(images, 0);
            buffers()
        });
        network.average_statistics(&first, 0);
        network.average_statistics(&second, 6);
        assert!(!buffers().is_empty());
        for ((found, first), second) in buffers().iter().zip(&alone[0]).zip(&alone[1]) {
            let off = (found - (first * 0.75 + second * 0.25)).abs().max().double_value(&[]);
            assert!(off < 1e-5, "{off}");
        }
    }

    #[test]
    fn batches_hold_every_image_once_and_none_is_alone() {
        for (images, size, expected) in [
            (10, 5, vec![(0, 5), (5, 10)]),
            (12, 5, vec![(0, 5), (5, 10), (10, 12)]),
            (11, 5, vec![(0, 5), (5, 11)]),
            (3, 5, vec![(0, 3)]),
            (1, 5, vec![(0, 1)]),
        ] {
            assert_eq!(parts(images, size).collect::<Vec<_>>(), expected);
        }
    }
}
