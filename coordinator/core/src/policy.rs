//! Limits that an operator may set. They change when the core decides, not what a decision means.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

/// Limits of the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Silence after which a worker is lost. At least three heartbeats.
    pub lease: Duration,
    /// Time without a new step after which a running attempt has stalled. `None` to never judge.
    ///
    /// Judged only when a worker reports, and only for attempts that have reported a step: neither a
    /// broken connection nor a trial without steps is a stall.
    pub stall: Option<Duration>,
    /// Checkpoints kept for a trial that has not succeeded. One that has keeps only its last.
    pub checkpoints: NonZeroUsize,
    /// What each project may use. One that is not named here has weight 1 and no quota.
    pub projects: BTreeMap<String, ProjectPolicy>,
}

/// What a project may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectPolicy {
    /// Its part of the slots, relative to the weights of the others that want some.
    pub weight: NonZeroU32,
    /// Slots that it may use at once.
    pub quota: Option<u32>,
}

impl Default for ProjectPolicy {
    fn default() -> Self {
        Self { weight: NonZeroU32::MIN, quota: None }
    }
}

impl Policy {
    /// What `project` may use.
    pub fn project(&self, project: &str) -> ProjectPolicy {
        self.projects.get(project).copied().unwrap_or_default()
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(20),
            stall: Some(Duration::from_secs(30 * 60)),
            // A second one, because the newest may turn out to be damaged.
            checkpoints: NonZeroUsize::MIN.saturating_add(1),
            projects: BTreeMap::new(),
        }
    }
}
