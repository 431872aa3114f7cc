//! The one entry point that turns predictions into named figures.
//!
//! Decides which metrics belong to an evaluation, their order, and when one is absent. A metric that is
//! undefined for the predictions at hand (diversity of a single network, a ratio without denominator) is
//! left out rather than reported as NaN or infinity, so that every reported value can be stored, averaged
//! over seeds and written as JSON; a table then shows how many seeds have it.

use std::collections::{BTreeMap, BTreeSet};

use crate::adaptive::AdaptiveDiagram;
use crate::calibration::{ReliabilityDiagram, classwise_calibration_error};
use crate::classification::{brier_score, negative_log_likelihood};
use crate::detection::{DetectionCurve, DetectionError};
use crate::diversity::Diversity;
use crate::evaluation::Evaluation;
use crate::metric::Metric;
use crate::name::{MetricName, MetricNameError};
use crate::pair::ErrorDiversity;
use crate::predictions::{LabelledPredictions, Shape};
use crate::score::OodScore;
use crate::selective::RiskCoverage;
use crate::shift::{Quality, ShiftName, ShiftedSet, averages};
use crate::temperature::Temperature;
use crate::uncertainty::{Uncertainty, mean};

/// The risk at which coverage is reported.
const RISK: f64 = 0.05;

/// What the held-out predictions are called in an error.
const HELD_OUT: &str = "held_out";

/// Why no report can be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReportError {
    /// A set has a name that cannot be part of a metric name.
    #[error("the name of a set was refused")]
    SetName(#[from] MetricNameError),
    /// Two out-of-distribution sets, or two corrupted ones, have the same name.
    #[error("the set `{set}` is given twice")]
    DuplicateSet {
        /// Its name.
        set: String,
    },
    /// The two sets were not predicted by the same ensemble.
    #[error(
        "predictions for `{set}` have shape {found}, those in distribution {expected}: \
         members and classes must be equal"
    )]
    DifferentEnsemble {
        /// The out-of-distribution set, or `held_out`.
        set: String,
        /// Shape of the in-distribution predictions.
        expected: Shape,
        /// Shape of the other predictions.
        found: Shape,
    },
    /// The corrupted set was not predicted by the same classifier.
    #[error(
        "predictions for `{set}` have shape {found}, those in distribution {expected}: classes must be equal"
    )]
    DifferentClasses {
        /// The corrupted set.
        set: ShiftName,
        /// Shape of the in-distribution predictions.
        expected: Shape,
        /// Shape of the other predictions.
        found: Shape,
    },
    /// The scores of a set separate nothing.
    #[error("no detection metrics for `{set}`")]
    Detection {
        /// The out-of-distribution set.
        set: String,
        /// What is wrong with the scores.
        source: DetectionError,
    },
}

/// Named metrics of one evaluation, in the order of [`Metric`]; every value is finite.
///
/// Names without a set are about the in-distribution test set, about detection when there is exactly one
/// out-of-distribution set, and about averages over corrupted sets. Names with a set (`auroc/svhn`,
/// `disagreement/svhn`) follow for every out-of-distribution set, in the order in which the sets were given,
/// then `accuracy/fog.3` and so on for every corrupted set, in the order of their names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassificationReport {
    entries: Vec<(MetricName, f64)>,
}

impl ClassificationReport {
    /// Computes every metric that the evaluation has predictions for.
    ///
    /// # Errors
    ///
    /// [`ReportError`] when a set's name is unusable or repeated, or its predictions are of another ensemble.
    pub fn compute(evaluation: &Evaluation<'_>) -> Result<Self, ReportError> {
        let Evaluation { id, ood, held_out, shift, weight_cosine } = *evaluation;
        check_sets(evaluation)?;
        let id_uncertainty = Uncertainty::new(id.predictions());
        let mut report = Self::default();
        report.extend(None, quality(id))?;
        if let Some(held_out) = held_out {
            report.extend(None, scaled(Temperature::new(held_out), id))?;
        }

        let mut sets = Vec::with_capacity(ood.len());
        for (set, predictions) in ood {
            let uncertainty = Uncertainty::new(predictions);
            let members = predictions.shape().members;
            let mut values = detection(&id_uncertainty, &uncertainty, members)
                .map_err(|source| ReportError::Detection { set: (*set).to_owned(), source })?;
            if ood.len() == 1 {
                report.extend(None, values.iter().copied())?;
            }
            values.extend(spread(&uncertainty, Diversity::new(predictions)));
            sets.push((*set, values));
        }

        report.extend(None, spread(&id_uncertainty, Diversity::new(id.predictions())))?;
        report.extend(None, errors(id))?;
        report.extend(None, weight_cosine.map(|cosine| (Metric::WeightCosine, cosine)))?;
        let corrupted: BTreeMap<_, _> =
            shift.iter().map(|set| (set.name.clone(), Quality::new(set.predictions))).collect();
        report.entries.extend(averages(&corrupted)?);
        for (set, values) in sets {
            report.extend(Some(set), values)?;
        }
        for (set, quality) in corrupted {
            report.extend(Some(&set.to_string()), quality.entries())?;
        }
        Ok(report)
    }

