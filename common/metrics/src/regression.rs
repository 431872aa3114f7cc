//! Metrics of regressors whose members each predict a Gaussian: from means and variances to numbers in a table.
//!
//! The predictive distribution of an ensemble is the mixture of the members' Gaussians. Its mean is the mean of the
//! means, and its variance the sum of two parts: the mean of the variances (aleatoric: what the members expect of the
//! noise) and the variance of the means (epistemic: what they disagree about).

use crate::metric::Metric;
use crate::name::{MetricName, MetricNameError};

/// Standard deviations on either side of the mean that hold 95 % of a Gaussian.
const Z95: f64 = 1.959_963_984_540_054;

/// Means and variances that each member predicts for each sample, and what was true.
///
/// Shapes: means and variances `[J, N]`, member-major; targets `[N]`. All in the units of the targets.
#[derive(Clone, Copy, Debug)]
pub struct GaussianPredictions<'a> {
    means: &'a [f64],
    variances: &'a [f64],
    targets: &'a [f64],
}

/// Why predictions were refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GaussianError {
    /// Lengths do not fit each other, or nothing is there.
    #[error("{means} means and {variances} variances do not fit {targets} targets")]
    Length {
        /// Means given.
        means: usize,
        /// Variances given.
        variances: usize,
        /// Targets given.
        targets: usize,
    },
    /// A mean or target that is no number, or a variance that is not positive.
    #[error("the prediction at position {at} is no Gaussian, or its target no number")]
    NotGaussian {
        /// Position in the means.
        at: usize,
    },
    /// A set has a name that cannot be part of a metric name.
    #[error("the name of an out-of-distribution set was refused")]
    SetName(#[from] MetricNameError),
}

/// One sample's mixture.
struct Mixture {
    mean: f64,
    aleatoric: f64,
    epistemic: f64,
}

impl<'a> GaussianPredictions<'a> {
    /// Checks and takes predictions.
    ///
    /// # Errors
    ///
    /// [`GaussianError`] names the first thing that is wrong.
    pub fn new(means: &'a [f64], variances: &'a [f64], targets: &'a [f64]) -> Result<Self, GaussianError> {
        let fits = !targets.is_empty() && !means.is_empty() && means.len().is_multiple_of(targets.len());
        if !fits || means.len() != variances.len() {
            return Err(GaussianError::Length {
                means: means.len(),
                variances: variances.len(),
                targets: targets.len(),
            });
        }
        let samples = targets.len();
        let bad = |at: &usize| {
            let variance = variances[*at];
            !(means[*at].is_finite()
                && targets[*at % samples].is_finite()
                && variance.is_finite()
                && variance > 0.0)
        };
        match (0..means.len()).find(bad) {
            Some(at) => Err(GaussianError::NotGaussian { at }),
            None => Ok(Self { means, variances, targets }),
        }
    }

    fn members(&self) -> usize {
        self.means.len() / self.targets.len()
    }

    fn member(&self, member: usize, sample: usize) -> (f64, f64) {
        let at = member * self.targets.len() + sample;
        (self.means[at], self.variances[at])
    }

    fn mixture(&self, sample: usize) -> Mixture {
        let members = self.members();
        let count = members as f64;
        let mean = (0..members).map(|j| self.member(j, sample).0).sum::<f64>() / count;
        let aleatoric = (0..members).map(|j| self.member(j, sample).1).sum::<f64>() / count;
        let epistemic = (0..members).map(|j| (self.member(j, sample).0 - mean).powi(2)).sum::<f64>() / count;
        Mixture { mean, aleatoric, epistemic }
    }

    fn average(&self, of: impl Fn(usize) -> f64) -> f64 {
        (0..self.targets.len()).map(of).sum::<f64>() / self.targets.len() as f64
    }

    /// Root of the mean squared error of the mixture's mean.
    pub fn root_mean_squared_error(&self) -> f64 {
        self.average(|n| (self.mixture(n).mean - self.targets[n]).powi(2)).sqrt()
    }

    /// Mean negative log-likelihood of the targets under the mixture, in nats, ½ ln 2π included.
    pub fn negative_log_likelihood(&self) -> f64 {
        self.average(|n| {
            let logs = (0..self.members()).map(|j| {
                let (mean, variance) = self.member(j, n);
                let error = self.targets[n] - mean;
                -0.5 * ((std::f64::consts::TAU * variance).ln() + error * error / variance)
            });
            let logs: Vec<f64> = logs.collect();
            let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logs.iter().map(|log| (log - largest).exp()).sum();
            (self.members() as f64).ln() - largest - sum.ln()
        })
    }

    /// Share of the targets within 1.96 standard deviations of the mixture around its mean: 0.95 is right.
    pub fn coverage(&self) -> f64 {
        self.average(|n| {
            let Mixture { mean, aleatoric, epistemic } = self.mixture(n);
            f64::from(u8::from((self.targets[n] - mean).abs() <= Z95 * (aleatoric + epistemic).sqrt()))
        })
    }

