//! The data sets by name, and the facts about each that do not depend on a file.
//!
//! Sources of the constants are given where they stand; all archive digests are those that torchvision checks.

use std::fmt;
use std::str::FromStr;

use crate::archive::{self, Archive};
use crate::augment::{Augmentation, Crop, Cutout, Flip};
use crate::cubic;
use crate::images::Shape;
use crate::two_moons;

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
    /// notMNIST: letters A to J of many fonts. Training images are the large set, test images the small, cleaned one.
    NotMnist,
    /// Tiny-ImageNet. Its validation images are the test images: the official test has no labels.
    TinyImageNet,
    /// Describable Textures (DTD), first official division.
    Textures,
    /// Two interleaved half circles in the plane: real features, made by a formula.
    TwoMoons,
    /// A cubic with noise: a number to predict instead of a class, made by a formula.
    Cubic,
}

/// The part of a data set that its owners meant for training or for testing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Images that a network may be fitted to.
    Train,
    /// Images that are only ever evaluated on.
    Test,
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
#[error("`{given}` is not a data set; known are {}", DatasetName::ALL.map(DatasetName::as_str).join(", "))]
pub struct UnknownDataset {
    /// The name given.
    pub given: Box<str>,
}

impl DatasetName {
    /// Every data set.
    pub const ALL: [Self; 11] = [
        Self::Digits,
        Self::Cifar10,
        Self::Cifar100,
        Self::Svhn,
        Self::Mnist,
        Self::FashionMnist,
        Self::NotMnist,
        Self::TinyImageNet,
        Self::Textures,
        Self::TwoMoons,
        Self::Cubic,
    ];