    /// Names and values, in order.
    pub fn entries(&self) -> &[(MetricName, f64)] {
        &self.entries
    }

    /// The value under a full name, such as `ece` or `auroc/svhn`.
    pub fn value(&self, name: &str) -> Option<f64> {
        let name: MetricName = name.parse().ok()?;
        self.entries.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }

    fn extend(
        &mut self,
        set: Option<&str>,
        values: impl IntoIterator<Item = (Metric, f64)>,
    ) -> Result<(), MetricNameError> {
        for (metric, value) in values {
            if value.is_finite() {
                let name = match set {
                    None => metric.into(),
                    Some(set) => MetricName::on_set(metric, set)?,
                };
                self.entries.push((name, value));
            }
        }
        Ok(())
    }
}

impl IntoIterator for ClassificationReport {
    type Item = (MetricName, f64);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

/// Before anything is computed: an evaluation of a million samples should not fail at its end.
fn check_sets(evaluation: &Evaluation<'_>) -> Result<(), ReportError> {
    let expected = evaluation.id.predictions().shape();
    let same_ensemble = |set: &str, found: Shape| {
        if (expected.members, expected.classes) == (found.members, found.classes) {
            return Ok(());
        }
        Err(ReportError::DifferentEnsemble { set: set.to_owned(), expected, found })
    };
    let mut seen = BTreeSet::new();
    for (set, predictions) in evaluation.ood {
        MetricName::on_set(Metric::Auroc, set)?;
        if !seen.insert(*set) {
            return Err(ReportError::DuplicateSet { set: (*set).to_owned() });
        }
        same_ensemble(set, predictions.shape())?;
    }
    if let Some(held_out) = evaluation.held_out {
        same_ensemble(HELD_OUT, held_out.predictions().shape())?;
    }
    let mut seen = BTreeSet::new();
    for ShiftedSet { name, predictions } in evaluation.shift {
        if !seen.insert(name) {
            return Err(ReportError::DuplicateSet { set: name.to_string() });
        }
        let found = predictions.predictions().shape();
        if found.classes != expected.classes {
            return Err(ReportError::DifferentClasses { set: name.clone(), expected, found });
        }
    }
    Ok(())
}

fn quality(id: &LabelledPredictions<'_>) -> Vec<(Metric, f64)> {
    let risk = RiskCoverage::new(id);
    let mut values = Quality::new(id).entries().to_vec();
    values.extend([
        (Metric::MaximumCalibrationError, ReliabilityDiagram::new(id).maximum_calibration_error()),
        (Metric::AdaptiveCalibrationError, AdaptiveDiagram::new(id).expected_calibration_error()),
        (Metric::ClasswiseCalibrationError, classwise_calibration_error(id)),
        (Metric::Aurc, risk.aurc()),
        (Metric::ExcessAurc, risk.excess_aurc()),
        (Metric::CoverageAt5Risk, risk.coverage_at_risk(RISK)),
    ]);
    values
}

/// What temperature scaling changes; accuracy is not of it.
fn scaled(temperature: Temperature, id: &LabelledPredictions<'_>) -> [(Metric, f64); 5] {
    let scaled = id.with_predictions(temperature.scale(id.predictions()));
    [
        (Metric::Temperature, temperature.value()),
        (Metric::ScaledNegativeLogLikelihood, negative_log_likelihood(&scaled)),
        (Metric::ScaledBrierScore, brier_score(&scaled)),
        (Metric::ScaledCalibrationError, ReliabilityDiagram::new(&scaled).expected_calibration_error()),
        (Metric::ScaledAdaptiveCalibrationError, AdaptiveDiagram::new(&scaled).expected_calibration_error()),
    ]
}

fn detection(
    id: &Uncertainty,
    ood: &Uncertainty,
    members: usize,
) -> Result<Vec<(Metric, f64)>, DetectionError> {
    let mut values = Vec::new();
    for score in OodScore::ALL {
        if members == 1 && score.needs_members() {
            continue;
        }
        let (Some(positives), Some(negatives)) = (score.values(ood), score.values(id)) else { continue };
        let curve = DetectionCurve::new(&positives, &negatives)?;
        let metrics = Metric::detection(score);
        values.extend([
            (metrics.auroc, curve.auroc()),
            (metrics.aupr, curve.aupr()),
            (metrics.aupr_in, curve.aupr_in()),
            (metrics.fpr95, curve.fpr95()),
        ]);
    }
    Ok(values)
}

/// What needs no labels: mean uncertainty and, with several members, their diversity.
fn spread(uncertainty: &Uncertainty, diversity: Option<Diversity>) -> Vec<(Metric, f64)> {
    let mut values = vec![
        (Metric::PredictiveEntropy, mean(&uncertainty.predictive_entropy)),
        (Metric::ExpectedEntropy, mean(&uncertainty.expected_entropy)),
    ];
    if let Some(diversity) = diversity {
        values.extend([
            (Metric::MutualInformation, mean(&uncertainty.mutual_information)),
            (Metric::VariationRatio, mean(&uncertainty.variation_ratio)),
            (Metric::MemberVariance, mean(&uncertainty.member_variance)),
            (Metric::Disagreement, diversity.disagreement),
            (Metric::PairwiseKl, diversity.pairwise_kl),
        ]);
    }
    values
}

fn errors(id: &LabelledPredictions<'_>) -> Vec<(Metric, f64)> {
    let Some(errors) = ErrorDiversity::new(id) else { return Vec::new() };
    vec![
        (Metric::QStatistic, errors.q_statistic),
        (Metric::ErrorCorrelation, errors.correlation),
        (Metric::RatioError, errors.ratio_error),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predictions::Predictions;

    fn predictions(members: usize, rows: &[[f64; 2]]) -> Predictions<'static> {
        let samples = rows.len() / members;
        let shape = Shape { members, samples, classes: 2 };
        let ids: Vec<u64> = (0..samples as u64).collect();
        Predictions::new(shape, rows.concat(), ids).unwrap()
    }

    fn names(report: &ClassificationReport) -> Vec<String> {
        report.entries().iter().map(|(name, _)| name.to_string()).collect()
    }

    #[test]
    fn a_single_network_has_no_diversity_and_one_set_has_short_names_too() {
        let id = predictions(1, &[[0.9, 0.1], [0.2, 0.8]]).with_labels(vec![0, 0]).unwrap();
        let ood = predictions(1, &[[0.6, 0.4]]);
        let report =
            ClassificationReport::compute(&Evaluation::new(&id).with_ood(&[("svhn", &ood)])).unwrap();
        let expected = [
            "accuracy",
            "nll",
            "brier",
            "ece",
            "mce",
            "adaptive_ece",
            "classwise_ece",
            "aurc",
            "e_aurc",
            "coverage_at_5_risk",
            "auroc",
            "aupr",
            "aupr_in",
            "fpr95",
            "auroc_predictive_entropy",
            "aupr_predictive_entropy",
            "aupr_in_predictive_entropy",
            "fpr95_predictive_entropy",
            "auroc_expected_entropy",
            "aupr_expected_entropy",
            "aupr_in_expected_entropy",
            "fpr95_expected_entropy",
            "predictive_entropy",
            "expected_entropy",
            "auroc/svhn",
            "aupr/svhn",
            "aupr_in/svhn",
            "fpr95/svhn",
            "auroc_predictive_entropy/svhn",
            "aupr_predictive_entropy/svhn",
            "aupr_in_predictive_entropy/svhn",
            "fpr95_predictive_entropy/svhn",
            "auroc_expected_entropy/svhn",
            "aupr_expected_entropy/svhn",
            "aupr_in_expected_entropy/svhn",
            "fpr95_expected_entropy/svhn",
            "predictive_entropy/svhn",
            "expected_entropy/svhn",
        ];
        assert_eq!(names(&report), expected);
        assert_eq!(report.value("accuracy"), Some(0.5));
        assert_eq!(report.value("auroc"), Some(1.0));
        assert_eq!(report.value("auroc/svhn"), Some(1.0));
        assert_eq!(report.value("disagreement"), None);
    }

    #[test]
    fn several_sets_have_only_names_with_the_set() {
        let id = predictions(1, &[[0.9, 0.1], [0.2, 0.8]]).with_labels(vec![0, 0]).unwrap();
        let (near, far) = (predictions(1, &[[0.95, 0.05]]), predictions(1, &[[0.5, 0.5]]));
        let report =
            ClassificationReport::compute(&Evaluation::new(&id).with_ood(&[("near", &near), ("far", &far)]))
                .unwrap();
        assert_eq!(report.value("auroc"), None);
        assert_eq!((report.value("auroc/near"), report.value("auroc/far")), (Some(0.0), Some(1.0)));
        let order: Vec<_> = report.entries().iter().filter_map(|(name, _)| name.set()).collect();
        assert!(order.is_sorted_by(|a, b| a >= b), "sets in the order given: {order:?}");
    }

    #[test]
    fn an_ensemble_has_diversity_in_and_out_of_distribution() {
        let id = predictions(2, &[[0.9, 0.1], [0.4, 0.6], /**/ [0.8, 0.2], [0.7, 0.3]]);
        let ood = predictions(2, &[[0.9, 0.1], /**/ [0.1, 0.9]]);
        let id = id.with_labels(vec![0, 0]).unwrap();
        let report =
            ClassificationReport::compute(&Evaluation::new(&id).with_ood(&[("svhn", &ood)])).unwrap();
        assert_eq!((report.value("disagreement"), report.value("disagreement/svhn")), (Some(0.5), Some(1.0)));
        assert_eq!(report.value("auroc_variation_ratio"), Some(0.75));
        assert!(report.value("mutual_information/svhn") > report.value("mutual_information"));
        // Undefined here (no shared errors, one member always right), so left out.
        assert_eq!((report.value("ratio_error"), report.value("error_correlation")), (None, None));
        assert!(report.entries().iter().all(|(_, value)| value.is_finite()));
        let metrics: Vec<_> = report
            .entries()
            .iter()
            .filter(|(name, _)| name.set().is_none())
            .map(|(n, _)| n.metric())
            .collect();
        assert!(metrics.is_sorted_by(|a, b| a < b), "{metrics:?}");
    }

    #[test]
    fn sets_that_do_not_fit_are_refused_by_name() {
        let id = predictions(1, &[[0.9, 0.1]]).with_labels(vec![0]).unwrap();
        let (good, two) = (predictions(1, &[[0.5, 0.5]]), predictions(2, &[[0.5, 0.5], [0.5, 0.5]]));
        let found =
            ClassificationReport::compute(&Evaluation::new(&id).with_ood(&[("a", &good), ("a", &good)]));
        assert_eq!(found, Err(ReportError::DuplicateSet { set: "a".to_owned() }));
        let found =
            ClassificationReport::compute(&Evaluation::new(&id).with_ood(&[("b", &two)])).unwrap_err();
        assert_eq!(
            found.to_string(),
            "predictions for `b` have shape [2, 1, 2], those in distribution [1, 1, 2]: \
             members and classes must be equal"
        );
        let found = ClassificationReport::compute(&Evaluation::new(&id).with_ood(&[("a/b", &good)]));
        assert!(matches!(found, Err(ReportError::SetName(_))));
    }

    #[test]
    fn logits_give_two_more_scores_where_both_sets_have_them() {
        let id = predictions(1, &[[0.9, 0.1], [0.2, 0.8]]);
        let ood = predictions(1, &[[0.6, 0.4]]);
        let known =
            id.clone().with_logits(vec![9.0, 1.0, 1.0, 8.0]).unwrap().with_labels(vec![0, 0]).unwrap();
        let id = id.with_labels(vec![0, 0]).unwrap();
        let ood_known = ood.clone().with_logits(vec![2.0, 1.0]).unwrap();
        let value = |id, ood: &Predictions<'_>, name: &str| {
            ClassificationReport::compute(&Evaluation::new(id).with_ood(&[("svhn", ood)]))
                .unwrap()
                .value(name)
        };
        assert_eq!(value(&known, &ood_known, "auroc_energy/svhn"), Some(1.0));
        assert_eq!(value(&known, &ood_known, "fpr95_max_logit"), Some(0.0));
        assert_eq!(value(&known, &ood, "auroc_energy"), None);
        assert_eq!(value(&id, &ood_known, "auroc_max_logit"), None);
    }

