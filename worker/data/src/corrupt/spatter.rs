//! Drops of water (severities 1 to 3) or mud (4 and 5), on RGB images only.
//!
//! Water has edges that shine: they come of OpenCV's Canny edge detector, its 5×5 distance transform and an
//! equalised histogram, which are small enough to stand here.

use std::collections::VecDeque;

use super::filter::{Border, Grid, filter_2d, gaussian_filter};
use super::{Picture, Severity};
use crate::rng::Stream;

/// Location and scale of the noise, its blur, the threshold of drops, and strength of water or blur of mud.
const CONSTANTS: [(f64, f64, f64, f64, f64); 5] = [
    (0.62, 0.1, 0.7, 0.7, 0.5),
    (0.65, 0.1, 0.8, 0.7, 0.5),
    (0.65, 0.3, 1.0, 0.69, 0.5),
    (0.65, 0.1, 0.7, 0.69, 0.6),
    (0.65, 0.1, 0.5, 0.68, 0.6),
];
const WATER: [f32; 3] = [175.0, 238.0, 238.0];
const MUD: [f32; 3] = [63.0, 42.0, 20.0];

/// Puts drops on the picture.
pub(super) fn spatter(picture: &Picture, severity: Severity, stream: &mut Stream) -> Picture {
    let (location, scale, blur, threshold, last) = severity.of(CONSTANTS);
    let side = picture.side;
    let grid = Grid::square(side, 1);
    let noise: Vec<f64> = (0..side * side).map(|_| location + scale * stream.normal()).collect();
    let liquid = gaussian_filter(&noise, grid, blur, 4.0, Border::Nearest, |value| value);
    let liquid: Vec<f64> =
        liquid.into_iter().map(|value| if value < threshold { 0.0 } else { value }).collect();
    if severity.number() <= 3 {
        water(picture, &liquid, last)
    } else {
        mud(picture, &liquid, threshold, last)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "single precision where the script has it")]
fn mud(picture: &Picture, liquid: &[f64], threshold: f64, blur: f64) -> Picture {
    let drops: Vec<f64> = liquid.iter().map(|&value| f64::from(u8::from(value > threshold))).collect();
    let single = |value: f64| f64::from(value as f32);
    let grid = Grid::square(picture.side, 1);
    let cover = gaussian_filter(&drops, grid, blur, 4.0, Border::Nearest, single);
    let cover: Vec<f32> =
        cover.into_iter().map(|value| if value < 0.8 { 0.0 } else { value as f32 }).collect();
    let values = picture.unit_f32();
    picture.with_unit_f32(values.iter().enumerate().map(|(at, value)| {
        let cover = cover[at / 3];
        value * (1.0 - cover) + MUD[at % 3] / 255.0 * cover
    }))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bytes and single precision, as the script has them"
)]
fn water(picture: &Picture, liquid: &[f64], strength: f64) -> Picture {
    let side = picture.side;
    let liquid: Vec<u8> = liquid.iter().map(|value| (value * 255.0) as u8).collect();
    let shine = shine(&liquid, side);
    let film: Vec<f32> =
        liquid.iter().zip(&shine).map(|(&liquid, &shine)| f32::from(liquid) * shine).collect();
    let largest = film.iter().copied().fold(0.0, f32::max);
    // Without a drop the script divides by 0, and the picture is lost; here it stays as it is.
    let film: Vec<f32> =
        film.iter().map(|film| if largest == 0.0 { 0.0 } else { film / largest * strength as f32 }).collect();
    let values = picture.unit_f32();
    picture.with_unit_f32(
        values.iter().enumerate().map(|(at, value)| value + film[at / 3] * (WATER[at % 3] / 255.0)),
    )
}

/// How much each pixel shines: less, the further it is from the edge of a drop.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes, rounded as OpenCV does")]
fn shine(liquid: &[u8], side: usize) -> Vec<f32> {
    let grid = Grid::square(side, 1);
    let distance = distances(&edges(liquid, side), side);
    let cut: Vec<f64> = distance.into_iter().map(|distance| f64::from(distance.min(20.0))).collect();
    // The mean in single precision, so that the mean of equal numbers is the number before it is rounded down.
    let blurred: Vec<u8> =
        filter_2d(&cut, grid, &[1.0; 9]).into_iter().map(|sum| (sum / 9.0) as f32 as u8).collect();
    let equal: Vec<f64> = equalised(&blurred).into_iter().map(f64::from).collect();
    let kernel = [-2.0, -1.0, 0.0, -1.0, 1.0, 1.0, 0.0, 1.0, 2.0];
    let raised: Vec<f64> =
        filter_2d(&equal, grid, &kernel).into_iter().map(|value| value.clamp(0.0, 255.0)).collect();
    let sums = filter_2d(&raised, grid, &[1.0; 9]);
    sums.into_iter().map(|sum| f32::from((sum / 9.0).round() as u8)).collect()
}

/// OpenCV's `equalizeHist`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 255")]
fn equalised(bytes: &[u8]) -> Vec<u8> {
    let mut counts = [0_usize; 256];
    for &byte in bytes {
        counts[usize::from(byte)] += 1;
    }
    let first = counts.iter().position(|&count| count > 0).unwrap_or(0);
    if counts[first] == bytes.len() {
        return bytes.to_vec();
    }
    let scale = 255.0 / (bytes.len() - counts[first]) as f32;
    let mut sum = 0;
    let mut table = [0; 256];
    for value in first + 1..256 {
        sum += counts[value];
        table[value] = (sum as f32 * scale).round_ties_even() as u8;
    }
    bytes.iter().map(|&byte| table[usize::from(byte)]).collect()
}

