//! The queue as one pass goes through it: the first trial of each class, in the order of [`super::order`].
//!
//! One priority after the other, so that a pass that has nothing left to give need not look at the rest.

use std::cmp::{Ordering, Reverse};
use std::collections::btree_map;
use std::collections::{BTreeSet, BinaryHeap};
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use super::order::{Claim, Rank};
use super::pass::Pass;
use crate::state::{Class, QueueKey};

/// The next trial of a class, or one that has a reservation.
pub(super) struct Candidate<'a> {
    pub(super) rank: Rank,
    pub(super) class: &'a Arc<Class>,
    /// The others of its class.
    queue: Option<&'a BTreeSet<QueueKey>>,
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

/// What a pass has not looked at yet.
pub(super) struct Line<'a> {
    /// Of the priority that it is at.
    heap: BinaryHeap<Reverse<Candidate<'a>>>,
    rest: Peekable<btree_map::Iter<'a, Arc<Class>, BTreeSet<QueueKey>>>,
}

impl<'a> Line<'a> {
    pub(super) fn new(pass: &Pass<'a, '_>) -> Self {
        Self { heap: BinaryHeap::new(), rest: pass.view.state.index.queue.iter().peekable() }
    }

    /// The first that was not looked at.
    pub(super) fn pop(&mut self, pass: &Pass<'a, '_>) -> Option<Candidate<'a>> {
        loop {
            let Some(Reverse(mut candidate)) = self.heap.pop() else {
                self.refill(pass)?;
                continue;
            };
            let Rank { priority, claim, key, usage } = candidate.rank;
            let now = pass.usage(candidate.class);
            if now <= usage {
                return Some(candidate);
            }
            // Its project was given slots since.
            candidate.rank = Rank { priority, claim, usage: now, key };
            self.heap.push(Reverse(candidate));
        }
    }

    /// Puts the next of a class in line, after one that was given slots.
    pub(super) fn advance(&mut self, pass: &Pass<'a, '_>, candidate: Candidate<'a>) {
        let Some(queue) = candidate.queue else {
            return;
        };
        let mut behind = queue.range((Bound::Excluded(candidate.rank.key), Bound::Unbounded));
        // Those with a reservation are in line by themselves; they may have started by now.
        let open = |key: &&QueueKey| pass.is_in_line(key.trial) && !pass.redeemed.contains(&key.trial);
        if let Some(&key) = behind.find(open) {
            let rank = Rank { usage: pass.usage(candidate.class), key, ..candidate.rank };
            self.heap.push(Reverse(Candidate { rank, ..candidate }));
        }
    }

    /// Takes in the next priority: the first of each class, and those that have slots already, because an older one of
    /// their class may not fit.
    fn refill(&mut self, pass: &Pass<'a, '_>) -> Option<()> {
        let state = pass.view.state;
        let priority = self.rest.peek()?.0.priority;
        let mut candidates = Vec::new();
        let mut usage = None;
        while let Some((class, keys)) = self.rest.next_if(|(class, _)| class.priority == priority) {
            let usage = match usage {
                Some((project, usage)) if project == class.project.as_str() => usage,
                _ => usage.insert((class.project.as_str(), pass.usage(class))).1,
            };
            if let Some(&key) = keys.iter().find(|key| pass.is_in_line(key.trial)) {
                let rank = Rank { priority, claim: Claim::Open, usage, key };
                candidates.push(Reverse(Candidate { rank, class, queue: Some(keys) }));
            }
        }
        let resumed = pass.view.resuming.keys().map(|&trial| (trial, Claim::Resumed));
        let reserved = pass.reservations.iter().map(|(trial, _)| (trial, Claim::Reserved));
        for (trial, claim) in resumed.chain(reserved) {
            if let (Some(class), Some(record)) = (state.index.class_of(trial), state.trials.get(&trial))
                && class.priority == priority
            {
                let (usage, key) = (pass.usage(class), QueueKey::of(trial, record));
                let rank = Rank { priority, claim, usage, key };
                candidates.push(Reverse(Candidate { rank, class, queue: None }));
            }
        }
        self.heap = BinaryHeap::from(candidates);
        Some(())
    }
}
