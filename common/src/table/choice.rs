//! What a user chose to see: columns by name or by group, rows in an order, the row to compare with.

use std::collections::BTreeSet;

use metrics::{Metric, MetricName};
use serde::{Deserialize, Serialize};

use super::column::{Column, PARAMETERS, PEAK_DEVICE_BYTES, TRAIN_SECONDS, UnknownColumn};
use super::{CellOutcome, CellStatus};
use crate::suggest;

/// What to show of an experiment's results. The default is the default columns of every row, compared with nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Columns in order: names like `nll` and `auroc/svhn`, groups like `detection`, or `all`. Empty for the default ones.
    pub columns: Vec<String>,
    /// Methods in order, by label; one string may hold several with commas between. Empty for all.
    pub rows: Vec<String>,
    /// Label of the method that the others are compared with.
    pub compare: Option<String>,
    /// Whether published figures stand below the rows that they belong to.
    pub against: Against,
}

/// What else stands beside the results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Against {
    /// Nothing.
    #[default]
    Nothing,
    /// Published figures of the same data set, network and method.
    Published,
}

/// Why a table cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// Neither a column nor a group.
    #[error(transparent)]
    Column(#[from] UnknownColumn),
    /// No result has any of them.
    #[error("no result has a value of the group `{0}`")]
    EmptyGroup(String),
    /// No row has that label.
    #[error("no method is labelled `{name}`: {hint}")]
    Method {
        /// The label as given.
        name: String,
        /// Those that there are.
        hint: String,
    },
}

/// Groups of columns, and what they hold.
pub(super) const GROUPS: [(&str, Family); 9] = [
    ("classification", Family::Classification),
    ("calibration", Family::Calibration),
    ("selective", Family::Selective),
    ("detection", Family::Detection),
    ("uncertainty", Family::Uncertainty),
    ("diversity", Family::Diversity),
    ("shift", Family::Shift),
    ("regression", Family::Regression),
    ("cost", Family::Cost),
];

/// Which question a column answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// How often, and how surely, it is right.
    Classification,
    /// Whether confidences are frequencies, before and after temperature scaling.
    Calibration,
    /// What it is worth to leave out the least confident.
    Selective,
    /// Whether it tells out-of-distribution images.
    Detection,
    /// Where its uncertainty comes from.
    Uncertainty,
    /// How much its members differ.
    Diversity,
    /// How it bears corrupted images.
    Shift,
    /// How well, and how surely, it predicts a number.
    Regression,
    /// What it costs.
    Cost,
}

/// Metrics of the in-distribution test set that a table shows unless it is told otherwise.
const DEFAULTS: [Metric; 4] =
    [Metric::Accuracy, Metric::NegativeLogLikelihood, Metric::BrierScore, Metric::ExpectedCalibrationError];
/// Metrics of each out-of-distribution set.
const DETECTION: [Metric; 3] = [Metric::Auroc, Metric::Aupr, Metric::Fpr95];
/// Averages over corrupted test sets; the most complete one that there is is shown.
const SHIFT: [[&str; 2]; 4] = [
    ["ca", "ce"],
    ["ca_14", "ce_14"],
    ["ca_severity_5", "ce_severity_5"],
    ["ca_14_severity_5", "ce_14_severity_5"],
];
/// What is shown of predicted numbers, on the test set.
const REGRESSION: [Metric; 3] =
    [Metric::RootMeanSquaredError, Metric::GaussianNegativeLogLikelihood, Metric::Coverage95];
/// What is shown of them on every set: whether uncertainty rises where there were no data.
const DEVIATIONS: [Metric; 2] = [Metric::StandardDeviation, Metric::EpistemicDeviation];

impl Family {
    /// By name, in which new metrics of a kind are like the old ones: `auroc_energy`, `ece_scaled`, `ca_19`.
    fn of(metric: Metric) -> Option<Self> {
        if REGRESSION.contains(&metric) || DEVIATIONS.contains(&metric) {
            return Some(Self::Regression);
        }
        let name = metric.name();
        let stem = name.split('_').next().unwrap_or_default();
        Some(match stem {
            "auroc" | "aupr" | "fpr95" => Self::Detection,
            "ca" | "cnll" | "cbrier" | "ce" | "shifted" => Self::Shift,
            "aurc" | "e" | "coverage" => Self::Selective,
            "temperature" | "ece" | "mce" | "adaptive" | "classwise" => Self::Calibration,
            "nll" | "brier" if name.ends_with("_scaled") => Self::Calibration,
            "accuracy" | "nll" | "brier" => Self::Classification,
            "predictive" | "expected" | "mutual" | "variation" | "member" => Self::Uncertainty,
            "disagreement" | "pairwise" | "q" | "error" | "ratio" | "weight" => Self::Diversity,
            _ => return None,
        })
    }
}

