//! Reliability diagram and expected calibration error of the predicted class.
//!
//! Bins are 15, of equal width, open below and closed above. Confidences are rounded to `f32` before they
//! are binned, as the official code holds them: otherwise a softmax output of 0.2, which in `f32` lies
//! above 3/15 by rounding alone, would leave the bin that it belongs to. Sums are in `f64`.
//!
//! Adaptive and class-wise variants are deliberately absent.

use crate::predictions::{LabelledPredictions, argmax};

/// Number of bins of every reliability diagram.
pub const BINS: usize = 15;

/// One bar of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReliabilityBin {
    count: usize,
    correct: usize,
    confidence: f64,
}

impl ReliabilityBin {
    /// Samples in the bin.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Mean confidence of the bin's samples; `None` when it is empty.
    pub fn confidence(&self) -> Option<f64> {
        (self.count > 0).then(|| self.confidence / self.count as f64)
    }

    /// Share of the bin's samples that are predicted rightly; `None` when it is empty.
    pub fn accuracy(&self) -> Option<f64> {
        (self.count > 0).then(|| self.correct as f64 / self.count as f64)
    }

    /// `|mean confidence − accuracy|`; `None` when it is empty.
    pub fn gap(&self) -> Option<f64> {
        Some((self.confidence()? - self.accuracy()?).abs())
    }
}

/// Confidence against accuracy, in [`BINS`] bins.
#[derive(Debug, Clone, PartialEq)]
pub struct ReliabilityDiagram {
    bins: [ReliabilityBin; BINS],
    samples: usize,
}

impl ReliabilityDiagram {
    /// Bins the ensemble's confidence in its predicted class.
    pub fn new(predictions: &LabelledPredictions<'_>) -> Self {
        let mut diagram = Self { bins: Default::default(), samples: 0 };
        predictions.predictions().for_each_sample(|n, sample| {
            let predicted = argmax(sample.mean);
            diagram.add(sample.mean[predicted], predicted == predictions.label(n));
        });
        diagram
    }

    /// Bins pairs of confidence and "was right", for predictors whose probabilities are not at hand.
    ///
    /// A confidence of 0 is counted as a sample but falls in no bin. One above 1 by rounding falls in the last.
    pub fn from_outcomes(outcomes: impl IntoIterator<Item = (f64, bool)>) -> Self {
        let mut diagram = Self { bins: Default::default(), samples: 0 };
        for (confidence, right) in outcomes {
            diagram.add(confidence, right);
        }
        diagram
    }

    /// The bins, in order; bin `i` covers `(i/15, (i+1)/15]`.
    pub fn bins(&self) -> &[ReliabilityBin; BINS] {
        &self.bins
    }

    /// Lower (excluded) and upper (included) bound of bin `index`.
    pub fn bounds(index: usize) -> (f64, f64) {
        (f64::from(boundary(index)), f64::from(boundary(index + 1)))
    }

    /// Expected calibration error: the gaps of the bins, weighted by their share of the samples.
    ///
    /// Units: fraction, 0 (best) to 1; 0 without samples.
    ///
    /// Source: Naeini et al., *Obtaining Well Calibrated Probabilities Using Bayesian Binning*, AAAI 2015;
    /// bins as in the official LP-BNN code.
    pub fn expected_calibration_error(&self) -> f64 {
        let weighted = |bin: &ReliabilityBin| Some(bin.gap()? * bin.count as f64 / self.samples as f64);
        self.bins.iter().filter_map(weighted).sum()
    }

    fn add(&mut self, confidence: f64, right: bool) {
        self.samples += 1;
        if let Some(index) = bin_of(confidence) {
            let bin = &mut self.bins[index];
            bin.count += 1;
            bin.correct += usize::from(right);
            bin.confidence += confidence;
        }
    }
}

fn boundary(index: usize) -> f32 {
    index as f32 / BINS as f32
}

fn bin_of(confidence: f64) -> Option<usize> {
    let confidence = confidence as f32;
    if confidence.is_nan() || confidence <= 0.0 {
        return None;
    }
    // Comparing with every boundary, instead of rounding a product, leaves no doubt on a boundary.
    Some((1..BINS).filter(|&index| boundary(index) < confidence).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_belongs_to_the_bin_below_it() {
        for index in 0..BINS {
            let upper = boundary(index + 1);
            assert_eq!(bin_of(f64::from(upper)), Some(index), "{upper}");
            assert_eq!(bin_of(f64::from(upper.next_down())), Some(index), "{upper}");
            if index + 1 < BINS {
                assert_eq!(bin_of(f64::from(upper.next_up())), Some(index + 1), "{upper}");
            }
        }
    }

    #[test]
    fn a_fifth_is_in_the_third_bin_in_either_precision() {
        assert_eq!(bin_of(0.2), Some(2));
        assert_eq!(bin_of(f64::from(0.2_f32)), Some(2));
    }

    #[test]
    fn zero_is_in_no_bin_and_rounding_above_one_is_in_the_last() {
        assert_eq!(bin_of(0.0), None);
        assert_eq!(bin_of(f64::from(f32::MIN_POSITIVE)), Some(0));
        assert_eq!(bin_of(1.0 + 1e-6), Some(BINS - 1));
    }

    #[test]
    fn an_empty_bin_has_no_mean_and_adds_nothing() {
        let diagram = ReliabilityDiagram::from_outcomes([(0.9, true), (0.9, false)]);
        assert_eq!(diagram.bins()[0].count(), 0);
        assert_eq!(diagram.bins()[0].gap(), None);
        assert_eq!(diagram.bins()[13].count(), 2);
        assert_eq!(diagram.bins()[13].accuracy(), Some(0.5));
        assert!((diagram.expected_calibration_error() - 0.4).abs() < 1e-15);
    }

    #[test]
    fn a_confidence_of_zero_still_counts_as_a_sample() {
        let diagram = ReliabilityDiagram::from_outcomes([(0.0, true), (1.0, false)]);
        assert_eq!(diagram.expected_calibration_error(), 0.5);
    }

    #[test]
    fn bounds_are_consecutive() {
        assert_eq!(ReliabilityDiagram::bounds(0).0, 0.0);
        assert_eq!(ReliabilityDiagram::bounds(BINS - 1).1, 1.0);
        for index in 1..BINS {
            assert_eq!(ReliabilityDiagram::bounds(index - 1).1, ReliabilityDiagram::bounds(index).0);
        }
    }
}
