//! Temperature scaling: one number, fitted on held-out predictions, that makes a predictor sharper or flatter.
//!
//! An ensemble is pooled first and calibrated then: `p_T ∝ p̄^(1/T)`, with `p̄` the mean of the members'
//! probabilities. For a single network, whose probabilities are the softmax of logits `z`, this is
//! `softmax(z / T)`, the usual definition: `ln p` and `z` differ by a constant of each sample.
//!
//! **Where `ln p̄` comes from.** Of a single network whose logits are known and whose probabilities are
//! their softmax, it is the log-softmax of the logits, so that a probability that rounds to 0 keeps its
//! logarithm. Otherwise (several members, no logits, probabilities that are no softmax) it is the logarithm
//! of the probability, and 0 counts as the least normal number of `f32`, 1.2e-38: what a stored softmax
//! loses is below that.
//!
//! **The fit** minimises the mean negative log-likelihood of the held-out labels, *without* the floor that
//! the reported metric has. In `1/T` that is convex, so its derivative has at most one root, which Newton's
//! method finds inside a bracket. There need not be one: when every held-out sample is predicted rightly,
//! sharper is always better. Temperatures are therefore bounded, by [`TEMPERATURES`], and [`Temperature::fit`]
//! says which end was met.
//!
//! Source: Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017; for pooling before calibration
//! Rahaman, Thiery, *Uncertainty Quantification and Deep Ensembles*, NeurIPS 2021.

use std::ops::RangeInclusive;

use crate::predictions::{LabelledPredictions, Predictions, Shape};
use crate::uncertainty::log_sum_exp;

/// Temperatures that a fit can have. The networks of the literature lie between 0.5 and 5.
pub const TEMPERATURES: RangeInclusive<f64> = 0.05..=20.0;

/// How far a probability may be from the softmax of its logits: `f32` rounding, with room for many classes.
const SOFTMAX_TOLERANCE: f64 = 1e-5;

/// Newton steps, each of which is replaced by halving the bracket where it would leave it; ten are usual.
const STEPS: usize = 200;

/// Why a fit ended where it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemperatureFit {
    /// The likelihood has its maximum there.
    Optimum,
    /// The likelihood still rises at the lowest temperature: all samples, or all but a few, are right.
    Lowest,
    /// The likelihood still rises at the highest temperature: the predictor is worse than none.
    Highest,
    /// Every prediction is uniform, and no temperature changes anything. It is then 1.
    Indifferent,
}

/// A temperature, fitted on held-out predictions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    value: f64,
    fit: TemperatureFit,
}

impl Temperature {
    /// Minimises the negative log-likelihood of `held_out`.
    pub fn new(held_out: &LabelledPredictions<'_>) -> Self {
        let predictions = held_out.predictions();
        let mut logs = log_probabilities(predictions);
        // Relative to the greatest of each sample, which changes no softmax.
        for row in logs.chunks_exact_mut(predictions.shape().classes) {
            let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            row.iter_mut().for_each(|log| *log -= greatest);
        }
        Likelihood { logs: &logs, labels: held_out.labels(), classes: predictions.shape().classes }.fit()
    }

    /// The temperature: above 1 flattens, below 1 sharpens.
    pub fn value(self) -> f64 {
        self.value
    }

    /// Why it is this one.
    pub fn fit(self) -> TemperatureFit {
        self.fit
    }

    /// The pooled and scaled predictions, as those of a single member.
    ///
    /// Shapes: returns `[1, N, K]`.
    pub fn scale(self, predictions: &Predictions<'_>) -> Predictions<'static> {
        let shape = Shape { members: 1, ..predictions.shape() };
        let mut probabilities = log_probabilities(predictions);
        for row in probabilities.chunks_exact_mut(shape.classes) {
            row.iter_mut().for_each(|log| *log /= self.value);
            let total = log_sum_exp(row);
            row.iter_mut().for_each(|log| *log = (*log - total).exp());
        }
        Predictions::normalised(shape, probabilities, predictions.ids().to_vec())
    }
}

/// Logarithm of the predictive distribution, up to a constant of each sample.
///
/// Shapes: returns `[N, K]`.
fn log_probabilities(predictions: &Predictions<'_>) -> Vec<f64> {
    let classes = predictions.shape().classes;
    let mut probabilities = predictions.ensemble_mean();
    if predictions.shape().members == 1 && predictions.has_logits() {
        let mut logs = Vec::with_capacity(probabilities.len());
        predictions.for_each_mean_logits(|_, logits| {
            let total = log_sum_exp(logits);
            logs.extend(logits.iter().map(|logit| logit - total));
        });
        let near = |(p, log): (&f64, &f64)| (p - log.exp()).abs() <= SOFTMAX_TOLERANCE;
        if probabilities.iter().zip(&logs).all(near) {
            return logs;
        }
    }
    for row in probabilities.chunks_exact_mut(classes) {
        row.iter_mut().for_each(|p| *p = p.max(f64::from(f32::MIN_POSITIVE)).ln());
    }
    probabilities
}

/// Negative log-likelihood as a function of `β = 1/T`.
struct Likelihood<'a> {
    /// `[N, K]`; the greatest of each sample is 0.
    logs: &'a [f64],
    labels: &'a [u32],
    classes: usize,
}

