//! Which attempts of lower priority stop: the choice, by numbers alone.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use common::AttemptId;

use crate::Millis;

/// Above it the choice is greedy: slots wanted times attempts to choose from.
const EXACT: usize = 1 << 20;

/// An attempt that could stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) id: AttemptId,
    pub(super) priority: i32,
    pub(super) started: Millis,
    /// Slots that it would lose.
    pub(super) loss: u32,
    /// Slots of those that are of use.
    pub(super) gain: u32,
}

/// The attempts with the least loss in all whose gains come to `missing`. `None` if all together do not.
pub(super) fn choose_victims(mut candidates: Vec<Candidate>, missing: u32) -> Option<Vec<AttemptId>> {
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
