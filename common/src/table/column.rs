//! Columns of a table: which value they show, which direction is better, and how a mean and its spread are printed.

use std::fmt;
use std::str::FromStr;

use metrics::{Direction, Metric, MetricName};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::suggest;

/// Name of the value that holds a row's trained and frozen parameters, summed over its networks.
pub const PARAMETERS: &str = "parameters";
/// Name of the value that holds the seconds of training behind a cell, summed over its networks.
pub const TRAIN_SECONDS: &str = "train_seconds";
/// Name of the value that holds the most bytes of a GPU that training a network of a cell had at one time, on its rank 0.
pub const PEAK_DEVICE_BYTES: &str = "peak_device_bytes";

/// One column of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// A metric, perhaps on one out-of-distribution set.
    Metric(MetricName),
    /// Parameters of all networks of a cell.
    Parameters,
    /// Time of training all networks of a cell, one after the other.
    TrainingTime,
    /// Memory of a GPU that training needs; of what is trained on CPUs there is none.
    PeakMemory,
}

/// What moves a column's values from seed to seed, and so what may be claimed of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// Seeds: initial weights, order, augmentation. Differences are tested.
    Seeds,
    /// Nothing: a count. Any difference is one.
    Nothing,
    /// Machines, their load, the ranks of a run: the seeds' spread says nothing of another machine. Never tested, never
    /// marked.
    Machines,
}

/// A name that no column has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no column is named `{name}`: {hint}")]
pub struct UnknownColumn {
    name: String,
    hint: String,
}

/// A mean and its spread in words, with as many digits as mean something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub mean: String,
    pub deviation: Option<String>,
    /// Follows the value after a space; empty when the heading says it.
    pub unit: &'static str,
}

impl Column {
    /// Name of the value, as in results and in machine-readable tables.
    pub fn name(&self) -> String {
        match self {
            Self::Metric(metric) => metric.to_string(),
            Self::Parameters => PARAMETERS.to_owned(),
            Self::TrainingTime => TRAIN_SECONDS.to_owned(),
            Self::PeakMemory => PEAK_DEVICE_BYTES.to_owned(),
        }
    }

    /// Heading.
    pub fn title(&self) -> String {
        match self {
            Self::Metric(name) => match name.set() {
                None => name.metric().label().to_owned(),
                Some(set) => format!("{} {set}", name.metric().label()),
            },
            Self::Parameters => "Parameters".to_owned(),
            Self::TrainingTime => "Training".to_owned(),
            Self::PeakMemory => "GPU memory".to_owned(),
        }
    }

    /// Which direction is better.
    pub fn direction(&self) -> Direction {
        match self {
            Self::Metric(name) => name.metric().direction(),
            Self::Parameters | Self::TrainingTime | Self::PeakMemory => Direction::Lower,
        }
    }

