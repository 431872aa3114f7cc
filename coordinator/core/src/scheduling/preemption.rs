//! Preemption: which attempts of lower priority stop at a checkpoint, so that a trial of a higher one can start; and where
//! there are none, which elastic ones of the same priority go on with fewer ranks ([`super::shrink`]).
//!
//! A trial may ask for slots of training attempts of a strictly lower priority. Evaluations are never asked: they
//! have no checkpoint, and would lose what they did. Nobody is asked unless the trial can start once they have
//! stopped, and no more are asked than it takes: of the youngest attempts of the lowest priorities the fewest slots in
//! all, then the lowest priority, then the youngest, which have the least to load again.
//!
//! Slots of attempts that were asked before, for whatever reason, count as coming. To see what is still missing the queue
//! is gone through on slots as they will be; a trial for which enough are coming asks for nothing.

use std::collections::{BTreeMap, BTreeSet};

use common::{AttemptId, TrialId, WorkerId};

use super::board::{Pool, Pools};
use super::finding::Blocked;
use super::line::Line;
use super::pass::{Misfit, Pass, View};
use super::reservation::Reservations;
use super::shrink::{Cut, Elastic, Missing, choose_cuts, shrinkable};
use super::victims::{Candidate, choose_victims};
use crate::Placement;
use crate::state::Class;

/// Trials that may wait for attempts to stop at once: the first in the order of the queue. The next ones follow as
/// these start, so that neither a decision nor the checkpoints written at once grow with the cluster.
const WAITING: usize = 32;

/// Searches without success in one pass: each looks at all attempts of lower priority.
const SEARCHES: usize = 2;

/// Trials that others are asked for in one look; for more at the next one. Each takes a search.
const ASKING: usize = 4;

/// Times that a pass goes through the queue to see whether what it asks for suffices.
const ROUNDS: usize = 4;

/// Attempts to choose from, the best first, if they suffice.
const CHOICE: usize = 256;

/// Whom an attempt makes way for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) by: TrialId,
    /// Ranks with which it goes on at once; 0 for none.
    pub(crate) keeps: u32,
}

/// Who should stop.
#[derive(Debug, Default)]
pub(crate) struct Preemption {
    /// Attempts to ask.
    pub(crate) asks: BTreeMap<AttemptId, Ask>,
    /// Whether there may be more to ask for, at the next look.
    pub(crate) unfinished: bool,
}

/// Decides who should stop.
pub(crate) fn preempt(view: View<'_>, reservations: &Reservations, pools: &mut Pools) -> Preemption {
    let index = &view.state.index;
    let shrinking =
        index.elastic.keys().copied().find(|&priority| shrinkable(view, priority).next().is_some());
    let Some(floor) = floor(view, shrinking) else {
        return Preemption::default();
    };
    let mut asks = BTreeMap::new();
    let mut in_vain = BTreeSet::new();
    // What is asked for one trial may also serve another: until with all of it nothing is missing.
    for _ in 0..ROUNDS {
        let mut round = Round::new(view, reservations, pools, floor);
        round.expect_all();
        asks.iter().for_each(|(&attempt, ask): (_, &Ask)| round.expect(attempt, ask.keeps));
        round.in_vain.append(&mut in_vain);
        round.go();
        in_vain.append(&mut round.in_vain);
        if round.asks.is_empty() {
            return Preemption { asks, unfinished: false };
        }
        asks.append(&mut round.asks);
        if round.unfinished {
            return Preemption { asks, unfinished: true };
        }
    }
    Preemption { asks, unfinished: true }
}

