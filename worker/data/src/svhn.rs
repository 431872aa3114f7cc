//! SVHN, cropped digits: a MATLAB file with `X`, 32×32×3×N, and `y`, N×1, in which the digit 0 has label 10.
//!
//! Source: Netzer, Wang, Coates, Bissacco, Wu, Ng, *Reading Digits in Natural Images with Unsupervised Feature
//! Learning*, NIPS workshop 2011. The `extra` images are left out: no protocol here trains on them.

use crate::error::{DataError, Flaw, Problem};
use crate::images::Images;
use crate::load::{Request, consecutive_ids};
use crate::mat::{self, Array};
use crate::source;

const CHANNELS: usize = 3;
const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const PIXELS: usize = CHANNELS * PLANE;

pub(crate) fn load(request: Request<'_>) -> Result<Images, DataError> {
    let file = format!("{}_32x32.mat", request.split);
    let path = request.find(&[format!("svhn/{file}"), file])?;
    let official = request.name.official_len(request.split) as u64;
    // Twice the official size still lets a wrong count be reported as such.
    let limit = 2 * official * PIXELS as u64;
    let bytes = source::read(&path, limit)?;
    let corrupt = |flaw: Flaw| flaw.of(&path);
    let [images, labels] = mat::read_two(&bytes, ["X", "y"], limit).map_err(corrupt)?;
    drop(bytes);

    let count = image_count(&images).map_err(corrupt)?;
    request.check_count(&path, count, official)?;
    let labels = digit_labels(labels, count).map_err(corrupt)?;
    Ok(request.images(row_major(&images.data), labels, consecutive_ids(request_len(count))))
}

#[expect(clippy::cast_possible_truncation, reason = "at most the official count, which fits")]
fn request_len(count: u64) -> usize {
    count as usize
}

fn image_count(images: &Array) -> Result<u64, Flaw> {
    match images.axes[..] {
        [32, 32, 3, count] => Ok(count),
        // MATLAB drops the last axis when it is 1.
        [32, 32, 3] => Ok(1),
        _ => Err(Flaw::at(
            images.axes_at,
            Problem::Shape { found: images.axes.clone(), expected: "32×32×3×N" },
        )),
    }
}

/// Labels 1..=9 and, for the digit 0, 10, as 0..=9.
fn digit_labels(labels: Array, images: u64) -> Result<Vec<u8>, Flaw> {
    let [count, 1] = labels.axes[..] else {
        return Err(Flaw::at(labels.axes_at, Problem::Shape { found: labels.axes, expected: "N×1" }));
    };
    if count != images {
        return Err(Flaw::at(labels.axes_at, Problem::Labels { images, labels: count }));
    }
    let mut digits = labels.data;
    for (index, label) in digits.iter_mut().enumerate() {
        match *label {
            1..=9 => {}
            10 => *label = 0,
            other => {
                let position = labels.data_at.plus(index as u64);
                let problem = Problem::Label { found: u32::from(other), first: 1, last: 10 };
                return Err(Flaw::at(position, problem));
            }
        }
    }
    Ok(digits)
}

/// `[N, C, H, W]` row-major from H×W×C×N column-major: each plane is transposed.
fn row_major(column_major: &[u8]) -> Vec<u8> {
    let mut pixels = vec![0; column_major.len()];
    for (to, from) in pixels.chunks_exact_mut(PLANE).zip(column_major.chunks_exact(PLANE)) {
        for (row, line) in to.chunks_exact_mut(SIDE).enumerate() {
            for (column, pixel) in line.iter_mut().enumerate() {
                *pixel = from[column * SIDE + row];
            }
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Position;

    #[test]
    fn element_h_w_c_n_of_matlab_becomes_element_n_c_h_w() {
        let (n_total, mut column_major) = (2, vec![0; 2 * PIXELS]);
        let value = |n: usize, c: usize, h: usize, w: usize| {
            u8::try_from((n * 97 + c * 31 + h * 7 + w * 3) % 251).unwrap()
        };
        for n in 0..n_total {
            for c in 0..CHANNELS {
                for w in 0..SIDE {
                    for h in 0..SIDE {
                        column_major[h + SIDE * (w + SIDE * (c + CHANNELS * n))] = value(n, c, h, w);
                    }
                }
            }
        }
        let pixels = row_major(&column_major);
        for n in 0..n_total {
            for c in 0..CHANNELS {
                for h in 0..SIDE {
                    for w in 0..SIDE {
                        assert_eq!(
                            pixels[((n * CHANNELS + c) * SIDE + h) * SIDE + w],
                            value(n, c, h, w),
                            "element {n},{c},{h},{w}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_single_image_may_lack_its_last_axis() {
        let at = Position::File(0);
        let array = |axes: &[u64]| Array { axes: axes.to_vec(), data: Vec::new(), axes_at: at, data_at: at };
        assert_eq!(image_count(&array(&[32, 32, 3])), Ok(1));
        assert_eq!(image_count(&array(&[32, 32, 3, 7])), Ok(7));
        assert!(image_count(&array(&[32, 32, 4, 7])).is_err());
    }
}