impl Column {
    /// The columns of a table that was not told otherwise: accuracy, NLL, Brier, ECE, then AUROC, AUPR and
    /// FPR95 on each out-of-distribution set that any cell was measured on, then cA and cE if any cell was measured on
    /// corrupted images, then the costs. Of numbers: error, likelihood and coverage, then standard deviations on every set.
    pub fn defaults(outcomes: &[CellOutcome]) -> Vec<Self> {
        let present = names(outcomes);
        let numbers = present.contains(Metric::RootMeanSquaredError.name());
        let mut columns = Vec::new();
        if !numbers || present.contains(Metric::Accuracy.name()) {
            columns.extend(DEFAULTS.map(|metric| Self::Metric(metric.into())));
            let sets = detection_sets(outcomes);
            columns.extend(DETECTION.into_iter().flat_map(|metric| on_sets(metric, &sets)));
        }
        if numbers {
            columns.extend(REGRESSION.map(|metric| Self::Metric(metric.into())));
            let measured: BTreeSet<MetricName> =
                present.iter().filter_map(|name| name.parse().ok()).collect();
            for metric in DEVIATIONS {
                let on_sets = measured.iter().filter(|name| name.metric() == metric);
                columns.extend(on_sets.cloned().map(Self::Metric));
            }
        }
        let shift = SHIFT.into_iter().find(|pair| present.contains(pair[0]));
        columns.extend(shift.into_iter().flatten().filter_map(|name| name.parse().ok()));
        columns.extend([Self::Parameters, Self::TrainingTime]);
        columns.extend(present.contains(PEAK_DEVICE_BYTES).then_some(Self::PeakMemory));
        columns
    }
}

