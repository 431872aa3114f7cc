//! Filters of scipy and OpenCV on small pictures, in their order of summation.

/// What stands beyond the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Border {
    /// `a a a | a b c d | d d d`
    Nearest,
    /// `c b a | a b c d | d c b`
    Reflect,
    /// `d c b | a b c d | c b a`, OpenCV's default
    Reflect101,
}

impl Border {
    /// The index within `0..len` that stands for `at`.
    pub(super) fn index(self, at: isize, len: usize) -> usize {
        let last = len.cast_signed() - 1;
        let inside = match self {
            Self::Nearest => at.clamp(0, last),
            Self::Reflect => {
                let folded = at.rem_euclid(2 * (last + 1));
                folded.min(2 * last + 1 - folded)
            }
            Self::Reflect101 if last == 0 => 0,
            Self::Reflect101 => {
                let folded = at.rem_euclid(2 * last);
                folded.min(2 * last - folded)
            }
        };
        inside.cast_unsigned()
    }
}

/// Sum in the order of numpy: eight sums side by side when there are eight values, else one after the other.
fn numpy_sum(values: &[f64]) -> f64 {
    if values.len() < 8 {
        return values.iter().sum();
    }
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    let mut sums = [0.0; 8];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value;
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, value| sum + value)
}

/// Weights of scipy's Gaussian filter at the offsets `0..=radius`; the filter is symmetric.
fn gaussian_weights(sigma: f64, truncate: f64) -> Vec<f64> {
    #[expect(clippy::cast_possible_truncation, reason = "rounded as scipy does; a few pixels")]
    let radius = (truncate * sigma + 0.5) as i32;
    let scale = -0.5 / (sigma * sigma);
    let all: Vec<f64> = (-radius..=radius).map(|x| (scale * f64::from(x * x)).exp()).collect();
    let sum = numpy_sum(&all);
    (0..=radius.unsigned_abs() as usize).map(|at| all[radius.unsigned_abs() as usize + at] / sum).collect()
}

/// A grid of pixels with interleaved channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) channels: usize,
}

impl Grid {
    pub(super) fn square(side: usize, channels: usize) -> Self {
        Self { rows: side, columns: side, channels }
    }
}

/// How far apart the values of a line are, how many there are, and where each line starts.
fn lines(grid: Grid, axis: usize) -> (usize, usize, Vec<usize>) {
    let Grid { rows, columns, channels } = grid;
    if axis == 0 {
        (columns * channels, rows, (0..columns * channels).collect())
    } else {
        let starts = (0..rows).flat_map(|row| (0..channels).map(move |c| row * columns * channels + c));
        (channels, columns, starts.collect())
    }
}

/// scipy's `gaussian_filter` over rows, then columns, of each channel; `round` is the precision that is stored.
pub(super) fn gaussian_filter(
    values: &[f64],
    grid: Grid,
    sigma: f64,
    truncate: f64,
    border: Border,
    round: fn(f64) -> f64,
) -> Vec<f64> {
    let mut values = values.to_vec();
    if sigma <= 1e-15 {
        return values;
    }
    let weights = gaussian_weights(sigma, truncate);
    let mut line = Vec::new();
    for axis in 0..2 {
        let (stride, len, starts) = lines(grid, axis);
        for start in starts {
            line.clear();
            line.extend((0..len).map(|at| values[start + at * stride]));
            for at in 0..len {
                values[start + at * stride] = round(correlate(&line, at, &weights, border));
            }
        }
    }
    values
}

/// The farthest offset first, as scipy does for symmetric filters.
fn correlate(line: &[f64], at: usize, weights: &[f64], border: Border) -> f64 {
    let value = |offset: isize| line[border.index(at.cast_signed() + offset, line.len())];
    let mut sum = value(0) * weights[0];
    for (offset, weight) in weights.iter().enumerate().skip(1).rev() {
        let offset = offset.cast_signed();
        sum += (value(-offset) + value(offset)) * weight;
    }
    sum
}

