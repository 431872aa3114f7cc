//! Elastic trials grow into slots that nobody else can use, and give them back to trials that wait.

use std::num::NonZeroU32;
use std::time::Duration;

use common::FailureCause;
use common::spec::{TrainSpec, TrialSpec};
use coordinator_core::{Effect, Event, Input, Phase, Policy, ProjectPolicy, Step, YieldReason};

use crate::case::{A1, A2, Case, T1, T2, T3, W1, W2, outline, runs, train};
use crate::support::{network, policy};

const AFTER: Duration = Duration::from_secs(10);

/// Longer than [`AFTER`].
const LONG: u64 = 11_000;

fn elastic(min: u32, max: u32) -> TrialSpec {
    TrialSpec::Train(TrainSpec { min_world_size: Some(min), ..network(0, max) })
}

fn case(slots: &[u32]) -> Case {
    case_with(&[], slots)
}

/// With projects of these weights and quotas.
fn case_with(projects: &[(&str, u32, Option<u32>)], slots: &[u32]) -> Case {
    let limits = projects.iter().map(|&(name, weight, quota)| {
        (name.to_owned(), ProjectPolicy { weight: NonZeroU32::new(weight).unwrap(), quota })
    });
    let (lease, projects) = (Duration::from_secs(3_600), limits.collect());
    let policy = Policy { resize_after: AFTER, lease, stall: None, projects, ..policy() };
    Case::with_policy(policy, slots.iter().copied())
}

fn world_size(case: &Case) -> u32 {
    case.cluster.trial(T1).unwrap().attempt().unwrap().placement.world_size()
}

fn resized(step: &Step) -> Option<u32> {
    step.events.iter().find_map(|event| {
        let Event::YieldRequested { reason: YieldReason::Resized { to }, .. } = event else { return None };
        Some(*to)
    })
}

/// A trial that has run with all four slots for a while.
fn wide(min: u32) -> Case {
    let mut case = case(&[4]);
    let _ = case.submit([elastic(min, 4)]);
    case.wait(LONG);
    let _ = case.heartbeat(W1, [runs(A1, 3)]);
    case
}

#[test]
fn a_trial_grows_at_a_checkpoint_when_a_worker_joins_and_not_before_its_time() {
    let mut case = case(&[1]);
    let _ = case.submit([elastic(1, 2)]);
    assert_eq!(world_size(&case), 1);
    let step = case.hello(W2, 1, []);
    assert_eq!(resized(&step), None, "it was only just placed");
    case.wait(LONG);
    let step = case.heartbeat(W1, [runs(A1, 3)]);
    assert_eq!(resized(&step), Some(2));
    assert!(step.effects.contains(&Effect::Preempt { worker: W1, attempt: A1 }));
    let _ = case.end(W1, A1, Err(FailureCause::Preempted));
    assert_eq!(world_size(&case), 2);
    assert_eq!(case.cluster.trial(T1).unwrap().counted_failures, 0);
    // As wide as it may be: it is left alone.
    case.wait(60_000);
    assert_eq!(resized(&case.heartbeat(W1, [runs(A2, 3)])), None);
}

#[test]
fn a_trial_does_not_grow_while_another_one_waits() {
    let mut case = case(&[1]);
    let _ = case.submit([elastic(1, 2), train(7, 3)]);
    let _ = case.hello(W2, 1, []);
    case.wait(LONG);
    // It cannot run on two slots, but it is queued: slots are not bound for those who have some.
    assert_eq!(resized(&case.heartbeat(W1, [runs(A1, 3)])), None);
}

#[test]
fn a_trial_that_was_to_grow_goes_on_where_it_was_when_somebody_came_meanwhile() {
    let mut case = case_with(&[("b", 100, None)], &[1]);
    let _ = case.submit([elastic(1, 2)]);
    let _ = case.hello(W2, 1, []);
    case.wait(LONG);
    assert_eq!(resized(&case.heartbeat(W1, [runs(A1, 3)])), Some(2));
    // Of a project that uses less of its share, and takes what is free.
    let _ = case.submit_as("b", 0, [train(7, 1), train(8, 1)]);
    let step = case.end(W1, A1, Err(FailureCause::Preempted));
    assert_eq!(outline(&step), ["a1 failed: preempted", "a3 of t1 started on w1:1"]);
}

#[test]
fn a_project_grows_up_to_its_quota() {
    let mut case = case_with(&[("p", 1, Some(3))], &[1]);
    let _ = case.submit_as("p", 0, [elastic(1, 4)]);
    let _ = case.hello(W2, 8, []);
    case.wait(LONG);
    // Three ranks do not divide its batch.
    assert_eq!(resized(&case.heartbeat(W1, [runs(A1, 3)])), Some(2));
    let _ = case.end(W1, A1, Err(FailureCause::Preempted));
    assert_eq!(world_size(&case), 2);
    case.wait(LONG);
    assert_eq!(resized(&case.heartbeat(W2, [runs(A2, 3)])), None);
}

#[test]
fn a_trial_gives_slots_above_its_minimum_to_one_of_its_priority_that_waits() {
    let mut case = case(&[4]);
    let _ = case.submit([elastic(1, 4)]);
    let step = case.submit([train(7, 2)]);
    assert_eq!(resized(&step), None, "it was only just placed");
    assert_eq!(case.why(T2), "needs 2 slots, 0 are free");
    case.wait(LONG);
    let step = case.heartbeat(W1, [runs(A1, 3)]);
    assert_eq!(outline(&step), ["a1 asked to yield: goes on with 2 ranks"]);
    assert_eq!(case.why(T2), "needs 2 slots, which it has when at a checkpoint stop a1");
    case.wait(LONG);
    assert_eq!(resized(&case.heartbeat(W1, [runs(A1, 4)])), None, "nobody is asked twice");
    let step = case.end(W1, A1, Err(FailureCause::Preempted));
    let expected = ["a1 failed: preempted", "a2 of t1 started on w1:2", "a3 of t2 started on w1:2"];
    assert_eq!(outline(&step), expected);
    assert_eq!(case.cluster.trial(T1).unwrap().counted_failures, 0);
}

