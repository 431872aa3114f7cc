//! One look at the queue: what starts now, what slots are kept for whom, and why everything else waits.
//!
//! A pass changes nothing. It goes through the classes of the queue in the order of [`super::order`], gives
//! slots to their first trials as long as they fit, and notes for each class what its first trial waits for. A
//! trial that does not fit is passed by those behind it, as far as they use slots that are not kept for it.
//!
//! A project at its quota is passed over; within the project the order stays, so that a wide trial of it is not
//! starved by its narrow ones. A trial that the members together could never run, or that is wider than its
//! project's quota, holds up nobody.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::spec::Requirements;
use common::{TrialId, WorkerId};

use super::board::{Board, Pools};
use super::finding::{Blocked, Finding};
use super::line::Line;
use super::order::{Claim, Usage};
use super::reservation::{Reservation, Reservations, Start};
use super::reserve::{LOOKS, holds};
use crate::placement::{Spot, choose};
use crate::state::{Class, End, State};
use crate::{Millis, Placement, Policy};

/// What a pass reads.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) state: &'a State,
    pub(crate) policy: &'a Policy,
    pub(crate) connected: &'a dyn Fn(WorkerId) -> bool,
    /// Trials that are not tried again yet.
    pub(crate) resting: &'a BTreeMap<TrialId, Millis>,
    /// Trials that go on at once where they were.
    pub(crate) resuming: &'a Resuming,
    pub(crate) now: Millis,
}

impl View<'_> {
    /// Whether a worker can be told what to do, and is given anything new.
    pub(crate) fn in_service(&self, worker: WorkerId) -> bool {
        (self.connected)(worker) && !self.state.is_barred(worker)
    }
}

/// Queued trials whose attempts have just stopped to go on with another number of ranks, and the slots that stay theirs.
pub(crate) type Resuming = BTreeMap<TrialId, Placement>;

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

/// Why a trial does not fit.
pub(super) enum Misfit {
    /// Free slots would not help it.
    Barred(Blocked),
    /// So few slots are open to it.
    Short { open: u32 },
}

