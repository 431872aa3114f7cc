//! Preemption: which attempts of lower priority stop at a checkpoint, so that a trial of a higher one can start.
//!
//! A trial may ask for slots of training attempts of a strictly lower priority. Evaluations are never asked: they
//! have no checkpoint, and would lose what they did. Nobody is asked unless the trial can start once they have
//! stopped, and no more are asked than it takes: of the youngest attempts of the lowest priorities the fewest slots in
//! all, then the lowest priority, then the youngest, which have the least to load again.
//!
//! Slots of attempts that were asked before, for whatever reason, count as coming. To see what is still missing the queue
//! is gone through on slots as they will be; a trial for which enough are coming asks for nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use common::{AttemptId, TrialId, WorkerId};

use super::board::Pools;
use super::line::Line;
use super::pass::{Misfit, Pass, View};
use super::reservation::Reservations;
use crate::state::Class;
use crate::{Attempt, Millis, Placement};

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

/// Above it the choice is greedy: slots wanted times attempts to choose from.
const EXACT: usize = 1 << 20;

/// Who should stop, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Preemption {
    /// Attempts to ask, and the trial that each makes way for.
    pub(crate) asks: BTreeMap<AttemptId, TrialId>,
    /// Attempts that were asked, or are to be, by the trial that will have their slots.
    pub(crate) awaited: BTreeMap<TrialId, BTreeSet<AttemptId>>,
    /// Whether there may be more to ask for, at the next look.
    pub(crate) unfinished: bool,
}

/// Decides who should stop.
pub(crate) fn preempt(view: View<'_>, reservations: &Reservations, pools: &mut Pools) -> Preemption {
    let index = &view.state.index;
    let highest = index.queue.keys().next().map(|class| class.priority.0);
    let lowest = index.trains.keys().next().copied();
    let (Some(highest), Some(lowest)) = (highest, lowest) else {
        return Preemption::default();
    };
    if highest <= lowest {
        return Preemption::default();
    }
    let mut asks = BTreeMap::new();
    let mut in_vain = BTreeSet::new();
    // What is asked for one trial may also serve another: until with all of it nothing is missing.
    for _ in 0..ROUNDS {
        let mut round = Round::new(view, reservations, pools, lowest);
        let coming = index.yielding.iter().chain(asks.keys()).copied();
        coming.for_each(|attempt| round.expect(attempt));
        round.in_vain.append(&mut in_vain);
        round.go();
        in_vain.append(&mut round.in_vain);
        if round.asks.is_empty() {
            return Preemption { asks, awaited: round.awaited, unfinished: false };
        }
        asks.append(&mut round.asks);
        if round.unfinished {
            return Preemption { asks, awaited: round.awaited, unfinished: true };
        }
    }
    Preemption { asks, unfinished: true, ..Preemption::default() }
}

/// One way through the queue, on slots as they will be.
struct Round<'a, 'p> {
    view: View<'a>,
    pass: Pass<'a, 'p>,
    lowest: i32,
    /// Attempts that will leave slots on a worker.
    coming: BTreeMap<WorkerId, BTreeSet<AttemptId>>,
    /// Slots of a worker that are free by now.
    free: BTreeMap<WorkerId, u32>,
    /// Trials that will start on the slots that come.
    placed: usize,
    searches: usize,
    /// Searches that found somebody.
    found: usize,
    unfinished: bool,
    /// Trials for which a search found nothing, in this round or one before.
    in_vain: BTreeSet<TrialId>,
    asks: BTreeMap<AttemptId, TrialId>,
    awaited: BTreeMap<TrialId, BTreeSet<AttemptId>>,
}

impl<'a, 'p> Round<'a, 'p> {
    fn new(view: View<'a>, reservations: &Reservations, pools: &'p mut Pools, lowest: i32) -> Self {
        let pass = Pass::new(view, reservations, pools);
        let free = pass.board.free().collect();
        let (coming, in_vain, asks, awaited) = Default::default();
        Self {
            view,
            pass,
            lowest,
            coming,
            free,
            placed: 0,
            searches: 0,
            found: 0,
            unfinished: false,
            in_vain,
            asks,
            awaited,
        }
    }

    /// Counts the slots of an attempt as coming.
    fn expect(&mut self, attempt: AttemptId) {
        let Some((trial, running)) = self.view.state.running(attempt) else {
            return;
        };
        if let Some(class) = self.view.state.index.class_of(trial) {
            self.pass.give_back(class, running.placement.world_size());
        }
        for share in running.placement.shares() {
            if self.view.in_service(share.worker) {
                self.pass.board.add(share.worker, share.ranks);
                self.coming.entry(share.worker).or_default().insert(attempt);
            }
        }
    }

