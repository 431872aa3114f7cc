//! Pictures of another size, to the bit as Pillow resizes them, and of another number of channels.
//!
//! Source: Pillow's `Resample.c`: weights of a box or triangle filter that widens with the reduction (so it is
//! antialiased), in fixed point of 22 bits, over columns first; each pass is rounded to bytes.

use crate::corrupt::scale_to_byte;
use crate::images::{Images, Shape};

/// A picture as decoders give it: row by row, the channels of a pixel side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raster {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) channels: usize,
    pub(crate) bytes: Vec<u8>,
}

/// Which filter weighs the pixels under a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    /// All alike.
    Box,
    /// Falling linearly to both sides.
    Bilinear,
}

impl Filter {
    /// Half of its width without a reduction.
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bilinear => 1.0,
        }
    }

    fn weight(self, at: f64) -> f64 {
        match self {
            Self::Box if at > -0.5 && at <= 0.5 => 1.0,
            Self::Box => 0.0,
            Self::Bilinear => (1.0 - at.abs()).max(0.0),
        }
    }
}

const PRECISION: u32 = 22;

/// The pixels under a new one: the first, and their weights in fixed point.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "places in a picture; weights below 2²²"
)]
fn windows(from: usize, to: usize, filter: Filter) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let widening = scale.max(1.0);
    let support = filter.support() * widening;
    let window = |at: usize| {
        let centre = (at as f64 + 0.5) * scale;
        let first = ((centre - support + 0.5) as i64).max(0) as usize;
        let end = ((centre + support + 0.5) as i64).min(from as i64) as usize;
        let step = 1.0 / widening;
        let weights: Vec<f64> = (0..end - first)
            .map(|offset| filter.weight(((offset + first) as f64 - centre + 0.5) * step))
            .collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: f64| (0.5 + weight * f64::from(1_u32 << PRECISION)) as i32;
        let weights =
            weights.iter().map(|weight| fixed(if sum == 0.0 { *weight } else { weight * (1.0 / sum) }));
        Window { first, weights: weights.collect() }
    };
    (0..to).map(window).collect()
}

/// The weighted sum of values, rounded to a byte.
fn weighted(window: &Window, value: impl Fn(usize) -> u8) -> u8 {
    let start = 1_i32 << (PRECISION - 1);
    let sum = window
        .weights
        .iter()
        .enumerate()
        .fold(start, |sum, (offset, weight)| sum + i32::from(value(window.first + offset)) * weight);
    u8::try_from((sum >> PRECISION).clamp(0, 255)).unwrap_or(u8::MAX)
}

impl Raster {
    /// The picture in another size.
    pub(crate) fn resized(&self, width: usize, height: usize, filter: Filter) -> Self {
        let channels = self.channels;
        let mut out = self.clone();
        if width != self.width {
            let windows = windows(self.width, width, filter);
            out.width = width;
            out.bytes = (0..self.height * width * channels)
                .map(|at| {
                    let (row, column, channel) =
                        (at / (width * channels), at / channels % width, at % channels);
                    let line = &self.bytes[row * self.width * channels..];
                    weighted(&windows[column], |x| line[x * channels + channel])
                })
                .collect();
        }
        if height != out.height {
            let windows = windows(out.height, height, filter);
            let stride = out.width * channels;
            let bytes = (0..height * stride)
                .map(|at| weighted(&windows[at / stride], |y| out.bytes[y * stride + at % stride]))
                .collect();
            out = Self { height, bytes, ..out };
        }
        out
    }

    /// The picture with its shorter side as long as `side`, and the square in its middle; as torchvision's `Resize` and
    /// `CenterCrop` do it.
    pub(crate) fn covering(&self, side: usize, shorter: usize) -> Self {
        let longer = |length: usize, short: usize| shorter * length / short;
        let (width, height) = if self.width <= self.height {
            (shorter, longer(self.height, self.width))
        } else {
            (longer(self.width, self.height), shorter)
        };
        self.resized(width, height, Filter::Bilinear).centre(side)
    }

    /// The square of side `side` in the middle; half a pixel more is left above and to the left when Python rounds it so.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "places in a picture")]
    fn centre(&self, side: usize) -> Self {
        let before = |length: usize| ((length - side) as f64 / 2.0).round_ties_even() as usize;
        let (top, left) = (before(self.height), before(self.width));
        let row = |row: usize| {
            let start = ((top + row) * self.width + left) * self.channels;
            &self.bytes[start..start + side * self.channels]
        };
        let bytes = (0..side).flat_map(row).copied().collect();
        Self { width: side, height: side, channels: self.channels, bytes }
    }