    #[test]
    fn held_out_predictions_give_the_scaled_metrics_and_nothing_else_changes() {
        let id = predictions(1, &[[0.9, 0.1], [0.1, 0.9]]).with_labels(vec![0, 0]).unwrap();
        let held_out = predictions(1, &[[0.9, 0.1]; 4]).with_labels(vec![0, 0, 0, 1]).unwrap();
        let plain = ClassificationReport::compute(&Evaluation::new(&id)).unwrap();
        let report = ClassificationReport::compute(&Evaluation::new(&id).with_held_out(&held_out)).unwrap();
        // 9 : 1 becomes 3 : 1.
        assert!((report.value("temperature").unwrap() - 2.0).abs() < 1e-12);
        let nll = -(0.75_f64.ln() + 0.25_f64.ln()) / 2.0;
        assert!((report.value("nll_scaled").unwrap() - nll).abs() < 1e-12);
        assert!((report.value("brier_scaled").unwrap() - (0.125 + 1.125) / 2.0).abs() < 1e-12);
        assert!((report.value("ece_scaled").unwrap() - 0.25).abs() < 1e-12);
        assert!(report.value("adaptive_ece_scaled").is_some());
        let unscaled: Vec<_> = report
            .entries()
            .iter()
            .filter(|(name, _)| {
                name.metric() != Metric::Temperature && !name.to_string().ends_with("_scaled")
            })
            .cloned()
            .collect();
        assert_eq!(unscaled, plain.entries());
    }

