//! What clients print, as JSON for scripts and as text. Field names of the JSON are part of the interface.

use std::collections::BTreeMap;

use proto::v1;
use serde::Serialize;

/// Name of a trial's state.
pub fn trial_state(state: i32) -> &'static str {
    match v1::TrialState::try_from(state) {
        Ok(v1::TrialState::Waiting) => "waiting",
        Ok(v1::TrialState::Queued) => "queued",
        Ok(v1::TrialState::Running) => "running",
        Ok(v1::TrialState::Succeeded) => "succeeded",
        Ok(v1::TrialState::Failed) => "failed",
        Ok(v1::TrialState::Cancelled) => "cancelled",
        Ok(v1::TrialState::Paused) => "paused",
        Ok(v1::TrialState::Unspecified) | Err(_) => "unknown",
    }
}

fn experiment_state(state: i32) -> &'static str {
    match v1::ExperimentState::try_from(state) {
        Ok(v1::ExperimentState::Active) => "active",
        Ok(v1::ExperimentState::Succeeded) => "succeeded",
        Ok(v1::ExperimentState::Failed) => "failed",
        Ok(v1::ExperimentState::Cancelled) => "cancelled",
        Ok(v1::ExperimentState::Unspecified) | Err(_) => "unknown",
    }
}

/// Trials of an experiment by state.
#[derive(Debug, Serialize)]
pub struct Counts {
    pub waiting: u32,
    pub queued: u32,
    pub running: u32,
    pub succeeded: u32,
    pub failed: u32,
    pub cancelled: u32,
    pub paused: u32,
}

impl Counts {
    /// Trials in all.
    pub fn total(&self) -> u32 {
        self.waiting + self.queued + self.running + self.paused + self.ended()
    }

    /// Trials that ended.
    pub fn ended(&self) -> u32 {
        self.succeeded + self.failed + self.cancelled
    }
}

