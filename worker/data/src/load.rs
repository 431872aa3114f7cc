//! Which files of the data folder make up a data set, and whether all of it is there.
//!
//! The layout below the data folder is that of the unpacked official archives. Formats are the business of the
//! modules that this one calls.

use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::images::{Images, Shape};
use crate::name::{DatasetName, Split};
use crate::{cifar, cubic, digits, folders, idx, svhn, two_moons};

/// The folder that holds the unpacked official archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFolder(PathBuf);

impl DataFolder {
    /// The folder at `root`; nothing is read yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// The folder's path.
    pub fn root(&self) -> &Path {
        &self.0
    }
}

/// Whether fewer images than the official number are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// The official number, neither more nor fewer.
    Official,
    /// At least one image and at most the official number, for tests and small runs.
    Subset,
}

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The images.
    pub images: Images,
    /// Files that are no pictures and were left out: notMNIST was released with some.
    pub skipped: Vec<PathBuf>,
}

/// Reads the images of a data set.
///
/// Files below the data folder: `cifar-10-batches-bin/{data_batch_1..5,test_batch}.bin`,
/// `cifar-100-binary/{train,test}.bin`, `svhn/{train,test}_32x32.mat` or the same without the folder,
/// `mnist/` and `fashion-mnist/` with `{train,t10k}-images-idx3-ubyte` and `-labels-idx1-ubyte`, plain or `.gz`,
/// `notMNIST_{small,large}/{A..J}/*.png`, `tiny-imagenet-200/` and `dtd/` as in their archives.
/// The digits are bundled and two moons computed; they read no file.
///
/// # Errors
///
/// [`DataError`], with the file and the place in it.
pub fn load(
    name: DatasetName,
    split: Split,
    folder: &DataFolder,
    completeness: Completeness,
) -> Result<Images, DataError> {
    load_request(Request { name, split, folder, completeness }).map(|loaded| loaded.images)
}

/// As [`load`], and says which files were left out.
///
/// # Errors
///
/// As [`load`].
pub fn load_reported(
    name: DatasetName,
    split: Split,
    folder: &DataFolder,
    completeness: Completeness,
) -> Result<Loaded, DataError> {
    load_request(Request { name, split, folder, completeness })
}

/// As [`load_reported`], in another square shape, for the images of an out-of-distribution set.
///
/// Channels first: grey is repeated, RGB becomes grey by Pillow's weights (ITU-R 601-2). Then the shorter side becomes
/// that of `shape` by Pillow's antialiased bilinear filter, and the square in the middle is kept.
///
/// # Errors
///
/// As [`load`], and when the set has no images or the shape is no square of 1 or 3 channels.
pub fn load_resized(
    name: DatasetName,
    split: Split,
    folder: &DataFolder,
    completeness: Completeness,
    shape: Shape,
) -> Result<Loaded, DataError> {
    if shape.width != shape.height || shape.width == 0 || !matches!(shape.channels, 1 | 3) {
        return Err(DataError::NoSuchShape { name, shape });
    }
    folders::load_in_shape(Request { name, split, folder, completeness }, shape)
}

pub(crate) fn load_request(request: Request<'_>) -> Result<Loaded, DataError> {
    let images = match request.name {
        DatasetName::Digits => digits::load(request.split)?,
        DatasetName::Cifar10 => cifar::load_10(request)?,
        DatasetName::Cifar100 => cifar::load_100(request, cifar::Cifar100Labels::Fine)?,
        DatasetName::Svhn => svhn::load(request)?,
        DatasetName::Mnist | DatasetName::FashionMnist => idx::load(request)?,
        DatasetName::NotMnist => return folders::load_not_mnist(request),
        DatasetName::TinyImageNet => return folders::load_tiny_imagenet(request),
        DatasetName::Textures => return folders::load_textures(request, None),
        DatasetName::TwoMoons => two_moons::load(request.split),
        DatasetName::Cubic => cubic::load(request.split),
    };
    Ok(Loaded { images, skipped: Vec::new() })
}

/// What a loader is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) name: DatasetName,
    pub(crate) split: Split,
    pub(crate) folder: &'a DataFolder,
    pub(crate) completeness: Completeness,
}

impl Request<'_> {
    /// The first of `candidates`, relative to the data folder, that is a file.
    pub(crate) fn find(&self, candidates: &[String]) -> Result<PathBuf, DataError> {
        let looked: Vec<_> = candidates.iter().map(|path| self.folder.root().join(path)).collect();
        looked.iter().find(|path| path.is_file()).cloned().ok_or_else(|| self.missing(looked))
    }

    pub(crate) fn missing(&self, looked: Vec<PathBuf>) -> DataError {
        DataError::Missing { name: self.name, split: self.split, root: self.folder.root().to_owned(), looked }
    }

    /// Checks the number of images found in `path` against the official one.
    pub(crate) fn check_count(&self, path: &Path, found: u64, expected: u64) -> Result<(), DataError> {
        let accepted = match self.completeness {
            Completeness::Official => found == expected,
            Completeness::Subset => 0 < found && found <= expected,
        };
        if accepted {
            Ok(())
        } else {
            Err(DataError::Count { name: self.name, path: path.to_owned(), found, expected })
        }
    }

    /// Puts together images whose labels and pixels a loader has checked.
    pub(crate) fn images(&self, pixels: Vec<u8>, labels: Vec<u8>, ids: Vec<u32>) -> Images {
        self.images_of(self.name.shape(), pixels, labels, ids)
    }

    /// The same in a shape that is not that of the set.
    pub(crate) fn images_of(&self, shape: Shape, pixels: Vec<u8>, labels: Vec<u8>, ids: Vec<u32>) -> Images {
        let name = self.name;
        Images::new(shape, name.classes(), name.max_value(), pixels, labels, ids)
            .expect("loaders check counts and labels with their place in the file")
    }
}

/// The ids `0..count`.
pub(crate) fn consecutive_ids(count: usize) -> Vec<u32> {
    (0..count).map(|id| u32::try_from(id).expect("counts are at most the official ones")).collect()
}
