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
        (split_members(x, self.members) * mask.view(&shape[..]).to_kind(x.kind())).flatten(0, 1)
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

#[cfg(test)]
mod tests {
    use common::spec::{BatchMode, MasksemblesSettings, ModelSpec, TrainMethod, WideResNetVariant};
    use tch::{Device, Kind, no_grad};

    use super::*;
    use crate::model::{Mode, Network};

    fn generate(name: &str, members: i64, channels: i64, scale: f64) -> Result<Vec<Vec<f32>>, ModelError> {
        let builder = Builder::new(0, Kind::Float, Device::Cpu);
        let values = masks(&mut builder.stream(name), name, (members, channels), scale)?;
        Ok(values.chunks(channels as usize).map(<[f32]>::to_vec).collect())
    }

    fn shared(one: &[f32], other: &[f32]) -> f64 {
        one.iter().zip(other).filter(|&(&one, &other)| one == 1.0 && other == 1.0).count() as f64
    }

    #[test]
    fn masks_have_equally_many_ones_and_leave_no_channel_out() {
        for members in [2, 3, 4, 8] {
            for channels in [10, 16, 32, 64, 160, 640] {
                for scale in [1.0, 1.5, 2.0, 3.0] {
                    let masks = generate("w.mask", members, channels, scale).unwrap();
                    let what = format!("{members} masks of {channels} channels, scale {scale}");
                    let ones: Vec<f32> = masks.iter().map(|mask| mask.iter().sum()).collect();
                    let inverse = 1.0 - (1.0 - 1.0 / scale).powi(members as i32);
                    let expected = (channels as f64 / (scale * inverse)).floor();
                    assert!(ones.iter().all(|&ones| f64::from(ones) == expected), "{what}: {ones:?}");
                    let empty = |channel: usize| masks.iter().all(|mask| mask[channel] == 0.0);
                    assert!(!(0..channels as usize).any(empty), "{what}");
                }
            }
        }
    }

    /// The authors' program, commit 3099c84, as `fixtures/compare_masksembles.py` draws with it.
    #[test]
    fn pairs_of_masks_share_as_many_channels_as_those_of_the_authors() {
        for (channels, members, scale, ones, expected, error) in [
            (16, 4, 2.0, 8.0, 3.632, 0.014),
            (64, 4, 2.0, 34.0, 16.918, 0.029),
            (64, 4, 1.5, 43.0, 28.517, 0.031),
            (64, 8, 4.0, 17.0, 3.982, 0.010),
        ] {
            let draws = 400;
            let mut sum = 0.0;
            for draw in 0..draws {
                let masks = generate(&format!("{draw}"), members, channels, scale).unwrap();
                assert_eq!(f64::from(masks[0].iter().sum::<f32>()), ones);
                let pairs = (members * (members - 1) / 2) as f64;
                for one in 0..masks.len() {
                    sum += masks[..one].iter().map(|other| shared(&masks[one], other)).sum::<f64>() / pairs;
                }
            }
            let mean = sum / f64::from(draws);
            // Five standard errors of the difference of two means over 400 draws.
            assert!((mean - expected).abs() < 5.0 * 1.5 * error, "{mean} of {channels}, not {expected}");
        }
    }

    #[test]
    fn each_layer_and_each_seed_has_masks_of_its_own() {
        assert_eq!(generate("a", 4, 64, 2.0).unwrap(), generate("a", 4, 64, 2.0).unwrap());
        assert_ne!(generate("a", 4, 64, 2.0).unwrap(), generate("b", 4, 64, 2.0).unwrap());
    }

