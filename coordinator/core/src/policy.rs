//! Limits that an operator may set. They change when the core decides, not what a decision means.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Limits of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(20),
            stall: Some(Duration::from_secs(30 * 60)),
            // A second one, because the newest may turn out to be damaged.
            checkpoints: NonZeroUsize::MIN.saturating_add(1),
        }
    }
}