/// An experiment.
#[derive(Debug, Serialize)]
pub struct Experiment {
    pub id: String,
    pub name: String,
    pub state: &'static str,
    pub submitted_at_ms: u64,
    pub project: String,
    pub priority: i32,
    #[serde(skip_serializing_if = "is_false")]
    pub paused: bool,
    pub trials: Counts,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl From<v1::Experiment> for Experiment {
    fn from(wire: v1::Experiment) -> Self {
        let counts = wire.counts.unwrap_or_default();
        let v1::Counts { waiting, queued, running, succeeded, failed, cancelled, paused } = counts;
        Self {
            id: wire.id,
            name: wire.name,
            state: experiment_state(wire.state),
            submitted_at_ms: wire.submitted_at_ms,
            project: wire.project,
            priority: wire.priority,
            paused: wire.paused,
            trials: Counts { waiting, queued, running, succeeded, failed, cancelled, paused },
        }
    }
}

/// Where a running trial stands.
#[derive(Debug, Serialize)]
pub struct Progress {
    pub step: u64,
    pub total_steps: u64,
    pub loss: Option<f64>,
    pub steps_per_second: Option<f64>,
}

/// A trial.
#[derive(Debug, Serialize)]
pub struct Trial {
    pub id: String,
    pub key: String,
    pub label: String,
    pub state: &'static str,
    pub slots: u32,
    pub min_slots: u32,
    pub attempts: u32,
    pub failures: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    pub submitted_at_ms: u64,
    pub started_at_ms: u64,
    pub ended_at_ms: u64,
}

impl From<v1::Trial> for Trial {
    fn from(wire: v1::Trial) -> Self {
        let progress = wire.progress.map(|progress| Progress {
            step: progress.step,
            total_steps: progress.total_steps,
            loss: progress.loss,
            steps_per_second: progress.steps_per_second,
        });
        Self {
            id: wire.id,
            key: wire.key,
            label: wire.label,
            state: trial_state(wire.state),
            slots: wire.slots,
            min_slots: wire.min_slots,
            attempts: wire.attempts,
            failures: wire.failures,
            reason: wire.reason,
            progress,
            submitted_at_ms: wire.submitted_at_ms,
            started_at_ms: wire.started_at_ms,
            ended_at_ms: wire.ended_at_ms,
        }
    }
}

/// A file of a trial.
#[derive(Debug, Serialize)]
pub struct Artifact {
    pub name: String,
    pub digest: String,
    pub bytes: u64,
}

impl From<v1::Artifact> for Artifact {
    fn from(wire: v1::Artifact) -> Self {
        let v1::Artifact { name, digest, bytes } = wire;
        Self { name, digest, bytes }
    }
}

/// A worker.
#[derive(Debug, Serialize)]
pub struct Worker {
    pub id: String,
    pub name: String,
    pub host: String,
    pub slots: u32,
    pub slots_used: u32,
    pub connected: bool,
    pub lease_left_ms: u64,
    pub attempts: Vec<String>,
    pub version: String,
    pub labels: BTreeMap<String, String>,
    pub device: String,
    pub slot_memory_mib: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub held: String,
}

impl From<v1::Worker> for Worker {
    fn from(wire: v1::Worker) -> Self {
        Self {
            id: wire.id,
            name: wire.name,
            host: wire.host,
            slots: wire.slots,
            slots_used: wire.slots_used,
            connected: wire.connected,
            lease_left_ms: wire.lease_left_ms,
            attempts: wire.attempts,
            version: wire.version,
            labels: wire.labels.into_iter().collect(),
            device: wire.device,
            slot_memory_mib: wire.slot_memory_mib,
            held: wire.held,
        }
    }
}

/// An attempt of a trial.
#[derive(Debug, Serialize)]
pub struct Attempt {
    pub id: String,
    pub workers: Vec<String>,
    pub started_at_ms: u64,
    pub ended_at_ms: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub failure: String,
    pub world_size: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub yielding: String,
}

impl From<v1::Attempt> for Attempt {
    fn from(wire: v1::Attempt) -> Self {
        let name = |share: v1::Share| {
            if share.slots == 1 {
                share.worker_name
            } else {
                format!("{}×{}", share.worker_name, share.slots)
            }
        };
        Self {
            id: wire.id,
            workers: wire.placement.into_iter().map(name).collect(),
            started_at_ms: wire.started_at_ms,
            ended_at_ms: wire.ended_at_ms,
            failure: wire.failure,
            world_size: wire.world_size,
            yielding: wire.yielding,
        }
    }
}

/// A checkpoint that is kept.
#[derive(Debug, Serialize)]
pub struct Checkpoint {
    pub step: u64,
    pub bytes: u64,
    /// Mean negative log-likelihood of held-out images.
    pub score: Option<f64>,
}

impl From<v1::Checkpoint> for Checkpoint {
    fn from(wire: v1::Checkpoint) -> Self {
        let v1::Checkpoint { step, digest: _, bytes, score } = wire;
        Self { step, bytes, score }
    }
}

/// Everything of one trial.
#[derive(Debug, Serialize)]
pub struct TrialDetail {
    #[serde(flatten)]
    pub trial: Trial,
    pub spec: serde_json::Value,
    pub history: Vec<Attempt>,
    pub checkpoint_steps: Vec<u64>,
    pub pinned_steps: Vec<u64>,
    pub best_step: Option<u64>,
    pub checkpoints: Vec<Checkpoint>,
    pub warnings: Vec<String>,
    pub metrics: BTreeMap<String, f64>,
    pub artifacts: Vec<Artifact>,
}

impl From<v1::GetTrialResponse> for TrialDetail {
    fn from(wire: v1::GetTrialResponse) -> Self {
        let result = wire.result.unwrap_or_default();
        Self {
            trial: wire.trial.unwrap_or_default().into(),
            spec: serde_json::from_str(&wire.spec_json).unwrap_or(serde_json::Value::Null),
            history: wire.attempts.into_iter().map(Into::into).collect(),
            checkpoint_steps: wire.checkpoints.iter().map(|checkpoint| checkpoint.step).collect(),
            pinned_steps: wire.pinned_steps,
            best_step: wire.best_step,
            checkpoints: wire.checkpoints.into_iter().map(Into::into).collect(),
            warnings: wire.warnings,
            metrics: result.metrics.into_iter().collect(),
            artifacts: result.artifacts.into_iter().map(Into::into).collect(),
        }
    }
}
