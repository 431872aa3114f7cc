//! The part of a pass that makes reservations and lends what they hold; the rules are in [`super::reservation`].

use std::collections::{BTreeMap, BTreeSet};

use common::spec::Requirements;
use common::{AttemptId, TrialId, WorkerId};

use super::finding::{Blocked, Refusal};
use super::pass::{Depth, Pass, View};
use super::reservation::{Reservation, Start};
use crate::Placement;
use crate::placement::Spot;
use crate::state::{Class, End, State};

/// Reservations at once. Each holds slots, so that not every kind of requirement can have one.
const RESERVATIONS: usize = 16;

/// Classes that are looked at in one pass for slots to be lent, in the order of the queue.
pub(super) const LOOKS: usize = 512;

impl<'a> Pass<'a, '_> {
    pub(super) fn set(&mut self, trial: TrialId, reservation: Reservation) {
        let fresh = |attempt| {
            self.fresh.iter().find(|(end, _)| end.attempt == attempt).map(|(end, _)| end.expected())
        };
        let expected = |attempt| self.view.state.expected_end(attempt).or_else(|| fresh(attempt));
        self.starts.insert(trial, reservation.start(self.view.now, expected));
        // Whatever it replaces leaves slots to others.
        self.short.clear();
        self.unheld = None;
        self.reservations.insert(trial, reservation);
    }

    /// Gives up a reservation. Returns whether there was one.
    pub(super) fn release(&mut self, trial: TrialId) -> bool {
        let held = self.reservations.of(trial).is_some();
        if held {
            self.reservations.remove(trial);
            self.short.clear();
            self.infeasible.clear();
            self.unheld = None;
        }
        held
    }

    /// Where a trial starts on slots that are kept for others, as narrow as it may be; else what it waits for.
    pub(super) fn borrow(&mut self, trial: TrialId, class: &Class) -> Result<Placement, Blocked> {
        let state = self.view.state;
        self.looks += usize::from(!self.reservations.is_empty());
        let far = self.looks > LOOKS;
        let lends = |holder| !far && self.lends(holder, class).is_ok();
        // Nobody asks why.
        if self.depth == Depth::Decide && !self.reservations.iter().any(|(holder, _)| lends(holder)) {
            return Err(Blocked::Slots { free: 0 });
        }
        let pool = self.pools.get(&class.requires, state);
        let free = self.board.within(&pool).map(|(_, slots)| slots).sum();
        if free < class.least {
            return Err(Blocked::Slots { free });
        }
        let kept = self.board.within(&pool).filter_map(|(worker, _)| Some(self.reservations.on(worker)?.0));
        let kept = kept.filter(|&holder| holds(state, holder, trial, class));
        let holders = kept.collect::<BTreeSet<_>>();
        let mut refused = None;
        let mut lent = BTreeSet::new();
        for holder in holders {
            let lends = if far { Err(Refusal::Far) } else { self.lends(holder, class) };
            match lends {
                Ok(()) => drop(lent.insert(holder)),
                Err(refusal) => refused = refused.or(Some(Blocked::Held { by: holder, refusal })),
            }
        }
        let open = if lent.is_empty() { Vec::new() } else { self.open(trial, class, Some(&lent)) };
        if let Some(placement) = self.place(trial, &open, class.least) {
            return Ok(placement);
        }
        Err(refused.unwrap_or(Blocked::Slots { free }))
    }

    /// Whether slots kept for `holder` may be lent to a trial of `class`.
    fn lends(&self, holder: TrialId, class: &Class) -> Result<(), Refusal> {
        let start = match self.starts.get(&holder) {
            Some(Start::About(start)) => *start,
            Some(Start::Due) | None => return Err(Refusal::Due),
            Some(Start::Unknown) => return Err(Refusal::StartUnknown),
        };
        let estimate = self.view.state.durations.estimate(class.workload, class.least);
        let longest = estimate.ok_or(Refusal::DurationUnknown)?.longest;
        let end = self.view.now + longest;
        if end > start { Err(Refusal::TooLong { late: end.since(start) }) } else { Ok(()) }
    }

    /// The reservation for what a class requires, of which there is one at most.
    fn alike(&self, class: &Class) -> Option<TrialId> {
        let of = |other| self.view.state.index.class_of(other);
        let mut holders = self.reservations.iter().map(|(other, _)| other);
        holders.find(|&other| of(other).is_some_and(|other| other.requires == class.requires))
    }

    /// Whether slots that come free are kept for a trial that does not fit, rather than given to those behind it.
    pub(super) fn would_reserve(&self, trial: TrialId, class: &Class) -> bool {
        if class.least < 2 || self.reservations.of(trial).is_some() {
            return false;
        }
        match self.alike(class) {
            Some(other) => !holds(self.view.state, other, trial, class),
            None => self.reservations.iter().count() < RESERVATIONS,
        }
    }

    /// Keeps the slots on which a trial will start soonest, unless another one of its kind comes before it.
    pub(super) fn reserve(&mut self, trial: TrialId, class: &'a Class) {
        if !self.would_reserve(trial, class) {
            return;
        }
        let same =
            |&(requires, least): &(&Requirements, u32)| *requires == class.requires && least <= class.least;
        if self.infeasible.iter().any(same) {
            return;
        }
        let Some(reservation) = self.soonest(trial, class) else {
            self.infeasible.push((&class.requires, class.least));
            return;
        };
        if let Some(other) = self.alike(class) {
            self.release(other);
        }
        self.seen.insert(trial);
        self.set(trial, reservation);
    }

    /// Attempts in the order of their expected ends, with those that this pass starts, and the number of their first ranks
    /// that go on all the same. First those that were asked to make way.
    fn ends(&self) -> impl Iterator<Item = (AttemptId, &Placement, u32)> {
        let state = self.view.state;
        let mut fresh = self.fresh.iter().peekable();
        let mut running = state.index.undisturbed().peekable();
        let placement = |attempt| {
            state.running(attempt).map(|(_, running)| (attempt, &running.placement, running.stays()))
        };
        let rest = std::iter::from_fn(move || {
            let is_next = |&&(end, _): &&(End, usize)| running.peek().is_none_or(|running| end < **running);
            if let Some((end, at)) = fresh.next_if(is_next) {
                let (_, placement) = self.decisions.placed.get(*at)?;
                return Some((end.attempt, placement, 0));
            }
            running.next().and_then(|end| placement(end.attempt))
        });
        state.index.yielding.iter().filter_map(move |&attempt| placement(attempt)).chain(rest)
    }

    /// Whether slots of a worker are kept from a trial.
    pub(super) fn is_kept(&self, worker: WorkerId, trial: TrialId, class: &Class) -> bool {
        let kept = self.reservations.on(worker);
        kept.is_some_and(|(holder, _)| holds(self.view.state, holder, trial, class))
    }

    /// The reservation with which a trial starts soonest.
    fn soonest(&mut self, trial: TrialId, class: &Class) -> Option<Reservation> {
        let view = self.view;
        let View { state, now, .. } = view;
        let pool = self.pools.get(&class.requires, state);
        let usable = |worker: &WorkerId| {
            pool.workers.contains(worker) && view.in_service(*worker) && !self.is_kept(*worker, trial, class)
        };
        let mut coming: BTreeMap<WorkerId, u32> =
            self.board.within(&pool).filter(|(worker, _)| usable(worker)).collect();
        let mut total = coming.values().sum::<u32>();
        let mut ends = Vec::new();
        for (attempt, placement, stays) in self.ends() {
            if total >= class.least {
                break;
            }
            for (worker, ranks) in placement.beyond(stays).filter(|(worker, _)| usable(worker)) {
                *coming.entry(worker).or_default() += ranks;
                total += ranks;
                ends.push((attempt, worker, ranks));
            }
        }
        let spots = coming.iter().map(|(&worker, &slots)| Spot { worker, slots });
        let placement = self.place(trial, &spots.collect::<Vec<_>>(), class.least)?;
        let slots = placement.shares().iter().map(|share| (share.worker, share.ranks));
        let slots = slots.collect::<BTreeMap<_, _>>();
        let mut missing = slots.clone();
        for (worker, missing) in &mut missing {
            *missing = missing.saturating_sub(self.board.on(*worker));
        }
        let mut awaits = BTreeSet::new();
        for (attempt, worker, ranks) in ends {
            if let Some(missing) = missing.get_mut(&worker).filter(|missing| **missing > 0) {
                *missing = missing.saturating_sub(ranks);
                awaits.insert(attempt);
            }
        }
        Some(Reservation { since: now, slots, awaits })
    }
}

/// Whether what is kept for `holder` is kept from `trial`, too: unless that has a higher priority.
pub(super) fn holds(state: &State, holder: TrialId, trial: TrialId, class: &Class) -> bool {
    let kept_for = state.index.class_of(holder);
    holder != trial && kept_for.is_some_and(|holder| holder.priority <= class.priority)
}