/// Attempts that were asked to stop, by the trial that will have their slots.
pub(crate) fn awaited(
    view: View<'_>,
    reservations: &Reservations,
    pools: &mut Pools,
) -> BTreeMap<TrialId, BTreeSet<AttemptId>> {
    let index = &view.state.index;
    let priority = |attempt: &AttemptId| {
        let (trial, running) = view.state.running(*attempt)?;
        let gives = running.stays() > 0 && running.leaves().next().is_some();
        Some(index.class_of(trial).filter(|_| gives)?.priority.0)
    };
    let Some(floor) = floor(view, index.yielding.iter().filter_map(priority).min()) else {
        return BTreeMap::new();
    };
    let mut round = Round::new(view, reservations, pools, floor);
    round.waiting = Some(Waiting::new(&round.pass));
    round.expect_all();
    round.go();
    round.waiting.map(|waiting| waiting.awaited).unwrap_or_default()
}

/// The lowest priority of a trial for which anybody may stop, if one is queued: attempts of a lower one do, and those of
/// `shrinking` or a higher one go on with fewer ranks.
fn floor(view: View<'_>, shrinking: Option<i32>) -> Option<i32> {
    let index = &view.state.index;
    let highest = index.queue.keys().next()?.priority.0;
    let above = index.trains.keys().next().map(|lowest| lowest.saturating_add(1));
    let floor = above.into_iter().chain(shrinking).min()?;
    (floor <= highest).then_some(floor)
}

/// One way through the queue, on slots as they will be.
struct Round<'a, 'p> {
    view: View<'a>,
    pass: Pass<'a, 'p>,
    floor: i32,
    /// Who waits for whom, where that is the question: then nobody is asked to stop who was not.
    waiting: Option<Waiting<'a>>,
    /// Attempts that will leave slots.
    expected: BTreeSet<AttemptId>,
    /// Trials that will start on the slots that come.
    placed: usize,
    searches: usize,
    /// Searches that found somebody.
    found: usize,
    /// Whether slots that come free would be kept for a trial that does not fit all the same.
    shut: bool,
    unfinished: bool,
    /// Trials for which a search found nothing, in this round or one before.
    in_vain: BTreeSet<TrialId>,
    asks: BTreeMap<AttemptId, Ask>,
}

impl<'a, 'p> Round<'a, 'p> {
    fn new(view: View<'a>, reservations: &Reservations, pools: &'p mut Pools, floor: i32) -> Self {
        let pass = Pass::new(view, reservations, pools);
        let (expected, in_vain, asks) = Default::default();
        Self {
            view,
            pass,
            floor,
            waiting: None,
            expected,
            placed: 0,
            searches: 0,
            found: 0,
            shut: false,
            unfinished: false,
            in_vain,
            asks,
        }
    }

    /// Counts on all that was asked for before.
    fn expect_all(&mut self) {
        for &attempt in &self.view.state.index.yielding {
            if let Some((_, running)) = self.view.state.running(attempt) {
                self.expect(attempt, running.stays());
            }
        }
    }

    /// Counts the slots of an attempt as coming, but those of its first ranks that go on.
    fn expect(&mut self, attempt: AttemptId, keeps: u32) {
        let Some((trial, running)) = self.view.state.running(attempt) else {
            return;
        };
        self.expected.insert(attempt);
        let slots = running.placement.world_size().saturating_sub(keeps);
        if let Some(class) = self.view.state.index.class_of(trial).filter(|_| slots > 0) {
            self.pass.give_back(class, slots);
            if let Some(waiting) = &mut self.waiting {
                waiting.sparing.entry(class.project.as_str()).or_default().insert(attempt);
            }
        }
        for (worker, slots) in running.placement.beyond(keeps) {
            if self.view.in_service(worker) {
                self.pass.board.add(worker, slots);
                if let Some(waiting) = &mut self.waiting {
                    waiting.coming.entry(worker).or_default().insert(attempt);
                }
            }
        }
        // What was found too short may not be any more.
        self.pass.short.clear();
    }

    fn go(&mut self) {
        let mut line = Line::new(&self.pass);
        while let Some(candidate) = line.pop(&self.pass) {
            if candidate.rank.priority.0 < self.floor || self.placed >= WAITING {
                return;
            }
            let (trial, class) = (candidate.rank.key.trial, candidate.class);
            if let Some(placement) = self.consider(trial, class) {
                self.placed += 1;
                if let Some(waiting) = &mut self.waiting {
                    let quota = self.view.policy.project(&class.project).quota;
                    waiting.note(trial, class, &placement, quota);
                }
                self.pass.give(trial, class, placement);
                line.advance(&self.pass, candidate);
            }
        }
    }

