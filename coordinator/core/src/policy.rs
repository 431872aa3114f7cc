//! Limits that an operator may set. They change when the core decides, not what a decision means.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use common::timeouts::{Timeouts, ranks};

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
    /// Checkpoints kept for a trial that has not succeeded. One that has keeps only its last. Those that are pinned or
    /// best come on top.
    pub checkpoints: NonZeroUsize,
    /// Time that an attempt has for stopping at a checkpoint. One that a user wants stopped, by a pause or a
    /// drain, is then stopped without; one whose slots another trial wants runs on.
    ///
    /// Judged only when a worker reports.
    pub yield_limit: Duration,
    /// Failures in a row on one worker, of more than one trial, after which it is quarantined.
    pub quarantine_after: NonZeroUsize,
    /// Attempts in a row that lose a worker and leave no checkpoint, after which a trial is given up.
    pub max_workers_lost: NonZeroU32,
    /// Time that an elastic trial runs with the ranks that it has before it is given more.
    pub resize_after: Duration,
    /// Pause before a trial is tried again after a failure that no budget counts: after the first such failure in a row, on a
    /// worker where it had failed before. It doubles with each further one.
    pub retry_after: Duration,
    /// The longest that this pause becomes.
    pub retry_after_most: Duration,
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

    /// How long a trial is not tried again after so many failures in a row that no budget counts.
    pub fn pause(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.retry_after.saturating_mul(factor).min(self.retry_after_most)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lease: Timeouts::default().lease(),
            stall: Some(Duration::from_secs(30 * 60)),
            // A second one, because the newest may turn out to be damaged.
            checkpoints: NonZeroUsize::MIN.saturating_add(1),
            yield_limit: ranks::YIELD,
            quarantine_after: NonZeroUsize::MIN.saturating_add(2),
            max_workers_lost: NonZeroU32::MIN.saturating_add(4),
            resize_after: Duration::from_secs(60),
            retry_after: Duration::from_secs(1),
            retry_after_most: Duration::from_secs(60),
            projects: BTreeMap::new(),
        }
    }
}
