//! Names under which values are stored: a metric, and for what is measured on one set also that set.
//!
//! Names are stable: they are keys of stored metric rows. `ece` is of the test set, `auroc/svhn` of one
//! out-of-distribution set, `ece/fog.3` of one corrupted test set.

use std::fmt;
use std::str::FromStr;

use crate::metric::Metric;
use crate::score::OodScore;
use crate::shift::Scope;

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

/// The names that stand for themselves, and how the others are made of them: all would fill a screen.
fn names() -> String {
    let variant = |metric: Metric| {
        let scores = OodScore::ALL.iter().skip(1).map(|score| Metric::detection(*score));
        let scopes = Scope::ALL.iter().skip(1).map(|scope| Metric::shift(*scope));
        scores.flat_map(|m| [m.auroc, m.aupr, m.aupr_in, m.fpr95]).any(|other| other == metric)
            || scopes.flat_map(|m| [m.accuracy, m.nll, m.brier, m.ece]).any(|other| other == metric)
    };
    let plain: Vec<_> = Metric::all().filter(|metric| !variant(*metric)).map(Metric::name).collect();
    let suffixes = |names: Vec<&'static str>, stem: &str| -> String {
        names.iter().map(|name| name.trim_start_matches(stem)).collect::<Vec<_>>().join(", ")
    };
    let scores = OodScore::ALL.iter().skip(1).map(|score| Metric::detection(*score).auroc.name());
    let scopes = Scope::ALL.iter().skip(1).map(|scope| Metric::shift(*scope).accuracy.name());
    format!(
        "{}; detection by another score ends in {}; another average over corruptions ends in {}",
        plain.join(", "),
        suffixes(scores.collect(), "auroc"),
        suffixes(scopes.collect(), "ca"),
    )
}

/// A metric, and the set that it was measured on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricName {
    metric: Metric,
    set: Option<String>,
}

impl MetricName {
    /// A metric measured on one out-of-distribution or corrupted set: `auroc/svhn`, `ece/fog.3`.
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

    /// The out-of-distribution or corrupted set. `None` on the in-distribution test set, for detection against
    /// the only out-of-distribution set, and for averages over corrupted sets that say by themselves which.
    pub fn set(&self) -> Option<&str> {
        self.set.as_deref()
    }
}

impl From<Metric> for MetricName {
    fn from(metric: Metric) -> Self {
        Self { metric, set: None }
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
        let scores = "; detection by another score ends in _predictive_entropy, _expected_entropy, ";
        assert!(error.contains(scores) && !error.contains("aupr_energy"), "{error}");
        assert!(error.ends_with("ends in _14, _19, _18, _severity_5, _14_severity_5, _partial"), "{error}");
    }

    #[test]
    fn a_set_name_that_would_not_read_back_is_refused() {
        for set in ["", "a/b", "a b", "é"] {
            let error = MetricName::on_set(Metric::Auroc, set).unwrap_err();
            assert_eq!(error, MetricNameError::InvalidSet { set: set.to_owned() });
        }
        assert!("auroc/".parse::<MetricName>().is_err());
    }
}
