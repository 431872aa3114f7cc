//! Validated predictions of an ensemble: probabilities per member, sample ids, labels.
//!
//! Everything that the metrics rely on is checked here, once, so that each metric is a total function.
//! Labels are a separate type, because out-of-distribution samples have none that the model knows.
//!
//! Probabilities are never renormalised: a metric describes what the model emitted.

use std::borrow::Cow;

use crate::values::Values;

/// How far the sum of a row may be from 1.
///
/// An `f32` softmax over a thousand classes errs by less than 1e-4; logits, log-probabilities and a
/// mistaken axis err by much more.
pub const ROW_SUM_TOLERANCE: f64 = 1e-4;

/// Extent of the three axes of predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Networks of the ensemble, or stochastic forward passes; `J`.
    pub members: usize,
    /// Samples of the data set; `N`.
    pub samples: usize,
    /// Classes that the model knows; `K`.
    pub classes: usize,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}, {}, {}]", self.members, self.samples, self.classes)
    }
}

/// Why predictions were refused. Samples are named by their id, not by their position.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PredictionsError {
    /// An axis has no extent, so no metric is defined.
    #[error("predictions of shape {shape} are empty: members, samples and classes must all be at least 1")]
    Empty {
        /// The shape as given.
        shape: Shape,
    },
    /// The buffer does not hold what the shape says.
    #[error("predictions of shape {shape} need {} probabilities, {found} were given", needed(*.shape))]
    ProbabilityCount {
        /// The shape as given.
        shape: Shape,
        /// Length of the buffer.
        found: usize,
    },
    /// There must be one logit for each probability.
    #[error("predictions of shape {shape} need {} logits, {found} were given", needed(*.shape))]
    LogitCount {
        /// The shape as given.
        shape: Shape,
        /// Length of the buffer.
        found: usize,
    },
    /// A logit is infinite or not a number.
    #[error(
        "member {member} gives sample id {id} the logit {value} for class {class}: logits must be finite"
    )]
    LogitNotFinite {
        /// The member.
        member: usize,
        /// The sample.
        id: u64,
        /// The class.
        class: usize,
        /// The offending value.
        value: f64,
    },
    /// There must be one id for each sample.
    #[error("{samples} samples need as many ids, {found} were given")]
    IdCount {
        /// Samples of the shape.
        samples: usize,
        /// Number of ids.
        found: usize,
    },
    /// A sample that is counted twice biases every metric; padding of a distributed sampler does this.
    #[error("sample id {id} occurs more than once: remove the repeated samples before computing metrics")]
    DuplicateId {
        /// The smallest repeated id.
        id: u64,
    },
    /// There must be one label for each sample.
    #[error("{samples} samples need as many labels, {found} were given")]
    LabelCount {
        /// Samples of the shape.
        samples: usize,
        /// Number of labels.
        found: usize,
    },
    /// A label names a class that the model does not know.
    #[error("sample id {id} has label {label}, but the predictions have {classes} classes (0 to {})", classes - 1)]
    LabelOutOfRange {
        /// The sample.
        id: u64,
        /// Its label.
        label: u32,
        /// Classes of the shape.
        classes: usize,
    },
    /// A value is negative, infinite or not a number.
    #[error("member {member} gives sample id {id} the probability {value} for class {class}")]
    NotAProbability {
        /// The member.
        member: usize,
        /// The sample.
        id: u64,
        /// The class.
        class: usize,
        /// The offending value.
        value: f64,
    },
    /// The probabilities of a row do not sum to 1 within [`ROW_SUM_TOLERANCE`].
    #[error(
        "the probabilities of member {member} for sample id {id} sum to {sum}, not 1: \
         logits need a softmax over the class axis"
    )]
    RowSum {
        /// The member.
        member: usize,
        /// The sample.
        id: u64,
        /// The sum.
        sum: f64,
    },
}

/// Saturates, which no buffer can match.
fn needed(shape: Shape) -> usize {
    shape.members.saturating_mul(shape.samples).saturating_mul(shape.classes)
}

