//! How well one score separates two classes: AUROC, AUPR and FPR95.
//!
//! In this system the positive class is *out of distribution*, and a higher score means "more likely
//! positive". Scores are sorted once; every metric is then a walk over the distinct scores. Ties are always
//! grouped, so the order of the samples never matters. Counts are integers up to the last division, so
//! AUROC and FPR95 do not change by a bit under a strictly increasing map of the scores.
//!
//! No interpolation between operating points: a threshold that no score has is not a detector.

/// Why a detection curve cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DetectionError {
    /// There is no positive (out-of-distribution) score.
    #[error("there are no positive samples to detect")]
    NoPositives,
    /// There is no negative (in-distribution) score.
    #[error("there are no negative samples to tell the positive ones from")]
    NoNegatives,
    /// A score is NaN, which has no rank. Infinite scores have one.
    #[error("score {index} of the {class} samples is not a number")]
    NotANumber {
        /// The slice that it is in.
        class: DetectionClass,
        /// Position in that slice.
        index: usize,
    },
}

/// The two sides of a detection problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetectionClass {
    /// To be detected: out of distribution.
    Positive,
    /// To be left alone: in distribution.
    Negative,
}

impl std::fmt::Display for DetectionClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Positive => "positive",
            Self::Negative => "negative",
        })
    }
}

/// One threshold of a detector, for drawing its curves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectionPoint {
    /// Least score that is called positive.
    pub threshold: f64,
    /// Share of the negatives that are called positive, 0 to 1.
    pub false_positive_rate: f64,
    /// Share of the positives that are called positive: the recall, 0 to 1.
    pub true_positive_rate: f64,
    /// Share of positives among what is called positive, 0 to 1.
    pub precision: f64,
}

/// Samples whose score is at least some threshold.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct OperatingPoint {
    threshold: f64,
    true_positives: u64,
    false_positives: u64,
}

/// The operating points of a detector, one for each distinct score, from the strictest threshold on.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectionCurve {
    points: Vec<OperatingPoint>,
}

impl DetectionCurve {
    /// Sorts the scores and counts both classes at every distinct one.
    ///
    /// # Errors
    ///
    /// [`DetectionError`]: no metric is defined when either class is empty or a score is NaN.
    pub fn new(positives: &[f64], negatives: &[f64]) -> Result<Self, DetectionError> {
        if positives.is_empty() {
            return Err(DetectionError::NoPositives);
        }
        if negatives.is_empty() {
            return Err(DetectionError::NoNegatives);
        }
        let positives = descending(positives, DetectionClass::Positive)?;
        let negatives = descending(negatives, DetectionClass::Negative)?;
        Ok(Self { points: merge(&positives, &negatives) })
    }

    /// Area under the receiver operating characteristic: `P(s⁺ > s⁻) + ½ P(s⁺ = s⁻)`.
    ///
    /// Units: 0 to 1, chance level 0.5.
    pub fn auroc(&self) -> f64 {
        let total = self.total();
        let mut previous = OperatingPoint::default();
        // Twice the number of rightly ordered pairs, a tie being half a pair.
        let mut doubled = 0_u128;
        for point in &self.points {
            let negatives = u128::from(point.false_positives - previous.false_positives);
            doubled += negatives * u128::from(previous.true_positives + point.true_positives);
            previous = *point;
        }
        let pairs = u128::from(total.true_positives) * u128::from(total.false_positives);
        doubled as f64 / (2 * pairs) as f64
    }

    /// Average precision with the positive class to be found: `Σ (R_n − R_{n−1}) P_n` over distinct scores.
    ///
    /// Units: 0 to 1. Chance level is the share of positives, so values of data sets of different size do not
    /// compare.
    pub fn aupr(&self) -> f64 {
        average_precision(self.points.iter().map(|p| (p.true_positives, p.false_positives)))
    }

    /// Average precision with the *negative* (in-distribution) class to be found, by the negated score.
    ///
    /// Units: 0 to 1; chance level is the share of negatives.
    pub fn aupr_in(&self) -> f64 {
        let total = self.total();
        // What a threshold leaves out, from the loosest threshold back: the negated curve.
        let stricter = self.points.iter().rev().skip(1).copied().chain([OperatingPoint::default()]);
        average_precision(
            stricter.map(|p| {
                (total.false_positives - p.false_positives, total.true_positives - p.true_positives)
            }),
        )
    }

