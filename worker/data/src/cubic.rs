//! y = x³ + N(0, 3²), for networks that predict a number and how sure they are of it: a task whose uncertainty can be drawn.
//!
//! x is uniform in [−4, 4]; 1,000 training and 1,000 test points. Far points have x uniform in 4 < |x| ≤ 6, half of them on
//! each side. Point `i` is drawn from the stream (seed 0, purpose "cubic", part, i) of [`rng`](crate::rng), so that
//! the set is the same for every trial.
//!
//! An example holds both: feature 0 is x, feature 1 is y, which the network is not shown. There are no classes; every
//! label is 0.
//!
//! Source: Hernández-Lobato, Adams, *Probabilistic backpropagation for scalable learning of Bayesian neural networks*,
//! ICML 2015, §5.1 (20 points there); torch-uncertainty's `Cubic`.

use crate::images::Images;
use crate::load::consecutive_ids;
use crate::name::{DatasetName, Normalization, Split};
use crate::rng::{Purpose, Stream};

const PURPOSE: Purpose = Purpose::named("cubic");
const NOISE: f64 = 3.0;
const INSIDE: f64 = 4.0;
const FAR: f64 = 6.0;
const FAR_POINTS: usize = 1_000;

/// Moments of the distribution: of x, 0 and 4/√3; of y, 0 and √(4⁶/7 + 3²).
pub(crate) const NORMALIZATION: Normalization =
    Normalization { mean: &[0.0, 0.0], std: &[2.309_401, 24.375_046] };

pub(crate) fn load(split: Split) -> Images {
    let part = match split {
        Split::Train => 0,
        Split::Test => 1,
    };
    let count = DatasetName::Cubic.official_len(split);
    images(count, |index| {
        let mut stream = Stream::new(0, PURPOSE, &[part, index]);
        let x = INSIDE * (2.0 * stream.f64() - 1.0);
        (x, stream.normal())
    })
}

/// Points outside of what the training points cover.
///
/// Shape `[2, 1, 1]`; see the module for where they lie.
pub fn cubic_far() -> Images {
    images(FAR_POINTS, |index| {
        let mut stream = Stream::new(0, PURPOSE, &[2, index]);
        let distance = FAR - (FAR - INSIDE) * stream.f64();
        (if index % 2 == 0 { distance } else { -distance }, stream.normal())
    })
}

#[expect(clippy::cast_possible_truncation, reason = "features are kept in single precision")]
fn images(count: usize, draw: impl Fn(u64) -> (f64, f64)) -> Images {
    let points = (0..count as u64).map(draw);
    let features = points.flat_map(|(x, noise)| [x as f32, (x.powi(3) + NOISE * noise) as f32]).collect();
    let classes = DatasetName::Cubic.classes();
    Images::of_features(2, classes, features, vec![0; count], consecutive_ids(count))
        .expect("finite points, two features each")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Example;

    fn points(images: &Images) -> Vec<[f64; 2]> {
        let point = |index| {
            let Example::Reals(point) = images.example(index) else { panic!("points have real features") };
            [f64::from(point[0]), f64::from(point[1])]
        };
        (0..images.len()).map(point).collect()
    }

    #[test]
    fn points_scatter_around_the_cubic_with_the_noise_that_is_said() {
        for split in [Split::Train, Split::Test] {
            let points = points(&load(split));
            assert!(points.iter().all(|[x, _]| x.abs() <= 4.0));
            let errors: Vec<f64> = points.iter().map(|[x, y]| y - x.powi(3)).collect();
            let variance = errors.iter().map(|error| error * error).sum::<f64>() / 1000.0;
            // Five standard errors, 9·√(2/1000) each.
            assert!((variance - 9.0).abs() < 2.02, "{variance}");
        }
        assert_ne!(load(Split::Train), load(Split::Test));
    }

    #[test]
    fn far_points_are_outside_of_what_was_trained_on_and_on_both_sides() {
        let points = points(&cubic_far());
        assert!(points.iter().all(|[x, _]| x.abs() > 4.0 && x.abs() <= 6.0));
        assert_eq!(points.iter().filter(|[x, _]| *x > 0.0).count(), 500);
    }

    #[test]
    fn the_constants_are_the_moments_of_the_distribution() {
        // E x² = 4²/3; E y² = E x⁶ + 3² = 4⁶/7 + 9.
        let expected = [(16.0_f64 / 3.0).sqrt(), (4096.0_f64 / 7.0 + 9.0).sqrt()];
        for (std, expected) in NORMALIZATION.std.iter().zip(expected) {
            assert!((f64::from(*std) - expected).abs() < 1e-5, "{expected}");
        }
    }
}
