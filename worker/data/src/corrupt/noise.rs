//! Noise that is drawn for each value on its own.

use super::{Picture, Severity};
use crate::rng::Stream;

/// One standard normal draw a value, scaled.
pub(super) fn gaussian(picture: &Picture, severity: Severity, stream: &mut Stream) -> Picture {
    let scale = severity.of([0.04, 0.06, 0.08, 0.09, 0.10]);
    picture.with_unit(picture.unit().into_iter().map(|value| value + scale * stream.normal()))
}

/// The same, times the value.
pub(super) fn speckle(picture: &Picture, severity: Severity, stream: &mut Stream) -> Picture {
    let scale = severity.of([0.06, 0.1, 0.12, 0.16, 0.2]);
    picture.with_unit(picture.unit().into_iter().map(|value| value + value * (scale * stream.normal())))
}

/// A Poisson number of photons a value.
pub(super) fn shot(picture: &Picture, severity: Severity, stream: &mut Stream) -> Picture {
    let photons = severity.of([500.0, 250.0, 100.0, 75.0, 50.0]);
    picture
        .with_unit(picture.unit().into_iter().map(|value| poisson(value * photons, stream.f64()) / photons))
}

/// The smallest number at which the Poisson distribution function reaches `uniform`, by summing it up.
///
/// `mean` is at most 500, where e^−mean is still far above the smallest double.
fn poisson(mean: f64, uniform: f64) -> f64 {
    let mut count = 0.0;
    let mut probability = (-mean).exp();
    let mut reached = probability;
    // The sum may stop short of a `uniform` next to 1 by rounding; probabilities that vanish end it.
    while reached < uniform && probability > 0.0 {
        count += 1.0;
        probability *= mean / count;
        reached += probability;
    }
    count
}

/// Salt and pepper, each value with its own chance: scikit-image's `random_noise`.
pub(super) fn impulse(picture: &Picture, severity: Severity, stream: &mut Stream) -> Picture {
    let amount = severity.of([0.01, 0.02, 0.03, 0.05, 0.07]);
    let count = picture.bytes.len();
    let struck: Vec<bool> = (0..count).map(|_| stream.f64() <= amount).collect();
    let salted: Vec<bool> = (0..count).map(|_| stream.f64() <= 0.5).collect();
    let values = picture.unit().into_iter().zip(struck).zip(salted);
    picture.with_unit(values.map(|((value, struck), salted)| match (struck, salted) {
        (false, _) => value,
        (true, true) => 1.0,
        (true, false) => 0.0,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    #[test]
    fn poisson_draws_have_the_moments_of_the_distribution() {
        let mut stream = Stream::new(1, Purpose::named("test"), &[]);
        for mean in [0.0, 0.3, 20.0, 500.0] {
            let draws: Vec<f64> = (0..20_000).map(|_| poisson(mean, stream.f64())).collect();
            let average = draws.iter().sum::<f64>() / 2e4;
            let variance = draws.iter().map(|draw| (draw - average).powi(2)).sum::<f64>() / 2e4;
            // Five standard errors of the average; the variance of a Poisson is its mean.
            assert!((average - mean).abs() <= 5.0 * (mean / 2e4).sqrt(), "{mean}: {average}");
            assert!((variance - mean).abs() <= 0.06 * mean, "{mean}: {variance}");
        }
    }
}
