//! Paired comparison of two rows of a table over the seeds that both have.
//!
//! Two methods that are run with the same seed share data order, augmentation and often the initial weights, so the
//! difference of a seed is a better witness than the difference of two means. This file says how large the differences
//! are, how much they vary, and how often chance alone would give a mean as far from zero.
//!
//! The t-test takes the differences for normal. With three seeds nobody can check that, and a p-value near the level
//! is a hint, not a proof. Differences that do not vary at all (equal up to rounding) have no p-value: the test would
//! call three equal differences of one test image certain, and on a small test set they happen by chance.

use statrs::function::beta::beta_reg;

use crate::summary::{Summary, SummaryError};

/// Most pairs for which the exact distribution of the signed-rank statistic is computed.
const MOST_RANKED: usize = 200;

/// Spread of the differences below which they count as equal, in units of the largest value: a few roundings.
const ROUNDING: f64 = 16.0 * f64::EPSILON;

/// Why two lists cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PairedError {
    /// The lists are not pairs.
    #[error("{left} values cannot be paired with {right}")]
    Lengths {
        /// Values of the first list.
        left: usize,
        /// Values of the second list.
        right: usize,
    },
    /// No pair, or a value that is not finite.
    #[error("the pairs have no summary")]
    Summary(#[from] SummaryError),
}

/// What the differences of pairs say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedComparison {
    /// Pairs; at least 1.
    pub pairs: usize,
    /// Mean of `left − right`.
    pub mean: f64,
    /// Sample standard deviation of the differences; `None` for one pair.
    pub standard_deviation: Option<f64>,
    /// Cohen's d_z: mean over standard deviation of the differences. `None` when they do not vary, or for one pair.
    pub effect: Option<f64>,
    /// Two-sided p-value of the paired t-test, with `pairs − 1` degrees of freedom. `None` as `effect`.
    pub p_value: Option<f64>,
    /// Two-sided p-value of the exact Wilcoxon signed-rank test: no assumption but symmetry, and never below `2^(1−n)`.
    /// Pairs without a difference are left out, equal differences share their mean rank. `None` when no pair differs,
    /// or with more than 200 that do.
    pub signed_rank_p_value: Option<f64>,
}

impl PairedComparison {
    /// Compares `left` with `right`, pair by pair.
    ///
    /// # Errors
    ///
    /// [`PairedError`] when the lengths differ, there is no pair, or a value is not finite.
    pub fn new(left: &[f64], right: &[f64]) -> Result<Self, PairedError> {
        if left.len() != right.len() {
            return Err(PairedError::Lengths { left: left.len(), right: right.len() });
        }
        let differences: Vec<f64> = left.iter().zip(right).map(|(left, right)| left - right).collect();
        let Summary { count: pairs, mean, standard_deviation, .. } = Summary::new(&differences)?;
        let largest = left.iter().chain(right).fold(0.0, |largest: f64, value| largest.max(value.abs()));
        let varies = standard_deviation.filter(|deviation| *deviation > ROUNDING * largest);
        let effect = varies.map(|deviation| mean / deviation);
        let p_value = effect.map(|effect| {
            let pairs = pairs as f64;
            two_sided_t(effect * pairs.sqrt(), pairs - 1.0)
        });
        let noise = ROUNDING * largest;
        let signed_rank_p_value = signed_rank(&differences, noise);
        Ok(Self { pairs, mean, standard_deviation, effect, p_value, signed_rank_p_value })
    }
}

/// `P(|T| ≥ |t|)` for Student's t.
fn two_sided_t(t: f64, degrees: f64) -> f64 {
    beta_reg(degrees / 2.0, 0.5, degrees / (degrees + t * t))
}

/// Exact two-sided p-value of Wilcoxon's signed ranks, given the ranks, ties included.
///
/// Differences within `noise` of each other are ties: `0.9 − 0.8` and `0.8 − 0.7` differ in their last bit.
fn signed_rank(differences: &[f64], noise: f64) -> Option<f64> {
    let mut kept: Vec<f64> = differences.iter().copied().filter(|d| d.abs() > noise).collect();
    if kept.is_empty() || kept.len() > MOST_RANKED {
        return None;
    }
    kept.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()));
    // Twice the ranks, so that the mean rank of a tie is an integer.
    let mut ranks = Vec::with_capacity(kept.len());
    while let Some(&first) = kept.get(ranks.len()) {
        let start = ranks.len();
        let tied = kept[start..].iter().take_while(|d| d.abs() - first.abs() <= noise).count();
        ranks.extend(std::iter::repeat_n(2 * start + tied + 1, tied));
    }
    let total: usize = ranks.iter().sum();
    let positive: usize = ranks.iter().zip(&kept).filter(|(_, d)| **d > 0.0).map(|(rank, _)| rank).sum();
    // Probability of each sum of the positive ranks when every sign is a fair coin.
    let mut chances = vec![0.0; total + 1];
    chances[0] = 1.0;
    for rank in ranks {
        for sum in (0..=total).rev() {
            let with = if sum >= rank { chances[sum - rank] } else { 0.0 };
            chances[sum] = 0.5 * (chances[sum] + with);
        }
    }
    let tail: f64 = chances[..=positive.min(total - positive)].iter().sum();
    Some((2.0 * tail).min(1.0))
}

