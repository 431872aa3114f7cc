//! Data sets, splits, what counts as out of distribution, and how test images are corrupted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a network predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A class, by a probability for each.
    Classification,
    /// A number, by the mean and the variance of a Gaussian.
    Regression,
}

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
    /// notMNIST, 28×28 grey.
    NotMnist,
    /// Tiny-ImageNet, 64×64 RGB.
    #[serde(rename = "tiny-imagenet")]
    TinyImageNet,
    /// Describable Textures (DTD), cut to 224×224 RGB.
    Textures,
    /// Two interleaved half circles in the plane, made by a formula.
    TwoMoons,
    /// A cubic with noise, made by a formula: a number to predict.
    Cubic,
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

    /// Name as written in grid files.
    pub fn name(self) -> &'static str {
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

    /// What a network is to predict of an example.
    pub fn task(self) -> Task {
        match self {
            Self::Cubic => Task::Regression,
            Self::Digits
            | Self::Cifar10
            | Self::Cifar100
            | Self::Svhn
            | Self::Mnist
            | Self::FashionMnist
            | Self::NotMnist
            | Self::TinyImageNet
            | Self::Textures
            | Self::TwoMoons => Task::Classification,
        }
    }

    /// Classes of the whole set; 1 where a number is predicted.
    pub fn classes(self) -> u32 {
        match self {
            Self::Cifar100 => 100,
            Self::Digits | Self::Cifar10 | Self::Svhn | Self::Mnist | Self::FashionMnist | Self::NotMnist => {
                10
            }
            Self::TinyImageNet => 200,
            Self::Textures => 47,
            Self::TwoMoons => 2,
            Self::Cubic => 1,
        }
    }

    /// Shape of an example: channels, height, width. Real features are channels of one pixel, and so is a number to
    /// predict, the last of them.
    pub fn shape(self) -> [u32; 3] {
        match self {
            Self::Digits => [1, 8, 8],
            Self::Cifar10 | Self::Cifar100 | Self::Svhn => [3, 32, 32],
            Self::Mnist | Self::FashionMnist | Self::NotMnist => [1, 28, 28],
            Self::TinyImageNet => [3, 64, 64],
            Self::Textures => [3, 224, 224],
            Self::TwoMoons | Self::Cubic => [2, 1, 1],
        }
    }

    /// Whether an image that is mirrored left and right keeps its label.
    pub fn mirrors(self) -> bool {
        match self {
            Self::Cifar10 | Self::Cifar100 | Self::FashionMnist | Self::TinyImageNet | Self::Textures => true,
            Self::Digits | Self::Svhn | Self::Mnist | Self::NotMnist | Self::TwoMoons | Self::Cubic => false,
        }
    }

    /// Whether its examples are images, which can be corrupted and resized, and not real features.
    pub fn is_images(self) -> bool {
        !matches!(self, Self::TwoMoons | Self::Cubic)
    }

    /// Whether corrupted test images are published for it (CIFAR-10-C, CIFAR-100-C).
    pub fn has_corrupted_files(self) -> bool {
        matches!(self, Self::Cifar10 | Self::Cifar100)
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
    /// So many of the training images that are left after the limit are not trained on: temperatures are fitted to them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub validation: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl DataSpec {
    /// Classes that the network tells apart.
    pub fn classes(&self) -> u32 {
        self.set.classes() - self.held_out.len() as u32
    }

    /// Outputs that the network has: one a class, or the mean and the logarithm of the variance of a number.
    pub fn outputs(&self) -> u32 {
        match self.set.task() {
            Task::Classification => self.classes(),
            Task::Regression => 2,
        }
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
    /// The same of a data set of another shape, resized and converted to the training set's.
    Resized(DatasetName),
    /// Points of the plane far from both half circles of `two-moons`.
    TwoMoonsFar,
    /// Points of `cubic` outside of what is trained on.
    CubicFar,
}

impl fmt::Display for OodSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeldOut => f.write_str("held-out"),
            Self::Set(set) | Self::Resized(set) => set.fmt(f),
            Self::TwoMoonsFar => f.write_str("two-moons-far"),
            Self::CubicFar => f.write_str("cubic-far"),
        }
    }
}