/// A pass under way.
pub(crate) struct Pass<'a, 'p> {
    pub(super) view: View<'a>,
    pub(super) pools: &'p mut Pools,
    pub(super) board: Board,
    pub(super) reservations: Reservations,
    /// When each reserved trial can start.
    pub(super) starts: BTreeMap<TrialId, Start>,
    /// Slots that projects use, with those given away here.
    pub(super) used: BTreeMap<&'a str, u32>,
    /// Projects whose first trial waits for their quota.
    pub(super) stopped: BTreeMap<&'a str, TrialId>,
    /// Expected ends of the attempts that this pass starts, in order, with their places among those.
    pub(super) fresh: Vec<(End, usize)>,
    pub(super) depth: Depth,
    /// Whether no trial rests or goes on: there may be thousands of classes to look at.
    all_in_line: bool,
    /// Classes that were looked at for slots to be lent.
    pub(super) looks: usize,
    /// Slots that are kept for nobody, if counted since they last changed.
    pub(super) unheld: Option<u32>,
    /// Slots that are at most open to trials of these requirements and of no higher priority.
    pub(super) short: Vec<(&'a Requirements, Reverse<i32>, u32)>,
    /// Requirements and widths for which no slots can be kept.
    pub(super) infeasible: Vec<(&'a Requirements, u32)>,
    /// Trials with slots of their own that were looked at.
    pub(super) seen: BTreeSet<TrialId>,
    /// Those of them that start.
    pub(super) redeemed: BTreeSet<TrialId>,
    pub(super) decisions: Decisions,
}

impl<'a, 'p> Pass<'a, 'p> {
    pub(crate) fn run(
        view: View<'a>,
        reservations: &Reservations,
        pools: &'p mut Pools,
        depth: Depth,
    ) -> Decisions {
        let mut pass = Self::new(view, reservations, pools);
        pass.depth = depth;
        pass.go();
        Decisions { reservations: pass.reservations, ..pass.decisions }
    }

    /// A pass before its first decision.
    pub(super) fn new(view: View<'a>, reservations: &Reservations, pools: &'p mut Pools) -> Self {
        let index = &view.state.index;
        let vacant = index.vacant.iter().filter(|&&worker| view.in_service(worker));
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
            depth: Depth::Explain,
            all_in_line: view.resting.is_empty() && view.resuming.is_empty(),
            looks: 0,
            unheld: None,
            short: Vec::new(),
            infeasible: Vec::new(),
            seen: BTreeSet::new(),
            redeemed: BTreeSet::new(),
            decisions: Decisions::default(),
        };
        for (trial, reservation) in reservations.iter() {
            pass.keep(trial, reservation);
        }
        pass
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

    fn go(&mut self) {
        let depth = self.depth;
        if depth == Depth::Decide && self.board.total() == 0 {
            return;
        }
        let mut line = Line::new(self);
        while let Some(candidate) = line.pop(self) {
            if depth == Depth::Decide && self.is_shut(candidate.class) {
                return;
            }
            let (rank, class) = (candidate.rank, candidate.class);
            if rank.claim != Claim::Open {
                self.seen.insert(rank.key.trial);
            }
            match self.consider(rank.key.trial, class) {
                Ok(placement) => {
                    self.give(rank.key.trial, class, placement);
                    line.advance(self, candidate);
                }
                Err(blocked) => {
                    self.decisions.findings.push(Finding { rank, class: Arc::clone(class), blocked });
                }
            }
        }
    }

    /// Whether nothing is left for a class or for those that come after it.
    fn is_shut(&mut self, class: &Class) -> bool {
        let reservations = &self.reservations;
        let unheld = *self.unheld.get_or_insert_with(|| {
            let held = |worker| reservations.on(worker).map_or(0, |(_, slots)| slots);
            self.board.free().map(|(worker, free)| free.saturating_sub(held(worker))).sum()
        });
        if unheld > 0 {
            return false;
        }
        let starts = self.starts.iter().filter(|&(&holder, _)| self.reservations.of(holder).is_some());
        let more = self.looks < LOOKS;
        let lends = |start: &Start| more && matches!(start, Start::About(start) if *start > self.view.now);
        let all_hold = self.reservations.iter().all(|(holder, _)| {
            self.view.state.index.class_of(holder).is_some_and(|holder| holder.priority <= class.priority)
        });
        // The slots of a reserved trial are its own, and so are those of one that goes on.
        let waits = self.reservations.iter().any(|(holder, _)| !self.seen.contains(&holder))
            || self.view.resuming.keys().any(|trial| !self.seen.contains(trial));
        self.board.total() == 0 || (all_hold && !waits && !starts.into_iter().any(|(_, start)| lends(start)))
    }

    /// Whether a queued trial may start, and has its place by the order of its class alone.
    pub(super) fn is_in_line(&self, trial: TrialId) -> bool {
        let apart = |trial| self.view.resuming.contains_key(trial) || self.view.resting.contains_key(trial);
        self.reservations.of(trial).is_none() && (self.all_in_line || !apart(&trial))
    }

    /// What the project of a class uses of its share.
    pub(super) fn usage(&self, class: &Class) -> Usage {
        let slots = self.used.get(class.project.as_str()).copied().unwrap_or_default();
        let weight = self.view.policy.project(&class.project).weight;
        Usage { slots, weight }
    }

    pub(super) fn give(&mut self, trial: TrialId, class: &'a Class, placement: Placement) {
        if self.release(trial) {
            self.redeemed.insert(trial);
        }
        self.unheld = None;
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

    /// Takes slots back from a class.
    pub(super) fn give_back(&mut self, class: &'a Class, slots: u32) {
        let used = self.used.entry(class.project.as_str()).or_default();
        *used = used.saturating_sub(slots);
    }

    /// Slots that the project of `trial` may still use for it. Those reserved for others of it are as good as used.
    pub(super) fn headroom(&self, trial: TrialId, class: &Class) -> u32 {
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
        if let Some(own) = self.view.resuming.get(&trial).filter(|own| self.may_resume(trial, class, own)) {
            return Ok(own.clone());
        }
        let open = match self.fits(trial, class) {
            Ok(placement) => return Ok(placement),
            Err(Misfit::Barred(blocked)) => return Err(blocked),
            Err(Misfit::Short { open }) => open,
        };
        let blocked = match self.borrow(trial, class) {
            Ok(placement) => return Ok(placement),
            Err(blocked) => blocked,
        };
        if open > 0 {
            self.reserve(trial, class);
        }
        Err(blocked)
    }

    /// Whether the slots that stay a trial's own are there, and nobody who goes first wants its project's quota. What is kept
    /// for others there was never reckoned with.
    fn may_resume(&self, trial: TrialId, class: &Class, own: &Placement) -> bool {
        let free = own.shares().iter().all(|share| self.board.on(share.worker) >= share.ranks);
        let stopped = self.stopped.contains_key(class.project.as_str());
        free && !stopped && self.headroom(trial, class) >= own.world_size()
    }

    /// Where a trial starts on slots that are kept for nobody else.
    pub(super) fn fits(&mut self, trial: TrialId, class: &'a Class) -> Result<Placement, Misfit> {
        let pool = self.pools.get(&class.requires, self.view.state);
        if pool.workers.is_empty() {
            return Err(Misfit::Barred(Blocked::NoMatch));
        }
        if pool.offered < class.least {
            return Err(Misfit::Barred(Blocked::TooWide { offered: pool.offered }));
        }
        let headroom = self.quota(trial, class).map_err(Misfit::Barred)?;
        let holds = self.reservations.of(trial).is_some();
        let short = self
            .short
            .iter()
            .find(|(requires, priority, _)| **requires == class.requires && *priority <= class.priority);
        if let Some(&(_, _, open)) = short.filter(|(_, _, open)| !holds && *open < class.least) {
            return Err(Misfit::Short { open });
        }
        let spots = self.open(trial, class, None);
        let open = spots.iter().map(|spot| spot.slots).sum::<u32>();
        if open < class.least {
            if !holds {
                self.short.retain(|(requires, ..)| **requires != class.requires);
                self.short.push((&class.requires, class.priority, open));
            }
            return Err(Misfit::Short { open });
        }
        // One that gave up slots does not take them back from whom it gave them up for.
        let most = self.view.resuming.get(&trial).map_or(class.slots, Placement::world_size);
        let ranks = self.widest(trial, class, open.min(headroom).min(most));
        self.place(trial, &spots, ranks).ok_or(Misfit::Short { open })
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
    pub(super) fn open(
        &mut self,
        trial: TrialId,
        class: &Class,
        lent: Option<&BTreeSet<TrialId>>,
    ) -> Vec<Spot> {
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
                open.push(Spot { worker, slots: free - kept });
            }
        }
        open
    }

    pub(super) fn place(&self, trial: TrialId, open: &[Spot], ranks: u32) -> Option<Placement> {
        let record = self.view.state.trials.get(&trial)?;
        choose(open, ranks, &record.failed_on, &self.view.state.workers)
    }
}