/// Canny's edges with thresholds 50 and 150, 3×3 derivatives and their sum as the strength, as OpenCV finds them.
fn edges(bytes: &[u8], side: usize) -> Vec<bool> {
    const LOW: i32 = 50;
    const HIGH: i32 = 150;
    let gradient = gradients(bytes, side);
    let strength = |row: isize, column: isize| {
        let inside = 0..side.cast_signed();
        if !inside.contains(&row) || !inside.contains(&column) {
            return 0;
        }
        let (dx, dy) = gradient[row.cast_unsigned() * side + column.cast_unsigned()];
        dx.abs() + dy.abs()
    };
    let ridge = |at: usize| {
        let (row, column) = ((at / side).cast_signed(), (at % side).cast_signed());
        let here = strength(row, column);
        here > LOW && is_ridge(gradient[at], here, |dy, dx| strength(row + dy, column + dx))
    };
    let candidates: Vec<bool> = (0..side * side).map(ridge).collect();
    let strong = |at: &usize| strength((at / side).cast_signed(), (at % side).cast_signed()) > HIGH;
    let mut queue: VecDeque<usize> = (0..side * side).filter(|&at| candidates[at]).filter(strong).collect();
    let mut found = vec![false; side * side];
    for &at in &queue {
        found[at] = true;
    }
    while let Some(at) = queue.pop_front() {
        let (row, column) = (at / side, at % side);
        for y in row.saturating_sub(1)..(row + 2).min(side) {
            for x in column.saturating_sub(1)..(column + 2).min(side) {
                let next = y * side + x;
                if candidates[next] && !found[next] {
                    found[next] = true;
                    queue.push_back(next);
                }
            }
        }
    }
    found
}

/// Whether a pixel of strength `here` is the strongest across its edge; ties go as in OpenCV.
fn is_ridge((dx, dy): (i32, i32), here: i32, strength: impl Fn(isize, isize) -> i32) -> bool {
    // tan 22.5° in fixed point.
    const TANGENT: i64 = 13_573;
    let (x, y) = (i64::from(dx.abs()), i64::from(dy.abs()) << 15);
    let shallow = x * TANGENT;
    let steep = shallow + (x << 16);
    if y < shallow {
        here > strength(0, -1) && here >= strength(0, 1)
    } else if y > steep {
        here > strength(-1, 0) && here >= strength(1, 0)
    } else {
        let slant = if (dx ^ dy) < 0 { -1 } else { 1 };
        here > strength(-1, -slant) && here > strength(1, slant)
    }
}

/// Sobel's derivatives to the right and down; the border is continued by its nearest pixel.
fn gradients(bytes: &[u8], side: usize) -> Vec<(i32, i32)> {
    let of = |at: usize| {
        let value = |dy: isize, dx: isize| {
            let y = Border::Nearest.index((at / side).cast_signed() + dy, side);
            let x = Border::Nearest.index((at % side).cast_signed() + dx, side);
            i32::from(bytes[y * side + x])
        };
        let [nw, n, ne] = [value(-1, -1), value(-1, 0), value(-1, 1)];
        let [w, e] = [value(0, -1), value(0, 1)];
        let [sw, s, se] = [value(1, -1), value(1, 0), value(1, 1)];
        (ne + 2 * e + se - nw - 2 * w - sw, sw + 2 * s + se - nw - 2 * n - ne)
    };
    (0..side * side).map(of).collect()
}

/// Distance of each pixel to the nearest edge by OpenCV's mask of 5×5: steps of 1, 1.4 and 2.1969, in fixed point.
fn distances(edges: &[bool], side: usize) -> Vec<f32> {
    const FAR: u32 = 1 << 29;
    const FORWARD: [(isize, isize, f64); 8] = [
        (-2, -1, 2.1969),
        (-2, 1, 2.1969),
        (-1, -2, 2.1969),
        (-1, -1, 1.4),
        (-1, 0, 1.0),
        (-1, 1, 1.4),
        (-1, 2, 2.1969),
        (0, -1, 1.0),
    ];
    let mut distance: Vec<u32> = edges.iter().map(|&edge| if edge { 0 } else { FAR }).collect();
    let inside = 0..side.cast_signed();
    let mut relax = |at: usize, sign: isize| {
        let (row, column) = ((at / side).cast_signed(), (at % side).cast_signed());
        for (dy, dx, step) in FORWARD {
            let (y, x) = (row + sign * dy, column + sign * dx);
            if inside.contains(&y) && inside.contains(&x) {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a positive step"
                )]
                let step = (step * 65_536.0).round_ties_even() as u32;
                let next = (y * side.cast_signed() + x).cast_unsigned();
                distance[at] = distance[at].min(distance[next] + step);
            }
        }
    };
    (0..side * side).for_each(|at| relax(at, 1));
    (0..side * side).rev().for_each(|at| relax(at, -1));
    distance.into_iter().map(|distance| distance as f32 / 65_536.0).collect()
}