/// A corruption of the benchmark CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019), by its official name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the official names say what they are")]
pub enum Corruption {
    GaussianNoise,
    ShotNoise,
    ImpulseNoise,
    DefocusBlur,
    GlassBlur,
    MotionBlur,
    ZoomBlur,
    Snow,
    Frost,
    Fog,
    Brightness,
    Contrast,
    ElasticTransform,
    Pixelate,
    JpegCompression,
    SpeckleNoise,
    GaussianBlur,
    Spatter,
    Saturate,
}

impl Corruption {
    /// Every corruption: the fifteen main ones in the order of the paper, then the four extra ones.
    pub const ALL: [Self; 19] = [
        Self::GaussianNoise,
        Self::ShotNoise,
        Self::ImpulseNoise,
        Self::DefocusBlur,
        Self::GlassBlur,
        Self::MotionBlur,
        Self::ZoomBlur,
        Self::Snow,
        Self::Frost,
        Self::Fog,
        Self::Brightness,
        Self::Contrast,
        Self::ElasticTransform,
        Self::Pixelate,
        Self::JpegCompression,
        Self::SpeckleNoise,
        Self::GaussianBlur,
        Self::Spatter,
        Self::Saturate,
    ];

    /// The fifteen corruptions over which cA and cE are averaged by default.
    pub const MAIN: [Self; 15] = *Self::ALL.first_chunk().expect("all are more than fifteen");

    /// Name as in the official files and in grid files.
    pub fn name(self) -> &'static str {
        match self {
            Self::GaussianNoise => "gaussian_noise",
            Self::ShotNoise => "shot_noise",
            Self::ImpulseNoise => "impulse_noise",
            Self::DefocusBlur => "defocus_blur",
            Self::GlassBlur => "glass_blur",
            Self::MotionBlur => "motion_blur",
            Self::ZoomBlur => "zoom_blur",
            Self::Snow => "snow",
            Self::Frost => "frost",
            Self::Fog => "fog",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::ElasticTransform => "elastic_transform",
            Self::Pixelate => "pixelate",
            Self::JpegCompression => "jpeg_compression",
            Self::SpeckleNoise => "speckle_noise",
            Self::GaussianBlur => "gaussian_blur",
            Self::Spatter => "spatter",
            Self::Saturate => "saturate",
        }
    }

    /// Whether it is one of the fifteen main ones.
    pub fn is_main(self) -> bool {
        Self::MAIN.contains(&self)
    }

    /// Whether it can be computed: frost is made of photographs, which are not here.
    pub fn is_generated(self) -> bool {
        self != Self::Frost
    }

    /// Whether it adds a colour, so that it has no meaning for grey images.
    pub fn needs_colour(self) -> bool {
        matches!(self, Self::Spatter | Self::Saturate)
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where corrupted test images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShiftSource {
    /// Computed from the test images, with the constants of the official script.
    Generated,
    /// Read from the official CIFAR-10-C or CIFAR-100-C files.
    Files,
}

/// Corrupted test images to evaluate on: every corruption at every severity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShiftSpec {
    /// Where the images come from.
    pub source: ShiftSource,
    /// Corruptions, in the order of [`Corruption::ALL`].
    pub corruptions: Vec<Corruption>,
    /// Severities, ascending, each from 1 to 5.
    pub severities: Vec<u32>,
    /// Use only the first so many test images. `None` for as many as in the clean test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl ShiftSpec {
    /// Severities of the benchmark.
    pub const SEVERITIES: [u32; 5] = [1, 2, 3, 4, 5];

    /// Every corruption with every severity, corruption by corruption.
    pub fn pairs(&self) -> impl Iterator<Item = (Corruption, u32)> + '_ {
        self.corruptions
            .iter()
            .flat_map(|&corruption| self.severities.iter().map(move |&severity| (corruption, severity)))
    }
}
