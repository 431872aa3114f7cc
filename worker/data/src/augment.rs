//! Label-preserving changes of training images, drawn per image and epoch.
//!
//! A draw is a function of (trial seed, epoch, id of the image) and of which change it is for. It does not depend on
//! the batch, the rank or the world size, and switching one change off does not move the draws of another.
//!
//! Order and meaning are those of the official LP-BNN code: random crop after padding with zeros (black pixels),
//! horizontal flip with probability ½, scaling and normalisation, then cutout, which fills with 0, the mean of the
//! data. Colours and geometry beyond that are left alone.

use crate::images::Shape;
use crate::rng::{Purpose, Stream};

/// What is done to training images; [`Augmentation::NONE`] for evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Augmentation {
    /// Random crop, or none.
    pub crop: Option<Crop>,
    /// Whether images are mirrored.
    pub flip: Flip,
    /// Cutout, or none.
    pub cutout: Option<Cutout>,
}

/// Pads with `padding` zeros on every side and cuts out the original size at a uniform place.
///
/// The same as a shift by −padding..=padding pixels in each direction, the revealed pixels black.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crop {
    /// Pixels on each side.
    pub padding: u8,
}

/// Whether images are mirrored left to right with probability ½.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flip {
    /// Images keep their direction: for digits, a mirror image is not the same digit.
    Never,
    /// Half of the images are mirrored.
    Horizontal,
}

/// Sets a square of the normalised image to 0.
///
/// The centre (y, x) is a uniform pixel of the image; the square is `[y−h, y+h) × [x−h, x+h)` with `h = size / 2`
/// rounded down, clipped at the borders. Source: DeVries and Taylor, arXiv 1708.04552, in the official LP-BNN code's
/// form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cutout {
    /// Side of the square.
    pub size: u8,
}

impl Augmentation {
    /// No change.
    pub const NONE: Self = Self { crop: None, flip: Flip::Never, cutout: None };

    /// What is done to image `id` in epoch `epoch` of the trial with `seed`.
    pub(crate) fn draw(&self, seed: u64, epoch: u64, id: u32, shape: Shape) -> Changes {
        let stream = |purpose| Stream::new(seed, purpose, &[epoch, u64::from(id)]);
        let shift = self.crop.map_or((0, 0), |crop| {
            let mut stream = stream(Purpose::CROP);
            let padding = isize::from(crop.padding);
            let mut draw = || stream.index(2 * usize::from(crop.padding) + 1).cast_signed() - padding;
            (draw(), draw())
        });
        let mirrored = match self.flip {
            Flip::Never => false,
            Flip::Horizontal => stream(Purpose::FLIP).index(2) == 1,
        };
        let hole = self.cutout.map(|cutout| {
            let mut stream = stream(Purpose::CUTOUT);
            let half = usize::from(cutout.size / 2);
            let mut range = |length: usize| {
                let centre = stream.index(length);
                (centre.saturating_sub(half), (centre + half).min(length))
            };
            Hole { rows: range(shape.height), columns: range(shape.width) }
        });
        Changes { shift, mirrored, hole }
    }
}

/// The draws for one image in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Row and column of the padded image's window, relative to the unpadded image.
    shift: (isize, isize),
    mirrored: bool,
    hole: Option<Hole>,
}

/// Half-open ranges of rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hole {
    rows: (usize, usize),
    columns: (usize, usize),
}

impl Changes {
    /// The same as numbers: rows and columns of the shift, 1 where it is mirrored, then first and end row, first and end
    /// column of the hole, which is empty where there is none.
    pub(crate) fn numbers(&self) -> [i64; 7] {
        let Hole { rows, columns } = self.hole.unwrap_or(Hole { rows: (0, 0), columns: (0, 0) });
        let [first, end, left, right] = [rows.0, rows.1, columns.0, columns.1].map(|edge| edge as i64);
        [self.shift.0 as i64, self.shift.1 as i64, i64::from(self.mirrored), first, end, left, right]
    }

    /// Writes the changed, normalised image.
    ///
    /// Shapes: `pixels` and `out` `[C, H, W]`; `normalised[c][v]` is value `v` of channel `c`, normalised.
    pub(crate) fn apply(&self, pixels: &[u8], shape: Shape, normalised: &[[f32; 256]], out: &mut [f32]) {
        let Shape { height, width, .. } = shape;
        let planes = pixels.chunks_exact(shape.plane()).zip(out.chunks_exact_mut(shape.plane()));
        for ((pixels, out), table) in planes.zip(normalised) {
            for (row, line) in out.chunks_exact_mut(width).enumerate() {
                let source = row.checked_add_signed(self.shift.0).filter(|&row| row < height);
                match source {
                    Some(row) => self.line(&pixels[row * width..(row + 1) * width], table, line),
                    None => line.fill(table[0]),
                }
            }
            self.cut(width, out);
        }
    }

