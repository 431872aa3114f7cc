//! Masksembles: members that each see a fixed subset of the inputs of every layer but the first.
//!
//! Source: Durasov, Bagautdinov, Baque, Fua, *Masksembles for uncertainty estimation*, CVPR 2021, and `common.py` of the
//! authors' code, commit 3099c84.

use std::ops::RangeInclusive;

use tch::Tensor;

use super::batch_ensemble::split_members;
use super::packed::Place;
use crate::model::ModelError;
use crate::model::builder::{Builder, Stream};

/// Scales that the authors' code takes.
pub(crate) const MASK_SCALES: RangeInclusive<f64> = 1.0..=6.0;

/// The authors' code takes no fewer.
const LEAST_CHANNELS: i64 = 10;

/// Draws until the masks cover as many channels as expected. One in some ten does in layers of hundreds.
const ATTEMPTS: usize = 10_000;

/// Rows of members, and which inputs each member sees.
pub(crate) struct MaskedRows {
    members: i64,
    /// `[J, I]` of zeros and ones; the first layer has none.
    mask: Option<Tensor>,
}

impl MaskedRows {
    /// Rows in front of the layer at `path`, of `inputs` channels.
    pub(crate) fn new(
        builder: &mut Builder,
        path: &str,
        place: Place,
        (members, inputs): (i64, i64),
        scale: f64,
    ) -> Result<Self, ModelError> {
        let mask = match place {
            Place::First => None,
            Place::Hidden | Place::Last => {
                let name = format!("{path}.mask");
                let values = masks(&mut builder.stream(&name), path, (members, inputs), scale)?;
                Some(builder.frozen_values(name, &[members, inputs], &values)?)
            }
        };
        Ok(Self { members, mask })
    }

    /// Shapes: `x` is `[N·J, I, ..]`, example-major, and so is what is returned.
    pub(crate) fn mask(&self, x: &Tensor) -> Tensor {
        let Some(mask) = &self.mask else { return x.shallow_clone() };
        let mut shape = mask.size();
        shape.resize(x.dim(), 1);
        (split_members(x, self.members) * mask.view(&shape[..])).flatten(0, 1)
    }

    /// Rows for all members, from rows of `examples` examples that have one row each, or J already.
    ///
    /// Shapes: `y` is `[N, ..]` or `[N·J, ..]`; returns `[N·J, ..]`, example-major.
    pub(crate) fn spread(&self, y: &Tensor, examples: i64) -> Tensor {
        if y.size()[0] == examples * self.members {
            return y.shallow_clone();
        }
        let mut tiles = vec![1; y.dim() + 1];
        tiles[1] = self.members;
        y.unsqueeze(1).repeat(&tiles[..]).flatten(0, 1)
    }
}

/// Masks of the members, one row of zeros and ones each, that leave no channel to nobody.
///
/// Each has m = ⌊C / (S (1 − (1 − 1/S)ᴹ))⌋ ones at random among ⌊m·s⌋ positions, of which those that no mask has are
/// dropped. s is such that C are expected to be left; masks are drawn until C are.
fn masks(
    stream: &mut Stream,
    layer: &str,
    (members, channels): (i64, i64),
    scale: f64,
) -> Result<Vec<f32>, ModelError> {
    if channels < LEAST_CHANNELS {
        let layer = layer.to_owned();
        return Err(ModelError::MaskChannels { layer, channels, least: LEAST_CHANNELS });
    }
    let size = channels as usize;
    if members == 1 {
        // A single mask of ones among positions of which the others are dropped.
        return Ok(vec![1.0; size]);
    }
    let ones = (channels as f64 / covered(1.0, scale, members)).floor();
    let positions = fitting_scale(ones, scale, members, channels).map(|scale| (ones * scale) as usize);
    positions
        .and_then(|positions| {
            (0..ATTEMPTS).find_map(|_| draw(stream, members as usize, ones as usize, positions, size))
        })
        .ok_or_else(|| ModelError::Masks { layer: layer.to_owned(), channels, members, scale })
}

/// Positions that masks of `ones` ones among `ones`·`scale` are expected to cover together.
fn covered(ones: f64, scale: f64, members: i64) -> f64 {
    ones * scale * (1.0 - (1.0 - 1.0 / scale).powi(members as i32))
}

/// A scale near `scale` for which `channels` are covered, after rounding down; `None` when there is none.
fn fitting_scale(ones: f64, scale: f64, members: i64, channels: i64) -> Option<f64> {
    // Rounding `ones` down has to be made up for: by little, but for few channels and large scales.
    let (mut low, mut high) = ((scale * 0.8).max(1.0), scale * 4.0);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        match (covered(ones, middle, members).floor() as i64).cmp(&channels) {
            std::cmp::Ordering::Equal => return Some(middle),
            std::cmp::Ordering::Less => low = middle,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}

/// One attempt; `None` when another number than `channels` is covered.
fn draw(
    stream: &mut Stream,
    members: usize,
    ones: usize,
    positions: usize,
    channels: usize,
) -> Option<Vec<f32>> {
    let mut order: Vec<usize> = (0..positions).collect();
    let mut masks = vec![vec![0.0_f32; positions]; members];
    for mask in &mut masks {
        for place in 0..ones {
            order.swap(place, place + stream.below(positions - place));
            mask[order[place]] = 1.0;
        }
    }
    let covered: Vec<usize> =
        (0..positions).filter(|&position| masks.iter().any(|mask| mask[position] == 1.0)).collect();
    (covered.len() == channels)
        .then(|| masks.iter().flat_map(|mask| covered.iter().map(|&position| mask[position])).collect())
}