/// Class probabilities of each member for each sample, with the samples' ids.
///
/// Shapes: probabilities `[J, N, K]`, row-major, member-major; ids `[N]`.
///
/// Holds its data borrowed or owned; `Predictions<'static>` owns all of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions<'a> {
    shape: Shape,
    probabilities: Values<'a>,
    logits: Option<Values<'a>>,
    ids: Cow<'a, [u64]>,
}

impl<'a> Predictions<'a> {
    /// Checks and takes probabilities and ids.
    ///
    /// # Errors
    ///
    /// [`PredictionsError`] names the first thing that is wrong: an empty axis, a wrong length, a repeated
    /// id, a value that is not a probability, a row that does not sum to 1.
    pub fn new(
        shape: Shape,
        probabilities: impl Into<Values<'a>>,
        ids: impl Into<Cow<'a, [u64]>>,
    ) -> Result<Self, PredictionsError> {
        let (probabilities, ids) = (probabilities.into(), ids.into());
        if shape.members == 0 || shape.samples == 0 || shape.classes == 0 {
            return Err(PredictionsError::Empty { shape });
        }
        if probabilities.len() != needed(shape) {
            return Err(PredictionsError::ProbabilityCount { shape, found: probabilities.len() });
        }
        if ids.len() != shape.samples {
            return Err(PredictionsError::IdCount { samples: shape.samples, found: ids.len() });
        }
        if let Some(id) = repeated(&ids) {
            return Err(PredictionsError::DuplicateId { id });
        }
        let predictions = Self { shape, probabilities, logits: None, ids };
        predictions.check_rows()?;
        Ok(predictions)
    }