    /// False-positive rate at the operating point whose recall is nearest to 0.95.
    ///
    /// Not the first one with at least 0.95. Of two equally near recalls the higher is taken, of several points
    /// with the same recall the one with most false positives; points after full recall are not considered.
    /// Recalls are compared as integers, so that equal distances are equal.
    ///
    /// Units: fraction of the negatives, 0 (best) to 1.
    ///
    /// Source: Hendrycks et al., *Scaling Out-of-Distribution Detection for Real-World Settings* (code).
    pub fn fpr95(&self) -> f64 {
        let total = self.total();
        let positives = i128::from(total.true_positives);
        let full = self.points.partition_point(|p| p.true_positives < total.true_positives);
        // |recall − 19/20|, times 20 times the positives.
        let distance = |p: &&OperatingPoint| (20 * i128::from(p.true_positives) - 19 * positives).abs();
        let nearest = self.points[..=full].iter().rev().min_by_key(distance);
        nearest.map_or(1.0, |p| p.false_positives as f64 / total.false_positives as f64)
    }

    /// One point for each distinct score, from the strictest threshold on; the last calls everything positive. The
    /// point that calls nothing positive, where a ROC curve begins, is not among them.
    pub fn points(&self) -> impl Iterator<Item = DetectionPoint> {
        let total = self.total();
        self.points.iter().map(move |point| {
            let (found, false_alarms) = (point.true_positives as f64, point.false_positives as f64);
            DetectionPoint {
                threshold: point.threshold,
                false_positive_rate: false_alarms / total.false_positives as f64,
                true_positive_rate: found / total.true_positives as f64,
                precision: found / (found + false_alarms),
            }
        })
    }

    /// The loosest operating point: everything is called positive.
    fn total(&self) -> OperatingPoint {
        self.points.last().copied().unwrap_or_default()
    }
}

fn descending(scores: &[f64], class: DetectionClass) -> Result<Vec<f64>, DetectionError> {
    if let Some(index) = scores.iter().position(|score| score.is_nan()) {
        return Err(DetectionError::NotANumber { class, index });
    }
    let mut sorted = scores.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    Ok(sorted)
}

fn merge(positives: &[f64], negatives: &[f64]) -> Vec<OperatingPoint> {
    let mut points = Vec::new();
    let (mut tp, mut fp) = (0, 0);
    loop {
        let threshold = match (positives.get(tp), negatives.get(fp)) {
            (Some(&p), Some(&n)) => p.max(n),
            (Some(&score), None) | (None, Some(&score)) => score,
            (None, None) => return points,
        };
        // `==`, not the total order: 0.0 and −0.0 are one score.
        tp += positives[tp..].iter().take_while(|score| **score == threshold).count();
        fp += negatives[fp..].iter().take_while(|score| **score == threshold).count();
        points.push(OperatingPoint { threshold, true_positives: tp as u64, false_positives: fp as u64 });
    }
}