    /// The direction as an arrow; empty when no value is the best.
    pub fn arrow(&self) -> &'static str {
        match self.direction() {
            Direction::Higher => "↑",
            Direction::Lower => "↓",
            Direction::Neither => "",
        }
    }

    /// What moves its values.
    pub fn noise(&self) -> Noise {
        match self {
            Self::Metric(_) => Noise::Seeds,
            Self::Parameters => Noise::Nothing,
            Self::TrainingTime | Self::PeakMemory => Noise::Machines,
        }
    }

    /// Whether values, which are fractions, are printed in percent.
    pub(super) fn is_percent(&self) -> bool {
        match self {
            Self::Metric(name) => name.metric().format(1.0).starts_with("100"),
            Self::Parameters | Self::TrainingTime | Self::PeakMemory => false,
        }
    }

    /// A difference, with its sign.
    pub(super) fn show_difference(&self, mean: f64, deviation: Option<f64>) -> Shown {
        let shown = self.show(mean.abs(), deviation);
        Shown { mean: format!("{}{}", if mean < 0.0 { '−' } else { '+' }, shown.mean), ..shown }
    }

    pub(super) fn show(&self, mean: f64, deviation: Option<f64>) -> Shown {
        match self {
            Self::Metric(name) => {
                let metric = name.metric();
                Shown { mean: metric.format(mean), deviation: deviation.map(|d| metric.format(d)), unit: "" }
            }
            Self::Parameters => {
                // A count that is the same for every seed has no spread worth a column's width.
                let deviation = deviation.filter(|deviation| *deviation > 0.0);
                let (scale, unit) = scaled(mean, &[(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]);
                let digits = usize::from(scale > 1.0);
                shown(mean / scale, deviation.map(|deviation| deviation / scale), digits, unit)
            }
            Self::TrainingTime => {
                let (scale, unit) =
                    scaled(mean / 2.0, &[(3600.0, "h"), (60.0, "min"), (1.0, "s"), (0.0, "s")]);
                let scale = scale.max(1.0);
                shown(mean / scale, deviation.map(|deviation| deviation / scale), 1, unit)
            }
            Self::PeakMemory => {
                let scales = [(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB")];
                let (scale, unit) = scaled(mean, &scales);
                shown(mean / scale, deviation.map(|deviation| deviation / scale), 1, unit)
            }
        }
    }
}

fn shown(mean: f64, deviation: Option<f64>, digits: usize, unit: &'static str) -> Shown {
    let print = |value: f64| format!("{value:.digits$}");
    Shown { mean: print(mean), deviation: deviation.map(print), unit }
}

/// The first scale that `value` reaches, or the last.
fn scaled(value: f64, scales: &[(f64, &'static str)]) -> (f64, &'static str) {
    let reached = scales.iter().find(|(scale, _)| value >= *scale);
    reached.or(scales.last()).copied().unwrap_or((1.0, ""))
}

impl FromStr for Column {
    type Err = UnknownColumn;

    fn from_str(name: &str) -> Result<Self, UnknownColumn> {
        match name {
            PARAMETERS => Ok(Self::Parameters),
            TRAIN_SECONDS => Ok(Self::TrainingTime),
            PEAK_DEVICE_BYTES => Ok(Self::PeakMemory),
            metric => metric.parse().map(Self::Metric).map_err(|_| {
                let names =
                    Metric::all().map(Metric::name).chain([PARAMETERS, TRAIN_SECONDS, PEAK_DEVICE_BYTES]);
                let groups = super::choice::GROUPS.map(|(name, _)| name);
                let stem = metric.split('/').next().unwrap_or_default();
                let near = suggest::nearest(stem, names.chain(groups).chain(["all"]));
                let near = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
                let hint = format!(
                    "{near}`all` shows every one that results have, and there are the groups {}",
                    groups.join(", ")
                );
                UnknownColumn { name: metric.to_owned(), hint }
            }),
        }
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        Named::deserialize(deserializer)?.name.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let better = match self.direction() {
            Direction::Higher => Some("higher"),
            Direction::Lower => Some("lower"),
            Direction::Neither => None,
        };
        let mut fields = serializer.serialize_struct("Column", 3)?;
        fields.serialize_field("name", &self.name())?;
        fields.serialize_field("title", &self.title())?;
        fields.serialize_field("better", &better)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(column: &Column, mean: f64, deviation: Option<f64>) -> String {
        let Shown { mean, deviation, unit } = column.show(mean, deviation);
        deviation.iter().fold(mean, |mean, deviation| format!("{mean} ± {deviation}")) + " " + unit
    }

    #[test]
    fn a_column_reads_back_as_it_was_printed() {
        for name in ["accuracy", "auroc/svhn", "parameters", "train_seconds"] {
            assert_eq!(name.parse::<Column>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn an_unknown_column_is_answered_with_the_nearest() {
        let error = "acuracy".parse::<Column>().unwrap_err().to_string();
        assert!(error.starts_with("no column is named `acuracy`: did you mean `accuracy`?"), "{error}");
        assert!("auroc/a b".parse::<Column>().is_err());
    }

    #[test]
    fn parameters_have_a_unit_and_no_spread_unless_they_differ() {
        assert_eq!(text(&Column::Parameters, 36_489_290.0, Some(0.0)), "36.5 M");
        assert_eq!(text(&Column::Parameters, 640.0, None), "640 ");
        assert_eq!(text(&Column::Parameters, 78_000.0, Some(500.0)), "78.0 ± 0.5 k");
    }

    #[test]
    fn times_have_the_unit_of_their_mean() {
        assert_eq!(text(&Column::TrainingTime, 0.5, Some(0.1)), "0.5 ± 0.1 s");
        assert_eq!(text(&Column::TrainingTime, 119.0, None), "119.0 s");
        assert_eq!(text(&Column::TrainingTime, 120.0, Some(6.0)), "2.0 ± 0.1 min");
        assert_eq!(text(&Column::TrainingTime, 9_000.0, None), "2.5 h");
        assert_eq!(text(&Column::PeakMemory, 12.5 * 1_073_741_824.0, Some(107_374_182.4)), "12.5 ± 0.1 GiB");
        assert_eq!(text(&Column::PeakMemory, 524_288.0 * 100.0, None), "50.0 MiB");
    }
}