    /// Where a trial will start, if need be on slots that are asked for.
    fn consider(&mut self, trial: TrialId, class: &'a Class) -> Option<Placement> {
        let misfit = match self.pass.fits(trial, class) {
            Ok(placement) => return Some(placement).filter(|_| !self.shut || self.preempts(class)),
            Err(misfit) => misfit,
        };
        let missing = self.missing(trial, class, &misfit)?;
        if let Some(asks) = self.search(trial, class, missing) {
            for &(attempt, keeps) in &asks {
                self.expect(attempt, keeps);
                self.asks.insert(attempt, Ask { by: trial, keeps });
            }
            // It is not its quota any more that it waits for.
            self.pass.stopped.retain(|_, stopped| *stopped != trial);
            return self.pass.fits(trial, class).ok();
        }
        self.shut |= missing.slots > 0 && missing.quota == 0 && self.pass.would_reserve(trial, class);
        None
    }

    /// Whether a trial may ask attempts of a lower priority to stop.
    fn preempts(&self, class: &Class) -> bool {
        self.view.state.index.trains.keys().next().is_some_and(|&lowest| lowest < class.priority.0)
    }

    /// What a trial that does not fit lacks, unless nobody could give it.
    fn missing(&mut self, trial: TrialId, class: &Class, misfit: &Misfit) -> Option<Missing> {
        let quota = match misfit {
            Misfit::Short { open } => {
                return Some(Missing { slots: class.least.saturating_sub(*open), quota: 0 });
            }
            Misfit::Barred(Blocked::Quota { .. }) => {
                class.least.saturating_sub(self.pass.headroom(trial, class))
            }
            Misfit::Barred(
                Blocked::NoMatch
                | Blocked::TooWide { .. }
                | Blocked::OverQuota { .. }
                | Blocked::Stopped { .. }
                | Blocked::Slots { .. }
                | Blocked::Held { .. },
            ) => return None,
        };
        let open = self.pass.open(trial, class, None).iter().map(|spot| spot.slots).sum::<u32>();
        Some(Missing { slots: class.least.saturating_sub(open), quota })
    }

    /// Attempts that should stop for a trial, and the ranks with which each goes on.
    fn search(&mut self, trial: TrialId, class: &Class, missing: Missing) -> Option<Vec<(AttemptId, u32)>> {
        if self.waiting.is_some() {
            return None;
        }
        if self.found >= ASKING {
            self.unfinished = true;
            return None;
        }
        if self.searches >= SEARCHES || self.in_vain.contains(&trial) {
            return None;
        }
        let found = match missing.quota {
            0 => self.victims(trial, class, missing.slots),
            // Lower priorities of its project are not asked for their part of the quota.
            _ => None,
        };
        let found = found.map(|victims| victims.into_iter().map(|victim| (victim, 0)).collect());
        let found = found.or_else(|| self.cuts(trial, class, missing));
        if found.is_some() {
            self.found += 1;
        } else {
            self.searches += 1;
            self.in_vain.insert(trial);
        }
        found
    }

    /// Elastic attempts of its priority that go on with fewer ranks, and so leave what the trial lacks.
    fn cuts(&mut self, trial: TrialId, class: &Class, missing: Missing) -> Option<Vec<(AttemptId, u32)>> {
        if self.shut {
            return None;
        }
        let state = self.view.state;
        let pool = self.pass.pools.get(&class.requires, state);
        let usable = |worker: WorkerId| self.is_usable(&pool, worker, trial, class);
        let mut attempts = Vec::new();
        for running in shrinkable(self.view, class.priority.0) {
            let Some((own, record)) =
                state.trial_of(running.id).and_then(|own| Some((own, state.trials.get(&own)?)))
            else {
                continue;
            };
            let Some(of) = state.index.class_of(own).filter(|_| !self.expected.contains(&running.id)) else {
                continue;
            };
            let has = running.placement.world_size();
            let cut = |keeps| {
                let slots = running.placement.beyond(keeps).filter(|&(worker, _)| usable(worker));
                let slots = slots.map(|(_, slots)| slots).sum();
                let quota = if of.project == class.project { has - keeps } else { 0 };
                Cut { keeps, gives: Missing { slots, quota } }
            };
            let cuts = (of.least..has).rev().filter(|&keeps| record.spec.allows(keeps)).map(cut).collect();
            attempts.push(Elastic::new(running.id, running.started, self.pass.usage(of), cuts));
        }
        choose_cuts(attempts, missing)
    }