    #[test]
    fn corrupted_sets_have_values_of_their_own_and_averages() {
        let id = predictions(2, &[[0.9, 0.1], [0.9, 0.1]]).with_labels(vec![0]).unwrap();
        let right = predictions(1, &[[0.9, 0.1]]).with_labels(vec![0]).unwrap();
        let wrong = predictions(1, &[[0.4, 0.6]]).with_labels(vec![0]).unwrap();
        let set = |name: ShiftName| {
            let predictions = if name.severity() == 5 { &wrong } else { &right };
            ShiftedSet { name, predictions }
        };
        let sets: Vec<_> = crate::Scope::Main.sets().unwrap().into_iter().map(set).collect();
        let report = ClassificationReport::compute(&Evaluation::new(&id).with_shift(&sets)).unwrap();
        assert_eq!(report.value("accuracy/fog.3"), Some(1.0));
        assert_eq!(report.value("accuracy/frost.5"), Some(0.0));
        assert!((report.value("ca").unwrap() - 0.8).abs() < 1e-12);
        assert_eq!(report.value("ca_severity_5"), Some(0.0));
        assert!((report.value("ce_severity_5").unwrap() - 0.6).abs() < 1e-12);
        assert_eq!(report.value("shifted_sets"), Some(75.0));
        let per_set = report.entries().iter().filter(|(name, _)| name.set().is_some()).count();
        assert_eq!(per_set, 75 * 4);

        let twice = [sets[0].clone(), sets[0].clone()];
        let found = ClassificationReport::compute(&Evaluation::new(&id).with_shift(&twice));
        assert_eq!(found, Err(ReportError::DuplicateSet { set: "gaussian_noise.1".to_owned() }));
    }