/// Step-wise average precision of a curve of cumulative (found, false alarms).
fn average_precision(curve: impl Iterator<Item = (u64, u64)>) -> f64 {
    let (mut sum, mut before) = (0.0, 0);
    for (found, false_alarms) in curve {
        sum += (found - before) as f64 * (found as f64 / (found + false_alarms) as f64);
        before = found;
    }
    sum / before as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(positives: &[f64], negatives: &[f64]) -> DetectionCurve {
        DetectionCurve::new(positives, negatives).unwrap()
    }

    #[test]
    fn an_empty_class_has_no_curve() {
        assert_eq!(DetectionCurve::new(&[], &[1.0]), Err(DetectionError::NoPositives));
        assert_eq!(DetectionCurve::new(&[1.0], &[]), Err(DetectionError::NoNegatives));
    }

    #[test]
    fn a_score_that_is_not_a_number_is_named() {
        let found = DetectionCurve::new(&[1.0], &[0.0, f64::NAN]).unwrap_err();
        assert_eq!(found, DetectionError::NotANumber { class: DetectionClass::Negative, index: 1 });
        assert_eq!(found.to_string(), "score 1 of the negative samples is not a number");
    }

    #[test]
    fn both_zeros_are_the_same_score() {
        assert_eq!(curve(&[0.0, -0.0], &[-0.0, 0.0]).auroc(), 0.5);
        assert_eq!(curve(&[-0.0, 0.0], &[0.0]).points.len(), 1);
    }

    #[test]
    fn infinite_scores_have_a_rank() {
        let curve = curve(&[f64::INFINITY, 1.0], &[f64::NEG_INFINITY, 0.0]);
        assert_eq!((curve.auroc(), curve.aupr(), curve.aupr_in(), curve.fpr95()), (1.0, 1.0, 1.0, 0.0));
    }

    #[test]
    fn one_sample_of_each_class_is_enough() {
        let right = curve(&[1.0], &[0.0]);
        assert_eq!((right.auroc(), right.aupr(), right.aupr_in(), right.fpr95()), (1.0, 1.0, 1.0, 0.0));
        let wrong = curve(&[0.0], &[1.0]);
        assert_eq!((wrong.auroc(), wrong.aupr(), wrong.aupr_in(), wrong.fpr95()), (0.0, 0.5, 0.5, 1.0));
    }

    #[test]
    fn fpr95_takes_the_nearest_recall_and_not_the_first_above() {
        // Recalls 16/17 = .941 and 17/17: .941 is nearer, although below .95. The negative enters with the
        // last positive.
        let positives: Vec<f64> = (1..=17).map(f64::from).collect();
        assert_eq!(curve(&positives, &[1.0]).fpr95(), 0.0);
    }

    #[test]
    fn fpr95_takes_the_higher_recall_on_an_exact_tie() {
        // 9/10 and 10/10 are both 1/20 away. In floating point 0.9 would look nearer.
        let positives: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(curve(&positives, &[1.0]).fpr95(), 1.0);
        // 28/30 and 29/30 are both 1/60 away.
        let positives: Vec<f64> = (1..=30).map(f64::from).collect();
        assert_eq!(curve(&positives, &[2.0]).fpr95(), 1.0);
        assert_eq!(curve(&positives, &[1.0]).fpr95(), 0.0);
    }

    #[test]
    fn fpr95_takes_the_most_false_positives_of_the_same_recall() {
        let positives: Vec<f64> = (1..=20).map(f64::from).collect();
        // Recall 19/20 is reached at 2.0 and kept at 1.5; recall 1 at 1.0.
        assert_eq!(curve(&positives, &[1.5, 0.5]).fpr95(), 0.5);
    }

    #[test]
    fn fpr95_does_not_look_beyond_full_recall() {
        assert_eq!(curve(&[3.0, 2.0], &[1.0, 0.0]).fpr95(), 0.0);
    }

    #[test]
    fn the_points_are_the_curve_that_the_areas_are_of() {
        let curve = curve(&[0.9, 0.5, 0.5, 0.1], &[0.5, 0.2, 0.1]);
        let points: Vec<_> = curve.points().collect();
        let thresholds: Vec<f64> = points.iter().map(|point| point.threshold).collect();
        assert_eq!(thresholds, [0.9, 0.5, 0.2, 0.1]);
        let (mut area, mut precision, mut before) = (0.0, 0.0, (0.0, 0.0));
        for point in points {
            let (x, y) = (point.false_positive_rate, point.true_positive_rate);
            area += (x - before.0) * (y + before.1) / 2.0;
            precision += (y - before.1) * point.precision;
            before = (x, y);
        }
        assert_eq!(before, (1.0, 1.0));
        assert!((area - curve.auroc()).abs() < 1e-15 && (precision - curve.aupr()).abs() < 1e-15);
    }

    #[test]
    fn aupr_in_is_aupr_with_the_classes_and_the_sign_exchanged() {
        let (ood, id) = ([0.9, 0.5, 0.5, 0.1], [0.5, 0.5, 0.2, 0.1]);
        let negated = |scores: &[f64]| scores.iter().map(|s| -s).collect::<Vec<_>>();
        assert_eq!(curve(&ood, &id).aupr_in(), curve(&negated(&id), &negated(&ood)).aupr());
    }
}
