//! Blur along a line, as ImageMagick computes it with 16 bits a value.
//!
//! Source: `MotionBlurImageChannel` and `GetMotionBlurKernel` of ImageMagick 6: half a Gaussian along the line,
//! places rounded to pixels, the nearest pixel beyond the border.

use super::filter::Border;
use super::{Picture, Severity};
use crate::rng::Stream;

/// Blurs along a line of random direction, from −45° to 45°.
pub(super) fn motion_blur(picture: &Picture, severity: Severity, stream: &mut Stream) -> Picture {
    let (radius, sigma) = severity.of([(6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)]);
    let angle = -45.0 + 90.0 * stream.f64();
    along_line(picture, radius, sigma, angle)
}

/// Blurs with `2·radius + 1` taps along the direction `angle`, in degrees.
pub(super) fn along_line(picture: &Picture, radius: u32, sigma: f64, angle: f64) -> Picture {
    let taps = taps(radius, sigma, angle);
    let Picture { side, channels, .. } = *picture;
    let mut bytes = Vec::with_capacity(picture.bytes.len());
    for row in 0..side.cast_signed() {
        for column in 0..side.cast_signed() {
            for channel in 0..channels {
                let sum: f64 = taps
                    .iter()
                    .map(|&(dy, dx, weight)| {
                        let y = Border::Nearest.index(row + dy, side);
                        let x = Border::Nearest.index(column + dx, side);
                        weight * 257.0 * f64::from(picture.bytes[(y * side + x) * channels + channel])
                    })
                    .sum();
                bytes.push(to_byte(sum));
            }
        }
    }
    Picture { bytes, ..*picture }
}

/// Row, column and weight of each tap.
fn taps(radius: u32, sigma: f64, angle: f64) -> Vec<(isize, isize, f64)> {
    let width = 2 * radius + 1;
    let weight = |at: u32| (-f64::from(at * at) / (2.0 * sigma * sigma)).exp();
    let sum: f64 = (0..width).map(weight).sum();
    let (sin, cos) = angle.to_radians().sin_cos();
    let length = (f64::from(width) * sin).hypot(f64::from(width) * cos);
    #[expect(clippy::cast_possible_truncation, reason = "a few pixels")]
    let place =
        |at: u32, part: f64| (f64::from(at) * (f64::from(width) * part) / length - 0.5).ceil() as isize;
    (0..width).map(|at| (place(at, sin), place(at, cos), weight(at) / sum)).collect()
}

/// A value of 16 bits, rounded, as one of 8 bits.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 65,535, then to 255")]
fn to_byte(value: f64) -> u8 {
    let quantum = (value + 0.5) as u32 + 128;
    ((quantum - (quantum >> 8)) >> 8) as u8
}
