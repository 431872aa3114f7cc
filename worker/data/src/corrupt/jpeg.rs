//! What a picture looks like after JPEG: libjpeg's arithmetic, to the bit, without the file.
//!
//! The entropy code loses nothing, so that a compressed picture is determined by what comes before and after it: colours
//! at half resolution, cosine transform in fixed point, quantisation by the standard tables, and back with smooth
//! enlargement of colours. Encoders and decoders in Rust round otherwise, which turns into whole steps of a
//! quantised coefficient: up to 39 of 255 were measured, where the published images were made with libjpeg.
//!
//! Source: libjpeg's `jccolor`, `jcsample`, `jfdctint`, `jcdctmgr`, `jidctint`, `jdsample` and `jdcolor`, with their
//! defaults; tables of ITU-T T.81, annex K.

use crate::resize::Raster;

const SIDE: usize = 8;
const CELLS: usize = SIDE * SIDE;
/// Fraction bits of the transform's constants, and of its result after one direction.
const CONSTANT: i32 = 13;
const PASS: i32 = 2;

#[rustfmt::skip]
const BRIGHTNESS: [i32; CELLS] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];

#[rustfmt::skip]
const COLOUR: [i32; CELLS] = [
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
];

/// The picture, grey or RGB, after compression with this quality, from 1 to 100, and colours at half resolution.
pub(super) fn compressed(picture: &Raster, quality: i32) -> Raster {
    let [brightness, colour] = [BRIGHTNESS, COLOUR].map(|table| scaled(table, quality));
    let bytes = if picture.channels == 1 {
        let grey = picture.bytes.iter().map(|&byte| i32::from(byte)).collect();
        let plane = Plane { width: picture.width, height: picture.height, values: grey };
        plane.quantised(&brightness).values.into_iter().map(byte).collect()
    } else {
        let [y, cb, cr] = split(picture);
        let y = y.quantised(&brightness);
        let [cb, cr] = [cb, cr].map(|plane| plane.halved().quantised(&colour).doubled(y.width, y.height));
        let pixels = y.values.iter().zip(cb.values).zip(cr.values);
        pixels.flat_map(|((&y, cb), cr)| to_rgb(y, cb - 128, cr - 128)).collect()
    };
    Raster { bytes, ..*picture }
}

fn scaled(table: [i32; CELLS], quality: i32) -> [i32; CELLS] {
    let percent = if quality < 50 { 5_000 / quality } else { 200 - 2 * quality };
    table.map(|step| ((step * percent + 50) / 100).clamp(1, 255))
}

fn byte(value: i32) -> u8 {
    u8::try_from(value.clamp(0, 255)).unwrap_or(u8::MAX)
}

fn to_rgb(y: i32, cb: i32, cr: i32) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let red = y + ((91_881 * cr + HALF) >> 16);
    let green = y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16);
    let blue = y + ((116_130 * cb + HALF) >> 16);
    [red, green, blue].map(byte)
}

/// Brightness and two colours; the first is rounded half up, the others half down.
fn split(picture: &Raster) -> [Plane; 3] {
    let plane = |weights: [i32; 3], added: i32| {
        let value = |pixel: &[u8]| {
            let sum: i32 = pixel.iter().zip(weights).map(|(&byte, weight)| i32::from(byte) * weight).sum();
            (sum + added) >> 16
        };
        let values = picture.bytes.chunks_exact(3).map(value).collect();
        Plane { width: picture.width, height: picture.height, values }
    };
    let centre = (128 << 16) + 0x7FFF;
    [
        plane([19_595, 38_470, 7_471], 0x8000),
        plane([-11_059, -21_709, 32_768], centre),
        plane([32_768, -27_439, -5_329], centre),
    ]
}

/// One channel.
struct Plane {
    width: usize,
    height: usize,
    values: Vec<i32>,
}

impl Plane {
    /// The value at a place; beyond the right and lower border that of the nearest pixel.
    fn at(&self, row: usize, column: usize) -> i32 {
        self.values[row.min(self.height - 1) * self.width + column.min(self.width - 1)]
    }

    /// Means of two by two pixels, rounded down and up in turn along a row.
    fn halved(&self) -> Self {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        // Blocks reach beyond the border: to the right the picture is continued before it is halved, downwards after.
        let padded = width.next_multiple_of(SIDE);
        let mean = |at: usize| {
            let (row, column) = (at / padded * 2, at % padded * 2);
            let sum = self.at(row, column)
                + self.at(row, column + 1)
                + self.at(row + 1, column)
                + self.at(row + 1, column + 1);
            (sum + 1 + (at % padded % 2) as i32) >> 2
        };
        Self { width: padded, height, values: (0..padded * height).map(mean).collect() }
    }

    /// The plane after each of its blocks was transformed, rounded to the steps of `table`, and transformed back.
    fn quantised(&self, table: &[i32; CELLS]) -> Self {
        let mut out = vec![0; self.values.len()];
        for top in (0..self.height).step_by(SIDE) {
            for left in (0..self.width).step_by(SIDE) {
                let mut block: [i32; CELLS] =
                    std::array::from_fn(|at| self.at(top + at / SIDE, left + at % SIDE) - 128);
                transform(&mut block);
                for (value, step) in block.iter_mut().zip(table) {
                    // The transform's result is eight times as large.
                    let steps = (value.abs() + 4 * step) / (8 * step);
                    *value = value.signum() * steps * step;
                }
                transform_back(&mut block);
                for (at, value) in block.iter().enumerate() {
                    let (row, column) = (top + at / SIDE, left + at % SIDE);
                    if row < self.height && column < self.width {
                        out[row * self.width + column] = (value + 128).clamp(0, 255);
                    }
                }
            }
        }
        Self { values: out, ..*self }
    }

