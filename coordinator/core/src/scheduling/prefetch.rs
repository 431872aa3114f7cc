//! Which trials will probably run next, and where, so that what they read can be there before them.
//!
//! A guess: a wrong one costs a worker a download that nobody needed, and never a decision. So it is made on little
//! work, however long the queue is, and needs no accuracy that the estimates do not have.
//!
//! - A trial with a reservation will run on the workers of the reservation.
//! - The first few others in the order of [`super::order`] will have the slots that come free soonest: those of attempts that were
//!   asked to stop, then those of the attempts with the earliest expected ends. They take them in turn, placed as ever. Slots of a
//!   worker that is part of a reservation are left out, because they are kept.
//!
//! Who makes way for whom is known when it is asked; see [`crate::Cluster`]. Trials that read nothing are passed over, but
//! have their slots first all the same.

use std::collections::BTreeMap;

use common::{TrialId, WorkerId};

use super::board::Pools;
use super::order::{Claim, Rank, Usage};
use super::pass::View;
use super::reservation::Reservations;
use crate::placement::{Spot, choose};
use crate::state::{Class, QueueKey, State};
use crate::{Attempt, Placement, Trial};

/// Trials of the queue that are looked at, besides those with reservations.
const LINE: usize = 4;

/// Classes whose first trials are compared, in their own order: first by priority, then by project.
const CLASSES: usize = 16;

/// Attempts whose ends are looked at.
const ENDS: usize = 32;

/// Trials that read something, each with a worker on which it will probably run.
pub(crate) fn next_up(
    view: View<'_>,
    reservations: &Reservations,
    pools: &mut Pools,
) -> Vec<(TrialId, WorkerId)> {
    let mut next = Vec::new();
    for (trial, reservation) in reservations.iter().filter(|&(trial, _)| reads(view.state, trial)) {
        next.extend(reservation.slots.keys().map(|&worker| (trial, worker)));
    }
    let line = first_in_line(view, reservations, pools);
    if line.iter().any(|(rank, _)| reads(view.state, rank.key.trial)) {
        line_up(view, reservations, pools, &line, &mut next);
    }
    next
}

/// Whether there is anything that a trial could be spared to wait for.
fn reads(state: &State, trial: TrialId) -> bool {
    let reads = |record: &Trial| !record.needs.is_empty() || !record.checkpoints.is_empty();
    state.trials.get(&trial).is_some_and(reads)
}

/// The first trials without a reservation, in order.
fn first_in_line<'a>(
    view: View<'a>,
    reservations: &Reservations,
    pools: &mut Pools,
) -> Vec<(Rank, &'a Class)> {
    let mut line: Vec<(Rank, &Class)> = Vec::new();
    for (class, keys) in view.state.index.queue.iter().take(CLASSES) {
        let behind = |(last, _): &(Rank, &Class)| last.priority < class.priority;
        if line.len() == LINE && line.last().is_some_and(behind) {
            break;
        }
        let Some(usage) = may_run(view, class, pools) else {
            continue;
        };
        let rests = |trial| view.resting.contains_key(&trial);
        let open = keys.iter().filter(|key| reservations.of(key.trial).is_none() && !rests(key.trial));
        for &key in open.take(LINE) {
            let rank = Rank { priority: class.priority, claim: Claim::Open, usage, key };
            let at = line.partition_point(|(other, _)| *other < rank);
            if at == LINE {
                break;
            }
            line.insert(at, (rank, class));
            line.truncate(LINE);
        }
    }
    line
}

/// What the project of a class uses. `None` where no slot that comes free would help: it holds up nobody.
fn may_run(view: View<'_>, class: &Class, pools: &mut Pools) -> Option<Usage> {
    let slots = view.state.index.used.get(&class.project).copied().unwrap_or_default();
    let limits = view.policy.project(&class.project);
    let within = limits.quota.is_none_or(|quota| slots.saturating_add(class.least) <= quota);
    let fits = pools.get(&class.requires, view.state).offered >= class.least;
    (within && fits).then_some(Usage { slots, weight: limits.weight })
}

/// Gives the slots that come free to the trials in line, in turn.
fn line_up(
    view: View<'_>,
    reservations: &Reservations,
    pools: &mut Pools,
    line: &[(Rank, &Class)],
    next: &mut Vec<(TrialId, WorkerId)>,
) {
    let state = view.state;
    let mut ends = ends(state).take(ENDS);
    let mut coming: BTreeMap<WorkerId, u32> = BTreeMap::new();
    for &(Rank { key: QueueKey { trial, .. }, .. }, class) in line {
        let pool = pools.get(&class.requires, state);
        let placement = loop {
            let usable = coming.iter().filter(|(worker, _)| pool.workers.contains(worker));
            let spots = usable.map(|(&worker, &slots)| Spot { worker, slots }).collect::<Vec<_>>();
            let avoid = |record: &Trial| choose(&spots, class.least, &record.failed_on, &state.workers);
            if let Some(placement) = state.trials.get(&trial).and_then(avoid) {
                break Some(placement);
            }
            let Some(running) = ends.next() else { break None };
            for (worker, slots) in running.leaves() {
                if view.in_service(worker) && reservations.on(worker).is_none() {
                    *coming.entry(worker).or_default() += slots;
                }
            }
        };
        for share in placement.iter().flat_map(Placement::shares) {
            if let Some(slots) = coming.get_mut(&share.worker) {
                *slots = slots.saturating_sub(share.ranks);
            }
            if reads(state, trial) {
                next.push((trial, share.worker));
            }
        }
    }
}

/// Running attempts, the soonest to end first.
fn ends(state: &State) -> impl Iterator<Item = &Attempt> {
    let running = state.index.undisturbed().map(|end| end.attempt);
    let ends = state.index.yielding.iter().copied().chain(running);
    ends.filter_map(|attempt| Some(state.running(attempt)?.1))
}
