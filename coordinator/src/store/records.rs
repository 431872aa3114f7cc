//! What the store keeps beside events, and what becomes durable together.

use common::result::MetricRow;
use common::{AttemptId, Digest, TrialId};
use coordinator_core::{Event, Millis};
use serde::{Deserialize, Serialize};

/// A worker's report of measured values.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricReport {
    /// The trial.
    pub trial: TrialId,
    /// The attempt.
    pub attempt: AttemptId,
    /// Counts the reports of the attempt. A report that is stored already is not stored again.
    pub sequence: u64,
    /// The values.
    pub rows: Vec<MetricRow>,
}

/// Something that a user should know about a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The attempt that warned.
    pub attempt: AttemptId,
    /// One sentence.
    pub message: String,
    /// When it came first.
    pub at: Millis,
}

/// Where the log of a rank is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLog {
    /// Its blob.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// What becomes durable together with one flush.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Facts, in order. Durable all or none.
    pub events: Vec<Event>,
    /// Measured values.
    pub metrics: Vec<MetricReport>,
    /// Warnings, each with its trial.
    pub warnings: Vec<(TrialId, Warning)>,
    /// Logs of ranks that ended.
    pub logs: Vec<(AttemptId, u32, StoredLog)>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.metrics.is_empty() && self.warnings.is_empty() && self.logs.is_empty()
    }
}
