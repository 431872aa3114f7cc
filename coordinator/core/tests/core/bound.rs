//! The stated bound on how long a reserved trial waits, with estimates that are often wrong.

use std::collections::{BTreeMap, BTreeSet};

use common::spec::Requirements;
use common::{AttemptId, TrialId, WorkerId};
use coordinator_core::{Event, Input, Millis, Traits};
use rand::Rng;

use crate::arena::{Arena, labels};
use crate::support::policy;

/// A reservation as the test saw it made.
struct Promise {
    since: u64,
    slots: BTreeMap<WorkerId, u32>,
    awaits: BTreeSet<AttemptId>,
    /// When the last attempt that it awaits will end.
    awaited: u64,
    /// How long the longest attempt runs that was lent some of its slots.
    lent: u64,
}

#[derive(Default)]
struct Seen {
    kept: usize,
    lent: usize,
    waited_for_lent: usize,
}

/// Looks at every step: new reservations, what is lent of them, and when their trials start.
#[derive(Default)]
struct Watch {
    promises: BTreeMap<TrialId, Promise>,
    seen: Seen,
}

impl Watch {
    fn look(&mut self, arena: &Arena, events: &[Event]) {
        let started = events.iter().filter_map(|event| {
            let Event::AttemptStarted { trial, attempt, placement, .. } = event else { return None };
            Some((*trial, *attempt, placement))
        });
        let started = started.collect::<Vec<_>>();
        for (trial, _, _) in &started {
            if let Some(promise) = self.promises.remove(trial) {
                self.check(*trial, &promise, arena.now);
            }
        }
        self.renew(arena);
        for (_, attempt, placement) in started {
            for share in placement.shares() {
                let view = arena.cluster.worker(share.worker).unwrap();
                let free = view.worker.slots - view.used;
                let kept = self.promises.values_mut().find(|p| p.slots.contains_key(&share.worker));
                let kept = kept.filter(|p| free < p.slots[&share.worker] && !p.awaits.contains(&attempt));
                if let Some(promise) = kept {
                    promise.lent = promise.lent.max(arena.end_of(attempt) - arena.now);
                    self.seen.lent += 1;
                }
            }
        }
    }

    fn check(&mut self, trial: TrialId, promise: &Promise, now: u64) {
        let latest = promise.awaited + promise.lent;
        assert!(
            now <= latest,
            "{trial}, reserved at {}, started at {now} and not by {latest}",
            promise.since
        );
        self.seen.kept += 1;
        self.seen.waited_for_lent += usize::from(now > promise.awaited);
    }

    /// Takes note of new reservations. None of the old ones has changed or gone.
    fn renew(&mut self, arena: &Arena) {
        let mut promises = BTreeMap::new();
        for (trial, reservation, _) in arena.cluster.reservations() {
            let same = self
                .promises
                .remove(&trial)
                .filter(|promise| promise.since == reservation.since.0 && promise.slots == reservation.slots);
            let promise = same.unwrap_or_else(|| {
                assert_eq!(reservation.since, Millis(arena.now), "{trial} was promised less than it had");
                let ends = reservation.awaits.iter().map(|&attempt| arena.end_of(attempt));
                let awaited = ends.max().unwrap_or(arena.now);
                let (slots, awaits) = (reservation.slots.clone(), reservation.awaits.clone());
                Promise { since: arena.now, slots, awaits, awaited, lent: 0 }
            });
            promises.insert(trial, promise);
        }
        let gone = self.promises.keys().next();
        assert_eq!(gone, None, "a reservation was given up though nothing speaks against it");
        self.promises = promises;
    }
}

#[test]
fn a_reserved_trial_starts_by_the_time_that_was_promised_however_wrong_the_estimates_are() {
    let mut seen = Seen::default();
    for seed in 0..40 {
        let mut policy = policy();
        policy.projects = BTreeMap::from([("a".to_owned(), Default::default())]);
        let mut arena = Arena::new(seed, policy);
        let mut watch = Watch::default();
        for worker in 1..=4 {
            let rack = if worker <= 2 { "r1" } else { "r2" };
            let traits = Traits { labels: labels([("rack", rack)]), ..Traits::default() };
            let slots = arena.rng.random_range(1..5);
            let _ = arena.hello(worker, slots, traits);
        }
        let rack = Requirements { labels: labels([("rack", "r1")]), ..Requirements::default() };
        let requires = [Requirements::default(), Requirements::default(), rack];
        for _ in 0..150 {
            // Arrivals never let up: a narrow trial is always there to take a slot.
            if arena.chance(0.5) {
                let mut plan = arena.plan(8, &requires);
                plan.project = if arena.chance(0.3) { "b" } else { "a" }.to_owned();
                let step = arena.handle(Input::Submit { plan, grid: String::new() });
                watch.look(&arena, &step.events);
            } else if let Some(step) = arena.end_next() {
                watch.look(&arena, &step.events);
            }
        }
        let Seen { kept, lent, waited_for_lent } = watch.seen;
        seen.kept += kept;
        seen.lent += lent;
        seen.waited_for_lent += waited_for_lent;
    }
    let Seen { kept, lent, waited_for_lent } = seen;
    assert!(
        kept > 100 && lent > 20 && waited_for_lent > 0,
        "{kept} kept, {lent} lent, {waited_for_lent} late"
    );
}
