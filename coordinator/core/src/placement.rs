//! Gang placement: all slots of a trial at once, or none.
//!
//! Fewest workers; among as few, those near each other; among as near, none on which the trial has failed.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use common::WorkerId;
use serde::{Deserialize, Serialize};

use crate::Worker;

/// Consecutive ranks of an attempt on one worker, one slot each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The worker.
    pub worker: WorkerId,
    /// First of the ranks.
    pub first_rank: u32,
    /// How many, at least 1.
    pub ranks: u32,
}

/// Workers of one attempt, each once, in the order of their ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Placement(Box<[Share]>);

impl Placement {
    /// Numbers ranks in the order of `slots`, the slots taken from each worker.
    pub fn new(slots: impl IntoIterator<Item = (WorkerId, u32)>) -> Self {
        let mut next = 0;
        let share = |(worker, ranks)| {
            let first_rank = next;
            next += ranks;
            Share { worker, first_rank, ranks }
        };
        Self(slots.into_iter().map(share).collect())
    }

    /// Shares in the order of their ranks.
    pub fn shares(&self) -> &[Share] {
        &self.0
    }

    /// The share of `worker`.
    pub fn share_of(&self, worker: WorkerId) -> Option<&Share> {
        self.0.iter().find(|share| share.worker == worker)
    }

    /// The worker of rank 0.
    pub fn leader(&self) -> Option<WorkerId> {
        self.0.first().map(|share| share.worker)
    }

    /// Ranks in all.
    pub fn world_size(&self) -> u32 {
        self.0.iter().map(|share| share.ranks).sum()
    }

    /// The first `ranks` of its ranks, where they are.
    pub(crate) fn first(&self, ranks: u32) -> Self {
        let kept = |share: &Share| (share.worker, ranks.saturating_sub(share.first_rank).min(share.ranks));
        Self::new(self.0.iter().map(kept).filter(|&(_, kept)| kept > 0))
    }

    /// Slots of all its ranks but the first `ranks`.
    pub(crate) fn beyond(&self, ranks: u32) -> impl Iterator<Item = (WorkerId, u32)> {
        let gone = move |share: &Share| {
            let kept = ranks.saturating_sub(share.first_rank).min(share.ranks);
            (share.worker, share.ranks - kept)
        };
        self.0.iter().map(gone).filter(|&(_, gone)| gone > 0)
    }
}

/// Labels that say which workers are near each other, the nearest first.
const GROUPS: [&str; 3] = ["nvlink", "numa", "rack"];

/// Slots of a worker that a trial may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) worker: WorkerId,
    pub(crate) slots: u32,
}

/// Members, for their labels. They are looked at only where a trial needs several workers.
type Members = BTreeMap<WorkerId, Worker>;

/// Places `need` slots on as few workers as possible.
///
/// One worker if any is large enough, and then the one with the least left over; else the workers with the
/// most free slots. Ties go to the lowest [`WorkerId`]. `None` when `free` holds fewer than `need` slots
/// in all: a part is never placed.
pub fn place(free: &BTreeMap<WorkerId, u32>, need: u32) -> Option<Placement> {
    let spots = free.iter().map(|(&worker, &slots)| Spot { worker, slots });
    choose(&spots.collect::<Vec<_>>(), need, &[], &BTreeMap::new())
}

/// Places `need` slots as [`place`] does, and of as few workers as possible prefers those of one group, by the
/// labels in [`GROUPS`]; then those that are not in `avoid`.
pub(crate) fn choose(spots: &[Spot], need: u32, avoid: &[WorkerId], members: &Members) -> Option<Placement> {
    let large = spots.iter().filter(|spot| spot.slots >= need);
    if let Some(spot) = large.min_by_key(|spot| (avoid.contains(&spot.worker), spot.slots, spot.worker)) {
        return Some(Placement::new([(spot.worker, need)]));
    }
    let mut sorted = spots.iter().filter(|spot| spot.slots > 0).collect::<Vec<_>>();
    sorted.sort_by_key(|spot| (Reverse(spot.slots), spot.worker));
    let fewest = largest(&sorted, need)?.len();
    let taken = GROUPS
        .iter()
        .find_map(|label| near(&sorted, label, need, fewest, avoid, members))
        .or_else(|| avoiding(&sorted, need, fewest, avoid))?;
    Some(Placement::new(taken))
}

type Taken = Vec<(WorkerId, u32)>;

/// `need` slots of the first of `sorted`.
fn largest(sorted: &[&Spot], need: u32) -> Option<Taken> {
    let mut left = need;
    let mut taken = Vec::new();
    for spot in sorted {
        if left == 0 {
            break;
        }
        let slots = spot.slots.min(left);
        left -= slots;
        taken.push((spot.worker, slots));
    }
    (left == 0).then_some(taken)
}

/// The same on `fewest` workers, none of `avoid` if that can be.
fn avoiding(sorted: &[&Spot], need: u32, fewest: usize, avoid: &[WorkerId]) -> Option<Taken> {
    let others = sorted.iter().filter(|spot| !avoid.contains(&spot.worker)).copied().collect::<Vec<_>>();
    let good = largest(&others, need).filter(|taken| taken.len() == fewest);
    good.or_else(|| largest(sorted, need).filter(|taken| taken.len() == fewest))
}

/// The same on workers that have one value of `label`: the group with the fewest workers to avoid, then the one
/// that is left with the fewest slots.
fn near(
    sorted: &[&Spot],
    label: &str,
    need: u32,
    fewest: usize,
    avoid: &[WorkerId],
    members: &Members,
) -> Option<Taken> {
    let mut groups: BTreeMap<&str, Vec<&Spot>> = BTreeMap::new();
    for spot in sorted {
        if let Some(group) = members.get(&spot.worker).and_then(|member| member.traits.labels.get(label)) {
            groups.entry(group.as_str()).or_default().push(spot);
        }
    }
    let candidates = groups.values().filter_map(|group| {
        let taken = avoiding(group, need, fewest, avoid)?;
        let bad = taken.iter().filter(|(worker, _)| avoid.contains(worker)).count();
        let size = group.iter().map(|spot| u64::from(spot.slots)).sum::<u64>();
        Some((bad, size, taken))
    });
    candidates.min_by_key(|&(bad, size, _)| (bad, size)).map(|(_, _, taken)| taken)
}
