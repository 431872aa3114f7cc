//! The data sets by name, and the facts about each that do not depend on a file.
//!
//! Sources of the constants are given where they stand; all archive digests are those that torchvision checks.

use std::fmt;
use std::str::FromStr;

use crate::augment::{Augmentation, Crop, Cutout, Flip};
use crate::images::Shape;

/// A data set that [`load`](crate::load) knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DatasetName {
    /// UCI optical recognition of handwritten digits, bundled with the program.
    Digits,
    /// CIFAR-10, binary version.
    Cifar10,
    /// CIFAR-100, binary version, with the 100 fine classes.
    Cifar100,
    /// Street View House Numbers, cropped digits (format 2).
    Svhn,
    /// MNIST.
    Mnist,
    /// Fashion-MNIST.
    FashionMnist,
}

/// The part of a data set that its owners meant for training or for testing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Images that a network may be fitted to.
    Train,
    /// Images that are only ever evaluated on.
    Test,
}

/// A file that the owners of a data set publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archive {
    /// Its name.
    pub file: &'static str,
    /// Its MD5, as published or as torchvision checks it.
    pub md5: &'static str,
}

/// Mean and standard deviation of each channel, of pixels scaled to 0..=1.
///
/// An out-of-distribution set is normalised with the constants of the *in-distribution* set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    /// Mean of each channel.
    pub mean: &'static [f32],
    /// Standard deviation of each channel.
    pub std: &'static [f32],
}

/// A name that is no data set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a data set; known are digits, cifar-10, cifar-100, svhn, mnist, fashion-mnist")]
pub struct UnknownDataset {
    /// The name given.
    pub given: Box<str>,
}

impl DatasetName {
    /// Every data set.
    pub const ALL: [Self; 6] =
        [Self::Digits, Self::Cifar10, Self::Cifar100, Self::Svhn, Self::Mnist, Self::FashionMnist];

