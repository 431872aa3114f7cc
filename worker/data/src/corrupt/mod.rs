//! The corruptions of CIFAR-10-C, computed: how test images look after noise, blur, weather and compression.
//!
//! Source: Hendrycks and Dietterich, *Benchmarking Neural Network Robustness to Common Corruptions and Perturbations*,
//! ICLR 2019, and their script `make_cifar_c.py`, whose constants, order of operations, precision and rounding (down,
//! as `np.uint8` does) are followed; where it says 32, the side of the image stands here. Its random generator is
//! replaced: an image's draws come from the stream (seed 0, purpose "corruption", number in [`Corruption::ALL`],
//! severity, image id) of [`rng`](crate::rng), in the order of the script. So a corrupted set is the same for every
//! method, seed and process, and differs from the published files in the draws alone.
//!
//! Refused: real features, images that are not square or narrower than 8, and for grey images what adds a colour
//! (spatter, saturate). Frost is made of photographs that are not here; it is read from the published files only.
//!
//! Two oddities of the script are kept: glass blur copies a neighbour where it means to swap with it (its two names
//! mean the same memory), and zooming by scipy may leave a black line at the edge.

mod blur;
mod colour;
mod digital;
mod elastic;
mod filter;
mod jpeg;
mod motion;
mod noise;
mod spatter;
mod weather;

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use crate::images::{Images, Shape};
use crate::rng::{Purpose, Stream};

const PURPOSE: Purpose = Purpose::named("corruption");
const SMALLEST_SIDE: usize = 8;

/// A corruption by its official name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// Every corruption; the position is part of the name of its random numbers, so new ones go to the end.
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

    /// The official name, which is that of its file, too.
    pub fn as_str(self) -> &'static str {
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
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A name that is no corruption.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no corruption; known are {}", Corruption::ALL.map(Corruption::as_str).join(", "))]
pub struct UnknownCorruption {
    /// The name given.
    pub given: Box<str>,
}

impl FromStr for Corruption {
    type Err = UnknownCorruption;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|corruption| corruption.as_str() == given)
            .ok_or_else(|| UnknownCorruption { given: given.into() })
    }
}

/// How strong a corruption is, from 1 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Severity(u8);

impl Severity {
    /// Every severity.
    pub const ALL: [Self; 5] = [Self(1), Self(2), Self(3), Self(4), Self(5)];

    /// The severity with this number; nothing beyond 1 to 5.
    pub fn new(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| u32::from(severity.0) == number)
    }

    /// Its number, from 1 to 5.
    pub fn number(self) -> u32 {
        u32::from(self.0)
    }

    /// The constant of this severity.
    fn of<T: Copy>(self, constants: [T; 5]) -> T {
        constants[usize::from(self.0) - 1]
    }
}

/// Why images cannot be corrupted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorruptError {
    /// Frost is made of photographs.
    #[error("frost is made of photographs that are not here: read the published files")]
    Photographs,
    /// Corruptions change pixels.
    #[error("real features have no pixels to corrupt")]
    NoPixels,
    /// The definition does not cover the shape.
    #[error("images of {shape} cannot be corrupted: they have to be square, at least 8 wide, grey or RGB")]
    Shape {
        /// The shape.
        shape: Shape,
    },
    /// Spatter and saturate add a colour.
    #[error("{corruption} adds a colour, which grey images cannot show")]
    Colour {
        /// The corruption.
        corruption: Corruption,
    },
}

/// The images after `corruption`, with pixels from 0 to 255. The result does not depend on the number of threads.
///
/// # Errors
///
/// [`CorruptError`] when the corruption is not defined for such images.
pub fn corrupt(
    images: &Images,
    corruption: Corruption,
    severity: Severity,
    threads: NonZeroUsize,
) -> Result<Images, CorruptError> {
    let shape = images.shape();
    let max_value = images.max_value().ok_or(CorruptError::NoPixels)?;
    let square = shape.height == shape.width && shape.height >= SMALLEST_SIDE;
    if !square || !matches!(shape.channels, 1 | 3) {
        return Err(CorruptError::Shape { shape });
    }
    let apply = method(corruption, shape)?;
    let number =
        Corruption::ALL.iter().position(|other| *other == corruption).expect("all are listed") as u64;
    let part = |indices: std::ops::Range<usize>| {
        let mut pixels = Vec::with_capacity(indices.len() * shape.pixels());
        for index in indices {
            let name = [number, u64::from(severity.0), u64::from(images.ids()[index])];
            let mut stream = Stream::new(0, PURPOSE, &name);
            let picture = Picture::from_planes(images.image(index), shape, max_value);
            apply(&picture, severity, &mut stream).append_planes(&mut pixels);
        }
        pixels
    };
    let share = images.len().div_ceil(threads.get()).max(1);
    let parts: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let start = |first: usize| scope.spawn(move || part(first..(first + share).min(images.len())));
        let running: Vec<_> = (0..images.len()).step_by(share).map(start).collect();
        running.into_iter().map(|thread| thread.join().expect("a corruption does not panic")).collect()
    });
    Ok(images.with_pixels(shape, parts.concat()))
}

