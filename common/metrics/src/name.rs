//! Names of the metrics, which direction is better, and how a table prints them.
//!
//! Names are stable: they are keys of stored metric rows. A name is a metric, and for what is measured on
//! one out-of-distribution set also that set: `ece`, `auroc/svhn`.

use std::fmt;
use std::str::FromStr;

use crate::summary::Summary;

/// What is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Greater values are better.
    Higher,
    /// Smaller values are better.
    Lower,
    /// The metric describes; no value is the best.
    Neither,
}

impl Direction {
    /// Whether `candidate` is strictly better than `incumbent`.
    pub fn is_better(self, candidate: f64, incumbent: f64) -> bool {
        match self {
            Self::Higher => candidate > incumbent,
            Self::Lower => candidate < incumbent,
            Self::Neither => false,
        }
    }

    /// The best of some values, for marking it in a table; `None` when nothing is better than anything.
    pub fn best(self, values: impl IntoIterator<Item = f64>) -> Option<f64> {
        let values = values.into_iter().filter(|value| !value.is_nan());
        match self {
            Self::Higher => values.max_by(f64::total_cmp),
            Self::Lower => values.min_by(f64::total_cmp),
            Self::Neither => None,
        }
    }
}

/// What a metric is called and how it is printed.
struct Entry {
    metric: Metric,
    name: &'static str,
    label: &'static str,
    direction: Direction,
    unit: Unit,
    digits: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Plain,
    Percent,
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $label:literal, $direction:ident, $unit:ident, $digits:literal;)*) => {
        /// A metric of a probabilistic classifier.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $($(#[$doc])* $variant,)*
        }

        /// In the order of the variants, which is the order of the columns of a table.
        const TABLE: &[Entry] = &[$(Entry {
            metric: Metric::$variant,
            name: $name,
            label: $label,
            direction: Direction::$direction,
            unit: Unit::$unit,
            digits: $digits,
        },)*];
    };
}

metrics! {
    /// Share of samples predicted rightly.
    Accuracy = "accuracy", "Accuracy (%)", Higher, Percent, 2;
    /// Negative log-likelihood of the ensemble mean, in nats.
    NegativeLogLikelihood = "nll", "NLL", Lower, Plain, 4;
    /// Brier score, 0 to 2.
    BrierScore = "brier", "Brier", Lower, Plain, 4;
    /// Expected calibration error over 15 bins.
    ExpectedCalibrationError = "ece", "ECE", Lower, Plain, 4;
    /// Area under the ROC curve, out of distribution being positive, scored by the maximum probability.
    Auroc = "auroc", "AUROC", Higher, Plain, 4;
    /// Average precision, out of distribution being positive.
    Aupr = "aupr", "AUPR", Higher, Plain, 4;
    /// Average precision, in distribution being positive.
    AuprIn = "aupr_in", "AUPR-in", Higher, Plain, 4;
    /// False-positive rate where recall is nearest to 0.95.
    Fpr95 = "fpr95", "FPR95", Lower, Plain, 4;
    /// AUROC of the predictive entropy.
    AurocPredictiveEntropy = "auroc_predictive_entropy", "AUROC (entropy)", Higher, Plain, 4;
    /// AUROC of the expected entropy.
    AurocExpectedEntropy = "auroc_expected_entropy", "AUROC (expected entropy)", Higher, Plain, 4;
    /// AUROC of the mutual information.
    AurocMutualInformation = "auroc_mutual_information", "AUROC (MI)", Higher, Plain, 4;
    /// AUROC of the variation ratio.
    AurocVariationRatio = "auroc_variation_ratio", "AUROC (variation ratio)", Higher, Plain, 4;
    /// AUROC of the member variance.
    AurocMemberVariance = "auroc_member_variance", "AUROC (variance)", Higher, Plain, 4;
    /// Mean entropy of the ensemble mean, in nats.
    PredictiveEntropy = "predictive_entropy", "Entropy", Neither, Plain, 4;
    /// Mean of the members' entropies, in nats.
    ExpectedEntropy = "expected_entropy", "Expected entropy", Neither, Plain, 4;
    /// Mean mutual information of prediction and member, in nats.
    MutualInformation = "mutual_information", "MI", Neither, Plain, 4;
    /// Mean share of votes against the modal class.
    VariationRatio = "variation_ratio", "Variation ratio", Neither, Plain, 4;
    /// Mean variance over members.
    MemberVariance = "member_variance", "Variance", Neither, Plain, 5;
    /// Probability that two members predict different classes.
    Disagreement = "disagreement", "Disagreement", Neither, Plain, 4;
    /// Mean Kullback-Leibler divergence between two members, in nats.
    PairwiseKl = "pairwise_kl", "Pairwise KL", Neither, Plain, 4;
    /// Mean Q statistic of two members' errors.
    QStatistic = "q_statistic", "Q", Neither, Plain, 4;
    /// Mean correlation of two members' errors.
    ErrorCorrelation = "error_correlation", "ρ", Neither, Plain, 4;
    /// Mean ratio of different to same errors of two members.
    RatioError = "ratio_error", "Ratio-error", Neither, Plain, 4;
}

