//! What the coordinator knows only while it runs: leases, and what workers said about running attempts.
//!
//! All of it is told again: a worker repeats it in every report.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use common::session::AttemptEnd;
use common::{AttemptId, FailureCause, TrialId, WorkerId};

use super::prefetch::Told;
use crate::Millis;
use crate::scheduling::{Findings, Pools, Reservations, Resuming};

/// Whether a member can be told anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// It said hello, and the connection stands as far as we know.
    Connected,
    /// It is expected to say hello again before its lease ends.
    Awaited,
}

/// A member's lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) ends: Millis,
    pub(super) session: Session,
}

/// What the workers of a running attempt reported.
#[derive(Clone, Debug, Default)]
pub(super) struct Gang {
    /// Shares that ended.
    pub(super) ends: BTreeMap<WorkerId, AttemptEnd>,
    /// When the failure in `ends` is taken at its word.
    pub(super) verdict: Option<Verdict>,
    /// Where rank 0 hosts the rendezvous store.
    pub(super) rendezvous: Option<String>,
    /// Since when it has been heard of while it was asked to yield.
    pub(super) asked: Option<Millis>,
    /// Newest step, and when it was first reported.
    pub(super) progress: Option<Progress>,
}

/// A failure that may be the echo of another one.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) cause: FailureCause,
    pub(super) due: Millis,
}

/// How far an attempt got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) step: u64,
    pub(super) since: Millis,
}

/// Volatile state.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    /// One for each member.
    pub(super) leases: BTreeMap<WorkerId, Lease>,
    /// Only attempts that are current.
    pub(super) gangs: BTreeMap<AttemptId, Gang>,
    /// Time of the newest input.
    pub(super) now: Millis,
    /// Whether anything changed that matters to the queue since it was last looked at.
    pub(super) changed: bool,
    /// When the queue was looked at last.
    pub(super) looked: Millis,
    /// When elastic trials are looked at again, for growth and for what waits.
    pub(super) next_growth: Millis,
    pub(super) next_shrink: Millis,
    /// Queued trials that are not tried again before then.
    pub(super) resting: BTreeMap<TrialId, Millis>,
    /// Trials that go on at once: only within a step.
    pub(super) resuming: Resuming,
    /// Members by what trials require. Empty after the members changed.
    pub(super) pools: Pools,
    /// Slots that are kept for trials that do not fit.
    pub(super) reservations: Reservations,
    /// What workers were told to fetch ahead of time.
    pub(super) told: Told,
    /// What queued trials wait for, once somebody asked.
    pub(super) findings: OnceLock<Arc<Findings>>,
}

impl Live {
    pub(super) fn await_session(&mut self, worker: WorkerId, ends: Millis) {
        self.leases.insert(worker, Lease { ends, session: Session::Awaited });
    }

    pub(super) fn connect(&mut self, worker: WorkerId, ends: Millis) {
        self.changed |= !self.is_connected(worker);
        self.leases.insert(worker, Lease { ends, session: Session::Connected });
    }

    pub(super) fn is_connected(&self, worker: WorkerId) -> bool {
        self.leases.get(&worker).is_some_and(|lease| lease.session == Session::Connected)
    }

    pub(super) fn gang(&mut self, attempt: AttemptId) -> &mut Gang {
        self.gangs.entry(attempt).or_default()
    }

    pub(super) fn forget(&mut self, attempt: AttemptId) {
        self.gangs.remove(&attempt);
    }

    /// When the next lease ends, the next verdict is due, or the next trial has rested.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let leases = self.leases.values().map(|lease| lease.ends);
        let verdicts =
            self.gangs.values().filter_map(|gang| gang.verdict.as_ref()).map(|verdict| verdict.due);
        leases.chain(verdicts).chain(self.resting.values().copied()).min()
    }
}
