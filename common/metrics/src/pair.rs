//! Diversity of two members' errors: Q statistic, correlation and ratio of errors.
//!
//! A statistic whose denominator is 0 is undefined, and says so as a NaN (0/0) or infinity (x/0), which
//! the mean over pairs keeps: an average over "the pairs that happened to be defined" would compare
//! methods on different pairs.

use crate::predictions::{LabelledPredictions, argmax};

/// How often two members are right and wrong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PairCounts {
    /// `N11`: both are right.
    pub both_right: u64,
    /// `N10`: only the first is right.
    pub first_right: u64,
    /// `N01`: only the second is right.
    pub second_right: u64,
    /// Both are wrong, and predict the same class. Part of `N00`.
    pub same_errors: u64,
    /// Both are wrong, and predict different classes. The rest of `N00`.
    pub different_errors: u64,
}

impl PairCounts {
    /// Yule's `Q = (N11·N00 − N01·N10) / (N11·N00 + N01·N10)`.
    ///
    /// Units: −1 to 1; 0 for independent errors; NaN for 0/0.
    ///
    /// Source: Kuncheva, Whitaker, *Measures of Diversity in Classifier Ensembles*, Machine Learning 2003.
    pub fn q_statistic(&self) -> f64 {
        let (together, apart) = self.products();
        (together - apart) / (together + apart)
    }

    /// Correlation of the two members' correctness:
    /// `ρ = (N11·N00 − N01·N10) / √((N11+N10)(N01+N00)(N11+N01)(N10+N00))`.
    ///
    /// Units: −1 to 1; NaN when a member is always right or always wrong.
    ///
    /// Source: as [`Self::q_statistic`].
    pub fn correlation(&self) -> f64 {
        let (together, apart) = self.products();
        let [n11, n10, n01, n00] = self.counts();
        (together - apart) / ((n11 + n10) * (n01 + n00) * (n11 + n01) * (n10 + n00)).sqrt()
    }

    /// `N(different errors) / N(same errors)`, of the samples that both get wrong.
    ///
    /// Units: 0 to ∞; higher is more diverse; NaN when they share no errors at all.
    ///
    /// Source: Aksela, *Comparison of Classifier Selection Methods for Improving Committee Performance*,
    /// MCS 2003.
    pub fn ratio_error(&self) -> f64 {
        self.different_errors as f64 / self.same_errors as f64
    }

    /// `N11`, `N10`, `N01`, `N00`.
    fn counts(&self) -> [f64; 4] {
        let both_wrong = self.same_errors + self.different_errors;
        [self.both_right, self.first_right, self.second_right, both_wrong].map(|count| count as f64)
    }

    fn products(&self) -> (f64, f64) {
        let [n11, n10, n01, n00] = self.counts();
        (n11 * n00, n01 * n10)
    }

    fn add(&mut self, label: usize, first: usize, second: usize) {
        let count = match (first == label, second == label) {
            (true, true) => &mut self.both_right,
            (true, false) => &mut self.first_right,
            (false, true) => &mut self.second_right,
            (false, false) if first == second => &mut self.same_errors,
            (false, false) => &mut self.different_errors,
        };
        *count += 1;
    }

    /// Counts of every pair of members, in the order (0, 1), (0, 2), …, (1, 2), …
    pub fn of_pairs(predictions: &LabelledPredictions<'_>) -> Vec<Self> {
        let samples = predictions.predictions();
        let members = samples.shape().members;
        let mut pairs = vec![Self::default(); members * (members - 1) / 2];
        let mut predicted = Vec::with_capacity(members);
        samples.for_each_sample(|n, sample| {
            let label = predictions.label(n);
            predicted.clear();
            predicted.extend(sample.members().map(argmax));
            let mut counts = pairs.iter_mut();
            for (second, first) in predicted.iter().enumerate().map(|(index, class)| (index + 1, class)) {
                for (other, counts) in predicted[second..].iter().zip(&mut counts) {
                    counts.add(label, *first, *other);
                }
            }
        });
        pairs
    }
}

/// Means over all pairs of members.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorDiversity {
    /// Mean of [`PairCounts::q_statistic`].
    pub q_statistic: f64,
    /// Mean of [`PairCounts::correlation`].
    pub correlation: f64,
    /// Mean of [`PairCounts::ratio_error`].
    pub ratio_error: f64,
}

