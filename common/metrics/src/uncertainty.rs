//! Per-sample uncertainty of an ensemble, and its decomposition.
//!
//! Predictive entropy (total) = expected entropy (aleatoric) + mutual information (epistemic). With one
//! member everything that measures disagreement is exactly 0.
//!
//! Which of these serves as an out-of-distribution score is decided in [`OodScore`](crate::OodScore).

use crate::predictions::{Predictions, Sample, argmax};

/// Uncertainty of every sample; each vector is `[N]`. Entropies in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct Uncertainty {
    /// `max_k p̄_k`: the confidence in the predicted class.
    pub confidence: Vec<f64>,
    /// `H(p̄)`.
    pub predictive_entropy: Vec<f64>,
    /// `mean_j H(p_j)`.
    pub expected_entropy: Vec<f64>,
    /// `H(p̄) − mean_j H(p_j)`, at least 0; computed as the equal `mean_j KL(p_j ‖ p̄)`.
    pub mutual_information: Vec<f64>,
    /// `1 − n_mode / J`: share of the members that do not vote with the most frequent class.
    pub variation_ratio: Vec<f64>,
    /// `mean_k Var_j p_jk`, with division by `J`.
    pub member_variance: Vec<f64>,
    /// `−ln Σ_k exp z̄_k`, where `z̄` is the mean of the members' logits; absent without logits.
    ///
    /// Units: nats. Source: Liu et al., *Energy-based Out-of-distribution Detection*, NeurIPS 2020, at
    /// temperature 1. The mean over members comes first, as in torch-uncertainty, which leaves open how
    /// the energy of an ensemble should be defined.
    pub energy: Option<Vec<f64>>,
    /// `max_k z̄_k` of the mean logits; absent without logits.
    ///
    /// Source: Hendrycks et al., *Scaling Out-of-Distribution Detection for Real-World Settings*, ICML 2022;
    /// the mean over members as in torch-uncertainty.
    pub max_logit: Option<Vec<f64>>,
}

impl Uncertainty {
    /// Decomposes the uncertainty of each sample.
    pub fn new(predictions: &Predictions<'_>) -> Self {
        let shape = predictions.shape();
        let column = || Vec::with_capacity(shape.samples);
        let mut columns = Self {
            confidence: column(),
            predictive_entropy: column(),
            expected_entropy: column(),
            mutual_information: column(),
            variation_ratio: column(),
            member_variance: column(),
            energy: predictions.has_logits().then(column),
            max_logit: predictions.has_logits().then(column),
        };
        let mut votes = vec![0_usize; shape.classes];
        predictions.for_each_sample(|_, sample| columns.push(&sample, shape.members, &mut votes));
        predictions.for_each_mean_logits(|_, logits| {
            columns.energy.iter_mut().for_each(|column| column.push(-log_sum_exp(logits)));
            columns.max_logit.iter_mut().for_each(|column| column.push(logits[argmax(logits)]));
        });
        columns
    }

    fn push(&mut self, sample: &Sample<'_>, members: usize, votes: &mut [usize]) {
        let members = members as f64;
        // The difference of two entropies leaves rounding noise that grows with the entropy, and would make
        // an ensemble of equal members detect something. The divergence is exactly 0 for them.
        let information: f64 = sample.members().map(|row| divergence(row, sample.mean)).sum();
        let deviation = |row: &[f64]| -> f64 {
            row.iter().zip(sample.mean).map(|(p, mean)| (p - mean) * (p - mean)).sum()
        };
        let squares: f64 = sample.members().map(deviation).sum();
        votes.fill(0);
        for row in sample.members() {
            votes[argmax(row)] += 1;
        }
        let mode = votes.iter().max().copied().unwrap_or_default();

        self.confidence.push(sample.mean[argmax(sample.mean)]);
        self.predictive_entropy.push(entropy(sample.mean));
        self.expected_entropy.push(sample.members().map(entropy).sum::<f64>() / members);
        // Never negative in theory; rounding can make it −1e-17.
        self.mutual_information.push((information / members).max(0.0));
        self.variation_ratio.push(1.0 - mode as f64 / members);
        self.member_variance.push(squares / members / sample.mean.len() as f64);
    }
}

/// `−Σ p ln p` in nats, with `0 ln 0 = 0`.
fn entropy(probabilities: &[f64]) -> f64 {
    // Without `+ 0.0` the entropy of a certain prediction would be −0.
    -probabilities.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>() + 0.0
}

/// `Σ p ln(p / q)` in nats, with `0 ln 0 = 0`.
///
/// `q` is a mean that `p` is part of: it is 0 where `p` is not only when the division by the number of
/// members underflows, and what is left out then is no more than 1e-320 nats.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).filter(|(p, q)| **p > 0.0 && **q > 0.0).map(|(p, q)| p * (p / q).ln()).sum()
}