#[test]
fn it_is_asked_at_once_where_it_has_run_long_enough() {
    let mut case = wide(1);
    assert_eq!(resized(&case.submit([train(7, 1)])), Some(2), "three ranks do not divide its batch");
    let _ = case.end(W1, A1, Err(FailureCause::Preempted));
    assert_eq!(world_size(&case), 2);
    // Nobody waits, but it has only just been placed.
    assert_eq!(resized(&case.heartbeat(W1, [runs(A2, 4)])), None);
    case.wait(LONG);
    assert_eq!(resized(&case.heartbeat(W1, [runs(A2, 5)])), None, "one slot is free, and it cannot use it");
}

#[test]
fn it_goes_on_before_those_that_wait_whosever_turn_it_is() {
    let mut case = case_with(&[("b", 100, None)], &[4]);
    let _ = case.submit([elastic(1, 4)]);
    case.wait(LONG);
    // Their project would have all slots.
    let step = case.submit_as("b", 0, [train(7, 2), train(8, 2)]);
    assert_eq!(resized(&step), Some(2));
    let step = case.end(W1, A1, Err(FailureCause::Preempted));
    let expected = ["a1 failed: preempted", "a2 of t1 started on w1:2", "a3 of t2 started on w1:2"];
    assert_eq!(outline(&step), expected);
}

#[test]
fn a_restarted_coordinator_lets_it_go_on_before_those_that_wait() {
    let mut case = case_with(&[("b", 100, None)], &[4]);
    let _ = case.submit([elastic(1, 4)]);
    case.wait(LONG);
    let _ = case.submit_as("b", 0, [train(7, 2), train(8, 2)]);
    case.restart();
    let _ = case.hello(W1, 4, [runs(A1, 3)]);
    let step = case.end(W1, A1, Err(FailureCause::Preempted));
    let expected = ["a1 failed: preempted", "a2 of t1 started on w1:2", "a3 of t2 started on w1:2"];
    assert_eq!(outline(&step), expected);
}

#[test]
fn nobody_is_asked_for_a_trial_that_would_not_start() {
    let mut case = wide(2);
    assert_eq!(resized(&case.submit([train(7, 3)])), None);
    assert_eq!(case.why(T2), "needs 3 slots, 0 are free");
    // What came free would be kept for the one before it.
    assert_eq!(resized(&case.submit([train(8, 1)])), None);
    case.wait(LONG);
    assert_eq!(resized(&case.heartbeat(W1, [runs(A1, 4)])), None);
    let step = case.handle(Input::CancelTrial { trial: T2 });
    assert_eq!(resized(&step), Some(2));
    assert_eq!(case.why(T3), "needs 1 slot, which it has when at a checkpoint stop a1");
}

#[test]
fn a_lower_priority_gets_nothing_and_a_higher_one_goes_first() {
    let mut case = wide(1);
    assert_eq!(resized(&case.submit_as("default", -1, [train(7, 1)])), None);
    assert_eq!(resized(&case.submit([train(8, 2)])), Some(2));
    let _ = case.submit_as("default", 1, [train(9, 4)]);
    let step = case.end(W1, A1, Err(FailureCause::Preempted));
    assert_eq!(outline(&step), ["a1 failed: preempted", "a2 of t4 started on w1:4"]);
    assert_eq!(case.cluster.trial(T1).unwrap().phase, Phase::Queued);
}

#[test]
fn a_trial_that_was_paused_meanwhile_keeps_nothing() {
    let mut case = wide(1);
    assert_eq!(resized(&case.submit([train(7, 2)])), Some(2));
    let _ = case.handle(Input::PauseTrial { trial: T1 });
    let step = case.end(W1, A1, Err(FailureCause::Preempted));
    assert_eq!(outline(&step), ["a1 failed: preempted", "a2 of t2 started on w1:2"]);
}

#[test]
fn a_trial_does_not_go_on_where_nothing_new_starts() {
    let mut case = wide(1);
    let _ = case.hello(W2, 2, []);
    let _ = case.submit([train(7, 2), train(8, 2)]);
    let _ = case.handle(Input::Drain { worker: W1, now: false, reason: String::new() });
    let step = case.end(W1, A1, Err(FailureCause::Preempted));
    assert_eq!(outline(&step), ["a1 failed: preempted"]);
    assert_eq!(case.cluster.trial(T1).unwrap().phase, Phase::Queued);
}

#[test]
fn a_trial_gives_back_what_its_project_may_use() {
    let mut case = case_with(&[("p", 1, Some(2))], &[4]);
    let _ = case.submit_as("p", 0, [elastic(1, 4)]);
    assert_eq!(world_size(&case), 2);
    case.wait(LONG);
    let step = case.submit_as("p", 0, [train(7, 1)]);
    assert_eq!(resized(&step), Some(1));
    assert_eq!(case.why(T2), "needs 1 slot, which it has when at a checkpoint stop a1");
    let step = case.end(W1, A1, Err(FailureCause::Preempted));
    let expected = ["a1 failed: preempted", "a2 of t1 started on w1:1", "a3 of t2 started on w1:1"];
    assert_eq!(outline(&step), expected);
}
