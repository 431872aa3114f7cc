//! An affine map of three points that are moved at random, then a smooth random displacement of each pixel.
//!
//! The affine map is OpenCV's `warpAffine` as of versions 3 and 4: places in fixed point, to a 32nd of a pixel.

use super::filter::{Border, Grid, gaussian_filter};
use super::{Picture, Severity};
use crate::rng::Stream;

/// Strength and smoothness of the displacement, and reach of the affine map, in sides of the picture.
const CONSTANTS: [(f64, f64, f64); 5] =
    [(0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)];

/// Stretches the picture at random.
#[expect(clippy::cast_possible_truncation, reason = "single precision where the script has it")]
pub(super) fn elastic_transform(picture: &Picture, severity: Severity, stream: &mut Stream) -> Picture {
    let side = picture.side;
    let (alpha, sigma, reach) = severity.of(CONSTANTS);
    let [alpha, sigma, reach] = [alpha, sigma, reach].map(|constant| side as f64 * constant);
    let warped = warp(picture, &inverse_map(side, reach, stream));

    let mut displacement = || -> Vec<f64> {
        let noise: Vec<f64> = (0..side * side).map(|_| -1.0 + 2.0 * stream.f64()).collect();
        let smooth =
            gaussian_filter(&noise, Grid::square(side, 1), sigma, 3.0, Border::Reflect, |value| value);
        smooth.into_iter().map(|value| f64::from((value * alpha) as f32)).collect()
    };
    let (dx, dy) = (displacement(), displacement());
    let sample = |pixel: usize, channel: usize| {
        let (row, below) = place((pixel / side) as f64 + dy[pixel]);
        let (column, right) = place((pixel % side) as f64 + dx[pixel]);
        let value = |down: isize, across: isize| {
            let y = Border::Reflect.index(row + down, side);
            let x = Border::Reflect.index(column + across, side);
            f64::from(warped[(y * side + x) * picture.channels + channel])
        };
        let upper = value(0, 0) * (1.0 - right) + value(0, 1) * right;
        let lower = value(1, 0) * (1.0 - right) + value(1, 1) * right;
        (upper * (1.0 - below) + lower * below) as f32
    };
    let values =
        (0..side * side).flat_map(|pixel| (0..picture.channels).map(move |channel| (pixel, channel)));
    picture.with_unit_f32(values.map(|(pixel, channel)| sample(pixel, channel)).collect::<Vec<_>>())
}

/// A place as the pixel before it and the part of the way to the next.
#[expect(clippy::cast_possible_truncation, reason = "a place near the picture")]
fn place(at: f64) -> (isize, f64) {
    (at.floor() as isize, at - at.floor())
}

/// The map from places of the result to places of the picture, `x' = m0·x + m1·y + m2`, `y' = m3·x + m4·y + m5`.
#[expect(clippy::cast_possible_truncation, reason = "OpenCV takes points in single precision")]
fn inverse_map(side: usize, reach: f64, stream: &mut Stream) -> [f64; 6] {
    let centre = (side / 2) as f32;
    let arm = (side / 3) as f32;
    let from = [[centre + arm; 2], [centre + arm, centre - arm], [centre - arm; 2]];
    let to = from.map(|point| point.map(|at| at + (-reach + 2.0 * reach * stream.f64()) as f32));
    let [from, to] = [from, to].map(|points| points.map(|point| point.map(f64::from)));
    let [a, b, c, d, e, f] = affine(from, to);
    // The inverse, in OpenCV's order of operations.
    let determinant = a * e - b * d;
    let scale = if determinant == 0.0 { 0.0 } else { 1.0 / determinant };
    let [a, b, d, e] = [e * scale, -b * scale, -d * scale, a * scale];
    [a, b, -a * c - b * f, d, e, -d * c - e * f]
}

/// The affine map that takes three points to three others, by Cramer's rule.
fn affine(from: [[f64; 2]; 3], to: [[f64; 2]; 3]) -> [f64; 6] {
    let [[x0, y0], [x1, y1], [x2, y2]] = from;
    let determinant = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0);
    let row = |axis: usize| {
        let [u0, u1, u2] = to.map(|point| point[axis]);
        let a = ((u1 - u0) * (y2 - y0) - (u2 - u0) * (y1 - y0)) / determinant;
        let b = ((x1 - x0) * (u2 - u0) - (x2 - x0) * (u1 - u0)) / determinant;
        [a, b, u0 - a * x0 - b * y0]
    };
    let [[a, b, c], [d, e, f]] = [row(0), row(1)];
    [a, b, c, d, e, f]
}

/// OpenCV's bilinear `warpAffine` with the border mirrored at the outermost pixels.
#[expect(clippy::cast_possible_truncation, reason = "fixed point, as in OpenCV")]
fn warp(picture: &Picture, map: &[f64; 6]) -> Vec<f32> {
    const SCALE: f64 = 1024.0;
    const HALF: i32 = 16;
    let Picture { side, channels, .. } = *picture;
    let fixed = |value: f64| (value * SCALE).round_ties_even() as i32;
    let values = picture.unit_f32();
    let [a, b, c, d, e, f] = *map;
    let mut out = Vec::with_capacity(values.len());
    for row in 0..side {
        let start = [fixed(b * row as f64 + c) + HALF, fixed(e * row as f64 + f) + HALF];
        for column in 0..side {
            let x = (start[0] + fixed(a * column as f64)) >> 5;
            let y = (start[1] + fixed(d * column as f64)) >> 5;
            let (right, below) = ((x & 31) as f32 / 32.0, (y & 31) as f32 / 32.0);
            let index = |at: i32, step: isize| Border::Reflect101.index((at >> 5) as isize + step, side);
            for channel in 0..channels {
                let value = |down: isize, across: isize| {
                    values[(index(y, down) * side + index(x, across)) * channels + channel]
                };
                out.push(
                    value(0, 0) * ((1.0 - below) * (1.0 - right))
                        + value(0, 1) * ((1.0 - below) * right)
                        + value(1, 0) * (below * (1.0 - right))
                        + value(1, 1) * (below * right),
                );
            }
        }
    }
    out
}
