//! Every time-out between coordinator and worker, computed from one of them: the lease. Those of ranks stand in [`ranks`].
//!
//! Their order is what makes them work together, so it stands here once, and [`Timeouts::in_order`] holds it:
//!
//! | | of the lease | |
//! |---|---|---|
//! | pause before another dial | 1/10, at most 1 s | shorter than a heartbeat: a coordinator that is back is found at once, and one that is down says so several times in a lease |
//! | heartbeat | 1/5 | four may be lost |
//! | dial | 1/4 | a packet that is lost must not use up the lease; also the time in which a dead connection is found |
//! | silence | 1/2 | a session on which nothing is answered for so long is given up while there is time to open another |
//! | fence | 17/20 | the agent makes its trainers stand still, unless the lease was extended |
//! | own fence | 9/10 | a trainer that nobody told of a longer lease stands still by itself: its agent may be frozen. It comes after the agent's, so that an agent which is well is first. The rest is for clocks that run at different rates |
//! | lease | 1 | the coordinator gives the slots away |
//! | stall | above 1 | an attempt that makes no step is judged after a worker that says nothing |
//!
//! Both fences count from when a message was *sent* that the coordinator answered, the lease from when it was received. So the
//! margin need not cover the time that messages take, only drift: a worker's clock may run up to a tenth slower than the
//! coordinator's, which is a thousand times what a clock that is not broken does.

use std::time::Duration;

pub mod ranks;

/// Time-outs that belong to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    lease: Duration,
}

/// Longest pause before another dial, whatever the lease: attempts are taken up again within 2 s of a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Default for Timeouts {
    /// Those of the lease that a coordinator gives unless it is told otherwise.
    fn default() -> Self {
        Self::of(Duration::from_secs(20))
    }
}

impl Timeouts {
    /// Those of a lease.
    pub const fn of(lease: Duration) -> Self {
        Self { lease }
    }

    /// Silence after which the coordinator takes a worker for lost.
    pub const fn lease(self) -> Duration {
        self.lease
    }

    /// Longest pause before a worker dials again.
    pub fn pause(self) -> Duration {
        (self.lease / 10).min(LONGEST_PAUSE)
    }

    /// Time between heartbeats.
    pub fn heartbeat(self) -> Duration {
        self.lease / 5
    }

    /// How long a connection may take to open, and how long a dead one may look alive.
    pub fn dial(self) -> Duration {
        self.lease / 4
    }

    /// How long a coordinator may leave everything unanswered before a worker opens another session.
    pub fn silence(self) -> Duration {
        self.lease / 2
    }

    /// How long after it sent what the coordinator answered an agent lets its trainers compute.
    pub fn fence(self) -> Duration {
        self.lease - self.lease * 3 / 20
    }

    /// How long after its agent sent what the coordinator answered a trainer computes without hearing more.
    pub fn own_fence(self) -> Duration {
        self.lease - self.lease / 10
    }

    /// Whether ranks are patient enough for it, see [`ranks`].
    pub fn suits_ranks(self) -> bool {
        self.lease < ranks::LEASES_BELOW
    }

    /// Whether a heartbeat and a stall limit that somebody chose keep the order.
    pub fn in_order(self, heartbeat: Duration, stall: Option<Duration>) -> bool {
        let chain = [Duration::ZERO, heartbeat, self.silence(), self.fence(), self.own_fence(), self.lease];
        chain.is_sorted_by(|shorter, longer| shorter < longer) && stall.is_none_or(|stall| self.lease < stall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_holds_for_every_lease() {
        for millis in (10..100_000).step_by(7).chain([3_600_000]) {
            let of = Timeouts::of(Duration::from_millis(millis));
            let (fences, zero) = ([of.fence(), of.own_fence()], Duration::ZERO);
            let links = [zero, of.pause(), of.heartbeat(), of.dial(), of.silence()];
            let chain = [&links[..], &fences, &[of.lease()]].concat();
            assert!(chain.is_sorted_by(|shorter, longer| shorter < longer), "{chain:?}");
            assert!(of.in_order(of.heartbeat(), Some(of.lease() * 2)));
        }
    }

    #[test]
    fn an_order_that_does_not_hold_is_noticed() {
        let of = Timeouts::of(Duration::from_secs(20));
        assert!(!of.in_order(Duration::ZERO, None));
        assert!(!of.in_order(Duration::from_secs(10), None));
        assert!(!of.in_order(of.heartbeat(), Some(Duration::from_secs(20))));
    }

    #[test]
    fn a_worker_whose_clock_runs_a_tenth_slower_stops_before_its_lease_is_over() {
        let of = Timeouts::of(Duration::from_secs(20));
        assert!(of.own_fence().as_secs_f64() * 1.1 < of.lease().as_secs_f64());
    }
}
