//! Which slots of the worker an attempt holds. A slot is a place on a device; several may share one.
//!
//! A slot has one owner or none, from the start of the owner's processes until the last of them is gone. Ranks of one attempt get
//! devices of their own as far as there are any, because collectives between ranks on one GPU are slow or refused; other
//! attempts are spread, so that none shares a device while another device is idle.

use common::AttemptId;

/// The slots of a worker.
#[derive(Clone, Debug)]
pub struct Slots {
    /// Owner of each slot. Slot `i` lies on device `i / per_device`.
    owners: Vec<Option<AttemptId>>,
    per_device: usize,
}

impl Slots {
    /// Free slots, so many on each device.
    pub fn new(slots: u32, per_device: u32) -> Self {
        Self { owners: vec![None; slots as usize], per_device: per_device.max(1) as usize }
    }

    /// Slots without an owner.
    pub fn free(&self) -> u32 {
        let free = self.owners.iter().filter(|owner| owner.is_none()).count();
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    /// Takes one slot for each rank, or none. Returns whether it did.
    pub fn take(&mut self, attempt: AttemptId, ranks: u32) -> bool {
        if self.free() < ranks {
            return false;
        }
        for _ in 0..ranks {
            let slots = 0..self.owners.len();
            let free = slots.filter(|&slot| self.owners[slot].is_none());
            let best = free.min_by_key(|&slot| {
                (self.held(slot, |owner| owner == attempt), self.held(slot, |_| true), slot)
            });
            if let Some(slot) = best {
                self.owners[slot] = Some(attempt);
            }
        }
        true
    }

    /// Slots on the device of `slot` whose owner is one of those.
    fn held(&self, slot: usize, counts: impl Fn(AttemptId) -> bool) -> usize {
        let first = slot - slot % self.per_device;
        let device = &self.owners[first..self.owners.len().min(first + self.per_device)];
        device.iter().flatten().filter(|&&owner| counts(owner)).count()
    }

    /// Slots of an attempt, in the order of its ranks on this worker.
    pub fn of(&self, attempt: AttemptId) -> Vec<u32> {
        let slots = (0_u32..).zip(&self.owners);
        slots.filter(|(_, owner)| **owner == Some(attempt)).map(|(slot, _)| slot).collect()
    }

    /// Takes back the slots of all attempts but `alive`.
    pub fn keep(&mut self, alive: &[AttemptId]) {
        for owner in &mut self.owners {
            *owner = owner.filter(|owner| alive.contains(owner));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AttemptId = AttemptId(1);
    const B: AttemptId = AttemptId(2);
    const C: AttemptId = AttemptId(3);

    #[test]
    fn ranks_of_an_attempt_get_devices_of_their_own_while_there_are_any() {
        let mut slots = Slots::new(6, 2);
        assert!(slots.take(A, 3));
        assert_eq!(slots.of(A), [0, 2, 4]);
        assert!(slots.take(B, 3));
        assert_eq!(slots.of(B), [1, 3, 5]);
        slots.keep(&[]);
        assert!(slots.take(C, 4));
        assert_eq!(slots.of(C), [0, 1, 2, 4]);
    }

    #[test]
    fn attempts_of_one_rank_are_spread_over_devices() {
        let mut slots = Slots::new(4, 2);
        for (attempt, expected) in [(A, 0), (B, 2), (C, 1)] {
            assert!(slots.take(attempt, 1));
            assert_eq!(slots.of(attempt), [expected]);
        }
    }

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let mut slots = Slots::new(2, 1);
        assert!(slots.take(A, 1) && !slots.take(B, 2));
        assert_eq!((slots.free(), slots.of(B)), (1, vec![]));
    }
}
