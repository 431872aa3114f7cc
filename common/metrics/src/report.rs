//! The one entry point that turns predictions into named figures.
//!
//! Decides which metrics belong to an evaluation, their order, and when one is absent. A metric that is
//! undefined for the predictions at hand (diversity of a single network, a ratio without denominator) is
//! left out rather than reported as NaN or infinity, so that every reported value can be stored, averaged
//! over seeds and written as JSON; a table then shows how many seeds have it.

use std::collections::BTreeSet;

use crate::calibration::ReliabilityDiagram;
use crate::classification::{accuracy, brier_score, negative_log_likelihood};
use crate::detection::{DetectionCurve, DetectionError};
use crate::diversity::Diversity;
use crate::name::{Metric, MetricName, MetricNameError};
use crate::pair::ErrorDiversity;
use crate::predictions::{LabelledPredictions, Predictions, Shape};
use crate::score::OodScore;
use crate::uncertainty::{Uncertainty, mean};

/// Why no report can be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReportError {
    /// An out-of-distribution set has a name that cannot be part of a metric name.
    #[error("the name of an out-of-distribution set was refused")]
    SetName(#[from] MetricNameError),
    /// Two out-of-distribution sets have the same name.
    #[error("the out-of-distribution set `{set}` is given twice")]
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
        /// The out-of-distribution set.
        set: String,
        /// Shape of the in-distribution predictions.
        expected: Shape,
        /// Shape of the out-of-distribution predictions.
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
/// Names without a set are about the in-distribution test set, and about detection when there is exactly
/// one out-of-distribution set. Names with a set (`auroc/svhn`, `disagreement/svhn`) follow for every set,
/// in the order in which the sets were given.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassificationReport {
    entries: Vec<(MetricName, f64)>,
}

impl ClassificationReport {
    /// Computes every metric of in-distribution predictions, and of their separation from each
    /// out-of-distribution set.
    ///
    /// # Errors
    ///
    /// [`ReportError`] when a set's name is unusable or repeated, or its predictions are of another ensemble.
    pub fn compute(
        id: &LabelledPredictions<'_>,
        ood: &[(&str, &Predictions<'_>)],
    ) -> Result<Self, ReportError> {
        check_sets(id.predictions(), ood)?;
        let id_uncertainty = Uncertainty::new(id.predictions());
        let mut report = Self::default();
        report.extend(None, quality(id))?;

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
        for (set, values) in sets {
            report.extend(Some(set), values)?;
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
fn check_sets(id: &Predictions<'_>, ood: &[(&str, &Predictions<'_>)]) -> Result<(), ReportError> {
    let mut seen = BTreeSet::new();
    for (set, predictions) in ood {
        MetricName::on_set(Metric::Auroc, set)?;
        if !seen.insert(*set) {
            return Err(ReportError::DuplicateSet { set: (*set).to_owned() });
        }
        let (expected, found) = (id.shape(), predictions.shape());
        if (expected.members, expected.classes) != (found.members, found.classes) {
            return Err(ReportError::DifferentEnsemble { set: (*set).to_owned(), expected, found });
        }
    }
    Ok(())
}

fn quality(id: &LabelledPredictions<'_>) -> [(Metric, f64); 4] {
    [
        (Metric::Accuracy, accuracy(id)),
        (Metric::NegativeLogLikelihood, negative_log_likelihood(id)),
        (Metric::BrierScore, brier_score(id)),
        (Metric::ExpectedCalibrationError, ReliabilityDiagram::new(id).expected_calibration_error()),
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
        let curve = DetectionCurve::new(&score.values(ood), &score.values(id))?;
        values.push((auroc_of(score), curve.auroc()));
        if score == OodScore::MaxProbability {
            values.push((Metric::Aupr, curve.aupr()));
            values.push((Metric::AuprIn, curve.aupr_in()));
            values.push((Metric::Fpr95, curve.fpr95()));
        }
    }
    Ok(values)
}

fn auroc_of(score: OodScore) -> Metric {
    match score {
        OodScore::MaxProbability => Metric::Auroc,
        OodScore::PredictiveEntropy => Metric::AurocPredictiveEntropy,
        OodScore::ExpectedEntropy => Metric::AurocExpectedEntropy,
        OodScore::MutualInformation => Metric::AurocMutualInformation,
        OodScore::VariationRatio => Metric::AurocVariationRatio,
        OodScore::MemberVariance => Metric::AurocMemberVariance,
    }
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
        let report = ClassificationReport::compute(&id, &[("svhn", &ood)]).unwrap();
        let expected = [
            "accuracy",
            "nll",
            "brier",
            "ece",
            "auroc",
            "aupr",
            "aupr_in",
            "fpr95",
            "auroc_predictive_entropy",
            "auroc_expected_entropy",
            "predictive_entropy",
            "expected_entropy",
            "auroc/svhn",
            "aupr/svhn",
            "aupr_in/svhn",
            "fpr95/svhn",
            "auroc_predictive_entropy/svhn",
            "auroc_expected_entropy/svhn",
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
        let report = ClassificationReport::compute(&id, &[("near", &near), ("far", &far)]).unwrap();
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
        let report = ClassificationReport::compute(&id, &[("svhn", &ood)]).unwrap();
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
        let found = ClassificationReport::compute(&id, &[("a", &good), ("a", &good)]);
        assert_eq!(found, Err(ReportError::DuplicateSet { set: "a".to_owned() }));
        let found = ClassificationReport::compute(&id, &[("b", &two)]).unwrap_err();
        assert_eq!(
            found.to_string(),
            "predictions for `b` have shape [2, 1, 2], those in distribution [1, 1, 2]: \
             members and classes must be equal"
        );
        let found = ClassificationReport::compute(&id, &[("a/b", &good)]);
        assert!(matches!(found, Err(ReportError::SetName(_))));
    }
}