    /// The picture in grey (1 channel) or RGB (3): grey is repeated, and RGB weighed as Pillow does (ITU-R 601-2).
    pub(crate) fn with_channels(self, channels: usize) -> Self {
        let bytes: Vec<u8> = match (self.channels, channels) {
            (1, 3) => self.bytes.iter().flat_map(|&grey| [grey; 3]).collect(),
            (3, 1) => self.bytes.chunks_exact(3).map(luma).collect(),
            _ => return self,
        };
        Self { channels, bytes, ..self }
    }

    /// Appends the picture as `[C, H, W]`.
    pub(crate) fn append_planes(&self, out: &mut Vec<u8>) {
        for channel in 0..self.channels {
            out.extend(self.bytes.iter().skip(channel).step_by(self.channels));
        }
    }

    /// From `[C, H, W]` with values from 0 to `max`.
    fn from_planes(planes: &[u8], shape: Shape, max: u8) -> Self {
        let bytes = (0..planes.len())
            .map(|at| scale_to_byte(planes[at % shape.channels * shape.plane() + at / shape.channels], max));
        Self { width: shape.width, height: shape.height, channels: shape.channels, bytes: bytes.collect() }
    }
}

fn luma(pixel: &[u8]) -> u8 {
    let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    u8::try_from((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16).unwrap_or(u8::MAX)
}

/// Square images in another square shape: channels first, then size, antialiased bilinear.
///
/// The pixels of the result go from 0 to 255.
pub(crate) fn reshape(images: &Images, max_value: u8, to: Shape) -> Images {
    let from = images.shape();
    let mut pixels = Vec::with_capacity(images.len() * to.pixels());
    for index in 0..images.len() {
        Raster::from_planes(images.image(index), from, max_value)
            .with_channels(to.channels)
            .covering(to.width, to.width)
            .append_planes(&mut pixels);
    }
    images.with_pixels(to, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_is_repeated_and_colours_are_weighed() {
        let grey = Raster { width: 1, height: 1, channels: 1, bytes: vec![7] };
        assert_eq!(grey.clone().with_channels(3).bytes, [7, 7, 7]);
        assert_eq!(grey.with_channels(3).with_channels(1).bytes, [7]);
        let red = Raster { width: 1, height: 1, channels: 3, bytes: vec![255, 0, 0] };
        assert_eq!(red.with_channels(1).bytes, [76]);
    }

    #[test]
    fn the_middle_of_a_wide_picture_is_kept() {
        let wide = Raster { width: 7, height: 2, channels: 1, bytes: (0..14).collect() };
        // (7 − 2) / 2 = 2.5, which Python rounds to 2.
        assert_eq!(wide.covering(2, 2).bytes, [2, 3, 9, 10]);
    }

    #[test]
    fn halving_averages_and_an_equal_size_changes_nothing() {
        let picture = Raster { width: 2, height: 2, channels: 1, bytes: vec![0, 10, 20, 31] };
        assert_eq!(picture.resized(1, 1, Filter::Box).bytes, [16]);
        assert_eq!(picture.resized(2, 2, Filter::Bilinear), picture);
    }

    /// `fixtures/resized.gz`: `fixtures/make_golden_pictures.py`, Pillow 13.0.0.
    #[test]
    fn pictures_are_resized_to_the_bit_as_by_pillow() {
        let mut golden = Vec::new();
        let file = &include_bytes!("../fixtures/resized.gz")[..];
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(file), &mut golden).unwrap();
        let mut golden = golden.into_iter();
        let mut take = |count: usize| golden.by_ref().take(count).collect::<Vec<u8>>();
        let picture = Raster { width: 37, height: 29, channels: 3, bytes: take(37 * 29 * 3) };
        for (width, height, filter) in [
            (11, 9, Filter::Bilinear),
            (64, 50, Filter::Bilinear),
            (37, 9, Filter::Bilinear),
            (11, 9, Filter::Box),
            (40, 31, Filter::Box),
        ] {
            assert_eq!(
                picture.resized(width, height, filter).bytes,
                take(width * height * 3),
                "{width}×{height}"
            );
        }
    }
}
