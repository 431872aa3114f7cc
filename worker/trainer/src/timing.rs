//! When steps begin, for who measures them: a log line at the level `trace` of the target `credence::timing`.
//!
//! Costs nothing where the line is not asked for. Both clocks are in nanoseconds: that of the machine, and the processor time
//! of all threads of the process, which says more on a machine that others use too.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Says that the step after `done` begins: what follows belongs to it, until the next.
pub(crate) fn begins(done: u64) {
    tracing::trace!(
        target: "credence::timing",
        done,
        wall_ns = nanoseconds(ClockId::CLOCK_MONOTONIC),
        processor_ns = nanoseconds(ClockId::CLOCK_PROCESS_CPUTIME_ID),
    );
}

fn nanoseconds(clock: ClockId) -> u64 {
    // Only an unknown clock is an error, and every Linux has these.
    let time = clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
