//! Gang placement: all slots of a trial at once, or none.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use common::WorkerId;
use serde::{Deserialize, Serialize};

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
pub struct Placement(Vec<Share>);

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
}

/// Places `need` slots on as few workers as possible.
///
/// One worker if any is large enough, and then the one with the least left over; else the workers with the
/// most free slots. Ties go to the lowest [`WorkerId`]. `None` when `free` holds fewer than `need` slots
/// in all: a part is never placed.
pub fn place(free: &BTreeMap<WorkerId, u32>, need: u32) -> Option<Placement> {
    if let Some(worker) = tightest_fit(free, need) {
        return Some(Placement::new([(worker, need)]));
    }
    let mut by_size: Vec<(WorkerId, u32)> = free.iter().map(|(&worker, &slots)| (worker, slots)).collect();
    by_size.sort_by_key(|&(worker, slots)| (Reverse(slots), worker));

    let mut left = need;
    let mut taken = Vec::new();
    for (worker, slots) in by_size {
        let slots = slots.min(left);
        if slots == 0 {
            break;
        }
        left -= slots;
        taken.push((worker, slots));
    }
    (left == 0).then(|| Placement::new(taken))
}

fn tightest_fit(free: &BTreeMap<WorkerId, u32>, need: u32) -> Option<WorkerId> {
    free.iter()
        .filter(|&(_, &slots)| slots >= need)
        .min_by_key(|&(&worker, &slots)| (slots, worker))
        .map(|(&worker, _)| worker)
}
