//! From a trial's data specification to tensors of batches.
//!
//! Decides which images a trial trains and is tested on. Files, augmentation and the order of the images
//! are those of the crate `datasets`.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use common::spec::{Augmentation as AugmentationSpec, DataSpec, DatasetName as Name, OodSource, TrainSpec};
use datasets::{
    Augmentation, Batch, Batcher, BatcherError, Completeness, Crop, Cutout, DataError, DataFolder,
    DatasetName, Flip, HeldOut, Images, PartitionError, Shape, Sharding, Split, epoch_order, hold_out, load,
};
use tch::{Device, Tensor};

/// Batches that are prepared ahead of the step that needs them.
const AHEAD: usize = 4;

/// Why a trial has no data.
#[derive(Debug, thiserror::Error)]
pub enum DataProblem {
    /// The files are missing or damaged.
    #[error(transparent)]
    Files(#[from] DataError),
    /// The held-out classes are not classes of the set, or too many.
    #[error("the held-out classes are refused")]
    HeldOut(#[from] PartitionError),
    /// Nothing is held out, but the evaluation asks for held-out images.
    #[error("no class is held out, so there are no images of held-out classes")]
    NothingHeldOut,
    /// Limits leave nothing.
    #[error("a limit of 0 leaves no images")]
    NoImages,
    /// Images of another shape cannot be shown to the network.
    #[error("{set} has images of {found}, the network takes {expected}")]
    OtherShape {
        /// The out-of-distribution set.
        set: Name,
        /// Its shape.
        found: Shape,
        /// The training set's.
        expected: Shape,
    },
    /// Augmentations are applied in one order only.
    #[error("augmentations must be a part of crop, flip, cutout, in that order")]
    AugmentationOrder,
    /// A size beyond any image.
    #[error("an augmentation of {0} pixels is larger than 255")]
    AugmentationSize(u32),
    /// The constants of a data set do not fit its images: a defect of the tables in `datasets`.
    #[error(transparent)]
    Batcher(#[from] BatcherError),
}

/// Training images of `spec`, in batches.
///
/// # Errors
///
/// [`DataProblem`] says whether the files or the specification are to blame.
pub fn training(spec: &TrainSpec, folder: &Path) -> Result<Batcher, DataProblem> {
    let augmentation = augmentation(&spec.recipe.augmentation)?;
    let images = in_distribution(&spec.data, Split::Train, folder)?;
    let images = first(images, spec.data.train_limit)?;
    batcher(&spec.data, images, augmentation, spec.seed)
}

/// Test images of the classes that the network knows, in batches.
///
/// # Errors
///
/// As [`training`].
pub fn test(data: &DataSpec, folder: &Path) -> Result<Batcher, DataProblem> {
    let images = first(in_distribution(data, Split::Test, folder)?, data.test_limit)?;
    batcher(data, images, Augmentation::NONE, 0)
}

/// Images that no class of the network explains, normalised with the constants of its training set.
///
/// # Errors
///
/// As [`training`].
pub fn out_of_distribution(
    data: &DataSpec,
    source: OodSource,
    folder: &Path,
) -> Result<Batcher, DataProblem> {
    let images = match source {
        OodSource::HeldOut => {
            let all = load_split(data, data.set, Split::Test, folder)?;
            held_out(data, &all)?.ok_or(DataProblem::NothingHeldOut)?.out_of_distribution
        }
        OodSource::Set(set) => {
            let [found, expected] = [set, data.set].map(|set| dataset(set).shape());
            if found != expected {
                return Err(DataProblem::OtherShape { set, found, expected });
            }
            load_split(data, set, Split::Test, folder)?
        }
    };
    batcher(data, first(images, data.test_limit)?, Augmentation::NONE, 0)
}

/// Shape of the network's input: channels, height, width.
pub fn input_shape(data: &DataSpec) -> [i64; 3] {
    data.set.shape().map(i64::from)
}

/// Original numbers of the classes that the network tells apart, in the order of its outputs.
pub fn classes(data: &DataSpec) -> Vec<u32> {
    (0..data.set.classes()).filter(|class| !data.held_out.contains(class)).collect()
}

/// The two crates name the same sets; `datasets` stays free of the system's words, and so of serde.
fn dataset(name: Name) -> DatasetName {
    match name {
        Name::Digits => DatasetName::Digits,
        Name::Cifar10 => DatasetName::Cifar10,
        Name::Cifar100 => DatasetName::Cifar100,
        Name::Svhn => DatasetName::Svhn,
        Name::Mnist => DatasetName::Mnist,
        Name::FashionMnist => DatasetName::FashionMnist,
    }
}

fn load_split(data: &DataSpec, set: Name, split: Split, folder: &Path) -> Result<Images, DataError> {
    let completeness = if data.allow_subset { Completeness::Subset } else { Completeness::Official };
    load(dataset(set), split, &DataFolder::new(folder), completeness)
}

fn in_distribution(data: &DataSpec, split: Split, folder: &Path) -> Result<Images, DataProblem> {
    let all = load_split(data, data.set, split, folder)?;
    Ok(match held_out(data, &all)? {
        Some(divided) => divided.in_distribution,
        None => all,
    })
}

fn held_out(data: &DataSpec, images: &Images) -> Result<Option<HeldOut>, PartitionError> {
    if data.held_out.is_empty() {
        return Ok(None);
    }
    // A class beyond u8 is beyond every set; 255 is refused as such, and no set has so many classes.
    let classes: Vec<u8> =
        data.held_out.iter().map(|&class| u8::try_from(class).unwrap_or(u8::MAX)).collect();
    hold_out(images, &classes).map(Some)
}

fn first(images: Images, limit: Option<u32>) -> Result<Images, DataProblem> {
    match limit.map(|limit| limit as usize) {
        Some(0) => Err(DataProblem::NoImages),
        Some(limit) if limit < images.len() => Ok(images.select(&(0..limit).collect::<Vec<_>>())),
        Some(_) | None => Ok(images),
    }
}

fn batcher(
    data: &DataSpec,
    images: Images,
    augmentation: Augmentation,
    seed: u64,
) -> Result<Batcher, DataProblem> {
    Ok(Batcher::new(Arc::new(images), dataset(data.set).normalization(), augmentation, seed)?)
}

/// `datasets` applies augmentations in the order of the authors' code, so a recipe may only name a part of it.
fn augmentation(list: &[AugmentationSpec]) -> Result<Augmentation, DataProblem> {
    let place = |item: &AugmentationSpec| match item {
        AugmentationSpec::Crop { .. } => 0,
        AugmentationSpec::Flip => 1,
        AugmentationSpec::Cutout { .. } => 2,
    };
    if !list.is_sorted_by(|left, right| place(left) < place(right)) {
        return Err(DataProblem::AugmentationOrder);
    }
    let pixels = |size: u32| u8::try_from(size).map_err(|_| DataProblem::AugmentationSize(size));
    let mut result = Augmentation::NONE;
    for item in list {
        match *item {
            AugmentationSpec::Crop { padding } => result.crop = Some(Crop { padding: pixels(padding)? }),
            AugmentationSpec::Flip => result.flip = Flip::Horizontal,
            AugmentationSpec::Cutout { size } => result.cutout = Some(Cutout { size: pixels(size)? }),
        }
    }
    Ok(result)
}

/// Images and labels of a batch on the rank's device.
///
/// Shapes: images `[B, C, H, W]`, labels `[B]`.
pub fn tensors(batch: &Batch, shape: Shape, device: Device) -> (Tensor, Tensor) {
    let axes = [batch.labels.len(), shape.channels, shape.height, shape.width].map(|axis| axis as i64);
    let images = Tensor::from_slice(&batch.pixels).view(axes).to_device(device);
    (images, Tensor::from_slice(&batch.labels).to_device(device))
}

/// Which images a rank sees in which step.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Seed of the trial.
    pub seed: u64,
    /// The rank's share of each global batch.
    pub sharding: Sharding,
    /// Images to train on.
    pub images: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps in all.
    pub total_steps: u64,
}

/// Prepares the batches of coming steps on a thread of its own.
pub struct Prefetch {
    batches: Receiver<Batch>,
}

impl Prefetch {
    /// Starts with the batch of the step after `done` steps.
    pub fn start(batcher: Batcher, course: Course, done: u64) -> Self {
        let (sender, batches) = mpsc::sync_channel(AHEAD);
        let span = tracing::Span::current();
        thread::spawn(move || span.in_scope(|| prepare(&batcher, course, done, &sender)));
        Self { batches }
    }
}

/// The batch of each step, until the last.
impl Iterator for Prefetch {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        self.batches.recv().ok()
    }
}

fn prepare(batcher: &Batcher, course: Course, done: u64, sender: &SyncSender<Batch>) {
    let steps = course.steps_per_epoch;
    let mut from = done % steps;
    for epoch in done / steps..course.total_steps / steps {
        let order = epoch_order(course.seed, epoch, batcher.images().len());
        for indices in course.sharding.batches(&order).skip(from as usize) {
            let mut batch = Batch::default();
            batcher.fill(indices, epoch, &mut batch);
            if sender.send(batch).is_err() {
                return;
            }
        }
        from = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(held_out: Vec<u32>) -> DataSpec {
        DataSpec {
            set: Name::Digits,
            held_out,
            train_limit: None,
            test_limit: None,
            allow_subset: false,
            validation: 0,
        }
    }

    #[test]
    fn augmentations_in_another_order_are_refused() {
        let crop = AugmentationSpec::Crop { padding: 1 };
        assert!(augmentation(&[crop, AugmentationSpec::Flip]).is_ok());
        for list in [&[AugmentationSpec::Flip, crop][..], &[crop, crop]] {
            assert!(matches!(augmentation(list), Err(DataProblem::AugmentationOrder)), "{list:?}");
        }
    }

    #[test]
    fn test_and_held_out_images_make_up_the_test_split() {
        let data = digits(vec![8, 9]);
        let inside = test(&data, Path::new("unused")).unwrap();
        let outside = out_of_distribution(&data, OodSource::HeldOut, Path::new("unused")).unwrap();
        assert_eq!(inside.images().len() + outside.images().len(), 500);
        assert!(inside.images().labels().iter().all(|&label| label < 8));
        assert!(outside.images().labels().iter().all(|&label| label >= 8));
        assert_eq!(classes(&data), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn images_of_another_shape_are_no_out_of_distribution_set() {
        let mut data = digits(Vec::new());
        data.set = Name::Mnist;
        let problem = out_of_distribution(&data, OodSource::Set(Name::Digits), Path::new("unused"));
        assert!(matches!(problem, Err(DataProblem::OtherShape { .. })));
    }

    /// A resumed trial starts in the middle of an epoch and must see what it would have seen.
    #[test]
    fn prefetching_from_a_step_gives_the_batches_of_that_step() {
        let spec = digits(Vec::new());
        let batcher = test(&spec, Path::new("unused")).unwrap();
        let sharding = Sharding::new(200, 2, 1).unwrap();
        let course = Course { seed: 3, sharding, images: 11, steps_per_epoch: 2, total_steps: 6 };
        let all = |from| Prefetch::start(batcher.clone(), course, from).collect::<Vec<_>>();
        let whole = all(0);
        assert_eq!(whole.len(), 6);
        assert_eq!(whole[0].labels.len(), 100);
        assert_ne!(whole[0].ids, whole[2].ids, "each epoch has an order of its own");
        for from in 1..=6 {
            assert_eq!(all(from), whole[from as usize..]);
        }
    }
}