impl ErrorDiversity {
    /// Averages over every pair of members; `None` for a single member, which has no pair.
    pub fn new(predictions: &LabelledPredictions<'_>) -> Option<Self> {
        let pairs = PairCounts::of_pairs(predictions);
        let mean = |statistic: fn(&PairCounts) -> f64| -> f64 {
            pairs.iter().map(statistic).sum::<f64>() / pairs.len() as f64
        };
        (!pairs.is_empty()).then(|| Self {
            q_statistic: mean(PairCounts::q_statistic),
            correlation: mean(PairCounts::correlation),
            ratio_error: mean(PairCounts::ratio_error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predictions::{Predictions, Shape};

    /// One-hot predictions: `votes[member][sample]`.
    fn labelled(classes: usize, votes: &[&[usize]], labels: Vec<u32>) -> LabelledPredictions<'static> {
        let shape = Shape { members: votes.len(), samples: labels.len(), classes };
        let one_hot = |&class: &usize| (0..classes).map(move |k| if k == class { 1.0_f64 } else { 0.0 });
        let probabilities: Vec<f64> = votes.iter().flat_map(|row| row.iter().flat_map(one_hot)).collect();
        let ids: Vec<u64> = (0..labels.len() as u64).collect();
        Predictions::new(shape, probabilities, ids).unwrap().with_labels(labels).unwrap()
    }

    #[test]
    fn every_outcome_of_a_pair_is_counted_once() {
        let labels = vec![0, 0, 0, 0, 0];
        let counts = PairCounts::of_pairs(&labelled(3, &[&[0, 0, 1, 1, 1], &[0, 1, 0, 1, 2]], labels));
        let expected = PairCounts {
            both_right: 1,
            first_right: 1,
            second_right: 1,
            same_errors: 1,
            different_errors: 1,
        };
        assert_eq!(counts, [expected]);
    }

    #[test]
    fn pairs_are_ordered_by_first_then_second_member() {
        // Member 0 is right, member 1 wrong, member 2 right.
        let counts = PairCounts::of_pairs(&labelled(2, &[&[0], &[1], &[0]], vec![0]));
        assert_eq!((counts[0].first_right, counts[1].both_right, counts[2].second_right), (1, 1, 1));
    }

    #[test]
    fn q_and_correlation_follow_their_definitions() {
        let counts = PairCounts {
            both_right: 50,
            first_right: 10,
            second_right: 5,
            same_errors: 8,
            different_errors: 2,
        };
        assert!((counts.q_statistic() - 450.0 / 550.0).abs() < 1e-15);
        let root = (60.0_f64 * 15.0 * 55.0 * 20.0).sqrt();
        assert!((counts.correlation() - 450.0 / root).abs() < 1e-15);
        assert_eq!(counts.ratio_error(), 0.25);
    }

    #[test]
    fn members_that_never_err_together_are_negatively_related() {
        let counts = PairCounts { first_right: 3, second_right: 3, ..Default::default() };
        assert_eq!((counts.q_statistic(), counts.correlation()), (-1.0, -1.0));
    }

    #[test]
    fn what_is_undefined_is_nan_or_infinite() {
        let perfect = PairCounts { both_right: 4, ..Default::default() };
        assert!(perfect.q_statistic().is_nan());
        assert!(perfect.correlation().is_nan());
        assert!(perfect.ratio_error().is_nan());
        let distinct = PairCounts { both_right: 4, different_errors: 1, ..Default::default() };
        assert_eq!(distinct.ratio_error(), f64::INFINITY);
        let same = PairCounts { both_right: 4, same_errors: 1, ..Default::default() };
        assert_eq!(same.ratio_error(), 0.0);
    }

    #[test]
    fn the_mean_over_pairs_keeps_an_undefined_pair() {
        // Members 0 and 1 never err; member 2 does.
        let found = ErrorDiversity::new(&labelled(2, &[&[0, 0], &[0, 0], &[1, 0]], vec![0, 0])).unwrap();
        assert!(found.q_statistic.is_nan());
        assert_eq!(ErrorDiversity::new(&labelled(2, &[&[0, 1]], vec![0, 0])), None);
    }

    #[test]
    fn three_members_are_averaged_over_their_three_pairs() {
        let votes: [&[usize]; 3] = [&[0, 0, 1, 1], &[0, 0, 1, 1], &[0, 1, 1, 0]];
        let found = ErrorDiversity::new(&labelled(2, &votes, vec![0; 4])).unwrap();
        // Pairs: (0,1) equal, Q = ρ = 1; (0,2) and (1,2) have all four counts 1, Q = ρ = 0.
        assert!((found.q_statistic - 1.0 / 3.0).abs() < 1e-15);
        assert!((found.correlation - 1.0 / 3.0).abs() < 1e-15);
        assert_eq!(found.ratio_error, 0.0);
    }
}