/// The middle of a square picture, enlarged to the picture's size: the script's `clipped_zoom`, with scipy's linear `zoom`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of a picture")]
pub(super) fn clipped_zoom(values: &[f64], side: usize, channels: usize, factor: f64) -> Vec<f64> {
    let cut = (side as f64 / factor).ceil() as usize;
    let top = (side - cut) / 2;
    // Python rounds half to even.
    let enlarged = (cut as f64 * factor).round_ties_even() as usize;
    let trim = (enlarged - side) / 2;
    let taps: Vec<Option<Tap>> = (trim..trim + side).map(|at| Tap::new(at, cut, enlarged)).collect();
    let mut out = Vec::with_capacity(values.len());
    for row in &taps {
        for column in &taps {
            let (Some(row), Some(column)) = (row, column) else {
                // Rounding put the last place beyond the border, where scipy has 0.
                out.extend(std::iter::repeat_n(0.0, channels));
                continue;
            };
            let start = |y: usize, x: usize| ((top + y) * side + top + x) * channels;
            let corners = [
                (start(row.below, column.below), (1.0 - row.part) * (1.0 - column.part)),
                (start(row.below, column.above), (1.0 - row.part) * column.part),
                (start(row.above, column.below), row.part * (1.0 - column.part)),
                (start(row.above, column.above), row.part * column.part),
            ];
            for channel in 0..channels {
                out.push(corners.iter().fold(0.0, |sum, (at, weight)| sum + values[at + channel] * weight));
            }
        }
    }
    out
}

/// A place between two pixels.
struct Tap {
    below: usize,
    above: usize,
    part: f64,
}

impl Tap {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "places in a picture")]
    fn new(at: usize, len: usize, enlarged: usize) -> Option<Self> {
        let step = if enlarged > 1 { (len as f64 - 1.0) / (enlarged as f64 - 1.0) } else { 1.0 };
        let place = at as f64 * step;
        if place > len as f64 - 1.0 {
            return None;
        }
        let below = place.floor() as usize;
        Some(Self { below, above: (below + 1).min(len - 1), part: place - below as f64 })
    }
}

/// Correlation of each channel with a square kernel of odd side; beyond the border as OpenCV has it by default.
pub(super) fn filter_2d(values: &[f64], grid: Grid, kernel: &[f64]) -> Vec<f64> {
    let reach = (kernel.len().isqrt() / 2).cast_signed();
    let taps: Vec<(isize, isize, f64)> = kernel
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight != 0.0)
        .map(|(at, &weight)| {
            let side = 2 * reach + 1;
            (at.cast_signed() / side - reach, at.cast_signed() % side - reach, weight)
        })
        .collect();
    let Grid { rows, columns, channels } = grid;
    let continued = |len: usize| -> Vec<usize> {
        (-reach..len.cast_signed() + reach).map(|at| Border::Reflect101.index(at, len)).collect()
    };
    let (row_of, column_of) = (continued(rows), continued(columns));
    let at = |place: usize, offset: isize| (place.cast_signed() + reach + offset).cast_unsigned();
    let mut out = Vec::with_capacity(values.len());
    for row in 0..rows {
        for column in 0..columns {
            let mut sums = [0.0; 4];
            for &(dy, dx, weight) in &taps {
                let start = (row_of[at(row, dy)] * columns + column_of[at(column, dx)]) * channels;
                for (sum, value) in sums.iter_mut().zip(&values[start..start + channels]) {
                    *sum += value * weight;
                }
            }
            out.extend_from_slice(&sums[..channels]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_continue_as_their_pictures_say() {
        let around = |border: Border| (-3..7).map(|at| border.index(at, 4)).collect::<Vec<_>>();
        assert_eq!(around(Border::Nearest), [0, 0, 0, 0, 1, 2, 3, 3, 3, 3]);
        assert_eq!(around(Border::Reflect), [2, 1, 0, 0, 1, 2, 3, 3, 2, 1]);
        assert_eq!(around(Border::Reflect101), [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]);
    }
}