    #[test]
    fn the_cosine_of_weights_is_passed_on_when_it_is_a_number() {
        let id = predictions(1, &[[0.9, 0.1]]).with_labels(vec![0]).unwrap();
        let value = |cosine: Option<f64>| {
            let evaluation = Evaluation::new(&id).with_weight_cosine(cosine);
            ClassificationReport::compute(&evaluation).unwrap().value("weight_cosine")
        };
        assert_eq!((value(Some(0.25)), value(None), value(Some(f64::NAN))), (Some(0.25), None, None));
    }

    #[test]
    fn held_out_and_corrupted_sets_of_another_classifier_are_refused() {
        let id = predictions(1, &[[0.9, 0.1]]).with_labels(vec![0]).unwrap();
        let two = predictions(2, &[[0.5, 0.5], [0.5, 0.5]]).with_labels(vec![0]).unwrap();
        let found = ClassificationReport::compute(&Evaluation::new(&id).with_held_out(&two)).unwrap_err();
        assert!(found.to_string().starts_with("predictions for `held_out` have shape [2, 1, 2]"), "{found}");
        let shape = Shape { members: 1, samples: 1, classes: 3 };
        let three =
            Predictions::new(shape, vec![1.0, 0.0, 0.0], vec![0]).unwrap().with_labels(vec![0]).unwrap();
        let sets = [ShiftedSet { name: "fog.1".parse().unwrap(), predictions: &three }];
        let found = ClassificationReport::compute(&Evaluation::new(&id).with_shift(&sets)).unwrap_err();
        assert!(found.to_string().ends_with("[1, 1, 2]: classes must be equal"), "{found}");
    }
}