    /// Takes probabilities that were computed here, for ids that have been checked.
    pub(crate) fn normalised(shape: Shape, probabilities: Vec<f64>, ids: Vec<u64>) -> Predictions<'static> {
        debug_assert_eq!((probabilities.len(), ids.len()), (needed(shape), shape.samples), "{shape}");
        Predictions { shape, probabilities: probabilities.into(), logits: None, ids: ids.into() }
    }

    /// Adds what the probabilities were computed from, for the scores that need it.
    ///
    /// Nothing asks that the softmax of the logits be the probabilities: it is not for a method whose
    /// probabilities are no softmax, nor where both are means over draws.
    ///
    /// Shapes: `[J, N, K]`, row-major, member-major.
    ///
    /// # Errors
    ///
    /// [`PredictionsError::LogitCount`] and [`PredictionsError::LogitNotFinite`].
    pub fn with_logits(mut self, logits: impl Into<Values<'a>>) -> Result<Self, PredictionsError> {
        let (logits, shape) = (logits.into(), self.shape);
        if logits.len() != needed(shape) {
            return Err(PredictionsError::LogitCount { shape, found: logits.len() });
        }
        if let Some(index) = (0..logits.len()).find(|&index| !logits.get(index).is_finite()) {
            let (row, class) = (index / shape.classes, index % shape.classes);
            let (member, id) = (row / shape.samples, self.ids[row % shape.samples]);
            return Err(PredictionsError::LogitNotFinite { member, id, class, value: logits.get(index) });
        }
        self.logits = Some(logits);
        Ok(self)
    }

    /// Adds the true classes, for the metrics that need them.
    ///
    /// # Errors
    ///
    /// [`PredictionsError::LabelCount`] and [`PredictionsError::LabelOutOfRange`].
    pub fn with_labels(
        self,
        labels: impl Into<Cow<'a, [u32]>>,
    ) -> Result<LabelledPredictions<'a>, PredictionsError> {
        let labels = labels.into();
        let Shape { samples, classes, .. } = self.shape;
        if labels.len() != samples {
            return Err(PredictionsError::LabelCount { samples, found: labels.len() });
        }
        if let Some(n) = labels.iter().position(|&label| label as usize >= classes) {
            return Err(PredictionsError::LabelOutOfRange { id: self.ids[n], label: labels[n], classes });
        }
        Ok(LabelledPredictions { predictions: self, labels })
    }

    /// Extent of the axes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Ids of the samples, `[N]`.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Mean of the members' probabilities: the predictive distribution of the ensemble.
    ///
    /// Shapes: returns `[N, K]`, row-major.
    pub fn ensemble_mean(&self) -> Vec<f64> {
        let mut means = Vec::with_capacity(self.shape.samples * self.shape.classes);
        self.for_each_sample(|_, sample| means.extend_from_slice(sample.mean));
        means
    }

    /// Class that the ensemble predicts for each sample, `[N]`; the lowest index on ties.
    pub fn predicted_classes(&self) -> Vec<usize> {
        let mut classes = Vec::with_capacity(self.shape.samples);
        self.for_each_sample(|_, sample| classes.push(argmax(sample.mean)));
        classes
    }

    /// Whether there are logits.
    pub fn has_logits(&self) -> bool {
        self.logits.is_some()
    }

    /// Visits the mean over members of the logits of each sample, `[K]`, in order; nothing without logits.
    pub(crate) fn for_each_mean_logits(&self, mut visit: impl FnMut(usize, &[f64])) {
        let Some(logits) = &self.logits else { return };
        let mut rows = vec![0.0; self.shape.members * self.shape.classes];
        let mut mean = vec![0.0; self.shape.classes];
        for n in 0..self.shape.samples {
            self.gather(logits, n, &mut rows, &mut mean);
            visit(n, &mean);
        }
    }

    /// Visits the samples in order, with one reused buffer: no metric needs the whole `[N, K]` mean.
    pub(crate) fn for_each_sample(&self, mut visit: impl FnMut(usize, Sample<'_>)) {
        let mut rows = vec![0.0; self.shape.members * self.shape.classes];
        let mut mean = vec![0.0; self.shape.classes];
        for n in 0..self.shape.samples {
            self.gather(&self.probabilities, n, &mut rows, &mut mean);
            visit(n, Sample { rows: &rows, mean: &mean });
        }
    }

    /// Reads what all members say of sample `n`, and its mean.
    fn gather(&self, values: &Values<'_>, n: usize, rows: &mut [f64], mean: &mut [f64]) {
        let Shape { members, samples, classes } = self.shape;
        mean.fill(0.0);
        for (j, row) in rows.chunks_exact_mut(classes).enumerate() {
            values.read((j * samples + n) * classes, row);
            for (sum, value) in mean.iter_mut().zip(row) {
                *sum += *value;
            }
        }
        for value in mean {
            *value /= members as f64;
        }
    }

    fn check_rows(&self) -> Result<(), PredictionsError> {
        let Shape { members, samples, classes } = self.shape;
        let mut row = vec![0.0; classes];
        for member in 0..members {
            for n in 0..samples {
                self.probabilities.read((member * samples + n) * classes, &mut row);
                let id = self.ids[n];
                if let Some(class) = row.iter().position(|p| !p.is_finite() || *p < 0.0) {
                    return Err(PredictionsError::NotAProbability { member, id, class, value: row[class] });
                }
                let sum: f64 = row.iter().sum();
                if (sum - 1.0).abs() > ROW_SUM_TOLERANCE {
                    return Err(PredictionsError::RowSum { member, id, sum });
                }
            }
        }
        Ok(())
    }
}

/// Predictions together with the true class of each sample.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledPredictions<'a> {
    predictions: Predictions<'a>,
    labels: Cow<'a, [u32]>,
}

