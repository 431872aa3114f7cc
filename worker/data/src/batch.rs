//! From images to the floats of a batch.
//!
//! A [`Batcher`] is a pure function of (indices, epoch); it can be shared by threads and called in any order, so a
//! trainer may prepare batches ahead of need without changing a bit of them.

use std::sync::Arc;

use crate::augment::Augmentation;
use crate::images::{Example, Images, Shape};
use crate::name::Normalization;

/// Prepares batches of a set of images.
#[derive(Debug, Clone)]
pub struct Batcher {
    images: Arc<Images>,
    scaling: Scaling,
    augmentation: Augmentation,
    seed: u64,
}

/// How values are normalised.
#[derive(Debug, Clone)]
enum Scaling {
    /// What value `v` of channel `c` becomes.
    Table(Vec<[f32; 256]>),
    /// Mean and standard deviation of each real feature.
    Moments(Normalization),
}

/// A prepared batch; its memory is reused by the next [`Batcher::fill`].
///
/// Shapes: pixels `[B, C, H, W]` row-major, labels `[B]`, ids `[B]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Normalised, augmented pixels.
    pub pixels: Vec<f32>,
    /// Labels, as wide as torch wants class indices.
    pub labels: Vec<i64>,
    /// Ids of the images (see [`Images::ids`]).
    pub ids: Vec<u32>,
}

/// What a batch is made of, for whoever has the images where it is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    /// Positions in the images.
    pub positions: Vec<i64>,
    /// Seven numbers for each image, in the order in which they are applied: by how many rows and columns the window of the
    /// crop is moved, 1 where it is mirrored, then the first row, the end row, the first column and the end column of what is
    /// set to 0 once the image is normalised. Beyond the borders of an image its pixels are 0.
    pub changes: Vec<i64>,
    /// As in a [`Batch`].
    pub labels: Vec<i64>,
    /// As in a [`Batch`].
    pub ids: Vec<u32>,
}

impl Draft {
    /// Numbers for each image in [`Draft::changes`].
    pub const CHANGES: usize = 7;
}

/// Why a batcher cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatcherError {
    /// Normalisation constants are of images with another number of channels.
    #[error("normalisation constants for {constants} channels do not fit images of {channels}")]
    Channels {
        /// Channels of the constants.
        constants: usize,
        /// Channels of the images.
        channels: usize,
    },
    /// Augmentations move and cut pixels.
    #[error("real features cannot be cropped, mirrored or cut: leave `augmentation` empty")]
    Augmentation,
}

impl Batcher {
    /// Batches of `images`, normalised as (v / max − mean) / std and augmented under the trial's `seed`. Real features
    /// are normalised as (v − mean) / std.
    ///
    /// For evaluation use [`Augmentation::NONE`], with which `seed` has no effect.
    ///
    /// # Errors
    ///
    /// [`BatcherError`].
    pub fn new(
        images: Arc<Images>,
        normalization: Normalization,
        augmentation: Augmentation,
        seed: u64,
    ) -> Result<Self, BatcherError> {
        let channels = images.shape().channels;
        let constants = normalization.mean.len().min(normalization.std.len());
        if constants != channels {
            return Err(BatcherError::Channels { constants, channels });
        }
        let scaling = match images.max_value() {
            Some(max) => {
                let max = f32::from(max);
                let pairs = normalization.mean.iter().zip(normalization.std);
                // In the order and precision of torchvision's ToTensor and Normalize, so that the bits agree with theirs.
                Scaling::Table(
                    pairs
                        .map(|(mean, std)| std::array::from_fn(|value| (value as f32 / max - mean) / std))
                        .collect(),
                )
            }
            None if augmentation == Augmentation::NONE => Scaling::Moments(normalization),
            None => return Err(BatcherError::Augmentation),
        };
        Ok(Self { images, scaling, augmentation, seed })
    }

    /// The images.
    pub fn images(&self) -> &Arc<Images> {
        &self.images
    }

    /// Shape of each image of a batch.
    pub fn shape(&self) -> Shape {
        self.images.shape()
    }

    /// What value `v` of channel `c` becomes when it is normalised; `None` for real features.
    pub fn table(&self) -> Option<&[[f32; 256]]> {
        match &self.scaling {
            Scaling::Table(table) => Some(table),
            Scaling::Moments(_) => None,
        }
    }

    /// What [`fill`](Self::fill) would do, for images of bytes.
    ///
    /// # Panics
    ///
    /// As [`fill`](Self::fill).
    pub fn draft(&self, indices: &[u32], epoch: u64) -> Draft {
        let mut draft = Draft::default();
        for &index in indices {
            let position = index as usize;
            let id = self.images.ids()[position];
            let changes = self.augmentation.draw(self.seed, epoch, id, self.shape());
            draft.positions.push(i64::from(index));
            draft.changes.extend(changes.numbers());
            draft.labels.push(i64::from(self.images.labels()[position]));
            draft.ids.push(id);
        }
        draft
    }

