//! One look at the queue: what starts now, what slots are kept for whom, and why everything else waits.
//!
//! A pass changes nothing. It goes through the classes of the queue in the order of [`super::order`], gives
//! slots to their first trials as long as they fit, and notes for each class what its first trial waits for. A
//! trial that does not fit is passed by those behind it, as far as they use slots that are not kept for it.
//!
//! A project at its quota is passed over; within the project the order stays, so that a wide trial of it is not
//! starved by its narrow ones. A trial that the members together could never run, or that is wider than its
//! project's quota, holds up nobody.

use std::cmp::{Ordering, Reverse};
use std::collections::btree_set::Iter;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use common::{AttemptId, TrialId, WorkerId};

use super::board::{Board, Pools};
use super::finding::{Blocked, Finding, Refusal};
use super::order::{Claim, Rank, Usage};
use super::reservation::{Reservation, Reservations, Start};
use crate::placement::{Spot, choose};
use crate::state::{Class, End, QueueKey, State};
use crate::{Millis, Placement, Policy};

/// Reservations at once. Each holds slots, so that not every kind of requirement can have one.
const RESERVATIONS: usize = 16;

/// What a pass reads.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) state: &'a State,
    pub(crate) policy: &'a Policy,
    pub(crate) connected: &'a dyn Fn(WorkerId) -> bool,
    pub(crate) now: Millis,
}

/// How far a pass looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Until no slot is free.
    Decide,
    /// At every class.
    Explain,
}

/// What a pass came to.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    /// Trials that start, in order.
    pub(crate) placed: Vec<(TrialId, Placement)>,
    pub(crate) reservations: Reservations,
    /// What the first trial of each class waits for, in the order of the queue, as far as the pass looked.
    pub(crate) findings: Vec<Finding>,
}

/// The next trial of a class, or one that has a reservation.
struct Candidate<'a> {
    rank: Rank,
    class: &'a Arc<Class>,
    behind: Option<Iter<'a, QueueKey>>,
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Candidate<'_> {}

/// A pass under way.
pub(crate) struct Pass<'a, 'p> {
    view: View<'a>,
    pools: &'p mut Pools,
    board: Board,
    reservations: Reservations,
    /// When each reserved trial can start.
    starts: BTreeMap<TrialId, Start>,
    /// Slots that projects use, with those given away here.
    used: BTreeMap<&'a str, u32>,
    /// Projects whose first trial waits for their quota.
    stopped: BTreeMap<&'a str, TrialId>,
    /// Expected ends of the attempts that this pass starts, in order, with their places among those.
    fresh: Vec<(End, usize)>,
    decisions: Decisions,
}

impl<'a, 'p> Pass<'a, 'p> {
    pub(crate) fn run(
        view: View<'a>,
        reservations: &Reservations,
        pools: &'p mut Pools,
        depth: Depth,
    ) -> Decisions {
        let index = &view.state.index;
        let in_service = |worker| (view.connected)(worker) && !view.state.is_barred(worker);
        let vacant = index.vacant.iter().filter(|&&worker| in_service(worker));
        let free = vacant.filter_map(|worker| Some((*worker, *index.free.get(worker)?)));
        let mut pass = Self {
            view,
            pools,
            board: Board::new(free),
            reservations: Reservations::default(),
            starts: BTreeMap::new(),
            used: index.used.iter().map(|(project, &slots)| (project.as_str(), slots)).collect(),
            stopped: BTreeMap::new(),
            fresh: Vec::new(),
            decisions: Decisions::default(),
        };
        for (trial, reservation) in reservations.iter() {
            pass.keep(trial, reservation);
        }
        pass.go(depth);
        Decisions { reservations: pass.reservations, ..pass.decisions }
    }

    /// Keeps a reservation of an earlier pass that still makes sense.
    fn keep(&mut self, trial: TrialId, reservation: &Reservation) {
        let state = self.view.state;
        let Some(class) = state.index.class_of(trial) else {
            return;
        };
        let queued = state.trials.get(&trial).is_some_and(|record| record.phase == crate::Phase::Queued);
        let pool = self.pools.get(&class.requires, state);
        let members = reservation.slots.iter().all(|(worker, &slots)| {
            let offers = state.workers.get(worker).is_some_and(|member| member.slots >= slots);
            offers && pool.workers.contains(worker)
        });
        if queued && members && self.headroom(trial, class) >= class.least {
            self.set(trial, reservation.clone());
        }
    }

