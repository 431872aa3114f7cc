//! Reliability diagrams of equal width, and the calibration errors that they give.
//!
//! Bins are 15, of equal width, open below and closed above. Confidences are rounded to `f32` before they
//! are binned, as the official code holds them: otherwise a softmax output of 0.2, which in `f32` lies
//! above 3/15 by rounding alone, would leave the bin that it belongs to. Sums are in `f64`.
//!
//! Bins of equal mass are in [`AdaptiveDiagram`](crate::AdaptiveDiagram).

use crate::predictions::{LabelledPredictions, argmax};

/// Number of bins of every reliability diagram.
pub const BINS: usize = 15;

/// One bar of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReliabilityBin {
    pub(crate) count: usize,
    /// Not always whole: samples of equal confidence share their rightness in a bin of equal mass.
    pub(crate) correct: f64,
    pub(crate) confidence: f64,
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
        (self.count > 0).then(|| self.correct / self.count as f64)
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

    /// One diagram a class: its probability in each sample against the share of samples that are of the class.
    ///
    /// Here a probability of 0, which many a class has, belongs to the first bin.
    ///
    /// Shapes: returns `[K]`.
    pub fn of_classes(predictions: &LabelledPredictions<'_>) -> Vec<Self> {
        let empty = Self { bins: Default::default(), samples: 0 };
        let mut diagrams = vec![empty; predictions.predictions().shape().classes];
        predictions.predictions().for_each_sample(|n, sample| {
            for (class, (diagram, p)) in diagrams.iter_mut().zip(sample.mean).enumerate() {
                diagram.samples += 1;
                diagram.fill(bin_of(*p).unwrap_or_default(), *p, class == predictions.label(n));
            }
        });
        diagrams
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

    /// Maximum calibration error: the widest gap of a bin, however few its samples.
    ///
    /// Units: fraction, 0 (best) to 1; 0 without samples.
    ///
    /// Source: as [`Self::expected_calibration_error`].
    pub fn maximum_calibration_error(&self) -> f64 {
        self.bins.iter().filter_map(ReliabilityBin::gap).fold(0.0, f64::max)
    }

    fn add(&mut self, confidence: f64, right: bool) {
        self.samples += 1;
        if let Some(index) = bin_of(confidence) {
            self.fill(index, confidence, right);
        }
    }

    fn fill(&mut self, index: usize, confidence: f64, right: bool) {
        let bin = &mut self.bins[index];
        bin.count += 1;
        bin.correct += f64::from(u8::from(right));
        bin.confidence += confidence;
    }
}

/// Class-wise calibration error: the expected calibration error of each class's probability, averaged over
/// classes. Every class weighs the same, every sample counts for every class, bins as in [`ReliabilityDiagram`].
///
/// Units: fraction, 0 (best) to 1. With many classes it is small, because most probabilities are.
///
/// Source: Kull et al., *Beyond temperature scaling*, NeurIPS 2019 (classwise-ECE); the same as the static
/// calibration error of Nixon et al., *Measuring Calibration in Deep Learning*, 2019.
pub fn classwise_calibration_error(predictions: &LabelledPredictions<'_>) -> f64 {
    let diagrams = ReliabilityDiagram::of_classes(predictions);
    diagrams.iter().map(ReliabilityDiagram::expected_calibration_error).sum::<f64>() / diagrams.len() as f64
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

    #[test]
    fn the_maximum_is_that_of_one_bin_and_not_of_its_share() {
        let many = [(0.95, true); 19].into_iter().chain([(0.95, false), (0.5, false)]);
        let diagram = ReliabilityDiagram::from_outcomes(many);
        assert_eq!(diagram.maximum_calibration_error(), 0.5);
        assert!((diagram.expected_calibration_error() - 0.5 / 21.0).abs() < 1e-12);
        assert_eq!(ReliabilityDiagram::from_outcomes([]).maximum_calibration_error(), 0.0);
    }

    #[test]
    fn every_class_counts_and_a_probability_of_zero_is_not_forgotten() {
        let shape = crate::Shape { members: 1, samples: 2, classes: 3 };
        let values = vec![1.0, 0.0, 0.0, 0.5, 0.5, 0.0];
        let predictions = crate::Predictions::new(shape, values, vec![0, 1]).unwrap();
        let labelled = predictions.with_labels(vec![0, 2]).unwrap();
        // Class 0: 1 is right, 0.5 wrong. Class 1: 0 right, 0.5 wrong. Class 2: zeros, of which half are wrong.
        let errors: Vec<f64> = ReliabilityDiagram::of_classes(&labelled)
            .iter()
            .map(ReliabilityDiagram::expected_calibration_error)
            .collect();
        assert_eq!(errors, [0.25, 0.25, 0.5]);
        assert!((classwise_calibration_error(&labelled) - 1.0 / 3.0).abs() < 1e-15);
    }
}
