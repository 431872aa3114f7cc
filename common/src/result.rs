//! What trials leave behind: checkpoints, artifacts, results.

pub mod rows;
mod scores;

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

pub use scores::Scores;

use crate::Digest;

/// A checkpoint that is stored whole. It exists when this record does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Optimizer steps done.
    pub step: u64,
    /// Content of the file.
    pub digest: Digest,
    /// Size in bytes.
    pub bytes: u64,
    /// How well its network predicts held-out images, of a trial that was asked to find out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
}

impl Checkpoint {
    /// A checkpoint without a score.
    pub fn new(step: u64, digest: Digest, bytes: u64) -> Self {
        Self { step, digest, bytes, score: None }
    }

    /// The same, with a score.
    pub fn scored(self, score: Option<Score>) -> Self {
        Self { score, ..self }
    }
}

/// Mean negative log-likelihood of held-out images: lower is better. Finite, and so in a total order.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Score(f64);

impl Score {
    /// The score of that value; none when it is not finite, for then it says nothing.
    pub fn new(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self(value))
    }

    /// Its value.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Score {}

/// A file that a trial leaves for its users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Name within the trial, like `predictions.safetensors`.
    pub name: String,
    /// Content of the file.
    pub digest: Digest,
    /// Size in bytes.
    pub bytes: u64,
}

/// What a trial that succeeded reports about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrialResult {
    /// Scores and costs by name, for example `accuracy` or `train_seconds`.
    pub metrics: Scores,
    /// Files, by name.
    pub artifacts: Vec<Artifact>,
}

/// One measured value of a running trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricRow {
    /// Optimizer steps done.
    pub step: u64,
    /// Name, for example `loss` or `kl/conv1`.
    pub name: String,
    /// Value.
    pub value: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_without_a_score_reads_and_writes_as_before_there_were_any() {
        let text = format!(r#"{{"step":3,"digest":"{}","bytes":7}}"#, Digest::of(b"x"));
        let read: Checkpoint = serde_json::from_str(&text).unwrap();
        assert_eq!(read, Checkpoint::new(3, Digest::of(b"x"), 7));
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }

    #[test]
    fn a_score_is_written_as_its_number_and_comes_back_to_the_bit() {
        let score = Score::new(0.1 + 0.2);
        let checkpoint = Checkpoint::new(3, Digest::of(b"x"), 7).scored(score);
        let text = serde_json::to_string(&checkpoint).unwrap();
        assert!(text.ends_with(r#","score":0.30000000000000004}"#), "{text}");
        assert_eq!(serde_json::from_str::<Checkpoint>(&text).unwrap().score, score);
    }

    #[test]
    fn what_is_not_finite_is_no_score() {
        assert!(
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].into_iter().all(|value| Score::new(value).is_none())
        );
        assert!(Score::new(0.1) < Score::new(0.2));
    }
}