    fn set(&mut self, trial: TrialId, reservation: Reservation) {
        let fresh = |attempt| {
            self.fresh.iter().find(|(end, _)| end.attempt == attempt).map(|(end, _)| end.expected())
        };
        let expected = |attempt| self.view.state.expected_end(attempt).or_else(|| fresh(attempt));
        self.starts.insert(trial, reservation.start(self.view.now, expected));
        self.reservations.insert(trial, reservation);
    }

    fn go(&mut self, depth: Depth) {
        let done = |board: &Board| board.total() == 0 && depth == Depth::Decide;
        if done(&self.board) {
            return;
        }
        let mut candidates = self.candidates();
        while let Some(Reverse(mut candidate)) = candidates.pop() {
            let key = candidate.rank.key;
            let rank = self.rank(candidate.class, candidate.rank.claim, key);
            if rank > candidate.rank {
                // Its project was given slots since.
                candidate.rank = rank;
                candidates.push(Reverse(candidate));
                continue;
            }
            if done(&self.board) {
                return;
            }
            match self.consider(key.trial, candidate.class) {
                Ok(placement) => {
                    self.give(key.trial, candidate.class, placement);
                    if let Some(next) = self.next(candidate) {
                        candidates.push(Reverse(next));
                    }
                }
                Err(blocked) => {
                    let class = Arc::clone(candidate.class);
                    self.decisions.findings.push(Finding { rank, class, blocked });
                }
            }
        }
    }

