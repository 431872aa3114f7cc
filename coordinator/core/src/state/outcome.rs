//! How trials end and attempts fail, in the form that the log keeps.

use std::fmt;

use common::result::TrialResult;
use common::{AttemptId, FailureCause, TrialId, WorkerId};
use serde::{Deserialize, Serialize};

use crate::Millis;

/// How a trial ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Outcome {
    /// Every rank succeeded.
    Succeeded {
        /// What the trial left.
        #[serde(with = "exact")]
        result: TrialResult,
    },
    /// The last attempt's failure was final.
    Failed {
        /// Why it failed.
        cause: FailureCause,
    },
    /// Its attempts lost one worker after the other, and left no new checkpoint.
    LostWorkers {
        /// How many attempts in a row.
        attempts: u32,
    },
    /// Nobody wants it any more.
    Cancelled,
    /// A trial that it needs ended without success.
    NeedFailed {
        /// The needed trial.
        need: TrialId,
    },
}

impl Outcome {
    /// Whether the trial has a result.
    pub fn is_success(&self) -> bool {
        match self {
            Self::Succeeded { .. } => true,
            Self::Failed { .. } | Self::LostWorkers { .. } | Self::Cancelled | Self::NeedFailed { .. } => {
                false
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded { .. } => f.write_str("succeeded"),
            Self::Failed { cause } => write!(f, "failed: {cause}"),
            Self::LostWorkers { attempts } => {
                write!(f, "failed: {attempts} attempts in a row lost a worker and left no new checkpoint")
            }
            Self::Cancelled => f.write_str("cancelled"),
            Self::NeedFailed { need } => write!(f, "needs {need}, which ended without success"),
        }
    }
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// The attempt.
    pub attempt: AttemptId,
    /// Why it failed.
    pub cause: FailureCause,
    /// The worker whose ranks failed, where one is known.
    pub worker: Option<WorkerId>,
    /// When.
    pub at: Millis,
}

/// Results whose metrics are not all finite. JSON has no such numbers: they would be written as `null`,
/// and the log could not be read again.
mod exact {
    use std::collections::BTreeMap;

    use common::result::{Artifact, TrialResult};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Exact {
        metrics: BTreeMap<String, Value>,
        artifacts: Vec<Artifact>,
    }

    #[derive(Clone, Copy, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Value {
        Finite(f64),
        Other(NotFinite),
    }

    #[derive(Clone, Copy, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum NotFinite {
        Nan,
        Infinity,
        MinusInfinity,
    }

    impl From<f64> for Value {
        fn from(value: f64) -> Self {
            if value.is_finite() {
                Self::Finite(value)
            } else if value.is_nan() {
                Self::Other(NotFinite::Nan)
            } else if value > 0.0 {
                Self::Other(NotFinite::Infinity)
            } else {
                Self::Other(NotFinite::MinusInfinity)
            }
        }
    }

    impl From<Value> for f64 {
        fn from(value: Value) -> Self {
            match value {
                Value::Finite(value) => value,
                Value::Other(NotFinite::Nan) => Self::NAN,
                Value::Other(NotFinite::Infinity) => Self::INFINITY,
                Value::Other(NotFinite::MinusInfinity) => Self::NEG_INFINITY,
            }
        }
    }

    pub(super) fn serialize<S: Serializer>(result: &TrialResult, serializer: S) -> Result<S::Ok, S::Error> {
        let metrics = result.metrics.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        Exact { metrics, artifacts: result.artifacts.clone() }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TrialResult, D::Error> {
        let Exact { metrics, artifacts } = Exact::deserialize(deserializer)?;
        let metrics = metrics.into_iter().map(|(name, value)| (name, value.into())).collect();
        Ok(TrialResult { metrics, artifacts })
    }
}
