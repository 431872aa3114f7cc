//! Blur by a lens, by frosted glass, by zooming in, and Gaussian blur.

use super::filter::{Border, Grid, clipped_zoom, filter_2d, gaussian_filter};
use super::{Picture, Severity};
use crate::rng::Stream;

/// scikit-image's `gaussian` with its defaults.
fn gaussian_of(picture: &Picture, values: &[f64], sigma: f64) -> Vec<f64> {
    let grid = Grid::square(picture.side, picture.channels);
    gaussian_filter(values, grid, sigma, 4.0, Border::Nearest, |value| value)
}

/// Gaussian blur.
pub(super) fn gaussian(picture: &Picture, severity: Severity, _: &mut Stream) -> Picture {
    let sigma = severity.of([0.4, 0.6, 0.7, 0.8, 1.0]);
    picture.with_unit(gaussian_of(picture, &picture.unit(), sigma))
}

/// Gaussian blur, then pixels moved by at most one, from the last to the first, then blur again.
pub(super) fn glass(picture: &Picture, severity: Severity, stream: &mut Stream) -> Picture {
    let (sigma, rounds) = severity.of([(0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)]);
    // At every severity of the small images pixels move by at most one.
    const REACH: usize = 1;
    let Picture { side, channels, .. } = *picture;
    let mut moved = picture.with_unit(gaussian_of(picture, &picture.unit(), sigma));
    for _ in 0..rounds {
        for row in (REACH + 1..=side - REACH).rev() {
            for column in (REACH + 1..=side - REACH).rev() {
                // Drawn from −reach up to, not including, reach: 0 or one back.
                let dx = stream.index(2 * REACH);
                let dy = stream.index(2 * REACH);
                let from = ((row + dy - REACH) * side + column + dx - REACH) * channels;
                let to = (row * side + column) * channels;
                moved.bytes.copy_within(from..from + channels, to);
            }
        }
    }
    picture.with_unit(gaussian_of(picture, &moved.unit(), sigma))
}

/// A disk with a softened edge.
pub(super) fn defocus(picture: &Picture, severity: Severity, _: &mut Stream) -> Picture {
    let (radius, softening) = severity.of([(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)]);
    let grid = Grid::square(picture.side, picture.channels);
    picture.with_unit(filter_2d(&picture.unit(), grid, &disk(radius, softening)))
}

/// Pixels of a disk, smoothed by three taps in each direction; of side 7, beyond which all is zero.
///
/// In single precision where OpenCV has it.
fn disk(radius: f64, softening: f64) -> Vec<f64> {
    const REACH: i32 = 3;
    const SIDE: usize = 7;
    let square = |at: i32| f64::from(at * at);
    let inside = |y: i32, x: i32| square(x) + square(y) <= radius * radius;
    let cells = (-REACH..=REACH).flat_map(|y| (-REACH..=REACH).map(move |x| (y, x)));
    let disk: Vec<f32> = cells.map(|(y, x)| f32::from(u8::from(inside(y, x)))).collect();
    let sum: f32 = disk.iter().sum();
    let disk: Vec<f32> = disk.iter().map(|cell| cell / sum).collect();
    let taps = three_taps(softening);
    let along = |values: &[f32], stride: usize| -> Vec<f32> {
        let value = |at: Option<usize>| at.and_then(|at| values.get(at)).copied().unwrap_or(0.0);
        (0..SIDE * SIDE)
            .map(|at| {
                taps[0] * (value(at.checked_sub(stride)) + value(Some(at + stride)))
                    + taps[1] * value(Some(at))
            })
            .collect()
    };
    let rows = along(&disk, 1);
    along(&rows, SIDE).into_iter().map(f64::from).collect()
}

/// Outer and middle weight of OpenCV's Gaussian kernel of three taps.
#[expect(clippy::cast_possible_truncation, reason = "the kernel is kept in single precision")]
fn three_taps(sigma: f64) -> [f32; 2] {
    let outer = (-0.5 / (sigma * sigma)).exp();
    let sum = 1.0 + 2.0 * outer;
    [(outer / sum) as f32, (1.0 / sum) as f32]
}

/// The mean of the picture and of enlargements of its middle.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "single precision, and small numbers"
)]
pub(super) fn zoom(picture: &Picture, severity: Severity, _: &mut Stream) -> Picture {
    const STEP: f64 = 0.01;
    let end = severity.of([1.06, 1.11, 1.16, 1.21, 1.26]);
    // As many as numpy's `arange` gives: rounding makes it one more than meant.
    let count = ((end - 1.0) / STEP).ceil() as u32;
    let values = picture.unit_f32();
    let wide: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
    let mut sums = vec![0.0_f32; values.len()];
    for index in 0..count {
        let factor = 1.0 + f64::from(index) * STEP;
        let zoomed = clipped_zoom(&wide, picture.side, picture.channels, factor);
        for (sum, value) in sums.iter_mut().zip(zoomed) {
            *sum += value as f32;
        }
    }
    let number = count as f32 + 1.0;
    picture.with_unit_f32(values.iter().zip(sums).map(|(value, sum)| (value + sum) / number))
}