    /// Mean standard deviation of the mixture.
    pub fn standard_deviation(&self) -> f64 {
        self.average(|n| {
            let Mixture { aleatoric, epistemic, .. } = self.mixture(n);
            (aleatoric + epistemic).sqrt()
        })
    }

    /// Mean standard deviation of the members' means; none of a single member.
    pub fn epistemic_deviation(&self) -> Option<f64> {
        (self.members() > 1).then(|| self.average(|n| self.mixture(n).epistemic.sqrt()))
    }
}

/// Named metrics of an evaluation: of the test set, then under its name of each set far from it.
///
/// # Errors
///
/// [`GaussianError::SetName`].
pub fn regression_report(
    test: &GaussianPredictions<'_>,
    far: &[(&str, GaussianPredictions<'_>)],
) -> Result<Vec<(MetricName, f64)>, GaussianError> {
    let mut report: Vec<(MetricName, f64)> =
        values(test).map(|(metric, value)| (metric.into(), value)).collect();
    for (set, predictions) in far {
        for (metric, value) in values(predictions) {
            report.push((MetricName::on_set(metric, set)?, value));
        }
    }
    report.retain(|(_, value)| value.is_finite());
    Ok(report)
}

fn values(of: &GaussianPredictions<'_>) -> impl Iterator<Item = (Metric, f64)> {
    let always = [
        (Metric::RootMeanSquaredError, of.root_mean_squared_error()),
        (Metric::GaussianNegativeLogLikelihood, of.negative_log_likelihood()),
        (Metric::Coverage95, of.coverage()),
        (Metric::StandardDeviation, of.standard_deviation()),
    ];
    always.into_iter().chain(of.epistemic_deviation().map(|value| (Metric::EpistemicDeviation, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two members, two samples. Values by hand, and with scipy.stats.norm for the likelihood.
    const MEANS: [f64; 4] = [1.0, 2.0, 3.0, 2.0];
    const VARIANCES: [f64; 4] = [1.0, 4.0, 1.0, 4.0];

    #[test]
    fn a_mixture_has_the_moments_of_its_parts() {
        let predictions = GaussianPredictions::new(&MEANS, &VARIANCES, &[2.0, 6.5]).unwrap();
        assert!((predictions.root_mean_squared_error() - (0.5 * 4.5f64 * 4.5).sqrt()).abs() < 1e-12);
        // √(1 + 1) and √(4 + 0).
        assert!((predictions.standard_deviation() - f64::midpoint(2f64.sqrt(), 2.0)).abs() < 1e-12);
        assert!((predictions.epistemic_deviation().unwrap() - 0.5).abs() < 1e-12);
        // 4.5 is beyond 1.96 · 2.
        assert_eq!(predictions.coverage(), 0.5);
        // −ln φ(1) = 1.418938533204673; −ln (φ(4.5 / 2) / 2) = 4.143335713764618.
        let expected = f64::midpoint(1.418_938_533_204_673, 4.143_335_713_764_618);
        assert!((predictions.negative_log_likelihood() - expected).abs() < 1e-12);
    }

    #[test]
    fn one_member_has_no_epistemic_part() {
        let predictions = GaussianPredictions::new(&MEANS[..2], &VARIANCES[..2], &[1.0, 2.0]).unwrap();
        assert_eq!(predictions.epistemic_deviation(), None);
        assert_eq!(predictions.root_mean_squared_error(), 0.0);
    }

    #[test]
    fn far_sets_are_reported_under_their_names() {
        let predictions = GaussianPredictions::new(&MEANS, &VARIANCES, &[2.0, 2.0]).unwrap();
        let report = regression_report(&predictions, &[("cubic-far", predictions)]).unwrap();
        let names: Vec<String> = report.iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names[..3], ["rmse", "gaussian_nll", "coverage_95"]);
        assert!(names.contains(&"std/cubic-far".to_owned()) && names.len() == 10, "{names:?}");
    }

    #[test]
    fn what_is_no_gaussian_is_refused() {
        let refused = |means: &[f64], variances: &[f64], targets: &[f64]| {
            GaussianPredictions::new(means, variances, targets).unwrap_err()
        };
        assert!(matches!(refused(&[1.0], &[1.0, 2.0], &[1.0]), GaussianError::Length { .. }));
        assert!(matches!(refused(&[1.0], &[1.0], &[]), GaussianError::Length { .. }));
        assert_eq!(refused(&[1.0, 2.0], &[1.0, 0.0], &[1.0]), GaussianError::NotGaussian { at: 1 });
        assert_eq!(refused(&[f64::NAN], &[1.0], &[1.0]), GaussianError::NotGaussian { at: 0 });
    }
}
