//! Snow and fog.

use super::filter::clipped_zoom;
use super::motion::along_line;
use super::{Picture, Severity};
use crate::rng::Stream;

/// Light plasma over the whole picture.
pub(super) fn fog(picture: &Picture, severity: Severity, stream: &mut Stream) -> Picture {
    let (strength, decay) = severity.of([(0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)]);
    let values = picture.unit();
    let largest = values.iter().copied().fold(0.0, f64::max);
    let size = picture.side.next_power_of_two();
    let plasma = plasma(size, decay, stream);
    let foggy = values.iter().enumerate().map(|(at, value)| {
        let pixel = at / picture.channels;
        let fog = strength * plasma[pixel / picture.side * size + pixel % picture.side];
        (value + fog) * largest / (largest + strength)
    });
    picture.with_unit(foggy)
}

/// Clouds from 0 to 1 by the diamond-square algorithm; `size` is a power of two, and the clouds continue at the
/// opposite border.
fn plasma(size: usize, decay: f64, stream: &mut Stream) -> Vec<f64> {
    let mut map = vec![0.0; size * size];
    let mut wibble = 100.0;
    let mut step = size;
    while step >= 2 {
        let half = step / 2;
        let at = |row: usize, column: usize| row % size * size + column % size;
        // The middles of squares, then of their upper, then of their left sides: mean of four neighbours, plus noise.
        for (row, column, neighbours) in [
            (half, half, [(0, 0), (step, 0), (0, step), (step, step)]),
            (0, half, [(half, half), (size - half, half), (0, 0), (0, step)]),
            (half, 0, [(half, half), (half, size - half), (0, 0), (step, 0)]),
        ] {
            for y in (0..size).step_by(step) {
                for x in (0..size).step_by(step) {
                    let [a, b, c, d] = neighbours.map(|(dy, dx)| map[at(y + dy, x + dx)]);
                    let noise = -wibble + 2.0 * wibble * stream.f64();
                    map[at(y + row, x + column)] = ((a + b) + (c + d)) / 4.0 + wibble * noise;
                }
            }
        }
        step = half;
        wibble /= decay;
    }
    let smallest = map.iter().copied().fold(f64::INFINITY, f64::min);
    for value in &mut map {
        *value -= smallest;
    }
    let largest = map.iter().copied().fold(0.0, f64::max);
    map.iter().map(|value| value / largest).collect()
}

/// Location and scale of the flakes' noise, its enlargement, the threshold of flakes, radius and sigma of their fall,
/// and how much of the picture is left.
type Snowfall = (f64, f64, f64, f64, u32, f64, f64);

const SNOW: [Snowfall; 5] = [
    (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
    (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
];

/// Whitens the picture, and lets flakes fall through it in two opposite directions.
pub(super) fn snow(picture: &Picture, severity: Severity, stream: &mut Stream) -> Picture {
    let (location, scale, enlargement, threshold, radius, sigma, left) = severity.of(SNOW);
    let side = picture.side;
    let noise: Vec<f64> = (0..side * side).map(|_| location + scale * stream.normal()).collect();
    let flakes = clipped_zoom(&noise, side, 1, enlargement);
    let flakes = flakes.into_iter().map(|flake| if flake < threshold { 0.0 } else { flake });
    let empty = Picture { side, channels: 1, bytes: Vec::new() };
    let angle = -135.0 + 90.0 * stream.f64();
    let layer = along_line(&empty.with_unit(flakes), radius, sigma, angle).unit();

    let values = picture.unit_f32();
    #[expect(clippy::cast_possible_truncation, reason = "single precision is meant")]
    let (left, whitened) = (left as f32, (1.0 - left) as f32);
    let snowy = values.iter().enumerate().map(|(at, &value)| {
        let pixel = at / picture.channels;
        let grey = match picture.channels {
            1 => value,
            _ => luma(&values[pixel * 3..pixel * 3 + 3]),
        };
        let ground = left * value + whitened * value.max(grey * 1.5 + 0.5);
        f64::from(ground) + layer[pixel] + layer[layer.len() - 1 - pixel]
    });
    picture.with_unit(snowy.collect::<Vec<_>>())
}

/// OpenCV's grey of RGB.
fn luma(pixel: &[f32]) -> f32 {
    0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
}
