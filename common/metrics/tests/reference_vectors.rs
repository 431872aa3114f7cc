//! Reference vectors that the official LP-BNN evaluation code gives (scikit-learn for AUROC and AUPR).
//!
//! They were printed with six decimals, hence the tolerance of half a unit of the sixth.

#![expect(clippy::unwrap_used, reason = "clippy does not take helpers in integration tests for tests")]

use metrics::{DetectionCurve, ReliabilityDiagram};

const TOLERANCE: f64 = 5e-7;

#[track_caller]
fn assert_close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= TOLERANCE, "found {found}, expected {expected}");
}

#[track_caller]
fn assert_detection(positives: &[f64], negatives: &[f64], [auroc, aupr, fpr95]: [f64; 3]) {
    let curve = DetectionCurve::new(positives, negatives).unwrap();
    assert_close(curve.auroc(), auroc);
    assert_close(curve.aupr(), aupr);
    assert_close(curve.fpr95(), fpr95);
}

#[test]
fn scores_that_separate_perfectly() {
    assert_detection(&[0.9, 0.8, 0.7], &[0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 0.0]);
}

#[test]
fn scores_that_interleave() {
    assert_detection(&[0.9, 0.7, 0.2], &[0.8, 0.6, 0.4, 0.1], [0.666_667, 0.722_222, 0.75]);
}

#[test]
fn scores_that_are_all_equal() {
    assert_detection(&[0.5, 0.5], &[0.5, 0.5, 0.5], [0.5, 0.4, 1.0]);
}

#[test]
fn scores_that_tie_within_and_between_the_classes() {
    assert_detection(&[0.9, 0.5, 0.5, 0.1], &[0.5, 0.5, 0.2, 0.1], [0.656_25, 0.675, 1.0]);
}

#[test]
fn scores_that_are_the_wrong_way_round() {
    assert_detection(&[0.1, 0.2], &[0.8, 0.9], [0.0, 0.416_667, 1.0]);
}

#[test]
fn scores_with_a_point_at_exactly_95_percent_recall() {
    // numpy's `linspace(.05, 1, 20)`, whose tenth value is 0.5 less one unit in the last place: no tie with 0.5.
    let positives: Vec<f64> = (0..20).map(|i| 0.05 + f64::from(i) * (0.95 / 19.0)).collect();
    assert!(positives[9] < 0.5);
    let negatives = [0.03, 0.08, 0.12, 0.33, 0.5, 0.77];
    assert_detection(&positives, &negatives, [0.716_667, 0.894_188, 0.833_333]);
}

#[test]
fn a_single_positive() {
    assert_detection(&[0.6], &[0.1, 0.7, 0.2, 0.9], [0.5, 0.333_333, 0.5]);
}

#[test]
fn calibration_with_confidences_on_boundaries_and_at_one() {
    let confidences = [0.95, 0.95, 0.6, 0.6, 0.3, 1.0, 1.0 / 15.0, 2.0 / 15.0];
    let right = [true, false, true, true, false, true, false, true];
    let diagram = ReliabilityDiagram::from_outcomes(confidences.into_iter().zip(right));
    assert_close(diagram.expected_calibration_error(), 0.366_667);
    // The two boundary values are each in the bin below the boundary.
    assert_eq!((diagram.bins()[0].count(), diagram.bins()[1].count()), (1, 1));
    assert_eq!(diagram.bins()[14].count(), 3);
}

#[test]
fn calibration_of_a_fifth_which_is_a_boundary_in_single_precision() {
    let diagram = ReliabilityDiagram::from_outcomes([(0.2, false), (0.2, false), (0.2, true)]);
    assert_close(diagram.expected_calibration_error(), 0.133_333);
    // (2/15, 3/15].
    assert_eq!(diagram.bins()[2].count(), 3);
}