    /// Puts the images at `indices` into `batch`, as they look in epoch `epoch`; what was in it is lost.
    ///
    /// `indices` are positions in the images, as [`epoch_order`](crate::epoch_order) gives them, not ids.
    ///
    /// # Panics
    ///
    /// When there is no such image.
    pub fn fill(&self, indices: &[u32], epoch: u64, batch: &mut Batch) {
        let shape = self.shape();
        batch.pixels.resize(indices.len() * shape.pixels(), 0.0);
        batch.labels.clear();
        batch.ids.clear();
        for (&index, out) in indices.iter().zip(batch.pixels.chunks_exact_mut(shape.pixels())) {
            let index = index as usize;
            let id = self.images.ids()[index];
            match (self.images.example(index), &self.scaling) {
                (Example::Bytes(image), Scaling::Table(normalised)) => {
                    let changes = self.augmentation.draw(self.seed, epoch, id, shape);
                    changes.apply(image, shape, normalised, out);
                }
                (Example::Reals(features), Scaling::Moments(moments)) => {
                    let moments = moments.mean.iter().zip(moments.std);
                    for ((out, feature), (mean, std)) in out.iter_mut().zip(features).zip(moments) {
                        *out = (feature - mean) / std;
                    }
                }
                (Example::Bytes(_), Scaling::Moments(_)) | (Example::Reals(_), Scaling::Table(_)) => {
                    unreachable!("`new` chooses the scaling by the kind of values, which never changes")
                }
            }
            batch.labels.push(i64::from(self.images.labels()[index]));
            batch.ids.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{DatasetName, Split};
    use crate::order::{Sharding, epoch_order};
    use crate::{Completeness, DataFolder, hold_out, load};

    fn digits() -> Arc<Images> {
        let folder = DataFolder::new("");
        Arc::new(load(DatasetName::Digits, Split::Train, &folder, Completeness::Official).unwrap())
    }

    fn batcher(images: Arc<Images>) -> Batcher {
        let name = DatasetName::Digits;
        Batcher::new(images, name.normalization(), name.augmentation(), 17).unwrap()
    }

    fn filled(batcher: &Batcher, indices: &[u32], epoch: u64) -> Batch {
        let mut batch = Batch::default();
        batcher.fill(indices, epoch, &mut batch);
        batch
    }

    #[test]
    fn evaluation_batches_hold_the_normalised_pixels() {
        let images = digits();
        let constants = DatasetName::Digits.normalization();
        let batcher = Batcher::new(images.clone(), constants, Augmentation::NONE, 0).unwrap();
        let batch = filled(&batcher, &[5, 2], 0);
        let expected: Vec<f32> = [5, 2]
            .iter()
            .flat_map(|&index| images.image(index))
            .map(|&pixel| (f32::from(pixel) / 16.0 - constants.mean[0]) / constants.std[0])
            .collect();
        assert_eq!(batch.pixels, expected);
        assert_eq!(batch.labels, [i64::from(images.labels()[5]), i64::from(images.labels()[2])]);
        assert_eq!(batch.ids, [images.ids()[5], images.ids()[2]]);
    }

    #[test]
    fn an_image_looks_the_same_in_every_batch_and_on_every_rank() {
        let batcher = batcher(digits());
        let order = epoch_order(17, 4, batcher.images().len());
        let whole: Vec<Batch> = Sharding::new(64, 1, 0)
            .unwrap()
            .batches(&order)
            .map(|indices| filled(&batcher, indices, 4))
            .collect();
        for world_size in [2, 4] {
            for (step, whole) in whole.iter().enumerate() {
                let mut joined = Batch::default();
                for rank in 0..world_size {
                    let share = Sharding::new(64, world_size, rank).unwrap().share(&order, step).unwrap();
                    let part = filled(&batcher, share, 4);
                    joined.pixels.extend(part.pixels);
                    joined.labels.extend(part.labels);
                    joined.ids.extend(part.ids);
                }
                assert_eq!(joined, *whole, "world size {world_size}, step {step}");
            }
        }
    }

    #[test]
    fn an_image_looks_different_in_another_epoch_and_under_another_seed() {
        let images = digits();
        let reference = batcher(images.clone());
        let name = DatasetName::Digits;
        let other = Batcher::new(images, name.normalization(), name.augmentation(), 18).unwrap();
        let indices: Vec<u32> = (0..64).collect();
        let batch = filled(&reference, &indices, 0);
        assert_ne!(batch.pixels, filled(&reference, &indices, 1).pixels);
        assert_ne!(batch.pixels, filled(&other, &indices, 0).pixels);
        assert_eq!(batch, filled(&reference, &indices, 0));
    }

    #[test]
    fn holding_out_classes_does_not_change_how_the_other_images_look() {
        let all = digits();
        let held = hold_out(&all, &[8, 9]).unwrap();
        let (reference, remaining) = (batcher(all.clone()), batcher(Arc::new(held.in_distribution)));
        let ids: Vec<u32> = filled(&remaining, &[0, 40, 80], 2).ids;
        let same: Vec<u32> = ids
            .iter()
            .map(|id| u32::try_from(all.ids().iter().position(|other| other == id).unwrap()).unwrap())
            .collect();
        assert_eq!(filled(&remaining, &[0, 40, 80], 2).pixels, filled(&reference, &same, 2).pixels);
    }

    #[test]
    fn a_reused_batch_holds_nothing_of_the_one_before() {
        let batcher = batcher(digits());
        let mut batch = Batch::default();
        batcher.fill(&[0, 1, 2, 3], 0, &mut batch);
        batcher.fill(&[9, 8], 0, &mut batch);
        assert_eq!(batch, filled(&batcher, &[9, 8], 0));
    }

    #[test]
    fn constants_of_colour_images_do_not_fit_grey_ones() {
        let constants = DatasetName::Cifar10.normalization();
        let refused = Batcher::new(digits(), constants, Augmentation::NONE, 0).unwrap_err();
        assert_eq!(refused, BatcherError::Channels { constants: 3, channels: 1 });
    }
}