    /// Whether slots of a worker would be of use to a trial.
    fn is_usable(&self, pool: &Pool, worker: WorkerId, trial: TrialId, class: &Class) -> bool {
        pool.workers.contains(&worker)
            && self.view.in_service(worker)
            && !self.pass.is_kept(worker, trial, class)
    }

    /// Attempts that together leave `missing` slots that the trial can use.
    fn victims(&mut self, trial: TrialId, class: &Class, missing: u32) -> Option<Vec<AttemptId>> {
        let state = self.view.state;
        let pool = self.pass.pools.get(&class.requires, state);
        let usable = |worker: WorkerId| self.is_usable(&pool, worker, trial, class);
        let mut candidates = Vec::new();
        let mut gained = 0_u32;
        let lower = state.index.trains.range(..class.priority.0);
        // The youngest of the lowest priority first.
        let attempts = lower.flat_map(|(&priority, ids)| ids.iter().rev().map(move |&id| (priority, id)));
        for (priority, id) in attempts {
            if candidates.len() >= CHOICE && gained >= missing {
                break;
            }
            let Some((_, running)) = state.running(id) else {
                continue;
            };
            if running.yielding.is_some() || self.expected.contains(&id) {
                continue;
            }
            let shares = running.placement.shares().iter().filter(|share| usable(share.worker));
            let gain = shares.map(|share| share.ranks).sum::<u32>();
            if gain > 0 {
                let (started, loss) = (running.started, running.placement.world_size());
                candidates.push(Candidate { id, priority, started, loss, gain });
                gained = gained.saturating_add(gain);
            }
        }
        choose_victims(candidates, missing)
    }
}

/// Who waits for whom.
struct Waiting<'a> {
    /// Attempts that will leave slots on a worker, or of what a project may use.
    coming: BTreeMap<WorkerId, BTreeSet<AttemptId>>,
    sparing: BTreeMap<&'a str, BTreeSet<AttemptId>>,
    /// Slots of a worker that are free by now.
    free: BTreeMap<WorkerId, u32>,
    /// Slots that projects use by now, with those of the trials that will start.
    used: BTreeMap<&'a str, u32>,
    awaited: BTreeMap<TrialId, BTreeSet<AttemptId>>,
}

impl<'a> Waiting<'a> {
    fn new(pass: &Pass<'a, '_>) -> Self {
        let (coming, sparing, awaited) = Default::default();
        Self { coming, sparing, free: pass.board.free().collect(), used: pass.used.clone(), awaited }
    }

    /// A trial will start, with slots that are free by now or that somebody leaves.
    fn note(&mut self, trial: TrialId, class: &'a Class, placement: &Placement, quota: Option<u32>) {
        for share in placement.shares() {
            let free = self.free.entry(share.worker).or_default();
            if *free < share.ranks {
                let coming = self.coming.get(&share.worker).into_iter().flatten();
                self.awaited.entry(trial).or_default().extend(coming);
            }
            *free = free.saturating_sub(share.ranks);
        }
        let project = class.project.as_str();
        let used = self.used.entry(project).or_default();
        *used += placement.world_size();
        if quota.is_some_and(|quota| *used > quota) {
            let sparing = self.sparing.get(project).into_iter().flatten();
            self.awaited.entry(trial).or_default().extend(sparing);
        }
    }
}
