//! Selective prediction: the risk of a classifier that answers only where it is confident.
//!
//! Samples are taken in the order of decreasing confidence; the *coverage* is the share of them taken so far,
//! the *risk* their error rate. **Ties:** a threshold takes samples of equal confidence together or not at
//! all, so points of the curve are between distinct confidences, and the area is the mean over all orders of
//! the tied samples. The order in which samples come changes nothing.

use crate::predictions::LabelledPredictions;

/// What a threshold on the confidence takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RiskCoveragePoint {
    /// Least confidence that is taken.
    pub threshold: f64,
    /// Share of the samples that have it, above 0 to 1.
    pub coverage: f64,
    /// Error rate on those, 0 to 1.
    pub risk: f64,
}

/// Samples of one confidence, and all before them.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Group {
    threshold: f64,
    taken: usize,
    errors: usize,
}

/// Risk against coverage, for every threshold on the confidence.
#[derive(Debug, Clone, PartialEq)]
pub struct RiskCoverage {
    groups: Vec<Group>,
}

impl RiskCoverage {
    /// The curve of the ensemble's confidence in its predicted class.
    pub fn new(predictions: &LabelledPredictions<'_>) -> Self {
        Self::from_outcomes(predictions.outcomes())
    }

    /// The curve of pairs of confidence and "was right". Confidences must not be NaN.
    pub fn from_outcomes(outcomes: impl IntoIterator<Item = (f64, bool)>) -> Self {
        let mut outcomes: Vec<(f64, bool)> = outcomes.into_iter().collect();
        outcomes.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let (mut taken, mut errors) = (0, 0);
        let group = |tied: &[(f64, bool)]| {
            taken += tied.len();
            errors += tied.iter().filter(|(_, right)| !right).count();
            Group { threshold: tied[0].0, taken, errors }
        };
        Self { groups: outcomes.chunk_by(|a, b| a.0 == b.0).map(group).collect() }
    }

    /// One point for each distinct confidence, from the highest on.
    pub fn points(&self) -> impl Iterator<Item = RiskCoveragePoint> {
        let samples = self.total().taken as f64;
        self.groups.iter().map(move |group| RiskCoveragePoint {
            threshold: group.threshold,
            coverage: group.taken as f64 / samples,
            risk: group.errors as f64 / group.taken as f64,
        })
    }

    /// Area under the risk-coverage curve: the mean over `k` of the risk of the `k` most confident samples.
    ///
    /// Units: 0 (best) to 1; NaN without samples. It is the expected value over all orders of tied samples.
    ///
    /// Source: Geifman, Uziel, El-Yaniv, *Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers*,
    /// ICLR 2019.
    pub fn aurc(&self) -> f64 {
        let (mut before, mut errors, mut sum) = (0.0, 0.0, 0.0);
        for group in &self.groups {
            let tied = group.taken as f64 - before;
            // Errors that each further sample of the group brings, on average.
            let rate = (group.errors as f64 - errors) / tied;
            let mut within = 0.0;
            while within < tied {
                within += 1.0;
                sum += (errors + within * rate) / (before + within);
            }
            (before, errors) = (group.taken as f64, group.errors as f64);
        }
        sum / before
    }

    /// AURC less that of the best order of the same predictions, in which all errors come last.
    ///
    /// The best order's area is computed exactly for the number of samples, not by the limit `r + (1 − r) ln(1 − r)`.
    ///
    /// Units: 0 (best) to 1; NaN without samples.
    ///
    /// Source: as [`Self::aurc`].
    pub fn excess_aurc(&self) -> f64 {
        let Group { taken, errors, .. } = self.total();
        let right = taken - errors;
        let best: f64 = (1..=errors).map(|wrong| wrong as f64 / (right + wrong) as f64).sum();
        // Rounding may leave −1e-17 where the order is the best.
        let excess = self.aurc() - best / taken as f64;
        if excess < 0.0 { 0.0 } else { excess }
    }

    /// The greatest coverage of a threshold whose risk is at most `limit`; 0 when there is none.
    ///
    /// Units: fraction, 0 to 1 (best).
    pub fn coverage_at_risk(&self, limit: f64) -> f64 {
        let admissible = self.points().filter(|point| point.risk <= limit);
        admissible.last().map_or(0.0, |point| point.coverage)
    }

    /// Everything is taken.
    fn total(&self) -> Group {
        self.groups.last().copied().unwrap_or(Group { threshold: 0.0, taken: 0, errors: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(outcomes: &[(f64, bool)]) -> RiskCoverage {
        RiskCoverage::from_outcomes(outcomes.iter().copied())
    }

    #[test]
    fn the_area_is_the_mean_risk_over_coverages() {
        // Risks 0, 1/2, 1/3, 2/4.
        let curve = curve(&[(0.6, true), (0.9, true), (0.5, false), (0.8, false)]);
        assert!((curve.aurc() - (0.5 + 1.0 / 3.0 + 0.5) / 4.0).abs() < 1e-15);
        // Best: risks 0, 0, 1/3, 2/4.
        assert!((curve.excess_aurc() - 0.5 / 4.0).abs() < 1e-15);
        let points: Vec<_> = curve.points().collect();
        assert_eq!(points[1], RiskCoveragePoint { threshold: 0.8, coverage: 0.5, risk: 0.5 });
        assert_eq!(points.len(), 4);
    }

    #[test]
    fn tied_samples_count_as_the_mean_of_their_orders() {
        // Orders wrong-right and right-wrong: (1 + 1/2) / 2 and (0 + 1/2) / 2.
        let curve = curve(&[(0.7, true), (0.7, false)]);
        assert!((curve.aurc() - 0.5).abs() < 1e-15);
        assert_eq!(curve.points().count(), 1);
        // No threshold separates them.
        assert_eq!(curve.coverage_at_risk(0.25), 0.0);
    }

    #[test]
    fn errors_that_come_last_have_no_excess_and_right_predictions_no_risk() {
        let best = curve(&[(0.9, true), (0.8, true), (0.7, false)]);
        assert_eq!(best.excess_aurc(), 0.0);
        let right = curve(&[(0.9, true), (0.8, true)]);
        assert_eq!((right.aurc(), right.excess_aurc(), right.coverage_at_risk(0.05)), (0.0, 0.0, 1.0));
        let wrong = curve(&[(0.9, false), (0.8, false)]);
        assert_eq!((wrong.aurc(), wrong.excess_aurc(), wrong.coverage_at_risk(0.05)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn coverage_at_a_risk_is_the_greatest_and_not_the_first() {
        // Risks 1, 1/2, 1/3, …: above the limit at first, and below from 1/20 on.
        let mut outcomes = vec![(1.0, false)];
        outcomes.extend((1..40_u32).map(|i| (1.0 - f64::from(i) / 100.0, true)));
        assert_eq!(curve(&outcomes).coverage_at_risk(0.05), 1.0);
        outcomes.extend([(0.1, false), (0.05, false)]);
        // 2/41 and 3/42.
        assert!((curve(&outcomes).coverage_at_risk(0.05) - 41.0 / 42.0).abs() < 1e-15);
    }

    #[test]
    fn without_samples_there_is_no_area() {
        assert!(curve(&[]).aurc().is_nan());
        assert!(curve(&[]).excess_aurc().is_nan());
        assert_eq!(curve(&[]).coverage_at_risk(0.05), 0.0);
    }
}
