//! Accuracy and the two proper scoring rules, on the ensemble's mean probabilities.
//!
//! The negative log-likelihood is that of the mixture, `−ln p̄_y`, not the mean of the members' own.

use crate::predictions::{LabelledPredictions, argmax};

/// Least probability that the negative log-likelihood distinguishes from 0.
///
/// A confident mistake costs at most 27.6 nats instead of making the mean infinite.
pub const PROBABILITY_FLOOR: f64 = 1e-12;

/// Share of samples whose predicted class is the true one.
///
/// Units: fraction, 0 to 1.
pub fn accuracy(predictions: &LabelledPredictions<'_>) -> f64 {
    let mut right = 0_usize;
    let samples = predictions.predictions();
    samples.for_each_sample(|n, sample| {
        right += usize::from(argmax(sample.mean) == predictions.label(n));
    });
    right as f64 / samples.shape().samples as f64
}

/// Mean of `−ln p̄_y` over samples, with `p̄_y` at least [`PROBABILITY_FLOOR`].
///
/// Units: nats.
pub fn negative_log_likelihood(predictions: &LabelledPredictions<'_>) -> f64 {
    let samples = predictions.predictions().shape().samples;
    let sum: f64 =
        (0..samples).map(|n| -predictions.true_class_probability(n).max(PROBABILITY_FLOOR).ln()).sum();
    sum / samples as f64
}

/// Mean over samples of `Σ_k (p̄_k − 1[y = k])²`: summed over classes, not averaged.
///
/// Units: none, 0 (best) to 2.
pub fn brier_score(predictions: &LabelledPredictions<'_>) -> f64 {
    let mut sum = 0.0;
    let samples = predictions.predictions();
    samples.for_each_sample(|n, sample| {
        let label = predictions.label(n);
        for (class, p) in sample.mean.iter().enumerate() {
            let target = if class == label { 1.0 } else { 0.0 };
            sum += (p - target) * (p - target);
        }
    });
    sum / samples.shape().samples as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predictions::{Predictions, Shape};

    fn one_member(classes: usize, probabilities: Vec<f64>, labels: Vec<u32>) -> LabelledPredictions<'static> {
        let shape = Shape { members: 1, samples: labels.len(), classes };
        let ids: Vec<u64> = (0..labels.len() as u64).collect();
        Predictions::new(shape, probabilities, ids).unwrap().with_labels(labels).unwrap()
    }

    #[test]
    fn a_tie_counts_for_the_lowest_class() {
        assert_eq!(accuracy(&one_member(2, vec![0.5, 0.5], vec![0])), 1.0);
        assert_eq!(accuracy(&one_member(2, vec![0.5, 0.5], vec![1])), 0.0);
    }

    #[test]
    fn accuracy_is_of_the_mean_and_not_the_mean_of_the_members() {
        let shape = Shape { members: 3, samples: 1, classes: 2 };
        // Two of three members prefer class 1, the mean prefers class 0.
        let p = Predictions::new(shape, vec![1.0, 0.0, 0.4, 0.6, 0.4, 0.6], vec![0]).unwrap();
        assert_eq!(accuracy(&p.with_labels(vec![0]).unwrap()), 1.0);
    }

    #[test]
    fn nll_is_that_of_the_mixture() {
        let shape = Shape { members: 2, samples: 1, classes: 2 };
        let p = Predictions::new(shape, vec![0.9, 0.1, 0.1, 0.9], vec![0]).unwrap();
        let nll = negative_log_likelihood(&p.with_labels(vec![0]).unwrap());
        assert!((nll - std::f64::consts::LN_2).abs() < 1e-15);
    }

    #[test]
    fn a_confident_mistake_costs_the_floor_and_not_infinity() {
        let nll = negative_log_likelihood(&one_member(2, vec![1.0, 0.0], vec![1]));
        assert!((nll - 27.631_021_115_928_547).abs() < 1e-12);
    }

    #[test]
    fn brier_runs_from_zero_to_two_and_is_not_divided_by_the_classes() {
        assert_eq!(brier_score(&one_member(3, vec![0.0, 1.0, 0.0], vec![1])), 0.0);
        assert_eq!(brier_score(&one_member(3, vec![1.0, 0.0, 0.0], vec![1])), 2.0);
        let third = brier_score(&one_member(4, vec![0.25; 4], vec![2]));
        assert!((third - 0.75).abs() < 1e-15);
    }
}
