//! From a trial's data specification to tensors of batches.
//!
//! Decides which images a trial trains and is tested on. Files, augmentation and the order of the images
//! are those of the crate `datasets`.

mod course;
mod resident;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use common::spec::{
    Augmentation as AugmentationSpec, Corruption, DataSpec, DatasetName as Name, EvaluateSpec, OodSource,
    ShiftSource, ShiftSpec, Task, TrainSpec,
};
use datasets::{
    Augmentation, Batch, Batcher, BatcherError, Completeness, CorruptError, CorruptedFiles, Crop, Cutout,
    DataError, DataFolder, DatasetName, Flip, HeldOut, Images, Loaded, PartitionError, Severity, Shape,
    Split, ValidationSplit, corrupt, cubic_far, hold_out, load_reported, load_resized, split_validation,
    two_moons_far,
};
use tch::{Device, Tensor};

pub use course::{Course, Pixels, Prefetch, Preparation, Prepared};

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
    /// More images are to be held out for validation than there are.
    #[error("the validation images are refused")]
    Validation(#[source] PartitionError),
    /// A corruption is not defined for the images of the set.
    #[error("the shift is refused")]
    Corruption(#[from] CorruptError),
    /// Severities go from 1 to 5.
    #[error("severity {0} is not one of 1 to 5")]
    Severity(u32),
    /// There is one set that far points are far from.
    #[error("{far} is out of distribution for another set than {set}")]
    NotFar {
        /// The points.
        far: OodSource,
        /// The set.
        set: Name,
    },
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

/// Training images of `spec`, in batches; those held out for validation are not among them.
///
/// # Errors
///
/// [`DataProblem`] says whether the files or the specification are to blame.
pub fn training(spec: &TrainSpec, folder: &Path) -> Result<Batcher, DataProblem> {
    let augmentation = augmentation(&spec.recipe.augmentation)?;
    batcher(&spec.data, training_images(&spec.data, folder)?.0, augmentation, spec.seed)
}

/// The images of [`training`], at the same positions, as they are: for statistics that are taken after training.
///
/// # Errors
///
/// As [`training`].
pub fn training_plain(data: &DataSpec, folder: &Path) -> Result<Batcher, DataProblem> {
    batcher(data, training_images(data, folder)?.0, Augmentation::NONE, 0)
}

/// The images held out of training to fit temperatures to, as they are; none when the specification asks for none.
///
/// They are the same for every method and seed, and stratified by class.
///
/// # Errors
///
/// As [`training`].
pub fn held_out_validation(data: &DataSpec, folder: &Path) -> Result<Option<Batcher>, DataProblem> {
    let images = match data.validation {
        0 => None,
        _ => training_images(data, folder)?.1,
    };
    images.map(|images| batcher(data, images, Augmentation::NONE, 0)).transpose()
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
        OodSource::Resized(set) => {
            let (folder, shape) = (DataFolder::new(folder), dataset(data.set).shape());
            let loaded = load_resized(dataset(set), Split::Test, &folder, completeness(data), shape)?;
            told(loaded, set)
        }
        OodSource::TwoMoonsFar if data.set == Name::TwoMoons => two_moons_far(),
        OodSource::CubicFar if data.set == Name::Cubic => cubic_far(),
        OodSource::TwoMoonsFar | OodSource::CubicFar => {
            return Err(DataProblem::NotFar { far: source, set: data.set });
        }
    };
    batcher(data, first(images, data.test_limit)?, Augmentation::NONE, 0)
}

/// Test images after corruptions.
pub struct ShiftedTests {
    data: DataSpec,
    clean: Images,
    /// None when corruptions are computed.
    files: Option<CorruptedFiles>,
}

impl ShiftedTests {
    /// Reads the test images that `shift` is about: the first ones that both its limit and the data's allow. Files
    /// of corrupted images are found, and their labels checked against those of the test images.
    ///
    /// # Errors
    ///
    /// As [`training`].
    pub fn open(data: &DataSpec, shift: &ShiftSpec, folder: &Path) -> Result<Self, DataProblem> {
        let all = load_split(data, data.set, Split::Test, folder)?;
        let files = match shift.source {
            ShiftSource::Generated => None,
            ShiftSource::Files => {
                Some(CorruptedFiles::open(dataset(data.set), &DataFolder::new(folder), &all)?)
            }
        };
        let known = match held_out(data, &all)? {
            Some(divided) => divided.in_distribution,
            None => all,
        };
        let clean = first(first(known, data.test_limit)?, shift.limit)?;
        Ok(Self { data: data.clone(), clean, files })
    }

    /// Images of each corrupted set.
    pub fn image_count(&self) -> usize {
        self.clean.len()
    }

    /// The images after one corruption, normalised as the test images, with their labels, ids and order.
    ///
    /// # Errors
    ///
    /// As [`training`].
    pub fn batcher(&self, name: Corruption, severity: u32) -> Result<Batcher, DataProblem> {
        let severity = Severity::new(severity).ok_or(DataProblem::Severity(severity))?;
        let images = match &self.files {
            Some(files) => files.read(corruption(name), severity, &self.clean)?,
            None => corrupt(&self.clean, corruption(name), severity, threads())?,
        };
        batcher(&self.data, images, Augmentation::NONE, 0)
    }
}

/// As many threads as libtorch computes with, which the agent has set.
fn threads() -> NonZeroUsize {
    usize::try_from(tch::get_num_threads()).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}

/// Shape of the network's input: channels, height, width.
pub fn input_shape(data: &DataSpec) -> [i64; 3] {
    let [channels, height, width] = data.set.shape().map(i64::from);
    match data.set.task() {
        Task::Classification => [channels, height, width],
        // The last feature is what is to be predicted.
        Task::Regression => [channels - 1, height, width],
    }
}

/// What the networks of an evaluation predict.
pub fn task(spec: &EvaluateSpec) -> Task {
    spec.networks.first().map_or(Task::Classification, |network| network.data.set.task())
}

/// Mean and standard deviation by which the number to predict was normalised.
pub fn target_moments(data: &DataSpec) -> (f64, f64) {
    let constants = dataset(data.set).normalization();
    let last = |values: &[f32]| f64::from(values.last().copied().unwrap_or(1.0));
    (last(constants.mean), last(constants.std))
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
        Name::NotMnist => DatasetName::NotMnist,
        Name::TinyImageNet => DatasetName::TinyImageNet,
        Name::Textures => DatasetName::Textures,
        Name::TwoMoons => DatasetName::TwoMoons,
        Name::Cubic => DatasetName::Cubic,
    }
}