    #[test]
    fn masks_that_cannot_be_are_refused_by_name() {
        let error = generate("w", 4, 9, 2.0).unwrap_err().to_string();
        assert!(error.contains("at least 10 channels") && error.contains("`w`"), "{error}");
        // Two masks of five of ten channels each would have to be apart, which a scale only approaches.
        let error = generate("w", 2, 10, 6.0).unwrap_err().to_string();
        assert!(error.contains("change `scale`"), "{error}");
        let settings = MasksemblesSettings { scale: 0.5, ..MasksemblesSettings::default() };
        let model = ModelSpec::WideResNet { depth: 10, widen: 1, variant: WideResNetVariant::Authors };
        let refused = Network::new(&model, &TrainMethod::Masksembles(settings), [1, 8, 8], 4, 0, Device::Cpu);
        assert!(matches!(refused, Err(ModelError::MaskScale(0.5))));
    }

    fn build(method: &TrainMethod) -> Network {
        let spec = ModelSpec::WideResNet { depth: 10, widen: 1, variant: WideResNetVariant::Authors };
        Network::new(&spec, method, [2, 8, 8], 4, 3, Device::Cpu).unwrap()
    }

    fn masksembles(scale: f64, batch: BatchMode) -> Network {
        build(&TrainMethod::Masksembles(MasksemblesSettings { members: 3, scale, batch }))
    }

    fn logits(network: &Network, mode: Mode) -> Tensor {
        let x = (Tensor::arange(6 * 2 * 64, (Kind::Float, Device::Cpu)) * 1.7).sin().view([6, 2, 8, 8]);
        no_grad(|| network.forward(&x, mode)).logits
    }

    fn assert_close(actual: &Tensor, expected: &Tensor) {
        assert_eq!(actual.size(), expected.size());
        // Single precision, normalised seven times.
        let worst = (actual - expected).abs().max().double_value(&[]);
        assert!(worst < 1e-4, "off by {worst:e}");
    }

    #[test]
    fn masks_of_scale_one_give_the_base_network() {
        let base = build(&TrainMethod::Deterministic);
        for batch in [BatchMode::Repeat, BatchMode::Split] {
            let network = masksembles(1.0, batch);
            let masks = network.named_tensors().into_iter().filter(|named| named.name.ends_with(".mask"));
            let masks: Vec<Tensor> = masks.map(|named| named.tensor).collect();
            // All layers but the first: two convolutions in three blocks, two shortcuts, the last.
            assert_eq!(masks.len(), 9);
            assert!(masks.iter().all(|mask| mask == &mask.ones_like()));
            assert_close(&logits(&network, Mode::Evaluate), &logits(&base, Mode::Evaluate).repeat([3, 1]));
        }
        let network = masksembles(1.0, BatchMode::Repeat);
        assert_close(&logits(&network, Mode::Train), &logits(&base, Mode::Train).repeat([3, 1]));
        let network = masksembles(1.0, BatchMode::Split);
        let base = build(&TrainMethod::Deterministic);
        assert_close(&logits(&network, Mode::Train), &logits(&base, Mode::Train));
    }

    #[test]
    fn a_member_is_the_base_network_without_the_weights_that_its_masks_hide() {
        let network = masksembles(2.0, BatchMode::Split);
        let together = logits(&network, Mode::Evaluate);
        for member in 0..3 {
            let base = build(&TrainMethod::Deterministic);
            for named in network.named_tensors() {
                let Some(path) = named.name.strip_suffix(".mask") else { continue };
                let weight = format!("{path}.weight");
                let mut weights = base.named_tensors().into_iter().filter(|other| other.name == weight);
                let weight = weights.next().unwrap().tensor;
                let mut shape = vec![1, named.tensor.size()[1]];
                shape.resize(weight.dim(), 1);
                let mask = named.tensor.get(member).view(&shape[..]);
                no_grad(|| weight.shallow_clone().copy_(&(&weight * mask)));
            }
            assert_close(&together.narrow(0, member * 6, 6), &logits(&base, Mode::Evaluate));
        }
        let spread = together.unflatten(0, [3, -1]).std_dim([0i64].as_slice(), false, false).max();
        assert!(spread.double_value(&[]) > 1e-3, "members do not differ");
    }
}
