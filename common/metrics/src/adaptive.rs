//! Calibration over bins of equal mass, which a confident network does not leave empty.
//!
//! Samples in the order of their confidence are cut into 15 runs of equal length; where the number of
//! samples is no multiple of 15, the first runs are one longer, as in `numpy.array_split` and
//! `torch.tensor_split`. **Ties:** a run may end between samples of equal confidence, and which of them it
//! gets is no property of the predictions. They therefore share their rightness: each counts as right by the
//! share of them that is. So the order of the samples changes nothing, and without ties nothing is changed.

use crate::calibration::{BINS, ReliabilityBin};
use crate::predictions::LabelledPredictions;

/// Confidence against accuracy, in [`BINS`] bins of equal mass.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptiveDiagram {
    bins: [ReliabilityBin; BINS],
    samples: usize,
}

impl AdaptiveDiagram {
    /// Bins the ensemble's confidence in its predicted class.
    pub fn new(predictions: &LabelledPredictions<'_>) -> Self {
        Self::from_outcomes(predictions.outcomes())
    }

    /// Bins pairs of confidence and "was right", for predictors whose probabilities are not at hand.
    pub fn from_outcomes(outcomes: impl IntoIterator<Item = (f64, bool)>) -> Self {
        let mut outcomes: Vec<(f64, bool)> = outcomes.into_iter().collect();
        outcomes.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut diagram = Self { bins: Default::default(), samples: outcomes.len() };
        let (length, longer) = (outcomes.len() / BINS, outcomes.len() % BINS);
        // Position at which the first bins that are one longer end.
        let bend = longer * (length + 1);
        let mut position = 0;
        for tied in outcomes.chunk_by(|a, b| a.0 == b.0) {
            let right = tied.iter().filter(|(_, right)| *right).count() as f64 / tied.len() as f64;
            for (confidence, _) in tied {
                let index = if position < bend {
                    position / (length + 1)
                } else {
                    longer + (position - bend) / length
                };
                let bin = &mut diagram.bins[index];
                bin.count += 1;
                bin.correct += right;
                bin.confidence += confidence;
                position += 1;
            }
        }
        diagram
    }

    /// The bins, by increasing confidence; with fewer samples than bins the last ones are empty.
    pub fn bins(&self) -> &[ReliabilityBin; BINS] {
        &self.bins
    }

    /// Adaptive calibration error: the gaps of the bins, weighted by their share of the samples.
    ///
    /// Units: fraction, 0 (best) to 1; 0 without samples.
    ///
    /// Source: Nguyen, O'Connor, *Posterior calibration and exploratory analysis for natural language
    /// processing models*, EMNLP 2015, with the absolute in place of the squared gap; of the predicted class
    /// only, unlike the adaptive calibration error of Nixon et al. 2019, which averages over classes.
    pub fn expected_calibration_error(&self) -> f64 {
        let weighted = |bin: &ReliabilityBin| Some(bin.gap()? * bin.count as f64 / self.samples as f64);
        self.bins.iter().filter_map(weighted).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bins_are_one_longer_where_the_samples_do_not_divide() {
        let counts = |samples: usize| {
            let outcomes = (0..samples).map(|i| ((i + 1) as f64 / samples as f64, true));
            AdaptiveDiagram::from_outcomes(outcomes).bins().map(|bin| bin.count())
        };
        assert_eq!(counts(30), [2; 15]);
        assert_eq!(counts(32), [3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
        assert_eq!(counts(2), [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(counts(0), [0; 15]);
    }

    #[test]
    fn bins_follow_the_confidence_and_not_the_order_given() {
        let outcomes = (0..30_u32).rev().map(|i| (0.5 + f64::from(i) / 100.0, i % 2 == 0));
        let diagram = AdaptiveDiagram::from_outcomes(outcomes);
        assert!((diagram.bins()[0].confidence().unwrap() - 0.505).abs() < 1e-12);
        assert_eq!(diagram.bins()[14].accuracy(), Some(0.5));
        // Every bin is half right; the gaps are the mean confidences less a half.
        assert!((diagram.expected_calibration_error() - 0.145).abs() < 1e-12);
    }

    #[test]
    fn samples_of_equal_confidence_share_their_rightness() {
        // All tied: whichever way they are cut, every bin has the accuracy of all.
        let sorted = (0..20).map(|i| (0.75, i < 10));
        let diagram = AdaptiveDiagram::from_outcomes(sorted);
        assert!(diagram.bins().iter().all(|bin| (bin.accuracy().unwrap() - 0.5).abs() < 1e-15));
        assert!((diagram.expected_calibration_error() - 0.25).abs() < 1e-12);
    }

    #[test]
    fn fewer_samples_than_bins_leave_no_gap_undefined() {
        let diagram = AdaptiveDiagram::from_outcomes([(0.6, true), (0.9, false)]);
        assert!((diagram.expected_calibration_error() - (0.4 + 0.9) / 2.0).abs() < 1e-15);
        assert_eq!(AdaptiveDiagram::from_outcomes([]).expected_calibration_error(), 0.0);
    }
}