    /// The name in grid files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Cifar10 => "cifar-10",
            Self::Cifar100 => "cifar-100",
            Self::Svhn => "svhn",
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::NotMnist => "not-mnist",
            Self::TinyImageNet => "tiny-imagenet",
            Self::Textures => "textures",
            Self::TwoMoons => "two-moons",
            Self::Cubic => "cubic",
        }
    }

    /// Channels, height and width of every image. Real features are channels of one pixel, and so is a number to predict,
    /// the last of them.
    pub fn shape(self) -> Shape {
        match self {
            Self::Digits => Shape { channels: 1, height: 8, width: 8 },
            Self::Cifar10 | Self::Cifar100 | Self::Svhn => Shape { channels: 3, height: 32, width: 32 },
            Self::Mnist | Self::FashionMnist | Self::NotMnist => Shape { channels: 1, height: 28, width: 28 },
            Self::TinyImageNet => Shape { channels: 3, height: 64, width: 64 },
            Self::Textures => Shape { channels: 3, height: 224, width: 224 },
            Self::TwoMoons | Self::Cubic => Shape { channels: 2, height: 1, width: 1 },
        }
    }

    /// Number of classes; 1 where a number is predicted.
    pub fn classes(self) -> usize {
        match self {
            Self::Digits | Self::Cifar10 | Self::Svhn | Self::Mnist | Self::FashionMnist | Self::NotMnist => {
                10
            }
            Self::Cifar100 => 100,
            Self::TinyImageNet => 200,
            Self::Textures => 47,
            Self::TwoMoons => 2,
            Self::Cubic => 1,
        }
    }

    /// Number of images in the official files; of notMNIST, those that can be decoded.
    pub fn official_len(self, split: Split) -> usize {
        match (self, split) {
            (Self::Digits, Split::Train) => 1_297,
            (Self::Digits, Split::Test) => 500,
            (Self::Cifar10 | Self::Cifar100, Split::Train) => 50_000,
            (Self::Mnist | Self::FashionMnist, Split::Train) => 60_000,
            (Self::Svhn, Split::Train) => 73_257,
            (Self::Svhn, Split::Test) => 26_032,
            (Self::Cifar10 | Self::Cifar100 | Self::Mnist | Self::FashionMnist, Split::Test) => 10_000,
            (Self::NotMnist, Split::Train) => 529_114,
            (Self::NotMnist, Split::Test) => 18_724,
            (Self::TinyImageNet, Split::Train) => 100_000,
            (Self::TinyImageNet, Split::Test) => 10_000,
            (Self::Textures, Split::Train | Split::Test) => 1_880,
            (Self::TwoMoons | Self::Cubic, Split::Train | Split::Test) => 1_000,
        }
    }

    /// The largest pixel value of the format; of no meaning for real features.
    pub fn max_value(self) -> u8 {
        match self {
            Self::Digits => 16,
            Self::Cifar10
            | Self::Cifar100
            | Self::Svhn
            | Self::Mnist
            | Self::FashionMnist
            | Self::NotMnist
            | Self::TinyImageNet
            | Self::Textures
            | Self::TwoMoons
            | Self::Cubic => u8::MAX,
        }
    }

    /// Normalisation constants, of the official training images.
    ///
    /// Sources: CIFAR, the official LP-BNN code and torch-uncertainty (the CIFAR-10 standard deviations are the
    /// mean over images of the per-image values, as in most published code, not those over all pixels); the
    /// others, the values in common use, and for the digits computed from the training images (a test holds it).
    /// For notMNIST there are no values in common use: grey levels go to −1..=1. Textures have those of ImageNet. Two
    /// moons have the exact moments of the distribution, whose features need no scaling to 0..=1 before.
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
            Self::NotMnist => Normalization { mean: &[0.5], std: &[0.5] },
            Self::TinyImageNet => {
                Normalization { mean: &[0.4802, 0.4481, 0.3975], std: &[0.2770, 0.2691, 0.2821] }
            }
            Self::Textures => Normalization { mean: &[0.485, 0.456, 0.406], std: &[0.229, 0.224, 0.225] },
            Self::TwoMoons => two_moons::NORMALIZATION,
            Self::Cubic => cubic::NORMALIZATION,
        }
    }

    /// The usual augmentation of training images, label-preserving: digits are never mirrored.
    pub fn augmentation(self) -> Augmentation {
        let (padding, flip, cutout) = match self {
            Self::TwoMoons | Self::Cubic => return Augmentation::NONE,
            Self::Digits => (1, Flip::Never, None),
            Self::Cifar10 | Self::Cifar100 => (4, Flip::Horizontal, Some(Cutout { size: 16 })),
            Self::Svhn => (4, Flip::Never, Some(Cutout { size: 16 })),
            Self::Mnist | Self::NotMnist => (2, Flip::Never, None),
            Self::FashionMnist => (2, Flip::Horizontal, None),
            Self::TinyImageNet => (8, Flip::Horizontal, None),
            Self::Textures => (28, Flip::Horizontal, None),
        };
        Augmentation { crop: Some(Crop { padding }), flip, cutout }
    }

    /// What the owners publish, as far as its digest is published, too.
    pub fn archives(self) -> &'static [Archive] {
        archive::of(self)
    }

    /// Where the owners describe the data set and its licence.
    pub fn homepage(self) -> &'static str {
        match self {
            Self::Digits => "https://doi.org/10.24432/C50P49",
            Self::NotMnist => "http://yaroslavvb.blogspot.com/2011/09/notmnist-dataset.html",
            Self::TinyImageNet => "http://cs231n.stanford.edu/",
            Self::Textures => "https://www.robots.ox.ac.uk/~vgg/data/dtd/",
            Self::TwoMoons => {
                "https://scikit-learn.org/stable/modules/generated/sklearn.datasets.make_moons.html"
            }
            Self::Cubic => "https://proceedings.mlr.press/v37/hernandez-lobatoc15.html",
            Self::Cifar10 | Self::Cifar100 => "https://www.cs.toronto.edu/~kriz/cifar.html",
            Self::Svhn => "http://ufldl.stanford.edu/housenumbers/",
            Self::Mnist => "http://yann.lecun.com/exdb/mnist/",
            Self::FashionMnist => "https://github.com/zalandoresearch/fashion-mnist",
        }
    }

    /// What the owners say about copying and use, in short.
    pub fn licence(self) -> &'static str {
        match self {
            Self::Digits => "CC BY 4.0",
            Self::Cifar10 | Self::Cifar100 => "none stated; free for research",
            Self::Svhn => "non-commercial use only",
            Self::Mnist => "CC BY-SA 3.0",
            Self::FashionMnist => "MIT",
            Self::NotMnist => "none stated",
            Self::TinyImageNet => "ImageNet's terms: non-commercial research",
            Self::Textures => "research purposes only",
            Self::TwoMoons | Self::Cubic => "a formula",
        }
    }

    /// The folder of the official layout, below the data folder; none for what is bundled or computed.
    pub fn folder(self) -> Option<&'static str> {
        match self {
            Self::Digits | Self::TwoMoons | Self::Cubic => None,
            Self::Cifar10 => Some("cifar-10-batches-bin"),
            Self::Cifar100 => Some("cifar-100-binary"),
            Self::Svhn => Some("svhn"),
            Self::Mnist => Some("mnist"),
            Self::FashionMnist => Some("fashion-mnist"),
            Self::NotMnist => Some("notMNIST_small"),
            Self::TinyImageNet => Some("tiny-imagenet-200"),
            Self::Textures => Some("dtd"),
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
        for name in [DatasetName::Digits, DatasetName::Mnist, DatasetName::Svhn, DatasetName::NotMnist] {
            assert_eq!(name.augmentation().flip, Flip::Never, "{name}");
        }
    }
}