type Method = fn(&Picture, Severity, &mut Stream) -> Picture;

fn method(corruption: Corruption, shape: Shape) -> Result<Method, CorruptError> {
    Ok(match corruption {
        Corruption::GaussianNoise => noise::gaussian,
        Corruption::ShotNoise => noise::shot,
        Corruption::ImpulseNoise => noise::impulse,
        Corruption::DefocusBlur => blur::defocus,
        Corruption::GlassBlur => blur::glass,
        Corruption::MotionBlur => motion::motion_blur,
        Corruption::ZoomBlur => blur::zoom,
        Corruption::Snow => weather::snow,
        Corruption::Frost => return Err(CorruptError::Photographs),
        Corruption::Fog => weather::fog,
        Corruption::Brightness => colour::brightness,
        Corruption::Contrast => colour::contrast,
        Corruption::ElasticTransform => elastic::elastic_transform,
        Corruption::Pixelate => digital::pixelate,
        Corruption::JpegCompression => digital::jpeg_compression,
        Corruption::SpeckleNoise => noise::speckle,
        Corruption::GaussianBlur => blur::gaussian,
        Corruption::Spatter | Corruption::Saturate if shape.channels == 1 => {
            return Err(CorruptError::Colour { corruption });
        }
        Corruption::Spatter => spatter::spatter,
        Corruption::Saturate => colour::saturate,
    })
}

/// An image as the script sees it: bytes, row by row, the channels of a pixel side by side.
#[derive(Debug, Clone, PartialEq)]
struct Picture {
    side: usize,
    channels: usize,
    bytes: Vec<u8>,
}

impl Picture {
    /// From `[C, H, W]`; values of formats with another maximum are scaled to 0..=255.
    fn from_planes(planes: &[u8], shape: Shape, max_value: u8) -> Self {
        let plane = shape.plane();
        let scaled = |value: u8| match max_value {
            u8::MAX => value,
            max => scale_to_byte(value, max),
        };
        let bytes = (0..planes.len())
            .map(|at| scaled(planes[at % shape.channels * plane + at / shape.channels]))
            .collect();
        Self { side: shape.height, channels: shape.channels, bytes }
    }

    fn append_planes(&self, out: &mut Vec<u8>) {
        for channel in 0..self.channels {
            out.extend(self.bytes.iter().skip(channel).step_by(self.channels));
        }
    }

    /// Values from 0 to 1.
    fn unit(&self) -> Vec<f64> {
        self.bytes.iter().map(|&byte| f64::from(byte) / 255.0).collect()
    }

    /// The same in single precision, each divided there.
    fn unit_f32(&self) -> Vec<f32> {
        self.bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect()
    }

    /// The picture with these values from 0 to 1, cut at both ends and rounded down.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 255, rounded down as meant"
    )]
    fn with_unit(&self, values: impl IntoIterator<Item = f64>) -> Self {
        let bytes = values.into_iter().map(|value| (value.clamp(0.0, 1.0) * 255.0) as u8).collect();
        Self { bytes, ..*self }
    }

    /// As [`with_unit`](Self::with_unit), in single precision.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 255, rounded down as meant"
    )]
    fn with_unit_f32(&self, values: impl IntoIterator<Item = f32>) -> Self {
        let bytes = values.into_iter().map(|value| (value.clamp(0.0, 1.0) * 255.0) as u8).collect();
        Self { bytes, ..*self }
    }
}

/// A value from 0 to `max` as one from 0 to 255, rounded to the nearest.
pub(crate) fn scale_to_byte(value: u8, max: u8) -> u8 {
    let (value, max) = (u16::from(value), u16::from(max));
    u8::try_from((value * 255 + max / 2) / max).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests;
