//! Shrinking: which elastic attempts go on with fewer ranks, so that a trial of the same priority can start.
//!
//! Ranks above the fewest that a trial runs with are lent by those that wait: they had nobody else to use them when they
//! were given. So a trial that cannot start asks for them, whatever its project. An attempt that is asked stops at a
//! checkpoint and goes on at once with its first ranks, where they are; the last ones it gives up. It is asked only once it
//! has run for a while, and not when it is about to end: a checkpoint and a start are not worth a few steps. Nobody is asked
//! unless the trial can start with what is given up.
//!
//! Each attempt that is asked loses the time of a checkpoint and a start, so as few as can be are; then those that give up
//! the fewest slots, then those of the project that uses the most of its share, then the youngest.

use std::cmp::Reverse;

use common::AttemptId;

use super::order::Usage;
use super::pass::View;
use crate::{Attempt, Millis, Policy};

/// Attempts of one priority to choose from, the oldest.
const CHOICE: usize = 256;

/// Whether an attempt has run long enough, and will run long enough, to go on with another number of ranks.
pub(crate) fn is_settled(running: &Attempt, now: Millis, policy: &Policy) -> bool {
    let settled = now.since(running.started) >= policy.resize_after;
    let lasts = running.expected_end.is_none_or(|end| end > now + policy.resize_after);
    settled && lasts && running.yielding.is_none()
}

/// Attempts of a priority that may be asked.
pub(super) fn shrinkable<'a>(view: View<'a>, priority: i32) -> impl Iterator<Item = &'a Attempt> {
    let attempts = view.state.index.elastic.get(&priority).into_iter().flatten().take(CHOICE);
    let running = attempts.filter_map(move |&attempt| Some(view.state.running(attempt)?.1));
    running.filter(move |running| is_settled(running, view.now, view.policy))
}

/// What a trial lacks to start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// Slots that it could use.
    pub(super) slots: u32,
    /// Slots of its project's quota.
    pub(super) quota: u32,
}

/// What an attempt that goes on with so many ranks gives up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) keeps: u32,
    /// What of it is of use.
    pub(super) gives: Missing,
}

/// An attempt that could go on with fewer ranks.
#[derive(Clone, Debug)]
pub(super) struct Elastic {
    pub(super) id: AttemptId,
    pub(super) started: Millis,
    /// What its project uses.
    pub(super) usage: Usage,
    /// From the fewest slots given up to the most.
    pub(super) cuts: Vec<Cut>,
    /// The one that is asked for.
    pub(super) chosen: Option<usize>,
}

impl Elastic {
    pub(super) fn new(id: AttemptId, started: Millis, usage: Usage, cuts: Vec<Cut>) -> Self {
        Self { id, started, usage, cuts, chosen: None }
    }

    fn gives(&self, of: fn(&Missing) -> u32) -> u32 {
        self.chosen.and_then(|at| self.cuts.get(at)).map_or(0, |cut| of(&cut.gives))
    }

    /// What it could give besides.
    fn more(&self, of: fn(&Missing) -> u32) -> u32 {
        self.cuts.last().map_or(0, |cut| of(&cut.gives)).saturating_sub(self.gives(of))
    }

    /// The least that it gives up for `missing` more, or the most that it can.
    fn cut_for(&self, missing: u32, of: fn(&Missing) -> u32) -> usize {
        let wanted =
            self.gives(of).saturating_add(missing).min(self.cuts.last().map_or(0, |cut| of(&cut.gives)));
        self.cuts.iter().position(|cut| of(&cut.gives) >= wanted).unwrap_or_default()
    }
}

/// Attempts to ask, and the ranks with which each goes on. `None` if all together do not give up enough.
pub(super) fn choose_cuts(mut attempts: Vec<Elastic>, missing: Missing) -> Option<Vec<(AttemptId, u32)>> {
    cover(&mut attempts, missing.quota, |gives| gives.quota)?;
    cover(&mut attempts, missing.slots, |gives| gives.slots)?;
    let chosen =
        attempts.iter().filter_map(|elastic| Some((elastic.id, elastic.cuts.get(elastic.chosen?)?.keeps)));
    Some(chosen.collect())
}