    fn go(&mut self) {
        let mut line = Line::new(&self.pass);
        while let Some(candidate) = line.pop(&self.pass) {
            if candidate.rank.priority.0 <= self.lowest || self.placed >= WAITING {
                return;
            }
            let (trial, class) = (candidate.rank.key.trial, candidate.class);
            if let Some(placement) = self.consider(trial, class) {
                self.placed += 1;
                self.note(trial, &placement);
                self.pass.give(trial, class, placement);
                line.advance(&self.pass, candidate);
            }
        }
    }

    /// Where a trial will start, if need be on slots that are asked for.
    fn consider(&mut self, trial: TrialId, class: &'a Class) -> Option<Placement> {
        match self.pass.fits(trial, class) {
            Ok(placement) => Some(placement),
            Err(Misfit::Barred(_)) => None,
            Err(Misfit::Short { open }) => {
                if self.found >= ASKING {
                    self.unfinished = true;
                    return None;
                }
                if self.searches >= SEARCHES || self.in_vain.contains(&trial) {
                    return None;
                }
                let Some(victims) = self.victims(trial, class, class.least.saturating_sub(open)) else {
                    self.searches += 1;
                    self.in_vain.insert(trial);
                    return None;
                };
                self.found += 1;
                for &victim in &victims {
                    self.expect(victim);
                }
                self.asks.extend(victims.into_iter().map(|victim| (victim, trial)));
                self.pass.fits(trial, class).ok()
            }
        }
    }

    fn note(&mut self, trial: TrialId, placement: &Placement) {
        for share in placement.shares() {
            let free = self.free.entry(share.worker).or_default();
            if *free < share.ranks {
                let coming = self.coming.get(&share.worker).into_iter().flatten();
                self.awaited.entry(trial).or_default().extend(coming);
            }
            *free = free.saturating_sub(share.ranks);
        }
    }

    /// Attempts that together leave `missing` slots that the trial can use.
    fn victims(&mut self, trial: TrialId, class: &Class, missing: u32) -> Option<Vec<AttemptId>> {
        let state = self.view.state;
        let pool = self.pass.pools.get(&class.requires, state);
        let usable = |worker: WorkerId| {
            pool.workers.contains(&worker)
                && self.view.in_service(worker)
                && !self.pass.is_kept(worker, trial, class)
        };
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
            if running.yielding.is_some() || self.asks.contains_key(&id) || self.is_coming(running) {
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

    fn is_coming(&self, running: &Attempt) -> bool {
        let coming = |worker| self.coming.get(&worker).is_some_and(|coming| coming.contains(&running.id));
        running.placement.shares().iter().any(|share| coming(share.worker))
    }
}

/// An attempt that could stop.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: AttemptId,
    priority: i32,
    started: Millis,
    /// Slots that it would lose.
    loss: u32,
    /// Slots of those that are of use.
    gain: u32,
}

/// The attempts with the least loss in all whose gains come to `missing`. `None` if all together do not.
fn choose_victims(mut candidates: Vec<Candidate>, missing: u32) -> Option<Vec<AttemptId>> {
    candidates.retain(|candidate| candidate.gain > 0);
    let offered = candidates.iter().map(|candidate| u64::from(candidate.gain)).sum::<u64>();
    if offered < u64::from(missing) {
        return None;
    }
    candidates
        .sort_by_key(|candidate| (candidate.priority, Reverse(candidate.started), Reverse(candidate.id)));
    // Of those alike only the first few can be of use.
    let mut alike: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    candidates.retain(|candidate| {
        let gained = alike.entry((candidate.loss, candidate.gain)).or_default();
        let useful = *gained < missing;
        *gained = gained.saturating_add(candidate.gain);
        useful
    });
    let wanted = usize::try_from(missing).ok()?;
    let chosen = match candidates.len().saturating_mul(wanted) {
        ..EXACT => least_loss(&candidates, wanted),
        EXACT.. => greedy(&candidates, missing),
    };
    Some(chosen.into_iter().map(|candidate| candidate.id).collect())
}

/// The exact choice, earlier candidates preferred: a knapsack turned round.
fn least_loss(candidates: &[Candidate], wanted: usize) -> Vec<Candidate> {
    let gain = |candidate: &Candidate| usize::try_from(candidate.gain).unwrap_or(usize::MAX);
    // For each tail of the candidates, the least loss that gains so many slots.
    let mut tails = vec![vec![u64::MAX; wanted + 1]; candidates.len() + 1];
    for tail in &mut tails {
        tail[0] = 0;
    }
    for (at, candidate) in candidates.iter().enumerate().rev() {
        for slots in 1..=wanted {
            let with = tails[at + 1][slots.saturating_sub(gain(candidate))];
            tails[at][slots] = tails[at + 1][slots].min(with.saturating_add(u64::from(candidate.loss)));
        }
    }
    let mut chosen = Vec::new();
    let mut left = wanted;
    for (at, candidate) in candidates.iter().enumerate() {
        let rest = left.saturating_sub(gain(candidate));
        let with = tails[at + 1][rest].saturating_add(u64::from(candidate.loss));
        if left > 0 && with <= tails[at + 1][left] {
            chosen.push(*candidate);
            left = rest;
        }
    }
    chosen
}

/// The first that suffice, without those that turn out not to be needed.
fn greedy(candidates: &[Candidate], missing: u32) -> Vec<Candidate> {
    let mut gained = 0_u32;
    let mut chosen = Vec::new();
    for candidate in candidates {
        if gained >= missing {
            break;
        }
        gained = gained.saturating_add(candidate.gain);
        chosen.push(*candidate);
    }
    chosen.sort_by_key(|candidate| Reverse(candidate.loss));
    chosen.retain(|candidate| {
        let needed = gained.saturating_sub(candidate.gain) < missing;
        if !needed {
            gained -= candidate.gain;
        }
        needed
    });
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: u64, priority: i32, started: u64, loss: u32, gain: u32) -> Candidate {
        Candidate { id: AttemptId(id), priority, started: Millis(started), loss, gain }
    }