impl<'a> LabelledPredictions<'a> {
    /// The predictions without the labels.
    pub fn predictions(&self) -> &Predictions<'a> {
        &self.predictions
    }

    /// True classes, `[N]`.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The same labels for other predictions of the same samples.
    pub(crate) fn with_predictions<'b>(&'b self, predictions: Predictions<'b>) -> LabelledPredictions<'b> {
        LabelledPredictions { predictions, labels: Cow::Borrowed(&self.labels) }
    }

    /// Confidence of the ensemble in its predicted class, and whether it was right, of each sample.
    pub(crate) fn outcomes(&self) -> Vec<(f64, bool)> {
        let mut outcomes = Vec::with_capacity(self.labels.len());
        self.predictions.for_each_sample(|n, sample| {
            let predicted = argmax(sample.mean);
            outcomes.push((sample.mean[predicted], predicted == self.label(n)));
        });
        outcomes
    }

    pub(crate) fn label(&self, sample: usize) -> usize {
        self.labels[sample] as usize
    }

    /// The ensemble's probability of the true class.
    pub(crate) fn true_class_probability(&self, sample: usize) -> f64 {
        let Shape { members, samples, classes } = self.predictions.shape;
        let mut sum = 0.0;
        for j in 0..members {
            let row = (j * samples + sample) * classes;
            sum += self.predictions.probabilities.get(row + self.label(sample));
        }
        sum / members as f64
    }
}

/// One sample as the metrics see it.
#[derive(Clone, Copy)]
pub(crate) struct Sample<'s> {
    rows: &'s [f64],
    /// Mean over members, `[K]`.
    pub(crate) mean: &'s [f64],
}

impl<'s> Sample<'s> {
    /// The members' probabilities, each `[K]`.
    pub(crate) fn members(&self) -> impl Iterator<Item = &'s [f64]> {
        self.rows.chunks_exact(self.mean.len())
    }
}