    /// The name in grid files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Cifar10 => "cifar-10",
            Self::Cifar100 => "cifar-100",
            Self::Svhn => "svhn",
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
        }
    }

    /// Channels, height and width of every image.
    pub fn shape(self) -> Shape {
        match self {
            Self::Digits => Shape { channels: 1, height: 8, width: 8 },
            Self::Cifar10 | Self::Cifar100 | Self::Svhn => Shape { channels: 3, height: 32, width: 32 },
            Self::Mnist | Self::FashionMnist => Shape { channels: 1, height: 28, width: 28 },
        }
    }

    /// Number of classes.
    pub fn classes(self) -> usize {
        match self {
            Self::Digits | Self::Cifar10 | Self::Svhn | Self::Mnist | Self::FashionMnist => 10,
            Self::Cifar100 => 100,
        }
    }

    /// Number of images in the official files.
    pub fn official_len(self, split: Split) -> usize {
        match (self, split) {
            (Self::Digits, Split::Train) => 1_297,
            (Self::Digits, Split::Test) => 500,
            (Self::Cifar10 | Self::Cifar100, Split::Train) => 50_000,
            (Self::Mnist | Self::FashionMnist, Split::Train) => 60_000,
            (Self::Svhn, Split::Train) => 73_257,
            (Self::Svhn, Split::Test) => 26_032,
            (Self::Cifar10 | Self::Cifar100 | Self::Mnist | Self::FashionMnist, Split::Test) => 10_000,
        }
    }

    /// The largest pixel value of the format.
    pub fn max_value(self) -> u8 {
        match self {
            Self::Digits => 16,
            Self::Cifar10 | Self::Cifar100 | Self::Svhn | Self::Mnist | Self::FashionMnist => u8::MAX,
        }
    }

    /// Normalisation constants, of the official training images.
    ///
    /// Sources: CIFAR, the official LP-BNN code and torch-uncertainty (the CIFAR-10 standard deviations are the
    /// mean over images of the per-image values, as in most published code, not those over all pixels); the
    /// others, the values in common use, and for the digits computed from the training images (a test holds it).
    pub fn normalization(self) -> Normalization {
        match self {
            Self::Digits => Normalization { mean: &[0.3042], std: &[0.3756] },
            Self::Cifar10 => {
                Normalization { mean: &[0.4914, 0.4822, 0.4465], std: &[0.2023, 0.1994, 0.2010] }
            }
            Self::Cifar100 => {
                Normalization { mean: &[0.5071, 0.4867, 0.4408], std: &[0.2675, 0.2565, 0.2761] }
            }
            Self::Svhn => Normalization { mean: &[0.4377, 0.4438, 0.4728], std: &[0.1980, 0.2010, 0.1970] },
            Self::Mnist => Normalization { mean: &[0.1307], std: &[0.3081] },
            Self::FashionMnist => Normalization { mean: &[0.2860], std: &[0.3530] },
        }
    }

    /// The usual augmentation of training images, label-preserving: digits are never mirrored.
    pub fn augmentation(self) -> Augmentation {
        let (padding, flip, cutout) = match self {
            Self::Digits => (1, Flip::Never, None),
            Self::Cifar10 | Self::Cifar100 => (4, Flip::Horizontal, Some(Cutout { size: 16 })),
            Self::Svhn => (4, Flip::Never, Some(Cutout { size: 16 })),
            Self::Mnist => (2, Flip::Never, None),
            Self::FashionMnist => (2, Flip::Horizontal, None),
        };
        Augmentation { crop: Some(Crop { padding }), flip, cutout }
    }

    /// What the owners publish.
    pub fn archives(self) -> &'static [Archive] {
        match self {
            Self::Digits => &[],
            Self::Cifar10 => {
                &[Archive { file: "cifar-10-binary.tar.gz", md5: "c32a1d4ab5d03f1284b67883e8d87530" }]
            }
            Self::Cifar100 => {
                &[Archive { file: "cifar-100-binary.tar.gz", md5: "03b5dce01913d631647c71ecec9e9cb8" }]
            }
            Self::Svhn => &[
                Archive { file: "train_32x32.mat", md5: "e26dedcc434d2e4c54c9b2d4a06d8373" },
                Archive { file: "test_32x32.mat", md5: "eb5a983be6a315427106f1b164d9cef3" },
            ],
            Self::Mnist => &[
                Archive { file: "train-images-idx3-ubyte.gz", md5: "f68b3c2dcbeaaa9fbdd348bbdeb94873" },
                Archive { file: "train-labels-idx1-ubyte.gz", md5: "d53e105ee54ea40749a09fcbcd1e9432" },
                Archive { file: "t10k-images-idx3-ubyte.gz", md5: "9fb629c4189551a2d022fa330f9573f3" },
                Archive { file: "t10k-labels-idx1-ubyte.gz", md5: "ec29112dd5afa0611ce80d1b7f02629c" },
            ],
            Self::FashionMnist => &[
                Archive { file: "train-images-idx3-ubyte.gz", md5: "8d4fb7e6c68d591d4c3dfef9ec88bf0d" },
                Archive { file: "train-labels-idx1-ubyte.gz", md5: "25c81989df183df01b3e8a0aad5dffbe" },
                Archive { file: "t10k-images-idx3-ubyte.gz", md5: "bef4ecab320f06d8554ea6380940ec79" },
                Archive { file: "t10k-labels-idx1-ubyte.gz", md5: "bb300cfdad3c16e7a12a480ee83cd310" },
            ],
        }
    }

    /// Where the owners describe the data set and its licence.
    pub fn homepage(self) -> &'static str {
        match self {
            Self::Digits => "https://doi.org/10.24432/C50P49",
            Self::Cifar10 | Self::Cifar100 => "https://www.cs.toronto.edu/~kriz/cifar.html",
            Self::Svhn => "http://ufldl.stanford.edu/housenumbers/",
            Self::Mnist => "http://yann.lecun.com/exdb/mnist/",
            Self::FashionMnist => "https://github.com/zalandoresearch/fashion-mnist",
        }
    }

    /// The folder of the official layout, below the data folder; none for what is bundled.
    pub fn folder(self) -> Option<&'static str> {
        match self {
            Self::Digits => None,
            Self::Cifar10 => Some("cifar-10-batches-bin"),
            Self::Cifar100 => Some("cifar-100-binary"),
            Self::Svhn => Some("svhn"),
            Self::Mnist => Some("mnist"),
            Self::FashionMnist => Some("fashion-mnist"),
        }
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DatasetName {
    type Err = UnknownDataset;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|name| name.as_str() == given)
            .ok_or_else(|| UnknownDataset { given: given.into() })
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Train => "train",
            Self::Test => "test",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_to_itself() {
        for name in DatasetName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
    }

    #[test]
    fn an_unknown_name_lists_every_known_one() {
        let message = "cifar10".parse::<DatasetName>().unwrap_err().to_string();
        assert!(message.contains("`cifar10`"), "{message}");
        for name in DatasetName::ALL {
            assert!(message.contains(name.as_str()), "{message} lacks {name}");
        }
    }

    #[test]
    fn normalisation_has_one_pair_per_channel() {
        for name in DatasetName::ALL {
            assert_eq!(name.normalization().mean.len(), name.shape().channels, "{name}");
            assert_eq!(name.normalization().std.len(), name.shape().channels, "{name}");
        }
    }

    #[test]
    fn no_set_of_digits_is_mirrored() {
        for name in [DatasetName::Digits, DatasetName::Mnist, DatasetName::Svhn] {
            assert_eq!(name.augmentation().flip, Flip::Never, "{name}");
        }
    }
}
