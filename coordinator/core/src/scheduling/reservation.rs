//! Reservations: slots kept for a wide trial, so that narrow ones cannot starve it.
//!
//! The first trial that does not fit, although some slots that it could use are free, gets a *reservation*: the
//! workers on which, going by the expected ends of running attempts, it will start soonest, and how many slots of
//! each. As slots become free there they are *held*: up to the reserved number, and given to nobody else. Slots of
//! such a worker beyond that number, and all other workers, are open to everybody.
//!
//! Held slots may be *lent* to a trial that will end before the reserved one could start anyway: only if how long it
//! runs is known (the longest recent run of its class counts), if the ends that the reservation awaits are known
//! too, and only while one of the attempts that ran when it was made still runs. An unknown duration is never a reason
//! to lend.
//!
//! # Bound
//!
//! Let a trial be reserved at time *t*. Let *A* be the time that the attempts which it awaits, all of which ran at
//! *t*, still run from then on, and *B* the longest that an attempt runs that was lent its slots. **It starts at *t* +
//! *A* + *B* at the latest**, however wrong the estimates are, as long as the reserved workers stay members and in
//! touch and no trial of a higher priority is queued. For: nobody but borrowers takes a held slot. Nothing is lent after
//! *t* + *A*, because no awaited attempt runs any more. By then all reserved slots are free or lent, and those
//! that are lent come back within *B*. Estimates decide only which slots are reserved and whether any are lent.
//!
//! There is one reservation for trials of the same requirements, and a worker is part of at most one, so that
//! reservations never wait for each other. A trial of higher priority ignores and replaces those of lower ones.
//! Reservations are not durable: they only shape placements, which are. After a restart they are made anew.

use std::collections::{BTreeMap, BTreeSet};

use common::{AttemptId, TrialId, WorkerId};

use crate::Millis;

/// Slots kept for a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// When it was made.
    pub since: Millis,
    /// Slots kept on each worker, as they become free.
    pub slots: BTreeMap<WorkerId, u32>,
    /// Attempts whose ends it awaits. All ran when it was made.
    pub awaits: BTreeSet<AttemptId>,
}

/// When a reserved trial can start, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// No attempt that it awaits runs any more: as soon as what was lent is back.
    Due,
    /// At about this time.
    About(Millis),
    /// How long an attempt that it awaits still runs is not known.
    Unknown,
}

impl Reservation {
    /// When its trial can start, if `expected` knows the expected ends of the attempts that run.
    pub(crate) fn start(&self, now: Millis, expected: impl Fn(AttemptId) -> Option<Option<Millis>>) -> Start {
        let mut start = Start::Due;
        for end in self.awaits.iter().filter_map(|&attempt| expected(attempt)) {
            start = match (end, start) {
                (None, _) | (_, Start::Unknown) => return Start::Unknown,
                (Some(end), Start::Due) => Start::About(end.max(now)),
                (Some(end), Start::About(other)) => Start::About(end.max(other)),
            };
        }
        start
    }
}

/// All reservations. No two share a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reservations {
    by_trial: BTreeMap<TrialId, Reservation>,
    by_worker: BTreeMap<WorkerId, TrialId>,
}

impl Reservations {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_trial.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TrialId, &Reservation)> {
        self.by_trial.iter().map(|(&trial, reservation)| (trial, reservation))
    }

    pub(crate) fn of(&self, trial: TrialId) -> Option<&Reservation> {
        self.by_trial.get(&trial)
    }

    /// The trial that slots of `worker` are kept for, and how many.
    pub(crate) fn on(&self, worker: WorkerId) -> Option<(TrialId, u32)> {
        let trial = *self.by_worker.get(&worker)?;
        Some((trial, *self.by_trial.get(&trial)?.slots.get(&worker)?))
    }

    pub(crate) fn insert(&mut self, trial: TrialId, reservation: Reservation) {
        self.remove(trial);
        for &worker in reservation.slots.keys() {
            if let Some(&other) = self.by_worker.get(&worker) {
                self.remove(other);
            }
            self.by_worker.insert(worker, trial);
        }
        self.by_trial.insert(trial, reservation);
    }

    /// The trial of an attempt goes on in another one.
    pub(crate) fn succeed(&mut self, attempt: AttemptId, by: AttemptId) {
        for reservation in self.by_trial.values_mut() {
            if reservation.awaits.remove(&attempt) {
                reservation.awaits.insert(by);
            }
        }
    }

    pub(crate) fn remove(&mut self, trial: TrialId) {
        for worker in self.by_trial.remove(&trial).into_iter().flat_map(|gone| gone.slots.into_keys()) {
            self.by_worker.remove(&worker);
        }
    }
}