impl Likelihood<'_> {
    fn fit(&self) -> Temperature {
        let (lowest, highest) = (*TEMPERATURES.start(), *TEMPERATURES.end());
        if self.logs.iter().all(|log| *log == 0.0) {
            return Temperature { value: 1.0, fit: TemperatureFit::Indifferent };
        }
        if self.derivatives(1.0 / highest).0 >= 0.0 {
            return Temperature { value: highest, fit: TemperatureFit::Highest };
        }
        if self.derivatives(1.0 / lowest).0 <= 0.0 {
            return Temperature { value: lowest, fit: TemperatureFit::Lowest };
        }
        Temperature { value: 1.0 / self.root(1.0 / highest, 1.0 / lowest), fit: TemperatureFit::Optimum }
    }

    /// The root of the slope, which is negative at `low` and positive at `high`.
    fn root(&self, mut low: f64, mut high: f64) -> f64 {
        let mut beta = 1.0;
        for _ in 0..STEPS {
            let (slope, curvature) = self.derivatives(beta);
            if slope == 0.0 {
                break;
            }
            if slope < 0.0 {
                low = beta;
            } else {
                high = beta;
            }
            let newton = beta - slope / curvature;
            // Also when the curvature has underflowed and the step is infinite or NaN.
            let next = if (low..=high).contains(&newton) { newton } else { (low * high).sqrt() };
            let step = (next - beta).abs();
            beta = next;
            if step <= 4.0 * f64::EPSILON * beta {
                break;
            }
        }
        beta
    }

    /// First and second derivative by `β`, means over samples: `E_β[ln p] − ln p_y` and `Var_β[ln p]`.
    fn derivatives(&self, beta: f64) -> (f64, f64) {
        let (mut slope, mut curvature) = (0.0, 0.0);
        let mut weights = vec![0.0; self.classes];
        for (row, label) in self.logs.chunks_exact(self.classes).zip(self.labels) {
            let mut total = 0.0;
            for (weight, log) in weights.iter_mut().zip(row) {
                *weight = (beta * log).exp();
                total += *weight;
            }
            let mean = weights.iter().zip(row).map(|(weight, log)| weight * log).sum::<f64>() / total;
            let deviation = |(weight, log): (&f64, &f64)| weight * (log - mean) * (log - mean);
            curvature += weights.iter().zip(row).map(deviation).sum::<f64>() / total;
            slope += mean - row[*label as usize];
        }
        let samples = self.labels.len() as f64;
        (slope / samples, curvature / samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classification::negative_log_likelihood;

    fn one_member(rows: &[[f64; 2]]) -> Predictions<'static> {
        let shape = Shape { members: 1, samples: rows.len(), classes: 2 };
        let ids: Vec<u64> = (0..rows.len() as u64).collect();
        Predictions::new(shape, rows.concat(), ids).unwrap()
    }

    fn fitted(rows: &[[f64; 2]], labels: Vec<u32>) -> Temperature {
        Temperature::new(&one_member(rows).with_labels(labels).unwrap())
    }

    #[test]
    fn the_temperature_makes_confidence_the_accuracy() {
        // Always 0.9 sure and right in 3 of 4: the best constant confidence is 3/4, odds 3 of odds 9.
        let found = fitted(&[[0.9, 0.1]; 4], vec![0, 0, 0, 1]);
        assert_eq!(found.fit(), TemperatureFit::Optimum);
        assert!((found.value() - 9.0_f64.ln() / 3.0_f64.ln()).abs() < 1e-12, "{found:?}");
        let scaled = found.scale(&one_member(&[[0.9, 0.1]]));
        assert!((scaled.ensemble_mean()[0] - 0.75).abs() < 1e-12);
    }

    #[test]
    fn a_held_out_set_without_an_optimum_has_a_bounded_temperature() {
        let sure = [[0.9, 0.1], [0.3, 0.7]];
        let lowest = Temperature { value: 0.05, fit: TemperatureFit::Lowest };
        // All right; of one class; a single sample.
        assert_eq!(fitted(&sure, vec![0, 1]), lowest);
        assert_eq!(fitted(&[[0.9, 0.1], [0.6, 0.4]], vec![0, 0]), lowest);
        assert_eq!(fitted(&sure[..1], vec![0]), lowest);
        // All wrong; as often wrong as right, but surer where wrong.
        let highest = Temperature { value: 20.0, fit: TemperatureFit::Highest };
        assert_eq!(fitted(&sure, vec![1, 0]), highest);
        assert_eq!(fitted(&sure, vec![1, 1]), highest);
        // Uniform.
        let indifferent = Temperature { value: 1.0, fit: TemperatureFit::Indifferent };
        assert_eq!(fitted(&[[0.5, 0.5]; 3], vec![0, 0, 1]), indifferent);
        // Certain and right, which leaves no slope to see.
        assert_eq!(fitted(&[[1.0, 0.0]], vec![0]), lowest);
    }

    #[test]
    fn one_class_only_is_nothing_special() {
        let shape = Shape { members: 1, samples: 2, classes: 1 };
        let predictions = Predictions::new(shape, vec![1.0; 2], vec![0, 1]).unwrap();
        let found = Temperature::new(&predictions.clone().with_labels(vec![0, 0]).unwrap());
        assert_eq!(found.fit(), TemperatureFit::Indifferent);
        assert_eq!(found.scale(&predictions).ensemble_mean(), [1.0, 1.0]);
    }

    #[test]
    fn scaling_a_network_is_scaling_its_logits() {
        let logits: Vec<f64> =
            vec![2.0, -1.0, 0.5, 3.0, /**/ 0.1, 0.0, -4.0, 1.0, /**/ 7.0, 6.0, 5.0, 1.0];
        let softmax = |row: &[f64], temperature: f64| -> Vec<f64> {
            let total: f64 = row.iter().map(|z| (z / temperature).exp()).sum();
            row.iter().map(|z| (z / temperature).exp() / total).collect()
        };
        let all = |temperature: f64| -> Vec<f64> {
            logits.chunks(4).flat_map(|row| softmax(row, temperature)).collect()
        };
        let shape = Shape { members: 1, samples: 3, classes: 4 };
        let plain = Predictions::new(shape, all(1.0), vec![0, 1, 2]).unwrap();
        let known = plain.clone().with_logits(logits.clone()).unwrap();
        let fit = |p: &Predictions<'static>| Temperature::new(&p.clone().with_labels(vec![3, 1, 0]).unwrap());
        let temperature = fit(&known);
        assert_eq!(temperature.fit(), TemperatureFit::Optimum);
        assert!((temperature.value() - fit(&plain).value()).abs() < 1e-12);
        for scaled in [temperature.scale(&known), temperature.scale(&plain)] {
            for (found, expected) in scaled.ensemble_mean().iter().zip(all(temperature.value())) {
                assert!((found - expected).abs() < 1e-14, "{found} instead of {expected}");
            }
        }
    }

    #[test]
    fn a_probability_that_rounds_to_zero_keeps_its_logit() {
        // exp(−200) is 0 in f32. The logits say how wrong the network is; the probabilities do not.
        let shape = Shape { members: 1, samples: 3, classes: 2 };
        let rounded = vec![1.0_f32, 0.0, 1.0, 0.0, 1.0, 0.0];
        let logits = vec![200.0_f32, 0.0, 200.0, 0.0, 200.0, 0.0];
        let plain = Predictions::new(shape, rounded, vec![0, 1, 2]).unwrap();
        let known = plain.clone().with_logits(logits).unwrap();
        // Two of three are right: the best odds are 2.
        let fit = |p: Predictions<'static>| Temperature::new(&p.with_labels(vec![0, 0, 1]).unwrap()).value();
        let best = 200.0 / 2.0_f64.ln();
        assert!(best > *TEMPERATURES.end());
        assert_eq!(fit(known.clone()), 20.0);
        assert_eq!(fit(plain), 20.0);
        let scaled = Temperature { value: best, fit: TemperatureFit::Optimum }.scale(&known);
        assert!((scaled.ensemble_mean()[0] - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn logits_whose_softmax_is_something_else_are_left_alone() {
        let plain = one_member(&[[0.9, 0.1], [0.9, 0.1]]);
        let other = plain.clone().with_logits(vec![5.0, 0.0, 5.0, 0.0]).unwrap();
        let temperature = Temperature { value: 2.0, fit: TemperatureFit::Optimum };
        assert_eq!(temperature.scale(&other), temperature.scale(&plain));
    }

    #[test]
    fn an_ensemble_is_pooled_and_then_scaled() {
        let shape = Shape { members: 2, samples: 1, classes: 2 };
        let predictions = Predictions::new(shape, vec![1.0, 0.0, 0.6, 0.4], vec![7]).unwrap();
        let scaled = Temperature { value: 2.0, fit: TemperatureFit::Optimum }.scale(&predictions);
        assert_eq!((scaled.shape(), scaled.ids()), (Shape { members: 1, ..shape }, [7_u64].as_slice()));
        // √0.8 : √0.2 is 2 : 1.
        assert!((scaled.ensemble_mean()[0] - 2.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn no_temperature_nearby_is_better() {
        let rows = [[0.99, 0.01], [0.8, 0.2], [0.55, 0.45], [0.3, 0.7], [0.02, 0.98]];
        let labels = vec![0, 1, 0, 1, 1];
        let best = fitted(&rows, labels.clone());
        let nll = |value: f64| {
            let scaled = Temperature { value, ..best }.scale(&one_member(&rows));
            negative_log_likelihood(&scaled.with_labels(labels.clone()).unwrap())
        };
        assert_eq!(best.fit(), TemperatureFit::Optimum);
        assert!(nll(best.value()) < nll(best.value() * 1.001));
        assert!(nll(best.value()) < nll(best.value() / 1.001));
    }
}
