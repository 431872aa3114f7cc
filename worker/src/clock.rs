//! The only clock of the agent's decisions.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A clock that never runs backwards, and that counts while the machine sleeps.
///
/// The monotonic clock of the standard library stands still while a machine is suspended. A lease does not.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Duration,
}

impl Clock {
    /// A clock that stands at zero.
    pub fn start() -> Self {
        Self { start: read() }
    }

    /// Time since it was started.
    pub fn now(self) -> Duration {
        read().saturating_sub(self.start)
    }

    /// Time until it stands at `due`.
    pub fn until(self, due: Duration) -> Duration {
        due.saturating_sub(self.now())
    }
}

fn read() -> Duration {
    // Only an unknown clock is an error, and every Linux since 2.6.39 has this one.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_advances() {
        let clock = Clock::start();
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.now() >= before + Duration::from_millis(2));
        assert_eq!(clock.until(Duration::ZERO), Duration::ZERO);
    }
}
