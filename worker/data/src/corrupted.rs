//! CIFAR-10-C and CIFAR-100-C as published: one `.npy` file a corruption, severities one after the other.
//!
//! `CIFAR-10-C/gaussian_noise.npy` is an array of bytes `[50000, 32, 32, 3]`, in which rows 10,000·(s − 1) on are the
//! test images, in their order, at severity s. `labels.npy` repeats the labels of the test images five times.
//!
//! Source: Hendrycks and Dietterich, ICLR 2019, and the description of the files on Zenodo (2535967, 3555552).

use std::path::{Path, PathBuf};

use crate::archive::{self, Archive};
use crate::corrupt::{Corruption, Severity};
use crate::error::{DataError, Flaw, Position, Problem};
use crate::images::Images;
use crate::load::DataFolder;
use crate::name::DatasetName;
use crate::npy::{Array, Element};

const SEVERITIES: u64 = 5;

/// The published corrupted test images of a data set.
#[derive(Debug, Clone)]
pub struct CorruptedFiles {
    folder: PathBuf,
    /// Test images at one severity.
    images: u64,
}

impl CorruptedFiles {
    /// The archive in which they are published, if they are.
    pub fn archive(name: DatasetName) -> Option<&'static Archive> {
        archive::of_corrupted(name)
    }

    /// The folder below the data folder, if there are such files of this set.
    pub fn folder(name: DatasetName) -> Option<&'static str> {
        match name {
            DatasetName::Cifar10 => Some("CIFAR-10-C"),
            DatasetName::Cifar100 => Some("CIFAR-100-C"),
            DatasetName::Digits
            | DatasetName::Svhn
            | DatasetName::Mnist
            | DatasetName::FashionMnist
            | DatasetName::NotMnist
            | DatasetName::TinyImageNet
            | DatasetName::Textures
            | DatasetName::TwoMoons
            | DatasetName::Cubic => None,
        }
    }

    /// Finds the files, and checks their labels against those of `test`: all test images of the set, in the order of
    /// its file.
    ///
    /// # Errors
    ///
    /// [`DataError`] when there are no such files of the set, they are missing, or are of other images.
    pub fn open(name: DatasetName, folder: &DataFolder, test: &Images) -> Result<Self, DataError> {
        let below = Self::folder(name).ok_or(DataError::NoCorruptedFiles { name })?;
        let files = Self { folder: folder.root().join(below), images: test.len() as u64 };
        let path = files.path("labels")?;
        let mut array =
            Array::open(&path, &[Element::U8, Element::I32, Element::I64], "whole numbers (|u1, <i4, <i8)")?;
        if array.axes != [SEVERITIES * files.images] {
            return Err(shape(&array, "as many labels as five times the test images"));
        }
        let labels = array.numbers()?;
        let expected = test.labels().iter().cycle();
        if let Some(row) = labels.iter().zip(expected).position(|(found, label)| *found != i64::from(*label))
        {
            let problem = Problem::OtherLabel { row: row as u64, found: labels[row] };
            return Err(Flaw::at(Position::File(0), problem).of(&path));
        }
        Ok(files)
    }

    /// The images of `test` after a corruption: those with the same ids, in the same order, with the same labels.
    ///
    /// # Errors
    ///
    /// [`DataError`] when the corruption's file is missing or damaged.
    ///
    /// # Panics
    ///
    /// When an id of `test` is not one of the images that the files were opened for.
    pub fn read(
        &self,
        corruption: Corruption,
        severity: Severity,
        test: &Images,
    ) -> Result<Images, DataError> {
        let path = self.path(corruption.as_str())?;
        let mut array = Array::open(&path, &[Element::U8], "bytes (|u1)")?;
        if array.axes != [SEVERITIES * self.images, 32, 32, 3] {
            return Err(shape(&array, "[5 × test images, 32, 32, 3]"));
        }
        let ids = test.ids().iter().map(|&id| u64::from(id));
        let (Some(first), Some(last)) = (ids.clone().min(), ids.clone().max()) else {
            return Ok(test.clone());
        };
        assert!(last < self.images, "image {last} is not one of {} test images", self.images);
        let start = u64::from(severity.number() - 1) * self.images;
        let rows = array.rows(start + first, last - first + 1)?;
        let size = test.shape().pixels();
        let mut pixels = Vec::with_capacity(test.len() * size);
        for id in ids {
            #[expect(clippy::cast_possible_truncation, reason = "below the number of images")]
            let row = &rows[(id - first) as usize * size..][..size];
            for channel in 0..3 {
                pixels.extend(row.iter().skip(channel).step_by(3));
            }
        }
        Ok(test.with_pixels(test.shape(), pixels))
    }

    fn path(&self, stem: &str) -> Result<PathBuf, DataError> {
        let path = self.folder.join(format!("{stem}.npy"));
        if path.is_file() { Ok(path) } else { Err(DataError::NoCorruption { path }) }
    }
}

fn shape(array: &Array, expected: &'static str) -> DataError {
    let path: &Path = array.path();
    Flaw::at(Position::File(0), Problem::Shape { found: array.axes.clone(), expected }).of(path)
}
