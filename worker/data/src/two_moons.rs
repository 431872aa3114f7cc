//! Two interleaved half circles in the plane, for networks that see points: a set whose uncertainty can be drawn.
//!
//! A point of class 0 is (cos t, sin t), one of class 1 is (1 − cos t, ½ − sin t), as in scikit-learn's `make_moons`;
//! t is uniform in [0, π), and each coordinate gets Gaussian noise of standard deviation 0.1. 1,000 training and 1,000
//! test points, classes in turn. Point `i` is drawn from the stream (seed 0, purpose "two moons", part, i) of
//! [`rng`](crate::rng), so that the set is the same for every trial; scikit-learn places t evenly instead.
//!
//! Far points lie outside: uniform by area in the ring of radii 2.5 to 4 around the centre (½, ¼) of the set, of which
//! no noise-free point is further than 1.53.

use std::f64::consts::{PI, TAU};

use crate::images::Images;
use crate::load::consecutive_ids;
use crate::name::{DatasetName, Normalization, Split};
use crate::rng::{Purpose, Stream};

const PURPOSE: Purpose = Purpose::named("two moons");
const NOISE: f64 = 0.1;
const CENTRE: [f64; 2] = [0.5, 0.25];
const RING: [f64; 2] = [2.5, 4.0];
const FAR_POINTS: usize = 1_000;

/// Moments of the distribution, see the test for where they come from.
pub(crate) const NORMALIZATION: Normalization =
    Normalization { mean: &[0.5, 0.25], std: &[0.871_779_8, 0.504_172_7] };

pub(crate) fn load(split: Split) -> Images {
    let part = match split {
        Split::Train => 0,
        Split::Test => 1,
    };
    let count = DatasetName::TwoMoons.official_len(split);
    let labels: Vec<u8> = (0..count).map(|index| u8::from(index % 2 == 1)).collect();
    let points = labels.iter().zip(0_u64..).flat_map(|(&label, index)| {
        let mut stream = Stream::new(0, PURPOSE, &[part, index]);
        let (sin, cos) = (PI * stream.f64()).sin_cos();
        let [x, y] = if label == 0 { [cos, sin] } else { [1.0 - cos, 0.5 - sin] };
        [x + NOISE * stream.normal(), y + NOISE * stream.normal()]
    });
    let points: Vec<f64> = points.collect();
    images(points, labels)
}

/// Points that no class explains, of class 0 for want of another.
///
/// Shape `[2, 1, 1]`; see the module for where they lie.
pub fn two_moons_far() -> Images {
    let points = (0..FAR_POINTS as u64).flat_map(|index| {
        let mut stream = Stream::new(0, PURPOSE, &[2, index]);
        let [inner, outer] = RING.map(|radius| radius * radius);
        let radius = (inner + (outer - inner) * stream.f64()).sqrt();
        let (sin, cos) = (TAU * stream.f64()).sin_cos();
        [CENTRE[0] + radius * cos, CENTRE[1] + radius * sin]
    });
    images(points.collect(), vec![0; FAR_POINTS])
}

#[expect(clippy::cast_possible_truncation, reason = "features are kept in single precision")]
fn images(points: Vec<f64>, labels: Vec<u8>) -> Images {
    let ids = consecutive_ids(labels.len());
    let classes = DatasetName::TwoMoons.classes();
    Images::of_features(2, classes, points.into_iter().map(|value| value as f32).collect(), labels, ids)
        .expect("finite points, two for each label")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Augmentation, Batch, Batcher, BatcherError, Example};

    fn point(images: &Images, index: usize) -> [f64; 2] {
        let Example::Reals(point) = images.example(index) else { panic!("points have real features") };
        [f64::from(point[0]), f64::from(point[1])]
    }

    /// Distance to the half circle of a class.
    fn distance([x, y]: [f64; 2], label: u8) -> f64 {
        let [x, y] = if label == 0 { [x, y] } else { [1.0 - x, 0.5 - y] };
        if y >= 0.0 { (x.hypot(y) - 1.0).abs() } else { (x.abs() - 1.0).hypot(y) }
    }

    #[test]
    fn points_lie_on_the_half_circle_of_their_class_up_to_the_noise() {
        for split in [Split::Train, Split::Test] {
            let images = load(split);
            assert_eq!(images.class_counts(), [500, 500]);
            let distances = (0..images.len()).map(|i| distance(point(&images, i), images.labels()[i]));
            let squared = distances.map(|distance| distance * distance).collect::<Vec<_>>();
            // Distance to a smooth curve is close to one Gaussian: variance 0.01, standard error 4.5 %.
            let variance = squared.iter().sum::<f64>() / squared.len() as f64;
            assert!((variance - 0.01).abs() < 0.002, "{split}: {variance}");
            assert!(squared.iter().all(|&squared| squared < 0.25), "no point is 5 sd away");
        }
        assert_ne!(load(Split::Train), load(Split::Test));
    }

    #[test]
    fn far_points_are_far_from_both_half_circles() {
        let far = two_moons_far();
        for index in 0..far.len() {
            let point = point(&far, index);
            assert!(distance(point, 0).min(distance(point, 1)) > 0.95, "{point:?}");
        }
    }

    /// x: half of the points around 0 and 1 with variance ½. y: half around ±(2/π − ¼) with variance ½ − 4/π².
    #[test]
    fn the_constants_are_the_moments_of_the_distribution() {
        let x = 0.5 + 0.25 + NOISE * NOISE;
        let y = 0.5 - 4.0 / (PI * PI) + (2.0 / PI - 0.25).powi(2) + NOISE * NOISE;
        for (constant, variance) in NORMALIZATION.std.iter().zip([x, y]) {
            assert!(
                (f64::from(*constant) - variance.sqrt()).abs() < 1e-6,
                "{constant} for {}",
                variance.sqrt()
            );
        }
        assert_eq!(NORMALIZATION.mean, CENTRE.map(|mean| mean as f32));
    }

    #[test]
    fn batches_are_standardised_and_never_augmented() {
        let images = Arc::new(load(Split::Train));
        let constants = DatasetName::TwoMoons.normalization();
        let flip = DatasetName::Cifar10.augmentation();
        let refused = Batcher::new(images.clone(), constants, flip, 0).unwrap_err();
        assert_eq!(refused, BatcherError::Augmentation);
        let batcher = Batcher::new(images, constants, Augmentation::NONE, 0).unwrap();
        let mut batch = Batch::default();
        batcher.fill(&(0..1_000).collect::<Vec<_>>(), 0, &mut batch);
        for axis in 0..2 {
            let values: Vec<f64> = batch.pixels.iter().skip(axis).step_by(2).map(|&v| f64::from(v)).collect();
            let mean = values.iter().sum::<f64>() / 1e3;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 1e3;
            // Standard errors 0.03 and below 0.05.
            assert!(mean.abs() < 0.1 && (variance - 1.0).abs() < 0.15, "axis {axis}: {mean}, {variance}");
        }
    }
}
