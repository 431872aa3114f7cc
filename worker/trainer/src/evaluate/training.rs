//! Passes over the training images that an evaluation needs, without augmentation.

use std::path::Path;

use common::spec::{Predictor, TrainSpec};
use datasets::{Batch, Batcher, epoch_order};
use tch::{Device, Tensor};

use super::predict::Recorder;
use crate::data;
use crate::error::TrainerError;
use crate::model::Network;

/// Training images of the networks of an evaluation.
pub struct TrainingImages {
    batcher: Batcher,
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

impl TrainingImages {
    /// The images that `network` was trained on, in batches of its recipe's size. `seed` is the evaluation's.
    ///
    /// # Errors
    ///
    /// [`TrainerError::Data`] when they cannot be read.
    pub fn load(network: &TrainSpec, seed: u64, folder: &Path, device: Device) -> Result<Self, TrainerError> {
        let mut plain = network.clone();
        plain.recipe.augmentation = Vec::new();
        let batcher = data::training(&plain, folder)?;
        // A batch of one image has no variance.
        let batch_size = (network.recipe.batch_size as usize).max(2);
        Ok(Self { batcher, batch_size, seed, device })
    }

    /// Batches of a pass.
    pub fn batches(&self) -> u64 {
        self.parts(self.batcher.images().len()).count() as u64
    }

    /// Where batches begin and end: a last image that would be alone joins the batch before it.
    fn parts(&self, images: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let size = self.batch_size;
        let left = images % size;
        let whole = images / size;
        let alone = left == 1 && whole > 0;
        let count = if alone || left == 0 { whole } else { whole + 1 };
        (0..count).map(move |index| {
            let last = index + 1 == count;
            (index * size, if last { images } else { (index + 1) * size })
        })
    }

    /// Shows all images, in an order of pass number `pass`, to `each`.
    pub fn pass(&self, pass: u64, recorder: &mut Recorder, mut each: impl FnMut(&Tensor)) {
        let order = epoch_order(self.seed, pass, self.batcher.images().len());
        let mut batch = Batch::default();
        for (from, to) in self.parts(order.len()) {
            self.batcher.fill(&order[from..to], 0, &mut batch);
            let (images, _) = data::tensors(&batch, self.batcher.shape(), self.device);
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
