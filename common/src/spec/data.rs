//! Data sets, splits, and what counts as out of distribution.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Data sets that the trainer can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetName {
    /// UCI optical digits, 8×8 grey, bundled.
    Digits,
    /// CIFAR-10, 32×32 RGB.
    #[serde(rename = "cifar-10")]
    Cifar10,
    /// CIFAR-100, 32×32 RGB, fine labels.
    #[serde(rename = "cifar-100")]
    Cifar100,
    /// Street View House Numbers, 32×32 RGB.
    Svhn,
    /// MNIST, 28×28 grey.
    Mnist,
    /// Fashion-MNIST, 28×28 grey.
    FashionMnist,
}

impl DatasetName {
    /// Every data set.
    pub const ALL: [Self; 6] =
        [Self::Digits, Self::Cifar10, Self::Cifar100, Self::Svhn, Self::Mnist, Self::FashionMnist];

    /// Name as written in grid files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Cifar10 => "cifar-10",
            Self::Cifar100 => "cifar-100",
            Self::Svhn => "svhn",
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
        }
    }

    /// Classes of the whole set.
    pub fn classes(self) -> u32 {
        match self {
            Self::Cifar100 => 100,
            Self::Digits | Self::Cifar10 | Self::Svhn | Self::Mnist | Self::FashionMnist => 10,
        }
    }

    /// Shape of an image: channels, height, width.
    pub fn shape(self) -> [u32; 3] {
        match self {
            Self::Digits => [1, 8, 8],
            Self::Cifar10 | Self::Cifar100 | Self::Svhn => [3, 32, 32],
            Self::Mnist | Self::FashionMnist => [1, 28, 28],
        }
    }

    /// Whether an image that is mirrored left and right keeps its label.
    pub fn mirrors(self) -> bool {
        match self {
            Self::Cifar10 | Self::Cifar100 | Self::FashionMnist => true,
            Self::Digits | Self::Svhn | Self::Mnist => false,
        }
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no data set has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no data set is named `{0}`")]
pub struct UnknownDataset(pub String);

impl FromStr for DatasetName {
    type Err = UnknownDataset;

    fn from_str(text: &str) -> Result<Self, UnknownDataset> {
        Self::ALL.into_iter().find(|set| set.name() == text).ok_or_else(|| UnknownDataset(text.to_owned()))
    }
}

/// Training data of a trial; the test split follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSpec {
    /// Data set.
    pub set: DatasetName,
    /// Classes left out of training and of the in-distribution test, ascending. The rest are renumbered from 0.
    pub held_out: Vec<u32>,
    /// Use only the first so many training images, after leaving classes out. `None` for all.
    pub train_limit: Option<u32>,
    /// Use only the first so many images of each test set. `None` for all.
    pub test_limit: Option<u32>,
    /// Whether files with fewer records than the official ones are accepted.
    pub allow_subset: bool,
}

impl DataSpec {
    /// Classes that the network tells apart.
    pub fn classes(&self) -> u32 {
        self.set.classes() - self.held_out.len() as u32
    }
}

/// Images that no training class explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OodSource {
    /// Test images of the held-out classes.
    HeldOut,
    /// Test split of another data set of the same shape, normalised with the training set's constants.
    Set(DatasetName),
}

impl fmt::Display for OodSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeldOut => f.write_str("held-out"),
            Self::Set(set) => set.fmt(f),
        }
    }
}