impl Metric {
    /// Every metric, in the order of a table's columns.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|entry| entry.metric)
    }

    fn entry(self) -> &'static Entry {
        // One macro writes both the variants and the table, in the same order.
        &TABLE[self as usize]
    }

    /// Stable name, as in stored metric rows.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// Heading of a table's column, with the unit where it is not plain.
    pub fn label(self) -> &'static str {
        self.entry().label
    }

    /// Which direction is better.
    pub fn direction(self) -> Direction {
        self.entry().direction
    }

    /// The value with the metric's digits, in percent where the label says so.
    pub fn format(self, value: f64) -> String {
        let Entry { unit, digits, .. } = *self.entry();
        match unit {
            Unit::Plain => format!("{value:.digits$}"),
            Unit::Percent => format!("{:.digits$}", value * 100.0),
        }
    }

    /// `mean ± standard deviation`, or the mean alone for a single value.
    pub fn format_summary(self, summary: &Summary) -> String {
        let mean = self.format(summary.mean);
        match summary.standard_deviation {
            Some(deviation) => format!("{mean} ± {}", self.format(deviation)),
            None => mean,
        }
    }
}

/// Why a metric name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricNameError {
    /// No metric has this name.
    #[error("there is no metric `{name}`: the metrics are {}", names())]
    UnknownMetric {
        /// The part before the first `/`.
        name: String,
    },
    /// The part after `/` cannot name a data set.
    #[error("`{set}` cannot name a data set: use letters, digits, `-`, `_` and `.`")]
    InvalidSet {
        /// The refused name.
        set: String,
    },
}

fn names() -> String {
    Metric::all().map(Metric::name).collect::<Vec<_>>().join(", ")
}

/// A metric, and the out-of-distribution set that it was measured on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricName {
    metric: Metric,
    set: Option<String>,
}

impl MetricName {
    /// A metric measured on one out-of-distribution set: `auroc/svhn`.
    ///
    /// # Errors
    ///
    /// [`MetricNameError::InvalidSet`] when the name would not survive being parsed again.
    pub fn on_set(metric: Metric, set: &str) -> Result<Self, MetricNameError> {
        let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if set.is_empty() || !set.chars().all(valid) {
            return Err(MetricNameError::InvalidSet { set: set.to_owned() });
        }
        Ok(Self { metric, set: Some(set.to_owned()) })
    }

    /// The metric.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The out-of-distribution set. `None` on the in-distribution test set, and for detection against the
    /// only out-of-distribution set.
    pub fn set(&self) -> Option<&str> {
        self.set.as_deref()
    }
}

impl From<Metric> for MetricName {
    fn from(metric: Metric) -> Self {
        Self { metric, set: None }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.set {
            None => write!(f, "{}", self.metric),
            Some(set) => write!(f, "{}/{set}", self.metric),
        }
    }
}

impl FromStr for Metric {
    type Err = MetricNameError;

    fn from_str(name: &str) -> Result<Self, MetricNameError> {
        Self::all()
            .find(|metric| metric.name() == name)
            .ok_or_else(|| MetricNameError::UnknownMetric { name: name.to_owned() })
    }
}

impl FromStr for MetricName {
    type Err = MetricNameError;

    fn from_str(name: &str) -> Result<Self, MetricNameError> {
        match name.split_once('/') {
            None => Ok(name.parse::<Metric>()?.into()),
            Some((metric, set)) => Self::on_set(metric.parse()?, set),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_unique_and_reads_back() {
        for metric in Metric::all() {
            assert_eq!(metric.entry().metric, metric);
            assert_eq!(metric.name().parse(), Ok(metric));
            let name = MetricName::on_set(metric, "cifar10-c_fog.3").unwrap();
            assert_eq!(name.to_string().parse(), Ok(name));
        }
    }

    #[test]
    fn an_unknown_metric_is_answered_with_the_known_ones() {
        let error = "acuracy".parse::<MetricName>().unwrap_err().to_string();
        assert!(
            error.starts_with("there is no metric `acuracy`: the metrics are accuracy, nll, "),
            "{error}"
        );
    }

    #[test]
    fn a_set_name_that_would_not_read_back_is_refused() {
        for set in ["", "a/b", "a b", "é"] {
            let error = MetricName::on_set(Metric::Auroc, set).unwrap_err();
            assert_eq!(error, MetricNameError::InvalidSet { set: set.to_owned() });
        }
        assert!("auroc/".parse::<MetricName>().is_err());
    }

    #[test]
    fn values_are_printed_with_the_digits_of_their_metric() {
        assert_eq!(Metric::Accuracy.format(0.947_649), "94.76");
        assert_eq!(Metric::Auroc.format(0.967_04), "0.9670");
        let summary = Summary::new(&[0.9, 0.92]).unwrap();
        assert_eq!(Metric::Accuracy.format_summary(&summary), "91.00 ± 1.41");
        assert_eq!(Metric::Accuracy.format_summary(&Summary::new(&[0.9]).unwrap()), "90.00");
    }

    #[test]
    fn the_best_value_is_that_of_the_direction() {
        let values = [0.2, f64::NAN, 0.7, 0.5];
        assert_eq!(Metric::Accuracy.direction().best(values), Some(0.7));
        assert_eq!(Metric::Fpr95.direction().best(values), Some(0.2));
        assert_eq!(Metric::Disagreement.direction().best(values), None);
        assert_eq!(Direction::Higher.best([]), None);
        assert!(Direction::Lower.is_better(0.1, 0.2));
        assert!(!Direction::Lower.is_better(0.2, 0.2));
        assert!(Direction::Higher.is_better(0.3, 0.2));
        assert!(!Direction::Neither.is_better(0.3, 0.2));
    }
}