fn cover(attempts: &mut [Elastic], missing: u32, of: fn(&Missing) -> u32) -> Option<()> {
    let given = attempts.iter().map(|elastic| elastic.gives(of)).sum::<u32>();
    let mut missing = missing.saturating_sub(given);
    while missing > 0 {
        let best = attempts.iter_mut().filter(|elastic| elastic.more(of) > 0).max_by_key(|elastic| {
            let more = elastic.more(of);
            let loses = elastic.cuts.get(elastic.cut_for(missing, of)).map_or(0, |cut| of(&cut.gives));
            // Where none suffices, those that give the most make up the fewest.
            let cheap = Reverse(if more >= missing { loses } else { 0 });
            (elastic.chosen.is_some(), more.min(missing), cheap, elastic.usage, elastic.started, elastic.id)
        })?;
        let before = best.gives(of);
        best.chosen = Some(best.cut_for(missing, of));
        missing = missing.saturating_sub(best.gives(of) - before);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// An attempt that has `has` ranks and needs one; all that it gives up is of use.
    fn elastic(id: u64, has: u32, used: u32) -> Elastic {
        let cut = |keeps| Cut { keeps, gives: Missing { slots: has - keeps, quota: 0 } };
        let usage = Usage { slots: used, weight: NonZeroU32::MIN };
        Elastic::new(AttemptId(id), Millis(id), usage, (1..has).rev().map(cut).collect())
    }

    fn chosen(attempts: &[Elastic], slots: u32) -> Option<Vec<(u64, u32)>> {
        let chosen = choose_cuts(attempts.to_vec(), Missing { slots, quota: 0 })?;
        Some(chosen.into_iter().map(|(attempt, keeps)| (attempt.0, keeps)).collect())
    }

    #[test]
    fn as_few_attempts_as_can_be_are_asked_for_no_more_than_is_missing() {
        let attempts = [elastic(1, 2, 9), elastic(2, 4, 9), elastic(3, 3, 9)];
        assert_eq!(chosen(&attempts, 2), Some(vec![(3, 1)]), "the youngest of those that suffice");
        assert_eq!(chosen(&attempts, 3), Some(vec![(2, 1)]));
        assert_eq!(chosen(&attempts, 4), Some(vec![(2, 1), (3, 2)]));
        assert_eq!(chosen(&attempts, 6), Some(vec![(1, 1), (2, 1), (3, 1)]));
        assert_eq!(chosen(&attempts, 7), None);
    }

    #[test]
    fn who_uses_the_most_of_its_share_is_asked_first() {
        assert_eq!(chosen(&[elastic(1, 4, 8), elastic(2, 4, 4)], 1), Some(vec![(1, 3)]));
    }

    #[test]
    fn a_number_of_ranks_that_a_trial_does_not_allow_is_passed_over() {
        let mut odd = elastic(1, 4, 4);
        odd.cuts.retain(|cut| cut.keeps != 3);
        assert_eq!(chosen(&[odd.clone()], 1), Some(vec![(1, 2)]));
        assert_eq!(chosen(&[odd, elastic(2, 2, 4)], 1), Some(vec![(2, 1)]), "which gives up less");
    }

    #[test]
    fn a_quota_is_freed_by_attempts_of_the_project_alone() {
        let mut own = elastic(1, 3, 4);
        own.cuts.iter_mut().for_each(|cut| cut.gives.quota = cut.gives.slots);
        let missing = Missing { slots: 2, quota: 1 };
        let keeps = choose_cuts(vec![own, elastic(2, 9, 9)], missing);
        assert_eq!(keeps, Some(vec![(AttemptId(1), 1)]), "it is asked anyway, and gives the other slot, too");
        assert_eq!(choose_cuts(vec![elastic(2, 9, 9)], missing), None);
    }
}