/// Holm's step-down correction: p-values that keep the chance of one false claim among all of them at the level.
///
/// In the order given; never below the p-value itself, never above 1.
///
/// Source: Holm, *A simple sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics 1979.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut corrected = vec![0.0; p_values.len()];
    let mut least = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        least = least.max((p_values.len() - rank) as f64 * p_values[index]).min(1.0);
        corrected[index] = least;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(left: &[f64], right: &[f64]) -> PairedComparison {
        PairedComparison::new(left, right).unwrap()
    }

    #[test]
    fn two_pairs_have_the_p_value_of_the_cauchy_distribution() {
        // Differences 1 and 3: t = 2 / (√2/√2) = 2, one degree of freedom: p = 1 − 2 atan(2)/π.
        let found = compare(&[2.0, 5.0], &[1.0, 2.0]);
        assert!((found.effect.unwrap() - 2.0_f64.sqrt()).abs() < 1e-15);
        let expected = 1.0 - 2.0 * 2.0_f64.atan() / std::f64::consts::PI;
        assert!((found.p_value.unwrap() - expected).abs() < 1e-14);
        assert_eq!(found.signed_rank_p_value, Some(0.5));
    }

    #[test]
    fn one_pair_has_a_difference_and_nothing_else() {
        let found = compare(&[0.9], &[0.7]);
        assert!((found.mean - 0.2).abs() < 1e-15);
        assert_eq!((found.standard_deviation, found.effect, found.p_value), (None, None, None));
        assert_eq!(found.signed_rank_p_value, Some(1.0));
    }

    #[test]
    fn differences_that_are_equal_up_to_rounding_have_no_p_value() {
        // 0.9 − 0.8, 0.8 − 0.7, 0.7 − 0.6: the last bits differ, and a t-test would be certain.
        let found = compare(&[0.9, 0.8, 0.7], &[0.8, 0.7, 0.6]);
        assert!(found.standard_deviation.unwrap() < 1e-15);
        assert_eq!((found.effect, found.p_value), (None, None));
        assert_eq!(found.signed_rank_p_value, Some(0.25));
        let same = compare(&[0.5, 0.25], &[0.5, 0.25]);
        assert_eq!((same.mean, same.p_value, same.signed_rank_p_value), (0.0, None, None));
    }

    #[test]
    fn the_order_of_the_two_turns_the_sign_and_nothing_else() {
        let (a, b) = ([0.91, 0.93, 0.95, 0.90], [0.90, 0.90, 0.96, 0.88]);
        let (one, other) = (compare(&a, &b), compare(&b, &a));
        assert!((one.mean + other.mean).abs() < 1e-16);
        assert!((one.p_value.unwrap() - other.p_value.unwrap()).abs() < 1e-14);
        assert_eq!(one.signed_rank_p_value, other.signed_rank_p_value);
    }

    #[test]
    fn the_exact_test_leaves_out_zeros_and_shares_ranks() {
        // Differences 0, 1, 1, 2, −1: ranks of 1, 1, −1 are 2 each, of 2 is 4. W⁻ = 2 of 10, and of the 16 sign
        // patterns 4 have a sum of at most 2.
        let found = compare(&[1.0, 2.0, 3.0, 5.0, 0.0], &[1.0, 1.0, 2.0, 3.0, 1.0]);
        assert_eq!(found.signed_rank_p_value, Some(0.5));
    }

    #[test]
    fn holm_multiplies_by_what_is_left_and_never_turns_the_order() {
        let found = holm(&[0.03, 0.01, 0.04, 0.9]);
        let expected = [0.09, 0.04, 0.09, 0.9];
        assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-15));
        assert_eq!(holm(&[0.6, 0.7]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        assert_eq!(PairedComparison::new(&[1.0], &[]), Err(PairedError::Lengths { left: 1, right: 0 }));
        assert!(PairedComparison::new(&[], &[]).is_err());
        assert!(PairedComparison::new(&[f64::NAN], &[1.0]).is_err());
    }
}