/// Index of the greatest value; the lowest one on ties.
pub(crate) fn argmax(values: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// The smallest id that occurs twice. Stored predictions are usually in order, which needs no copy.
fn repeated(ids: &[u64]) -> Option<u64> {
    if ids.is_sorted_by(|a, b| a < b) {
        return None;
    }
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_BY_TWO: Shape = Shape { members: 1, samples: 2, classes: 2 };

    fn refused(shape: Shape, probabilities: Vec<f64>, ids: Vec<u64>) -> PredictionsError {
        Predictions::new(shape, probabilities, ids).unwrap_err()
    }

    #[test]
    fn an_axis_without_extent_is_refused() {
        for (members, samples, classes) in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
            let shape = Shape { members, samples, classes };
            assert_eq!(refused(shape, vec![], vec![]), PredictionsError::Empty { shape });
        }
    }

    #[test]
    fn lengths_must_match_the_shape() {
        let found = refused(TWO_BY_TWO, vec![0.5; 3], vec![0, 1]);
        assert_eq!(found, PredictionsError::ProbabilityCount { shape: TWO_BY_TWO, found: 3 });
        assert_eq!(found.to_string(), "predictions of shape [1, 2, 2] need 4 probabilities, 3 were given");
        let found = refused(TWO_BY_TWO, vec![0.5; 4], vec![0]);
        assert_eq!(found, PredictionsError::IdCount { samples: 2, found: 1 });
    }

    #[test]
    fn a_shape_that_overflows_is_refused_not_wrapped() {
        let shape = Shape { members: usize::MAX, samples: 2, classes: 2 };
        assert!(matches!(
            refused(shape, vec![0.5; 4], vec![0, 1]),
            PredictionsError::ProbabilityCount { .. }
        ));
    }

    #[test]
    fn a_repeated_sample_is_refused_wherever_it_stands() {
        let shape = Shape { members: 1, samples: 4, classes: 2 };
        let found = refused(shape, vec![0.5; 8], vec![9, 3, 7, 3]);
        assert_eq!(found, PredictionsError::DuplicateId { id: 3 });
        assert!(Predictions::new(shape, vec![0.5; 8], vec![9, 3, 7, 1]).is_ok());
    }

    #[test]
    fn what_is_not_a_probability_is_named_by_member_id_and_class() {
        let shape = Shape { members: 2, samples: 2, classes: 2 };
        for bad in [f64::NAN, f64::INFINITY, -0.25] {
            let values = vec![0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.25, bad];
            match refused(shape, values, vec![40, 41]) {
                PredictionsError::NotAProbability { member: 1, id: 41, class: 1, value } => {
                    assert_eq!(value.to_bits(), bad.to_bits());
                }
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn logits_are_refused_and_rounding_is_not() {
        let logits = vec![0.5, 0.5, 2.0, 0.5];
        assert_eq!(
            refused(TWO_BY_TWO, logits, vec![0, 1]),
            PredictionsError::RowSum { member: 0, id: 1, sum: 2.5 }
        );
        assert!(Predictions::new(TWO_BY_TWO, vec![0.5, 0.50009, 0.5, 0.49991], vec![0, 1]).is_ok());
        assert!(Predictions::new(TWO_BY_TWO, vec![0.5, 0.50011, 0.5, 0.5], vec![0, 1]).is_err());
    }

    #[test]
    fn logits_are_one_per_probability_and_finite() {
        let shape = Shape { members: 2, samples: 2, classes: 2 };
        let predictions = Predictions::new(shape, vec![0.5; 8], vec![40, 41]).unwrap();
        assert!(!predictions.has_logits());
        let found = predictions.clone().with_logits(vec![0.0; 7]).unwrap_err();
        assert_eq!(found, PredictionsError::LogitCount { shape, found: 7 });
        let values = vec![0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, f64::INFINITY];
        let found = predictions.clone().with_logits(values).unwrap_err();
        let expected = PredictionsError::LogitNotFinite { member: 1, id: 41, class: 1, value: f64::INFINITY };
        assert_eq!(found, expected);
        let values: Vec<f32> = vec![1.0, -1.0, 2.0, 3.0, 5.0, 0.0, 2.0, 3.0];
        let mut means = Vec::new();
        predictions
            .with_logits(values)
            .unwrap()
            .for_each_mean_logits(|_, mean| means.extend_from_slice(mean));
        assert_eq!(means, [3.0, -0.5, 2.0, 3.0]);
    }

    #[test]
    fn labels_are_one_per_sample_and_below_the_number_of_classes() {
        let predictions = Predictions::new(TWO_BY_TWO, vec![0.5; 4], vec![7, 8]).unwrap();
        let found = predictions.clone().with_labels(vec![0]).unwrap_err();
        assert_eq!(found, PredictionsError::LabelCount { samples: 2, found: 1 });
        let found = predictions.clone().with_labels(vec![1, 2]).unwrap_err();
        assert_eq!(found, PredictionsError::LabelOutOfRange { id: 8, label: 2, classes: 2 });
        assert_eq!(found.to_string(), "sample id 8 has label 2, but the predictions have 2 classes (0 to 1)");
        assert!(predictions.with_labels(vec![1, 0]).is_ok());
    }

    #[test]
    fn the_ensemble_mean_is_over_members_not_over_samples() {
        let shape = Shape { members: 2, samples: 2, classes: 2 };
        let values = vec![1.0, 0.0, 0.25, 0.75, /* member 1 */ 0.5, 0.5, 0.75, 0.25];
        let predictions = Predictions::new(shape, values, vec![0, 1]).unwrap();
        assert_eq!(predictions.ensemble_mean(), [0.75, 0.25, 0.5, 0.5]);
        // Sample 1 is a tie: the lowest index wins.
        assert_eq!(predictions.predicted_classes(), [0, 0]);
    }

    #[test]
    fn both_precisions_and_both_kinds_of_ownership_agree() {
        let narrow: [f32; 4] = [0.25, 0.75, 0.5, 0.5];
        let wide: Vec<f64> = narrow.iter().map(|&p| f64::from(p)).collect();
        let ids = [0_u64, 1];
        let borrowed = Predictions::new(TWO_BY_TWO, &narrow[..], &ids[..]).unwrap();
        let owned: Predictions<'static> =
            Predictions::new(TWO_BY_TWO, narrow.to_vec(), ids.to_vec()).unwrap();
        let double = Predictions::new(TWO_BY_TWO, &wide[..], &ids[..]).unwrap();
        assert_eq!(borrowed, owned);
        assert_eq!(borrowed.ensemble_mean(), double.ensemble_mean());
    }

    #[test]
    fn argmax_takes_the_lowest_index_on_ties() {
        assert_eq!(argmax(&[0.2, 0.4, 0.4]), 1);
        assert_eq!(argmax(&[0.3]), 0);
    }
}
