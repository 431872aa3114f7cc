//! Test sets under corruption: their names, and averages that are what their names say.
//!
//! CIFAR-10-C and its like have 15 main corruptions and 4 extra ones, each in 5 severities. Papers average
//! over different selections of them and call each "cA". Here an average has a name for its selection and
//! exists only when every set of the selection was evaluated. `ca` is over 15 × 5 sets and nothing else;
//! what is left when frost is missing, which cannot be generated without its photographs, is `ca_14`.
//! Sets that make up none of these give `ca_partial`, whose name carries the number of the sets and a
//! digest of *which* they are, so that no column of a table holds averages over different sets.
//!
//! Every set of a selection weighs the same, whatever its number of samples.
//!
//! Source of corruptions and severities: Hendrycks, Dietterich, *Benchmarking Neural Network Robustness to
//! Common Corruptions and Perturbations*, ICLR 2019.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::calibration::ReliabilityDiagram;
use crate::classification::{accuracy, brier_score, negative_log_likelihood};
use crate::metric::Metric;
use crate::name::{MetricName, MetricNameError};
use crate::predictions::LabelledPredictions;

/// The corruptions of the benchmark, by the names of the official files.
pub const MAIN_CORRUPTIONS: [&str; 15] = [
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
];

/// The corruptions that the benchmark keeps for validation.
pub const EXTRA_CORRUPTIONS: [&str; 4] = ["speckle_noise", "gaussian_blur", "spatter", "saturate"];

/// The corruption that needs photographs.
const FROST: &str = "frost";

/// Severities of every corruption: 1 to 5.
pub const SEVERITIES: u8 = 5;

/// Why the name of a corrupted set was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` does not name a corrupted set: it must be a corruption and its severity, such as `fog.3`")]
pub struct ShiftNameError {
    /// What was given.
    name: String,
}

/// A corruption and its severity: `gaussian_noise.3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShiftName {
    corruption: String,
    severity: u8,
}

impl ShiftName {
    /// Names a corrupted set. Corruptions outside the benchmark are allowed; their sets take part in no
    /// average over the benchmark's.
    ///
    /// # Errors
    ///
    /// [`ShiftNameError`] when the severity is not 1 to 5, or the name could not be part of a metric's name.
    pub fn new(corruption: &str, severity: u8) -> Result<Self, ShiftNameError> {
        let name = Self { corruption: corruption.to_owned(), severity };
        let usable = MetricName::on_set(Metric::Accuracy, corruption).is_ok();
        if usable && (1..=SEVERITIES).contains(&severity) {
            return Ok(name);
        }
        Err(ShiftNameError { name: name.to_string() })
    }

    /// The corruption.
    pub fn corruption(&self) -> &str {
        &self.corruption
    }

    /// How strong it is, 1 to 5.
    pub fn severity(&self) -> u8 {
        self.severity
    }
}

impl fmt::Display for ShiftName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.corruption, self.severity)
    }
}

impl FromStr for ShiftName {
    type Err = ShiftNameError;

    fn from_str(name: &str) -> Result<Self, ShiftNameError> {
        let parts = name.rsplit_once('.').and_then(|(corruption, s)| Some((corruption, s.parse().ok()?)));
        parts
            .and_then(|(corruption, severity)| Self::new(corruption, severity).ok())
            // `fog.03` would be another name for `fog.3`.
            .filter(|parsed| parsed.to_string() == name)
            .ok_or_else(|| ShiftNameError { name: name.to_owned() })
    }
}

/// Predictions for the test set under one corruption.
#[derive(Debug, Clone, PartialEq)]
pub struct ShiftedSet<'a> {
    /// Corruption and severity.
    pub name: ShiftName,
    /// Predictions with the true classes; the mean over members is enough.
    pub predictions: &'a LabelledPredictions<'a>,
}

/// A selection of corrupted sets that averages are taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The 15 main corruptions at 5 severities.
    Main,
    /// The main corruptions but frost, at 5 severities.
    MainButFrost,
    /// All 19 corruptions at 5 severities.
    All,
    /// All corruptions but frost, at 5 severities.
    AllButFrost,
    /// The 15 main corruptions at severity 5.
    MainSeverity5,
    /// The main corruptions but frost, at severity 5.
    MainButFrostSeverity5,
    /// Whatever there is, when it is none of the other selections.
    Partial,
}

impl Scope {
    /// Every selection.
    pub const ALL: [Self; 7] = [
        Self::Main,
        Self::MainButFrost,
        Self::All,
        Self::AllButFrost,
        Self::MainSeverity5,
        Self::MainButFrostSeverity5,
        Self::Partial,
    ];