/// `ln Σ exp`, without overflow.
pub(crate) fn log_sum_exp(values: &[f64]) -> f64 {
    let greatest = values[argmax(values)];
    greatest + values.iter().map(|value| (value - greatest).exp()).sum::<f64>().ln()
}

/// Arithmetic mean; the caller's slice is never empty.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predictions::Shape;
    use std::f64::consts::LN_2;

    fn single_sample(members: usize, classes: usize, probabilities: Vec<f64>) -> Uncertainty {
        let shape = Shape { members, samples: 1, classes };
        Uncertainty::new(&Predictions::new(shape, probabilities, vec![0]).unwrap())
    }

    #[test]
    fn members_that_are_certain_and_disagree_have_only_mutual_information() {
        let u = single_sample(2, 2, vec![1.0, 0.0, 0.0, 1.0]);
        assert_eq!(u.expected_entropy, [0.0]);
        assert!((u.predictive_entropy[0] - LN_2).abs() < 1e-15);
        assert!((u.mutual_information[0] - LN_2).abs() < 1e-15);
        assert_eq!(u.variation_ratio, [0.5]);
        assert_eq!(u.member_variance, [0.25]);
        assert_eq!(u.confidence, [0.5]);
    }

    #[test]
    fn members_that_are_unsure_and_agree_have_none() {
        let u = single_sample(3, 2, vec![0.5; 6]);
        assert!((u.expected_entropy[0] - LN_2).abs() < 1e-15);
        assert_eq!(u.mutual_information, [0.0]);
        assert_eq!(u.variation_ratio, [0.0]);
        assert_eq!(u.member_variance, [0.0]);
    }

    #[test]
    fn equal_members_have_exactly_no_mutual_information() {
        for members in 1..12 {
            let row: [f32; 4] = [0.123_456_79, 0.3, 0.000_2, 0.576_343_2];
            let shape = Shape { members, samples: 1, classes: 4 };
            let predictions = Predictions::new(shape, row.repeat(members), vec![0]).unwrap();
            assert_eq!(Uncertainty::new(&predictions).mutual_information, [0.0], "{members} members");
        }
    }

    #[test]
    fn a_probability_that_underflows_in_the_mean_carries_no_information() {
        let u = single_sample(2, 2, vec![1.0, f64::from_bits(1), 1.0, 0.0]);
        assert_eq!(u.mutual_information, [0.0]);
    }

    #[test]
    fn mutual_information_is_the_difference_of_the_entropies() {
        let u = single_sample(2, 3, vec![0.7, 0.2, 0.1, 0.1, 0.3, 0.6]);
        let difference = u.predictive_entropy[0] - u.expected_entropy[0];
        assert!(difference > 0.1);
        assert!((u.mutual_information[0] - difference).abs() < 1e-15);
    }

    #[test]
    fn one_member_disagrees_with_nobody() {
        let u = single_sample(1, 3, vec![0.2, 0.5, 0.3]);
        assert_eq!(u.predictive_entropy, u.expected_entropy);
        assert_eq!((u.mutual_information[0], u.variation_ratio[0], u.member_variance[0]), (0.0, 0.0, 0.0));
    }

    #[test]
    fn a_certain_prediction_has_entropy_plus_zero() {
        assert_eq!(entropy(&[0.0, 1.0, 0.0]).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn the_variation_ratio_counts_votes_against_the_mode_of_the_votes() {
        // Votes 0, 1, 1, 2; the mean prefers class 0.
        let u = single_sample(4, 3, vec![1.0, 0.0, 0.0, 0.4, 0.5, 0.1, 0.4, 0.5, 0.1, 0.3, 0.2, 0.5]);
        assert_eq!(u.variation_ratio, [0.5]);
    }

    #[test]
    fn without_logits_there_is_no_energy_and_no_maximum_logit() {
        let u = single_sample(1, 2, vec![0.5, 0.5]);
        assert_eq!((u.energy, u.max_logit), (None, None));
    }

    #[test]
    fn energy_and_maximum_logit_are_of_the_mean_logits() {
        let shape = Shape { members: 2, samples: 1, classes: 2 };
        let predictions = Predictions::new(shape, vec![0.5; 4], vec![0]).unwrap();
        // The mean is (2, 0); the mean of the members' energies would be −(ln(e⁴ + e) + ln(1 + e⁻¹)) / 2.
        let u = Uncertainty::new(&predictions.with_logits(vec![4.0, 1.0, 0.0, -1.0]).unwrap());
        assert_eq!(u.max_logit, Some(vec![2.0]));
        assert!((u.energy.unwrap()[0] + (2.0_f64.exp() + 1.0).ln()).abs() < 1e-15);
    }

    #[test]
    fn the_energy_of_large_logits_does_not_overflow() {
        assert_eq!(log_sum_exp(&[1e4, -1e4]), 1e4);
        assert!((log_sum_exp(&[-1e4; 3]) - (3.0_f64.ln() - 1e4)).abs() < 1e-11);
    }
}
