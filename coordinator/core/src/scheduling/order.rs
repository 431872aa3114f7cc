//! Who goes first.
//!
//! 1. The higher priority.
//! 2. The trial that goes on at once where it was, with another number of ranks; then the one that slots are already kept for.
//! 3. The project that uses the smaller share: slots in use by its weight.
//! 4. The older submission; of one submission, evaluations before training; then the lower id.
//!
//! Shares change with every placement, so a place in the queue is compared anew each time. Shares of
//! projects change nothing between trials of one project, and of one class only the first is ever compared.

use std::cmp::{Ordering, Reverse};
use std::num::NonZeroU32;

use crate::state::QueueKey;

/// Slots in use by weight, compared exactly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) slots: u32,
    pub(crate) weight: NonZeroU32,
}

impl Ord for Usage {
    fn cmp(&self, other: &Self) -> Ordering {
        let crossed = |a: &Self, b: &Self| u64::from(a.slots) * u64::from(b.weight.get());
        crossed(self, other).cmp(&crossed(other, self))
    }
}

impl PartialOrd for Usage {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Usage {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Usage {}

/// Whether a trial has slots already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claim {
    /// It stopped only to go on with another number of ranks.
    Resumed,
    /// Slots are kept for it.
    Reserved,
    Open,
}

/// A trial's place in the queue: the smallest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) priority: Reverse<i32>,
    pub(crate) claim: Claim,
    pub(crate) usage: Usage,
    pub(crate) key: QueueKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_compared_as_fractions() {
        let usage = |slots, weight| Usage { slots, weight: NonZeroU32::new(weight).unwrap() };
        assert!(usage(1, 2) < usage(2, 3));
        assert_eq!(usage(2, 4), usage(1, 2));
        assert!(usage(0, 1) < usage(1, u32::MAX));
        assert!(usage(u32::MAX, 1) > usage(u32::MAX, 2));
    }
}