    fn line(&self, pixels: &[u8], table: &[f32; 256], out: &mut [f32]) {
        for (column, value) in out.iter_mut().enumerate() {
            let column = if self.mirrored { pixels.len() - 1 - column } else { column };
            let source = column.checked_add_signed(self.shift.1).and_then(|column| pixels.get(column));
            *value = table[usize::from(source.copied().unwrap_or(0))];
        }
    }

    fn cut(&self, width: usize, plane: &mut [f32]) {
        if let Some(Hole { rows, columns }) = self.hole {
            for row in rows.0..rows.1 {
                plane[row * width + columns.0..row * width + columns.1].fill(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { channels: 1, height: 3, width: 3 };
    const PIXELS: [u8; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 9];

    /// Value `v` becomes `v + 0.5`, so that a black pixel (0.5) and a cut one (0.0) can be told apart.
    fn applied(changes: Changes) -> Vec<f32> {
        let table = std::array::from_fn(|value| value as f32 + 0.5);
        let mut out = vec![f32::NAN; 9];
        changes.apply(&PIXELS, SHAPE, &[table], &mut out);
        out
    }

    const KEPT: Changes = Changes { shift: (0, 0), mirrored: false, hole: None };

    #[test]
    fn no_change_normalises_every_pixel_in_place() {
        assert_eq!(applied(KEPT), [1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5]);
    }

    #[test]
    fn a_crop_reveals_black_pixels_of_the_padding() {
        let up = Changes { shift: (-1, 1), ..KEPT };
        assert_eq!(applied(up), [0.5, 0.5, 0.5, 2.5, 3.5, 0.5, 5.5, 6.5, 0.5]);
        let down = Changes { shift: (2, -1), ..KEPT };
        assert_eq!(applied(down), [0.5, 7.5, 8.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]);
    }

    #[test]
    fn a_flip_mirrors_what_the_crop_left() {
        let flipped = Changes { mirrored: true, ..KEPT };
        assert_eq!(applied(flipped), [3.5, 2.5, 1.5, 6.5, 5.5, 4.5, 9.5, 8.5, 7.5]);
        let both = Changes { shift: (0, 1), mirrored: true, hole: None };
        assert_eq!(applied(both), [0.5, 3.5, 2.5, 0.5, 6.5, 5.5, 0.5, 9.5, 8.5]);
    }

    #[test]
    fn cutout_sets_the_normalised_value_to_zero() {
        let cut = Changes { hole: Some(Hole { rows: (0, 2), columns: (1, 3) }), ..KEPT };
        assert_eq!(applied(cut), [1.5, 0.0, 0.0, 4.5, 0.0, 0.0, 7.5, 8.5, 9.5]);
    }

    fn draws(augmentation: Augmentation, shape: Shape) -> Vec<Changes> {
        (0..20_000).map(|id| augmentation.draw(1, 0, id, shape)).collect()
    }

    #[test]
    fn crops_are_uniform_over_all_places() {
        let crop = Augmentation { crop: Some(Crop { padding: 1 }), ..Augmentation::NONE };
        let mut counts = std::collections::HashMap::new();
        for changes in draws(crop, SHAPE) {
            *counts.entry(changes.shift).or_insert(0_u32) += 1;
        }
        let mut places: Vec<_> = counts.keys().copied().collect();
        places.sort_unstable();
        let all: Vec<_> = (-1..=1).flat_map(|row| (-1..=1).map(move |column| (row, column))).collect();
        assert_eq!(places, all);
        // 20,000 / 9 = 2,222, standard deviation 44.
        assert!(counts.values().all(|count| count.abs_diff(2_222) < 200), "{counts:?}");
    }

    #[test]
    fn half_of_the_images_are_mirrored() {
        let flip = Augmentation { flip: Flip::Horizontal, ..Augmentation::NONE };
        let mirrored = draws(flip, SHAPE).iter().filter(|changes| changes.mirrored).count();
        // Standard deviation 71.
        assert!(mirrored.abs_diff(10_000) < 300, "{mirrored}");
    }

    #[test]
    fn cutout_centres_are_pixels_of_the_image_and_squares_are_clipped() {
        let shape = Shape { channels: 3, height: 32, width: 32 };
        let cutout = Augmentation { cutout: Some(Cutout { size: 16 }), ..Augmentation::NONE };
        let mut rows = std::collections::BTreeSet::new();
        for changes in draws(cutout, shape) {
            let hole = changes.hole.unwrap();
            rows.insert(hole.rows);
            rows.insert(hole.columns);
        }
        // Centre y: [y−8, y+8) clipped to [0, 32).
        let expected = (0..32_usize).map(|y| (y.saturating_sub(8), (y + 8).min(32))).collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn switching_one_change_off_does_not_move_the_draws_of_another() {
        let all = Augmentation {
            crop: Some(Crop { padding: 4 }),
            flip: Flip::Horizontal,
            cutout: Some(Cutout { size: 2 }),
        };
        let no_crop = Augmentation { crop: None, ..all };
        for id in 0..100 {
            let (with, without) = (all.draw(9, 3, id, SHAPE), no_crop.draw(9, 3, id, SHAPE));
            assert_eq!((with.mirrored, with.hole), (without.mirrored, without.hole));
        }
    }
}