fn corruption(name: Corruption) -> datasets::Corruption {
    name.name().parse().expect("both crates know the official names, and a test holds it")
}

fn completeness(data: &DataSpec) -> Completeness {
    if data.allow_subset { Completeness::Subset } else { Completeness::Official }
}

fn load_split(data: &DataSpec, set: Name, split: Split, folder: &Path) -> Result<Images, DataError> {
    let folder = DataFolder::new(folder);
    load_reported(dataset(set), split, &folder, completeness(data)).map(|loaded| told(loaded, set))
}

/// The images, after the log was told of files that were left out.
fn told(loaded: Loaded, set: Name) -> Images {
    if let Some(first) = loaded.skipped.first() {
        let count = loaded.skipped.len();
        tracing::warn!(%set, count, first = %first.display(), "files that are no pictures are left out");
    }
    loaded.images
}

/// Images to train on, and images held out for validation.
fn training_images(data: &DataSpec, folder: &Path) -> Result<(Images, Option<Images>), DataProblem> {
    let images = first(in_distribution(data, Split::Train, folder)?, data.train_limit)?;
    if data.validation == 0 {
        return Ok((images, None));
    }
    let ValidationSplit { train, validation } =
        split_validation(&images, data.validation as usize).map_err(DataProblem::Validation)?;
    Ok((train, Some(validation)))
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

/// Inputs and targets of a batch on the rank's device.
///
/// Shapes: inputs `[B, C, H, W]`; targets `[B]`, labels or, where a number is predicted, that number, normalised.
pub fn tensors(batch: &Batch, shape: Shape, task: Task, device: Device) -> (Tensor, Tensor) {
    let axes = [batch.labels.len(), shape.channels, shape.height, shape.width].map(|axis| axis as i64);
    let examples = sent(&Tensor::from_slice(&batch.pixels).view(axes), device);
    match task {
        Task::Classification => (examples, sent(&Tensor::from_slice(&batch.labels), device)),
        Task::Regression => {
            let features = axes[1] - 1;
            (examples.narrow(1, 0, features), examples.select(1, features).flatten(0, -1))
        }
    }
}

/// A copy of a host tensor on the device. To a GPU it is only queued: the host goes on, and pinned memory, which libtorch keeps
/// until the copy is done, is what the device can read by itself.
fn sent(tensor: &Tensor, device: Device) -> Tensor {
    match device {
        Device::Cuda(_) => tensor.pin_memory(device).to_device_(device, tensor.kind(), true, false),
        Device::Cpu | Device::Mps | Device::Vulkan => tensor.to_device(device),
    }
}

#[cfg(test)]
mod tests;
