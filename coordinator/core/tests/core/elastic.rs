//! Elastic trials grow into slots that nobody else can use.

use std::time::Duration;

use common::FailureCause;
use common::spec::{TrainSpec, TrialSpec};
use coordinator_core::{Effect, Event, Millis, Policy, YieldReason};

use crate::case::{A1, Case, T1, W1, W2, runs, train};
use crate::support::{network, policy};

const AFTER: Duration = Duration::from_secs(10);

fn elastic(min: u32, max: u32) -> TrialSpec {
    TrialSpec::Train(TrainSpec { min_world_size: Some(min), ..network(0, max) })
}

fn case(slots: &[u32]) -> Case {
    let lease = Duration::from_secs(3_600);
    Case::with_policy(Policy { resize_after: AFTER, lease, ..policy() }, slots.iter().copied())
}

fn world_size(case: &Case) -> u32 {
    case.cluster.trial(T1).unwrap().attempt().unwrap().placement.world_size()
}

fn resized(events: &[Event]) -> Option<u32> {
    events.iter().find_map(|event| {
        let Event::YieldRequested { reason: YieldReason::Resized { to }, .. } = event else { return None };
        Some(*to)
    })
}

#[test]
fn a_trial_grows_at_a_checkpoint_when_a_worker_joins_and_not_before_its_time() {
    let mut case = case(&[1]);
    let _ = case.submit([elastic(1, 2)]);
    assert_eq!(world_size(&case), 1);
    let step = case.hello(W2, 1, []);
    assert_eq!(resized(&step.events), None, "it was only just placed");
    case.now = Millis(case.now.0 + 11_000);
    let step = case.heartbeat(W1, [runs(A1, 3)]);
    assert_eq!(resized(&step.events), Some(2));
    assert!(step.effects.contains(&Effect::Preempt { worker: W1, attempt: A1 }));
    let _ = case.end(W1, A1, Err(FailureCause::Preempted));
    assert_eq!(world_size(&case), 2);
    assert_eq!(case.cluster.trial(T1).unwrap().counted_failures, 0);
    // As wide as it may be: it is left alone.
    case.now = Millis(case.now.0 + 60_000);
    let attempt = case.cluster.trial(T1).unwrap().attempt().unwrap().id;
    assert_eq!(resized(&case.heartbeat(W1, [runs(attempt, 3)]).events), None);
}

#[test]
fn a_trial_does_not_grow_while_another_one_waits() {
    let mut case = case(&[1]);
    let _ = case.submit([elastic(1, 2), train(7, 3)]);
    let _ = case.hello(W2, 1, []);
    case.now = Millis(case.now.0 + 11_000);
    // It cannot run on two slots, but it is queued: slots are not bound for those who have some.
    assert_eq!(resized(&case.heartbeat(W1, [runs(A1, 3)]).events), None);
}
