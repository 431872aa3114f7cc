//! What an agent knows of its lease: until when it surely stands.

use std::time::Duration;

use common::timeouts::Timeouts;

/// A lease as the worker knows it. Times are those of the worker's own clock.
///
/// The coordinator extends a lease when it hears a hello or a heartbeat, so whatever it answered extended the lease at some time
/// after it was sent. Counting from when it was sent errs on the safe side, however slow the answer was.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// Until a coordinator says how long its leases are these are guessed. They only decide how patiently it is dialled.
    timeouts: Timeouts,
    /// At some time since then it was extended. `None`: nothing was ever answered.
    extended: Option<Duration>,
}

impl Lease {
    /// One of which nothing is known yet.
    pub fn guessed(timeouts: Timeouts) -> Self {
        Self { timeouts, extended: None }
    }

    /// The time-outs that belong to it.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// The coordinator says how long its leases are.
    pub fn told(&mut self, lease: Duration) {
        self.timeouts = Timeouts::of(lease);
    }

    /// What was sent at `sent` was answered. Returns whether that alone proves the lease at `now`.
    pub fn answered(&mut self, sent: Duration, now: Duration) -> bool {
        self.extended = self.extended.max(Some(sent));
        now < sent + self.timeouts.fence()
    }

    /// A connection that was tried from `began` on was refused: at some time since, the coordinator was down.
    ///
    /// One that starts gives every worker that it knows a full lease, so this one's cannot end before `began` and a lease.
    /// It is known there if its lease had not been given away before, which it can only tell while it has proof.
    pub fn refused(&mut self, began: Duration, now: Duration) {
        if self.stands(now) {
            self.extended = self.extended.max(Some(began));
        }
    }

    /// Whether it surely stands.
    pub fn stands(&self, now: Duration) -> bool {
        self.ends().is_some_and(|until| now < until)
    }

    /// When it surely stands no longer, unless something is answered.
    pub fn ends(&self) -> Option<Duration> {
        self.extended.map(|since| since + self.timeouts.fence())
    }

    /// When trainers stand still by themselves, unless they hear of something that was answered.
    pub fn fences_trainers(&self) -> Option<Duration> {
        self.extended.map(|since| since + self.timeouts.own_fence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lease() -> Lease {
        let mut lease = Lease::default();
        lease.told(at(10));
        lease
    }

    #[test]
    fn nothing_stands_before_the_first_answer() {
        let mut lease = lease();
        assert!(!lease.stands(at(0)));
        lease.refused(at(0), at(0));
        assert!(!lease.stands(at(0)));
    }

    #[test]
    fn it_counts_from_when_the_answered_message_was_sent() {
        let mut lease = lease();
        assert!(lease.answered(at(5), at(8)));
        assert!(lease.stands(at(13)));
        assert!(!lease.stands(at(14)));
        assert_eq!(lease.fences_trainers(), Some(at(14)));
    }

    #[test]
    fn an_answer_that_comes_too_late_proves_nothing_and_an_older_one_takes_nothing_back() {
        let mut lease = lease();
        assert!(!lease.answered(at(5), at(20)));
        assert!(lease.answered(at(19), at(20)));
        assert!(!lease.answered(at(6), at(20)));
        assert!(lease.stands(at(27)));
    }

    #[test]
    fn a_coordinator_that_gives_shorter_leases_than_the_one_before_it_is_believed_at_once() {
        let mut lease = lease();
        lease.answered(at(5), at(5));
        lease.told(at(4));
        lease.answered(at(6), at(6));
        assert!(lease.stands(at(9)));
        assert!(!lease.stands(at(10)));
    }

    #[test]
    fn a_refused_connection_extends_a_lease_that_stands_and_brings_back_none() {
        let mut lease = lease();
        lease.answered(at(0), at(0));
        lease.refused(at(8), at(8));
        assert!(lease.stands(at(16)));
        assert_eq!(lease.fences_trainers(), Some(at(17)));
        lease.refused(at(16), at(17));
        assert!(!lease.stands(at(17)));
    }
}
