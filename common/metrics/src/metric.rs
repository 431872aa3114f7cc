//! Every metric: its stable name, which direction is better, and how a table prints it.
//!
//! One table holds it all. Figures that exist once for each out-of-distribution score, or once for each
//! scope of an average over corruptions, are written as one line a score or a scope; each is a variant of
//! its own all the same, so that a `match` on a metric stays exhaustive.

use std::fmt;
use std::str::FromStr;

use crate::name::MetricNameError;
use crate::score::OodScore;
use crate::shift::Scope;
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

/// The metrics of one out-of-distribution score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetectionMetrics {
    /// Area under the ROC curve.
    pub auroc: Metric,
    /// Average precision, out of distribution being positive.
    pub aupr: Metric,
    /// Average precision, in distribution being positive.
    pub aupr_in: Metric,
    /// False-positive rate where recall is nearest to 0.95.
    pub fpr95: Metric,
}

/// The metrics of one average over corrupted test sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShiftMetrics {
    /// Mean accuracy.
    pub accuracy: Metric,
    /// Mean negative log-likelihood.
    pub nll: Metric,
    /// Mean Brier score.
    pub brier: Metric,
    /// Mean expected calibration error.
    pub ece: Metric,
}

macro_rules! metrics {
    (
        before: { $($(#[$doc:meta])* $variant:ident = $name:literal, $label:literal, $direction:ident, $unit:ident, $digits:literal;)* }
        detection: { $($score:ident = $auroc:ident $aupr:ident $aupr_in:ident $fpr95:ident, $suffix:literal, $heading:literal, $by:literal;)* }
        after: { $($(#[$doc2:meta])* $variant2:ident = $name2:literal, $label2:literal, $direction2:ident, $unit2:ident, $digits2:literal;)* }
        shift: { $($scope:ident = $ca:ident $cnll:ident $cbrier:ident $ce:ident, $over:literal, $title:literal, $sets:literal;)* }
    ) => {
        /// A metric of a probabilistic classifier.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $($(#[$doc])* $variant,)*
            $(
                #[doc = concat!("Area under the ROC curve, out of distribution being positive, scored by ", $by, ".")]
                $auroc,
                #[doc = concat!("Average precision, out of distribution being positive, scored by ", $by, ".")]
                $aupr,
                #[doc = concat!("Average precision, in distribution being positive, scored by ", $by, ".")]
                $aupr_in,
                #[doc = concat!("False-positive rate where recall is nearest to 0.95, scored by ", $by, ".")]
                $fpr95,
            )*
            $($(#[$doc2])* $variant2,)*
            $(
                #[doc = concat!("Mean accuracy over ", $sets, ".")]
                $ca,
                #[doc = concat!("Mean negative log-likelihood over ", $sets, ".")]
                $cnll,
                #[doc = concat!("Mean Brier score over ", $sets, ".")]
                $cbrier,
                #[doc = concat!("Mean expected calibration error over ", $sets, ".")]
                $ce,
            )*
        }

        /// In the order of the variants, which is the order of the columns of a table.
        const TABLE: &[Entry] = &[
            $(entry(Metric::$variant, $name, $label, Direction::$direction, Unit::$unit, $digits),)*
            $(
                entry(Metric::$auroc, concat!("auroc", $suffix), concat!("AUROC", $heading), Direction::Higher, Unit::Plain, 4),
                entry(Metric::$aupr, concat!("aupr", $suffix), concat!("AUPR", $heading), Direction::Higher, Unit::Plain, 4),
                entry(Metric::$aupr_in, concat!("aupr_in", $suffix), concat!("AUPR-in", $heading), Direction::Higher, Unit::Plain, 4),
                entry(Metric::$fpr95, concat!("fpr95", $suffix), concat!("FPR95", $heading), Direction::Lower, Unit::Plain, 4),
            )*
            $(entry(Metric::$variant2, $name2, $label2, Direction::$direction2, Unit::$unit2, $digits2),)*
            $(
                entry(Metric::$ca, concat!("ca", $over), concat!("cA", $title, " (%)"), Direction::Higher, Unit::Percent, 2),
                entry(Metric::$cnll, concat!("cnll", $over), concat!("cNLL", $title), Direction::Lower, Unit::Plain, 4),
                entry(Metric::$cbrier, concat!("cbrier", $over), concat!("cBrier", $title), Direction::Lower, Unit::Plain, 4),
                entry(Metric::$ce, concat!("ce", $over), concat!("cE", $title), Direction::Lower, Unit::Plain, 4),
            )*
        ];

        impl Metric {
            /// The metrics of detection by `score`.
            pub fn detection(score: OodScore) -> DetectionMetrics {
                match score {
                    $(OodScore::$score => DetectionMetrics {
                        auroc: Self::$auroc,
                        aupr: Self::$aupr,
                        aupr_in: Self::$aupr_in,
                        fpr95: Self::$fpr95,
                    },)*
                }
            }

            /// The metrics of an average over corrupted test sets.
            pub fn shift(scope: Scope) -> ShiftMetrics {
                match scope {
                    $(Scope::$scope => ShiftMetrics {
                        accuracy: Self::$ca,
                        nll: Self::$cnll,
                        brier: Self::$cbrier,
                        ece: Self::$ce,
                    },)*
                }
            }
        }
    };
}

const fn entry(
    metric: Metric,
    name: &'static str,
    label: &'static str,
    direction: Direction,
    unit: Unit,
    digits: usize,
) -> Entry {
    Entry { metric, name, label, direction, unit, digits }
}

metrics! {
    before: {
        /// Share of samples predicted rightly.
        Accuracy = "accuracy", "Accuracy (%)", Higher, Percent, 2;
        /// Negative log-likelihood of the ensemble mean, in nats.
        NegativeLogLikelihood = "nll", "NLL", Lower, Plain, 4;
        /// Brier score, 0 to 2.
        BrierScore = "brier", "Brier", Lower, Plain, 4;
        /// Expected calibration error over 15 bins of equal width.
        ExpectedCalibrationError = "ece", "ECE", Lower, Plain, 4;
        /// Greatest gap of the 15 bins of equal width.
        MaximumCalibrationError = "mce", "MCE", Lower, Plain, 4;
        /// Expected calibration error over 15 bins of equal mass.
        AdaptiveCalibrationError = "adaptive_ece", "Adaptive ECE", Lower, Plain, 4;
        /// Expected calibration error of the probability of each class, averaged over classes.
        ClasswiseCalibrationError = "classwise_ece", "Class-wise ECE", Lower, Plain, 5;
        /// Area under the risk-coverage curve.
        Aurc = "aurc", "AURC", Lower, Plain, 4;
        /// Area under the risk-coverage curve in excess of what the same accuracy allows.
        ExcessAurc = "e_aurc", "E-AURC", Lower, Plain, 4;
        /// Greatest coverage with a risk of at most 5 %.
        CoverageAt5Risk = "coverage_at_5_risk", "Coverage at 5 % risk (%)", Higher, Percent, 2;
        /// Temperature with the least negative log-likelihood on held-out predictions.
        Temperature = "temperature", "Temperature", Neither, Plain, 4;
        /// Negative log-likelihood after temperature scaling.
        ScaledNegativeLogLikelihood = "nll_scaled", "NLL (T-scaled)", Lower, Plain, 4;
        /// Brier score after temperature scaling.
        ScaledBrierScore = "brier_scaled", "Brier (T-scaled)", Lower, Plain, 4;
        /// Expected calibration error after temperature scaling.
        ScaledCalibrationError = "ece_scaled", "ECE (T-scaled)", Lower, Plain, 4;
        /// Expected calibration error over bins of equal mass, after temperature scaling.
        ScaledAdaptiveCalibrationError = "adaptive_ece_scaled", "Adaptive ECE (T-scaled)", Lower, Plain, 4;
    }
    detection: {
        MaxProbability = Auroc Aupr AuprIn Fpr95, "", "", "the maximum probability";
        PredictiveEntropy = AurocPredictiveEntropy AuprPredictiveEntropy AuprInPredictiveEntropy Fpr95PredictiveEntropy,
            "_predictive_entropy", " (entropy)", "the predictive entropy";
        ExpectedEntropy = AurocExpectedEntropy AuprExpectedEntropy AuprInExpectedEntropy Fpr95ExpectedEntropy,
            "_expected_entropy", " (expected entropy)", "the expected entropy";
        MutualInformation = AurocMutualInformation AuprMutualInformation AuprInMutualInformation Fpr95MutualInformation,
            "_mutual_information", " (MI)", "the mutual information";
        VariationRatio = AurocVariationRatio AuprVariationRatio AuprInVariationRatio Fpr95VariationRatio,
            "_variation_ratio", " (variation ratio)", "the variation ratio";
        MemberVariance = AurocMemberVariance AuprMemberVariance AuprInMemberVariance Fpr95MemberVariance,
            "_member_variance", " (variance)", "the member variance";
        Energy = AurocEnergy AuprEnergy AuprInEnergy Fpr95Energy, "_energy", " (energy)", "the energy";
        MaxLogit = AurocMaxLogit AuprMaxLogit AuprInMaxLogit Fpr95MaxLogit,
            "_max_logit", " (max logit)", "the maximum logit";
    }
    after: {
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
        /// Mean cosine of two members' weights, or of what their method has of its own in place of them.
        WeightCosine = "weight_cosine", "Weight cosine", Neither, Plain, 4;
        /// Number of corrupted test sets that were evaluated.
        ShiftedSets = "shifted_sets", "Shifted sets", Neither, Plain, 0;
        /// Root mean squared error of a predicted number, in its unit.
        RootMeanSquaredError = "rmse", "RMSE", Lower, Plain, 3;
        /// Negative log-likelihood of numbers under the mixture of the members' Gaussians, in nats.
        GaussianNegativeLogLikelihood = "gaussian_nll", "NLL (density)", Lower, Plain, 3;
        /// Share of numbers within 1.96 predicted standard deviations.
        Coverage95 = "coverage_95", "Within 95 % (%)", Neither, Percent, 1;
        /// Mean predicted standard deviation of numbers.
        StandardDeviation = "std", "Std", Neither, Plain, 2;
        /// Mean standard deviation of the members' means.
        EpistemicDeviation = "epistemic_std", "Epistemic std", Neither, Plain, 2;
    }
    shift: {
        Main = CorruptedAccuracy CorruptedNll CorruptedBrier CorruptedEce,
            "", "", "the 15 main corruptions at 5 severities";
        MainButFrost = CorruptedAccuracy14 CorruptedNll14 CorruptedBrier14 CorruptedEce14,
            "_14", " (14, no frost)", "the main corruptions but frost, which are 14, at 5 severities";
        All = CorruptedAccuracy19 CorruptedNll19 CorruptedBrier19 CorruptedEce19,
            "_19", " (19)", "all 19 corruptions at 5 severities";
        AllButFrost = CorruptedAccuracy18 CorruptedNll18 CorruptedBrier18 CorruptedEce18,
            "_18", " (18, no frost)", "all corruptions but frost, which are 18, at 5 severities";
        MainSeverity5 = CorruptedAccuracySeverity5 CorruptedNllSeverity5 CorruptedBrierSeverity5 CorruptedEceSeverity5,
            "_severity_5", " (severity 5)", "the 15 main corruptions at severity 5";
        MainButFrostSeverity5 = CorruptedAccuracy14Severity5 CorruptedNll14Severity5 CorruptedBrier14Severity5 CorruptedEce14Severity5,
            "_14_severity_5", " (14, no frost, severity 5)", "the main corruptions but frost, which are 14, at severity 5";
        Partial = PartialCorruptedAccuracy PartialCorruptedNll PartialCorruptedBrier PartialCorruptedEce,
            "_partial", " (partial)", "the corrupted sets that there are, where they are none of the other selections";
    }
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

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_variants() {
        for metric in Metric::all() {
            assert_eq!(metric.entry().metric, metric);
        }
    }

    #[test]
    fn names_of_scores_and_scopes_are_a_stem_and_a_suffix() {
        assert_eq!(Metric::Auroc.name(), "auroc");
        assert_eq!(Metric::AuprInMutualInformation.name(), "aupr_in_mutual_information");
        assert_eq!(Metric::Fpr95Energy.label(), "FPR95 (energy)");
        assert_eq!(Metric::detection(OodScore::MaxLogit).aupr, Metric::AuprMaxLogit);
        assert_eq!((Metric::CorruptedAccuracy.name(), Metric::CorruptedAccuracy.label()), ("ca", "cA (%)"));
        assert_eq!(Metric::CorruptedEce19.name(), "ce_19");
        assert_eq!(Metric::shift(Scope::MainSeverity5).nll.name(), "cnll_severity_5");
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