    /// The sets of the selection, in the order of the benchmark; `None` for [`Self::Partial`], which depends on what there is.
    pub fn sets(self) -> Option<Vec<ShiftName>> {
        let (extra, frost, least) = match self {
            Self::Main => (false, true, 1),
            Self::MainButFrost => (false, false, 1),
            Self::All => (true, true, 1),
            Self::AllButFrost => (true, false, 1),
            Self::MainSeverity5 => (false, true, SEVERITIES),
            Self::MainButFrostSeverity5 => (false, false, SEVERITIES),
            Self::Partial => return None,
        };
        let extras: &[&str] = if extra { &EXTRA_CORRUPTIONS } else { &[] };
        let corruptions = MAIN_CORRUPTIONS.iter().chain(extras).filter(|name| frost || **name != FROST);
        let severities = least..=SEVERITIES;
        let named = |corruption: &&str| {
            let corruption = (*corruption).to_owned();
            severities.clone().map(move |severity| ShiftName { corruption: corruption.clone(), severity })
        };
        Some(corruptions.flat_map(named).collect())
    }
}

/// What is measured on one corrupted set, and averaged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quality {
    accuracy: f64,
    nll: f64,
    brier: f64,
    ece: f64,
}

impl Quality {
    pub(crate) fn new(predictions: &LabelledPredictions<'_>) -> Self {
        Self {
            accuracy: accuracy(predictions),
            nll: negative_log_likelihood(predictions),
            brier: brier_score(predictions),
            ece: ReliabilityDiagram::new(predictions).expected_calibration_error(),
        }
    }

    pub(crate) fn entries(self) -> [(Metric, f64); 4] {
        [
            (Metric::Accuracy, self.accuracy),
            (Metric::NegativeLogLikelihood, self.nll),
            (Metric::BrierScore, self.brier),
            (Metric::ExpectedCalibrationError, self.ece),
        ]
    }

    fn mean(qualities: &[Self]) -> Self {
        let mean =
            |value: fn(&Self) -> f64| qualities.iter().map(value).sum::<f64>() / qualities.len() as f64;
        Self {
            accuracy: mean(|q| q.accuracy),
            nll: mean(|q| q.nll),
            brier: mean(|q| q.brier),
            ece: mean(|q| q.ece),
        }
    }

    fn averaged(self, scope: Scope) -> [(Metric, f64); 4] {
        let metrics = Metric::shift(scope);
        [
            (metrics.accuracy, self.accuracy),
            (metrics.nll, self.nll),
            (metrics.brier, self.brier),
            (metrics.ece, self.ece),
        ]
    }
}

/// The averages whose sets are all there, and the number of sets; nothing without sets.
pub(crate) fn averages(
    sets: &BTreeMap<ShiftName, Quality>,
) -> Result<Vec<(MetricName, f64)>, MetricNameError> {
    if sets.is_empty() {
        return Ok(Vec::new());
    }
    let mut values = vec![(Metric::ShiftedSets.into(), sets.len() as f64)];
    let mut named = false;
    for scope in Scope::ALL {
        let Some(wanted) = scope.sets() else { continue };
        let found: Vec<Quality> = wanted.iter().filter_map(|name| sets.get(name)).copied().collect();
        if found.len() == wanted.len() {
            named |= found.len() == sets.len();
            let mean = Quality::mean(&found).averaged(scope);
            values.extend(mean.map(|(metric, value)| (MetricName::from(metric), value)));
        }
    }
    if !named {
        let all: Vec<Quality> = sets.values().copied().collect();
        let selection = fingerprint(sets.keys());
        for (metric, value) in Quality::mean(&all).averaged(Scope::Partial) {
            values.push((MetricName::on_set(metric, &selection)?, value));
        }
    }
    Ok(values)
}

