//! The only clock of the agent's decisions.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since the machine was started: it never runs backwards, counts while the machine sleeps, and is the same for the
/// agent and its trainers.
///
/// The monotonic clock of the standard library stands still while a machine is suspended. A lease does not.
pub fn now() -> Duration {
    // Only an unknown clock is an error, and every Linux since 2.6.39 has this one.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Time until the clock stands at `due`.
pub fn until(due: Duration) -> Duration {
    due.saturating_sub(now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_advances() {
        let before = now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(now() >= before + Duration::from_millis(2));
        assert_eq!(until(Duration::ZERO), Duration::ZERO);
    }
}
