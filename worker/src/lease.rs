//! What this worker can prove of its lease, so that it stops computing before somebody else is given its work.
//!
//! The coordinator ends a lease when it has heard nothing for the lease's length. It heard a heartbeat that it
//! acknowledged, and a hello that it welcomed, no earlier than they were sent: so the lease stands at least that long
//! after they were sent, by this machine's own clock. A connection that is *refused*, or an answer that the
//! coordinator is stopping or has no disk space, proves as much: a coordinator that comes back gives every worker
//! that it knows a full lease. Silence proves nothing.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Part of the lease that is left for clocks that run at different speeds, and for stopping.
const MARGIN: u32 = 10;

/// Heartbeats that are remembered until they are acknowledged.
const REMEMBERED: usize = 64;

/// The lease as far as it can be proven. Times are passed in.
#[derive(Debug, Default)]
pub struct Lease {
    length: Duration,
    /// When the newest message was sent that is known to have been heard. `None` before the first welcome.
    proven: Option<Instant>,
    hello: Option<Instant>,
    /// Heartbeats of the present session that were not acknowledged yet.
    sent: VecDeque<(u64, Instant)>,
}

impl Lease {
    /// A session is dialled.
    pub fn hello(&mut self, now: Instant) {
        self.hello = Some(now);
        self.sent.clear();
    }

    /// The session was welcomed, by a coordinator whose leases have this length.
    pub fn welcome(&mut self, length: Duration) {
        self.length = length;
        self.proven = self.proven.max(self.hello);
    }

    /// A heartbeat is sent.
    pub fn beat(&mut self, sequence: u64, now: Instant) {
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((sequence, now));
    }

    /// A heartbeat extended the lease.
    pub fn acknowledge(&mut self, sequence: u64) {
        while let Some(&(first, at)) = self.sent.front().filter(|&&(first, _)| first <= sequence) {
            self.sent.pop_front();
            if first == sequence {
                self.proven = self.proven.max(Some(at));
            }
        }
    }

    /// There is no coordinator that could give the lease away. Proves nothing once the lease may have ended.
    pub fn coordinator_is_down(&mut self, now: Instant) {
        if self.ends().is_some_and(|ends| now < ends) {
            self.proven = self.proven.max(Some(now));
        }
    }

    /// Until when the lease certainly stands. `None` before the first welcome: then nothing was given out.
    pub fn ends(&self) -> Option<Instant> {
        self.proven.map(|proven| proven + self.length - self.length / MARGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);
    const USABLE: Duration = Duration::from_secs(9);

    fn welcomed(at: Instant) -> Lease {
        let mut lease = Lease::default();
        assert_eq!(lease.ends(), None);
        lease.hello(at);
        lease.welcome(LENGTH);
        lease
    }

    fn second(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_is_counted_from_what_was_sent_and_not_from_the_answer() {
        let start = Instant::now();
        let mut lease = welcomed(start);
        assert_eq!(lease.ends(), Some(start + USABLE));
        lease.beat(1, second(start, 2));
        lease.beat(2, second(start, 4));
        assert_eq!(lease.ends(), Some(start + USABLE), "what is not acknowledged proves nothing");
        lease.acknowledge(1);
        assert_eq!(lease.ends(), Some(second(start, 2) + USABLE));
        lease.acknowledge(2);
        lease.acknowledge(1);
        assert_eq!(lease.ends(), Some(second(start, 4) + USABLE), "an old answer takes nothing back");
    }

    #[test]
    fn a_heartbeat_of_an_earlier_session_proves_nothing() {
        let start = Instant::now();
        let mut lease = welcomed(start);
        lease.beat(1, second(start, 5));
        lease.hello(second(start, 6));
        lease.acknowledge(1);
        assert_eq!(lease.ends(), Some(start + USABLE));
        lease.welcome(LENGTH);
        assert_eq!(lease.ends(), Some(second(start, 6) + USABLE));
    }

    #[test]
    fn a_coordinator_that_is_down_gives_nothing_away_but_may_have_before() {
        let start = Instant::now();
        let mut lease = welcomed(start);
        for seconds in [8, 16, 24] {
            lease.coordinator_is_down(second(start, seconds));
            assert_eq!(lease.ends(), Some(second(start, seconds) + USABLE));
        }
        lease.coordinator_is_down(second(start, 60));
        assert_eq!(lease.ends(), Some(second(start, 24) + USABLE));
    }
}
