//! The only place of the coordinator that reads the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coordinator_core::Millis;
use tokio::time::Instant;

/// Wall-clock time that advances with a monotonic clock.
///
/// Read once: when somebody sets the wall clock, no lease ends early.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    wall: Millis,
}

impl Clock {
    pub(super) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), wall: Millis(0) + wall }
    }

    /// Time since it was started.
    pub(super) fn elapsed(self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn now(self) -> Millis {
        self.wall + self.start.elapsed()
    }

    /// When it will be `at`; in the past if it was.
    pub(super) fn instant(self, at: Millis) -> Instant {
        let ahead = at.since(self.wall);
        // A lease of centuries must not panic.
        self.start.checked_add(ahead).unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }
}