/// The columns that were asked for, each once, in the order in which they come first.
pub(super) fn columns(asked: &[String], outcomes: &[CellOutcome]) -> Result<Vec<Column>, ChoiceError> {
    if asked.is_empty() {
        return Ok(Column::defaults(outcomes));
    }
    let mut columns: Vec<Column> = Vec::new();
    for name in asked {
        for column in named(name, outcomes)? {
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
    }
    Ok(columns)
}

fn named(name: &str, outcomes: &[CellOutcome]) -> Result<Vec<Column>, ChoiceError> {
    let columns = match (name, GROUPS.iter().find(|(group, _)| *group == name)) {
        ("all", _) => measured(None, outcomes),
        (_, Some((_, family))) => measured(Some(*family), outcomes),
        (_, None) => return Ok(one(name.parse()?, outcomes)),
    };
    if columns.is_empty() { Err(ChoiceError::EmptyGroup(name.to_owned())) } else { Ok(columns) }
}

/// A metric without a set stands for every set, when that is how results name it.
fn one(column: Column, outcomes: &[CellOutcome]) -> Vec<Column> {
    if let Column::Metric(name) = &column
        && name.set().is_none()
        && Family::of(name.metric()) == Some(Family::Detection)
        && !names(outcomes).contains(name.metric().name())
    {
        return on_sets(name.metric(), &detection_sets(outcomes));
    }
    vec![column]
}

/// Columns of a family, or all, that any result has, in the order of the metrics, then of the sets. Without any result:
/// those that a result could have.
fn measured(family: Option<Family>, outcomes: &[CellOutcome]) -> Vec<Column> {
    let present = names(outcomes);
    let parsed: BTreeSet<MetricName> = present.iter().filter_map(|name| name.parse().ok()).collect();
    let sets = detection_sets(outcomes);
    let metrics = Metric::all().filter(|metric| family.is_none() || Family::of(*metric) == family);
    let mut columns: Vec<Column> = Vec::new();
    for metric in metrics {
        if present.is_empty() {
            columns.push(Column::Metric(metric.into()));
        } else if Family::of(metric) == Some(Family::Detection) {
            // A report of one set names its figures twice; the table shows them once.
            let shown = on_sets(metric, &sets);
            columns.extend(shown.into_iter().filter(|column| present.contains(column.name().as_str())));
        } else {
            // A group is about the test set itself; its figures on other sets have to be named, or are in `all`.
            let wanted =
                |name: &&MetricName| name.metric() == metric && (family.is_none() || name.set().is_none());
            columns.extend(parsed.iter().filter(wanted).cloned().map(Column::Metric));
        }
    }
    if family.is_none_or(|family| family == Family::Cost) {
        let costs = [
            (PARAMETERS, Column::Parameters),
            (TRAIN_SECONDS, Column::TrainingTime),
            (PEAK_DEVICE_BYTES, Column::PeakMemory),
        ];
        let costs = costs.into_iter().filter(|(name, _)| present.is_empty() || present.contains(name));
        columns.extend(costs.map(|(_, column)| column));
    }
    columns
}

fn on_sets(metric: Metric, sets: &[Option<String>]) -> Vec<Column> {
    let named = |set: &Option<String>| match set {
        None => Some(metric.into()),
        Some(set) => MetricName::on_set(metric, set).ok(),
    };
    sets.iter().filter_map(named).map(Column::Metric).collect()
}

/// Names of all values of all results.
fn names(outcomes: &[CellOutcome]) -> BTreeSet<&str> {
    let values = outcomes.iter().filter_map(|outcome| match &outcome.status {
        CellStatus::Done(values) => Some(values),
        CellStatus::Running | CellStatus::Waiting | CellStatus::Failed(_) | CellStatus::Cancelled => None,
    });
    values.flat_map(|values| values.keys().map(String::as_str)).collect()
}

/// Out-of-distribution sets that any cell was measured on, in the order of their names. A cell that was measured on a single
/// set has its figures under plain names too, and those are shown, first; so they are when there are no results yet, so
/// that headings do not move.
fn detection_sets(outcomes: &[CellOutcome]) -> Vec<Option<String>> {
    let mut sets = BTreeSet::new();
    for outcome in outcomes {
        let CellStatus::Done(values) = &outcome.status else { continue };
        if values.contains_key(Metric::Auroc.name()) {
            sets.insert(None);
            continue;
        }
        let names = values.keys().filter_map(|name| name.parse::<MetricName>().ok());
        sets.extend(
            names.filter(|name| name.metric() == Metric::Auroc).map(|name| name.set().map(str::to_owned)),
        );
    }
    if sets.is_empty() { vec![None] } else { sets.into_iter().collect() }
}

/// The methods that were asked for, in order.
pub(super) fn methods(asked: &[String], known: &[String]) -> Result<Vec<String>, ChoiceError> {
    let mut chosen: Vec<String> = Vec::new();
    for text in asked {
        for label in labels(text, known) {
            let label = method(label.trim(), known)?;
            if !chosen.contains(&label) {
                chosen.push(label);
            }
        }
    }
    Ok(chosen)
}

/// Cuts at commas, but not within a label that has commas itself: at each place the longest known label is taken.
fn labels(text: &str, known: &[String]) -> Vec<String> {
    let parts: Vec<&str> = text.split(',').collect();
    let mut labels = Vec::new();
    let mut start = 0;
    while start < parts.len() {
        let ends = (start + 1..=parts.len()).rev();
        let longest = ends
            .map(|end| (end, parts[start..end].join(",")))
            .find(|(_, label)| known.iter().any(|known| known == label.trim()));
        let (end, label) = longest.unwrap_or((start + 1, parts[start].to_owned()));
        labels.push(label);
        start = end;
    }
    labels
}

/// The label itself, if a row has it.
pub(super) fn method(label: &str, known: &[String]) -> Result<String, ChoiceError> {
    if known.iter().any(|known| known == label) {
        return Ok(label.to_owned());
    }
    let hint = suggest::hint(label, known.iter().map(String::as_str));
    Err(ChoiceError::Method { name: label.to_owned(), hint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_belongs_to_a_group() {
        for metric in Metric::all() {
            assert!(Family::of(metric).is_some(), "{metric}");
        }
    }

    fn done(names: &[&str]) -> CellOutcome {
        let values = names.iter().map(|name| ((*name).to_owned(), 1.0)).collect();
        let cell = crate::plan::Cell {
            data: "d".into(),
            model: "m".into(),
            method: "a".into(),
            seed: 0,
            trial: crate::TrialKey(crate::Digest::of(b"a")),
        };
        CellOutcome { cell, status: CellStatus::Done(values), setup: None, world_sizes: Vec::new() }
    }

    fn defaults(names: &[&str]) -> Vec<String> {
        Column::defaults(&[done(names)]).iter().map(Column::name).collect()
    }

    #[test]
    fn predicted_numbers_have_columns_of_their_own() {
        let shown = defaults(&["rmse", "std", "std/cubic-far", "rmse/cubic-far", "epistemic_std"]);
        let expected = ["rmse", "gaussian_nll", "coverage_95", "std", "std/cubic-far", "epistemic_std"];
        assert_eq!(shown[..6], expected);
        assert!(!shown.contains(&"accuracy".to_owned()));
    }

    #[test]
    fn the_most_complete_average_over_corruptions_is_shown() {
        let shown = defaults(&["accuracy", "ca_14", "ce_14", "ca_14_severity_5", "ce_14_severity_5"]);
        assert!(shown.contains(&"ca_14".to_owned()) && !shown.contains(&"ca_14_severity_5".to_owned()));
        assert!(defaults(&["accuracy", "ca", "ce", "ca_14"]).contains(&"ce".to_owned()));
    }

    #[test]
    fn a_label_with_commas_is_not_cut() {
        let known = ["a", "b, c", "b"].map(str::to_owned);
        let chosen = |text: &str| methods(&[text.to_owned()], &known);
        assert_eq!(chosen("b, c,a").unwrap(), ["b, c", "a"]);
        assert_eq!(chosen("b,a,b").unwrap(), ["b", "a"]);
        let error = chosen("a,d").unwrap_err().to_string();
        assert!(error.starts_with("no method is labelled `d`: "), "{error}");
    }
}