    fn chosen(candidates: &[Candidate], missing: u32) -> Option<Vec<u64>> {
        let victims = choose_victims(candidates.to_vec(), missing)?;
        Some(victims.into_iter().map(|victim| victim.0).collect())
    }

    #[test]
    fn as_few_slots_as_can_be_are_lost() {
        let attempts = [candidate(1, 0, 9, 4, 4), candidate(2, 0, 1, 2, 2), candidate(3, 0, 1, 1, 1)];
        assert_eq!(chosen(&attempts, 1), Some(vec![3]));
        assert_eq!(chosen(&attempts, 2), Some(vec![2]));
        assert_eq!(chosen(&attempts, 3), Some(vec![3, 2]));
        assert_eq!(chosen(&attempts, 4), Some(vec![1]));
        assert_eq!(chosen(&attempts, 8), None);
    }

    #[test]
    fn of_equal_losses_the_lowest_priority_and_then_the_youngest_goes() {
        let attempts = [candidate(1, 0, 5, 1, 1), candidate(2, 0, 7, 1, 1), candidate(3, -1, 1, 1, 1)];
        assert_eq!(chosen(&attempts, 1), Some(vec![3]));
        assert_eq!(chosen(&attempts, 2), Some(vec![3, 2]));
    }

    #[test]
    fn slots_elsewhere_are_a_loss_and_no_gain() {
        let attempts = [candidate(1, 0, 5, 8, 1), candidate(2, 0, 1, 2, 1)];
        assert_eq!(chosen(&attempts, 1), Some(vec![2]));
    }

    #[test]
    fn the_exact_choice_is_never_worse_than_any_other() {
        use rand::{Rng, SeedableRng, rngs::SmallRng};
        let mut rng = SmallRng::seed_from_u64(3);
        for _ in 0..2_000 {
            let count = rng.random_range(1..9);
            let draw = |id| {
                let gain = rng.random_range(0..5);
                candidate(
                    id,
                    rng.random_range(0..3),
                    rng.random_range(0..9),
                    gain + rng.random_range(0..3),
                    gain,
                )
            };
            let attempts = (0..count).map(draw).collect::<Vec<_>>();
            let missing = rng.random_range(1..12);
            let sum = |set: u32, of: fn(&Candidate) -> u32| {
                let members = attempts.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0);
                members.map(|(_, candidate)| of(candidate)).sum::<u32>()
            };
            let good = (0..1_u32 << count).filter(|&set| sum(set, |c| c.gain) >= missing);
            let best = good.map(|set| sum(set, |c| c.loss)).min();
            for victims in [
                choose_victims(attempts.clone(), missing),
                best.map(|_| greedy(&attempts, missing).into_iter().map(|c| c.id).collect()),
            ] {
                let of = |of: fn(&Candidate) -> u32| {
                    let ids = victims.iter().flatten().map(|id| usize::try_from(id.0).unwrap());
                    ids.map(|at| of(&attempts[at])).sum::<u32>()
                };
                assert_eq!(victims.is_some(), best.is_some());
                assert!(victims.is_none() || of(|c| c.gain) >= missing);
            }
            let exact = choose_victims(attempts.clone(), missing);
            let loss = exact
                .map(|ids| ids.iter().map(|id| attempts[usize::try_from(id.0).unwrap()].loss).sum::<u32>());
            assert_eq!(loss, best, "{missing} of {attempts:?}");
        }
    }
}