    /// The first of each class, and those that have reservations: an older one of their class may not fit.
    fn candidates(&self) -> BinaryHeap<Reverse<Candidate<'a>>> {
        let state = self.view.state;
        let mut candidates = Vec::with_capacity(state.index.queue.len());
        for (class, keys) in &state.index.queue {
            candidates.extend(self.first(class, keys.iter()).map(Reverse));
        }
        for (trial, _) in self.reservations.iter() {
            if let (Some(class), Some(record)) = (state.index.class_of(trial), state.trials.get(&trial)) {
                let rank = self.rank(class, Claim::Reserved, QueueKey::of(trial, record));
                candidates.push(Reverse(Candidate { rank, class, behind: None }));
            }
        }
        BinaryHeap::from(candidates)
    }

    fn next(&self, candidate: Candidate<'a>) -> Option<Candidate<'a>> {
        self.first(candidate.class, candidate.behind?)
    }

    fn first(&self, class: &'a Arc<Class>, mut keys: Iter<'a, QueueKey>) -> Option<Candidate<'a>> {
        let key = *keys.find(|key| self.reservations.of(key.trial).is_none())?;
        Some(Candidate { rank: self.rank(class, Claim::Open, key), class, behind: Some(keys) })
    }

    fn rank(&self, class: &Class, claim: Claim, key: QueueKey) -> Rank {
        let slots = self.used.get(class.project.as_str()).copied().unwrap_or_default();
        let weight = self.view.policy.project(&class.project).weight;
        Rank { priority: class.priority, claim, usage: Usage { slots, weight }, key }
    }

    fn give(&mut self, trial: TrialId, class: &'a Class, placement: Placement) {
        self.reservations.remove(trial);
        self.board.take(&placement);
        *self.used.entry(class.project.as_str()).or_default() += placement.world_size();
        let estimate = self.view.state.durations.estimate(class.workload, placement.world_size());
        let attempt = self.view.state.next_attempt(self.decisions.placed.len());
        let expected = estimate.map(|estimate| self.view.now + estimate.typical);
        let end = End::new(attempt, self.view.now, expected);
        let at = self.fresh.partition_point(|(other, _)| *other < end);
        self.fresh.insert(at, (end, self.decisions.placed.len()));
        self.decisions.placed.push((trial, placement));
    }

    /// Slots that the project of `trial` may still use for it. Those reserved for others of it are as good as used.
    fn headroom(&self, trial: TrialId, class: &Class) -> u32 {
        let Some(quota) = self.view.policy.project(&class.project).quota else {
            return u32::MAX;
        };
        let used = self.used.get(class.project.as_str()).copied().unwrap_or_default();
        quota.saturating_sub(used).saturating_sub(self.reserved(trial, class))
    }

    /// Slots reserved for other trials of its project.
    fn reserved(&self, trial: TrialId, class: &Class) -> u32 {
        let others = self.reservations.iter().filter(|&(other, _)| other != trial);
        let classes = others.filter_map(|(other, _)| self.view.state.index.class_of(other));
        classes.filter(|other| other.project == class.project).map(|other| other.least).sum()
    }

    /// Where a trial starts now, or why it does not.
    fn consider(&mut self, trial: TrialId, class: &'a Class) -> Result<Placement, Blocked> {
        let (slots, least) = (class.slots, class.least);
        let pool = self.pools.get(&class.requires, self.view.state);
        if pool.workers.is_empty() {
            return Err(Blocked::NoMatch);
        }
        if pool.offered < least {
            return Err(Blocked::TooWide { offered: pool.offered });
        }
        let headroom = self.quota(trial, class)?;
        let open = self.open(trial, class, None);
        let total = open.iter().map(|spot| spot.slots).sum::<u32>();
        if total >= least {
            let ranks = self.widest(trial, class, total.min(headroom).min(slots));
            if let Some(placement) = self.place(trial, &open, ranks) {
                return Ok(placement);
            }
        }
        match self.borrow(trial, class) {
            Ok(placement) => Ok(placement),
            Err(blocked) => {
                if total > 0 {
                    self.reserve(trial, class);
                }
                Err(blocked)
            }
        }
    }

    /// Slots that the project's quota leaves for a trial, if enough.
    fn quota(&mut self, trial: TrialId, class: &'a Class) -> Result<u32, Blocked> {
        let headroom = self.headroom(trial, class);
        let Some(quota) = self.view.policy.project(&class.project).quota else {
            return Ok(headroom);
        };
        if class.least > quota {
            return Err(Blocked::OverQuota { quota });
        }
        // A trial that has a reservation has its part of the quota, too.
        let stopped = self.stopped.get(class.project.as_str()).copied();
        if let (Some(by), None) = (stopped, self.reservations.of(trial)) {
            return Err(Blocked::Stopped { by });
        }
        if headroom < class.least {
            self.stopped.insert(class.project.as_str(), trial);
            let used = self.used.get(class.project.as_str()).copied().unwrap_or_default();
            return Err(Blocked::Quota { quota, used, reserved: self.reserved(trial, class) });
        }
        Ok(headroom)
    }

    /// Most ranks that a trial may have, up to `limit`.
    fn widest(&self, trial: TrialId, class: &Class, limit: u32) -> u32 {
        let spec = self.view.state.trials.get(&trial).map(|record| &record.spec);
        let allows = |ranks: &u32| spec.is_some_and(|spec| spec.allows(*ranks));
        (class.least..=limit).rev().find(allows).unwrap_or(class.least)
    }

    /// Slots that a trial may take. With `lent`, also those that these reservations lend to it.
    fn open(&mut self, trial: TrialId, class: &Class, lent: Option<&BTreeSet<TrialId>>) -> Vec<Spot<'a>> {
        let state = self.view.state;
        let pool = self.pools.get(&class.requires, state);
        let mut open = Vec::new();
        for (worker, free) in self.board.within(&pool) {
            let kept = match self.reservations.on(worker) {
                Some((holder, slots)) if holds(state, holder, trial, class) => {
                    if lent.is_some_and(|lent| lent.contains(&holder)) { 0 } else { slots }
                }
                Some(_) | None => 0,
            };
            if free > kept {
                open.push(Spot::new(worker, free - kept, state.workers.get(&worker)));
            }
        }
        open
    }

    fn place(&self, trial: TrialId, open: &[Spot<'_>], ranks: u32) -> Option<Placement> {
        let record = self.view.state.trials.get(&trial)?;
        choose(open, ranks, &record.failed_on)
    }

    /// Where a trial starts on slots that are kept for others, as narrow as it may be; else what it waits for.
    fn borrow(&mut self, trial: TrialId, class: &Class) -> Result<Placement, Blocked> {
        let state = self.view.state;
        let pool = self.pools.get(&class.requires, state);
        let free = self.board.within(&pool).map(|(_, slots)| slots).sum();
        if free < class.least {
            return Err(Blocked::Slots { free });
        }
        let kept = self.board.within(&pool).filter_map(|(worker, _)| Some(self.reservations.on(worker)?.0));
        let holders = kept.filter(|&holder| holds(state, holder, trial, class)).collect::<Vec<_>>();
        let mut refused = None;
        let mut lent = BTreeSet::new();
        for holder in holders {
            match self.lends(holder, class) {
                Ok(()) => drop(lent.insert(holder)),
                Err(refusal) => refused = refused.or(Some(Blocked::Held { by: holder, refusal })),
            }
        }
        let open = self.open(trial, class, Some(&lent));
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

    /// Keeps the slots on which a trial will start soonest, unless another one of its kind comes before it.
    fn reserve(&mut self, trial: TrialId, class: &Class) {
        if class.least < 2 || self.reservations.of(trial).is_some() {
            return;
        }
        let state = self.view.state;
        let alike = self.reservations.iter().find(|(other, _)| {
            state.index.class_of(*other).is_some_and(|other| other.requires == class.requires)
        });
        let alike = alike.map(|(other, _)| other);
        match alike {
            Some(other) if holds(state, other, trial, class) => return,
            None if self.reservations.iter().count() >= RESERVATIONS => return,
            Some(_) | None => {}
        }
        if let Some(reservation) = self.soonest(trial, class) {
            if let Some(other) = alike {
                self.reservations.remove(other);
            }
            self.set(trial, reservation);
        }
    }

    /// Attempts in the order of their expected ends, with those that this pass starts.
    fn ends(&self) -> impl Iterator<Item = (AttemptId, &Placement)> {
        let state = self.view.state;
        let mut fresh = self.fresh.iter().peekable();
        let mut running = state.index.ends.iter().peekable();
        std::iter::from_fn(move || {
            let is_next = |&&(end, _): &&(End, usize)| running.peek().is_none_or(|running| end < **running);
            if let Some((end, at)) = fresh.next_if(is_next) {
                let (_, placement) = self.decisions.placed.get(*at)?;
                return Some((end.attempt, placement));
            }
            let end = running.next()?;
            let (_, attempt) = state.running(end.attempt)?;
            Some((end.attempt, &attempt.placement))
        })
    }

    /// The reservation with which a trial starts soonest.
    fn soonest(&mut self, trial: TrialId, class: &Class) -> Option<Reservation> {
        let View { state, connected, now, .. } = self.view;
        let pool = self.pools.get(&class.requires, state);
        let reservations = &self.reservations;
        let kept =
            |worker| reservations.on(worker).is_some_and(|(holder, _)| holds(state, holder, trial, class));
        let usable =
            |worker: &WorkerId| pool.workers.contains(worker) && connected(*worker) && !kept(*worker);
        let mut coming: BTreeMap<WorkerId, u32> =
            self.board.within(&pool).filter(|(worker, _)| usable(worker)).collect();
        let mut total = coming.values().sum::<u32>();
        let mut ends = Vec::new();
        for (attempt, placement) in self.ends() {
            if total >= class.least {
                break;
            }
            for share in placement.shares().iter().filter(|share| usable(&share.worker)) {
                *coming.entry(share.worker).or_default() += share.ranks;
                total += share.ranks;
                ends.push((attempt, share.worker, share.ranks));
            }
        }
        let spots =
            coming.iter().map(|(&worker, &slots)| Spot::new(worker, slots, state.workers.get(&worker)));
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
fn holds(state: &State, holder: TrialId, trial: TrialId, class: &Class) -> bool {
    let kept_for = state.index.class_of(holder);
    holder != trial && kept_for.is_some_and(|holder| holder.priority <= class.priority)
}