    /// Twice the size, cut to `width` × `height`: each value is ¾ the nearer and ¼ the farther one, in both directions.
    fn doubled(&self, width: usize, height: usize) -> Self {
        let (columns, rows) = (width.div_ceil(2), height.div_ceil(2));
        let mut values = Vec::with_capacity(width * height);
        for row in 0..height {
            let near = row / 2;
            let far = if row % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min(rows - 1) };
            let sum = |column: usize| 3 * self.at(near, column) + self.at(far, column);
            values.extend((0..width).map(|column| {
                let near = column / 2;
                // Rounded up and down in turn, and at the borders, where there is no farther one, the same way.
                if column % 2 == 0 {
                    (3 * sum(near) + sum(near.saturating_sub(1)) + 8) >> 4
                } else {
                    (3 * sum(near) + sum((near + 1).min(columns - 1)) + 7) >> 4
                }
            }));
        }
        Self { width, height, values }
    }
}

fn rounded(value: i32, bits: i32) -> i32 {
    (value + (1 << (bits - 1))) >> bits
}

/// libjpeg's accurate cosine transform in whole numbers; the result is eight times as large.
fn transform(block: &mut [i32; CELLS]) {
    for row in 0..SIDE {
        let line = std::array::from_fn(|at| block[row * SIDE + at]);
        let line = transform_line(line, CONSTANT - PASS, |sum| sum << PASS);
        block[row * SIDE..(row + 1) * SIDE].copy_from_slice(&line);
    }
    for column in 0..SIDE {
        let line = std::array::from_fn(|at| block[at * SIDE + column]);
        let line = transform_line(line, CONSTANT + PASS, |sum| rounded(sum, PASS));
        for (at, value) in line.into_iter().enumerate() {
            block[at * SIDE + column] = value;
        }
    }
}

fn transform_line(d: [i32; SIDE], bits: i32, whole: fn(i32) -> i32) -> [i32; SIDE] {
    let [s0, s1, s2, s3] = [d[0] + d[7], d[1] + d[6], d[2] + d[5], d[3] + d[4]];
    let [t7, t6, t5, t4] = [d[0] - d[7], d[1] - d[6], d[2] - d[5], d[3] - d[4]];
    let [s10, s13, s11, s12] = [s0 + s3, s0 - s3, s1 + s2, s1 - s2];
    let even = (s12 + s13) * 4_433;
    let [t4, t5, t6, t7] = odd_part([t4, t5, t6, t7], [2_446, 16_819, 25_172, 12_299]);
    [
        whole(s10 + s11),
        rounded(t7, bits),
        rounded(even + s13 * 6_270, bits),
        rounded(t6, bits),
        whole(s10 - s11),
        rounded(t5, bits),
        rounded(even - s12 * 15_137, bits),
        rounded(t4, bits),
    ]
}

/// The four odd terms, which both directions have in common.
fn odd_part([a, b, c, d]: [i32; 4], factors: [i32; 4]) -> [i32; 4] {
    let z5 = (a + c + b + d) * 9_633;
    let (z1, z2) = (-(a + d) * 7_373, -(b + c) * 20_995);
    let (z3, z4) = (-(a + c) * 16_069 + z5, -(b + d) * 3_196 + z5);
    [a * factors[0] + z1 + z3, b * factors[1] + z2 + z4, c * factors[2] + z2 + z3, d * factors[3] + z1 + z4]
}

/// The inverse of [`transform`], of values in their own size.
fn transform_back(block: &mut [i32; CELLS]) {
    for column in 0..SIDE {
        let line = std::array::from_fn(|at| block[at * SIDE + column]);
        for (at, value) in transform_line_back(line, CONSTANT - PASS).into_iter().enumerate() {
            block[at * SIDE + column] = value;
        }
    }
    for row in 0..SIDE {
        let line = std::array::from_fn(|at| block[row * SIDE + at]);
        let line = transform_line_back(line, CONSTANT + PASS + 3);
        block[row * SIDE..(row + 1) * SIDE].copy_from_slice(&line);
    }
}

fn transform_line_back(d: [i32; SIDE], bits: i32) -> [i32; SIDE] {
    let even = (d[2] + d[6]) * 4_433;
    let (low, high) = (even - d[6] * 15_137, even + d[2] * 6_270);
    let (sum, difference) = ((d[0] + d[4]) << CONSTANT, (d[0] - d[4]) << CONSTANT);
    let [s0, s3, s1, s2] = [sum + high, sum - high, difference + low, difference - low];
    let [t0, t1, t2, t3] = odd_part([d[7], d[5], d[3], d[1]], [2_446, 16_819, 25_172, 12_299]);
    [s0 + t3, s1 + t2, s2 + t1, s3 + t0, s3 - t0, s2 - t1, s1 - t2, s0 - t3].map(|value| rounded(value, bits))
}