/// Number of the sets, and six digits that are the same for the same sets: `10.3fa9c1`.
fn fingerprint<'n>(names: impl ExactSizeIterator<Item = &'n ShiftName>) -> String {
    let count = names.len();
    // FNV-1a, which needs to tell a few selections of one study apart and is stable for ever.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for name in names {
        for byte in format!("{name}\n").bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{count}.{:06x}", hash >> 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ShiftName {
        text.parse().unwrap()
    }

    /// Accuracy 0.01 times the position in the list, NLL and so on 2, 3 and 4 times that.
    fn sets(names: &[ShiftName]) -> BTreeMap<ShiftName, Quality> {
        let quality = |x: f64| Quality { accuracy: x, nll: 2.0 * x, brier: 3.0 * x, ece: 4.0 * x };
        names.iter().enumerate().map(|(i, name)| (name.clone(), quality(0.01 * i as f64))).collect()
    }

    fn names(values: &[(MetricName, f64)]) -> Vec<String> {
        values.iter().map(|(name, _)| name.to_string()).collect()
    }

    #[test]
    fn a_name_reads_back_and_nothing_else_does() {
        assert_eq!(name("gaussian_noise.3").to_string(), "gaussian_noise.3");
        assert_eq!((name("fog.5").corruption(), name("fog.5").severity()), ("fog", 5));
        for refused in ["fog", "fog.0", "fog.6", "fog.03", "fog.+3", ".3", "a/b.3", "fog.x", ""] {
            let error = refused.parse::<ShiftName>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{refused}` does not name a corrupted set")));
        }
    }

    #[test]
    fn the_scopes_have_the_sets_that_they_say() {
        let count = |scope: Scope| scope.sets().map(|sets| sets.len());
        let counts = Scope::ALL.map(count);
        assert_eq!(counts, [Some(75), Some(70), Some(95), Some(90), Some(15), Some(14), None]);
        for scope in Scope::ALL {
            let sets = scope.sets().unwrap_or_default();
            assert!(sets.iter().all(|set| set.to_string().parse().as_ref() == Ok(set)), "{scope:?}");
        }
    }

    #[test]
    fn all_sets_give_every_average_and_no_partial_one() {
        let all = Scope::All.sets().unwrap();
        let values = averages(&sets(&all)).unwrap();
        let named: Vec<_> = names(&values).into_iter().filter(|name| name.starts_with("ca")).collect();
        assert_eq!(named, ["ca", "ca_14", "ca_19", "ca_18", "ca_severity_5", "ca_14_severity_5"]);
        let value = |name: &str| values.iter().find(|(n, _)| n.to_string() == name).unwrap().1;
        assert_eq!(value("shifted_sets"), 95.0);
        // Positions 0 to 94, 0 to 74, and every fifth from 4 on to 74.
        assert!((value("ca_19") - 0.47).abs() < 1e-12);
        assert!((value("ca") - 0.37).abs() < 1e-12);
        assert!((value("cnll_severity_5") - 0.78).abs() < 1e-12);
        // Frost is the ninth: positions 40 to 44.
        assert!((value("ce_14") - 0.04 * (75.0 * 37.0 - 5.0 * 42.0) / 70.0).abs() < 1e-12);
    }

    #[test]
    fn one_missing_set_takes_every_average_that_says_it_has_it() {
        let without: Vec<_> =
            Scope::Main.sets().unwrap().into_iter().filter(|s| *s != name("frost.2")).collect();
        let names = names(&averages(&sets(&without)).unwrap());
        assert!(!names.contains(&"ca".to_owned()));
        for kept in ["ca_14", "ca_severity_5", "ca_14_severity_5"] {
            assert!(names.contains(&kept.to_owned()), "{kept}");
        }
        // 74 sets are no selection with a name.
        assert!(names.iter().any(|name| name.starts_with("ca_partial/74.")), "{names:?}");
    }

    #[test]
    fn generated_corruptions_have_an_average_of_their_own_name() {
        let generated = Scope::MainButFrost.sets().unwrap();
        let names = names(&averages(&sets(&generated)).unwrap());
        let expected: Vec<String> = ["", "_severity_5"]
            .iter()
            .flat_map(|scope| ["ca", "cnll", "cbrier", "ce"].map(|stem| format!("{stem}_14{scope}")))
            .collect();
        assert_eq!(names[0], "shifted_sets");
        assert_eq!(names[1..], expected);
    }

    #[test]
    fn partial_averages_of_different_sets_have_different_names() {
        let partial = |list: &[&str]| {
            let list: Vec<_> = list.iter().map(|text| name(text)).collect();
            names(&averages(&sets(&list)).unwrap())[1].clone()
        };
        let found = partial(&["fog.1", "snow.1"]);
        assert!(found.starts_with("ca_partial/2."), "{found}");
        assert_eq!(found, partial(&["snow.1", "fog.1"]));
        assert_ne!(found, partial(&["fog.1", "snow.2"]));
        assert_ne!(found, partial(&["fog.1", "rain.1"]));
        assert!(averages(&BTreeMap::new()).unwrap().is_empty());
    }
}
