//! Each scheduling policy by itself, with the reason that it gives.

use std::num::NonZeroU32;

use common::session::SessionOrder;
use common::spec::{Requirements, TrialSpec};
use common::{FailureCause, TrialId, WorkerId};
use coordinator_core::{Effect, Input, Policy, ProjectPolicy, Step, Traits};

use crate::arena::labels;
use crate::case::*;
use crate::support::{evaluate, network, policy};

const T4: TrialId = TrialId(4);
const W3: WorkerId = WorkerId(3);

fn projects(projects: &[(&str, u32, Option<u32>)]) -> Policy {
    let limits = |weight, quota| ProjectPolicy { weight: NonZeroU32::new(weight).unwrap(), quota };
    let named = projects.iter().map(|&(name, weight, quota)| (name.to_owned(), limits(weight, quota)));
    Policy { projects: named.collect(), ..policy() }
}

/// What started, like `t1 on w1:2`.
fn started(step: &Step) -> Vec<String> {
    let starts = outline(step).into_iter().filter(|line| line.contains(" started on "));
    starts.map(|line| line.split_once(" of ").unwrap().1.replace(" started", "")).collect()
}

fn asked(step: &Step) -> Vec<u64> {
    let asked = step.effects.iter().filter_map(|effect| match effect {
        Effect::Preempt { attempt, .. } => Some(attempt.0),
        Effect::Launch { .. }
        | Effect::Release { .. }
        | Effect::Rendezvous { .. }
        | Effect::Prefetch { .. }
        | Effect::DeleteBlob { .. } => None,
    });
    asked.collect()
}

fn labelled(case: &mut Case, worker: u64, slots: u32, traits: Traits) -> Step {
    let (worker, name) = (WorkerId(worker), worker.to_string());
    case.handle(Input::Hello {
        order: SessionOrder::default(),
        worker,
        host: name.clone(),
        name,
        slots,
        traits,
        attempts: Vec::new(),
    })
}

fn in_rack(rack: &str) -> Traits {
    Traits { labels: labels([("rack", rack)]), ..Traits::default() }
}

/// A recipe of `epochs`, which makes a workload of its own.
fn long(seed: u64, width: u32, epochs: u32) -> TrialSpec {
    let mut train = network(seed, width);
    train.recipe.epochs = epochs;
    TrialSpec::Train(train)
}

#[test]
fn a_higher_priority_goes_first_and_may_be_set_later() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit_as("default", 0, [evaluated(1)]);
    let _ = case.submit_as("default", 0, [train(2, 1), train(3, 1)]);
    let _ = case.submit_as("default", 1, [train(4, 1)]);
    assert_eq!(case.why(T2), "behind t4 of priority 1, which needs 1 slot");
    let _ = case.handle(Input::SetPriority { experiment: E2, priority: 2 });
    assert_eq!(case.why(T4), "behind t2 of priority 2, which needs 1 slot");
    assert_eq!(case.why(T3), "behind t2, which needs 1 slot");
    let unknown = Input::SetPriority { experiment: common::ExperimentId(9), priority: 2 };
    let _ = case.refuse(unknown);
}

/// A train trial that cannot be preempted here, because nothing of a higher priority comes before it ends.
fn evaluated(seed: u64) -> TrialSpec {
    train(seed, 1)
}

#[test]
fn a_trial_that_several_want_has_the_highest_of_their_priorities() {
    let mut case = Case::new();
    let _ = case.submit_as("a", 0, [train(1, 1)]);
    let _ = case.submit_as("b", 3, [train(2, 1)]);
    let _ = case.submit_as("c", 5, [train(1, 1)]);
    assert_eq!(started(&case.hello(W1, 1, [])), ["t1 on w1:1"]);
    let _ = case.hello(W2, 1, []);
    assert_eq!(case.cluster.trial(T2).unwrap().attempts, 1);
}

#[test]
fn the_project_that_uses_the_smaller_share_goes_first() {
    let mut case = Case::with_policy(projects(&[("a", 2, None), ("b", 1, None)]), []);
    let _ = case.submit_as("a", 0, (1..6).map(|seed| train(seed, 1)));
    let _ = case.submit_as("b", 0, (11..16).map(|seed| train(seed, 1)));
    // a 0/2 and b 0/1: the older; then b; a 1/2 before b 1/1; a 2/2 and b 1/1: the older; then b.
    let step = case.hello(W1, 5, []);
    assert_eq!(started(&step), ["t1 on w1:1", "t6 on w1:1", "t2 on w1:1", "t3 on w1:1", "t7 on w1:1"]);
    assert_eq!(
        case.why(TrialId(8)),
        "behind t4 of project a, which uses less of its share, which needs 1 slot"
    );
}

/// The reserved trial of project a leaves no quota to a more urgent one, until a trial of another project takes its place: and then
/// in the same step, though the urgent one was looked at before.
#[test]
fn a_reservation_that_has_to_go_gives_its_part_of_the_quota_back_at_once() {
    let mut case = Case::with_policy(projects(&[("a", 1, Some(3))]), [2, 2]);
    let _ = case.submit_as("b", 5, [train(1, 2)]);
    let _ = case.submit_as("a", 5, [train(2, 1)]);
    let _ = case.submit_as("a", 0, [train(3, 2)]);
    assert!(case.why(T3).contains("reserved"), "{}", case.why(T3));
    assert_eq!(started(&case.submit_as("a", 2, [train(4, 1)])), Vec::<String>::new());
    assert!(case.why(T4).contains("quota"), "{}", case.why(T4));
    assert_eq!(started(&case.submit_as("b", 1, [train(5, 2)])), ["t4 on w2:1"]);
    assert!(case.why(TrialId(5)).contains("reserved"), "{}", case.why(TrialId(5)));
}

#[test]
fn a_project_at_its_quota_holds_up_nobody_but_itself() {
    let mut case = Case::with_policy(projects(&[("a", 1, Some(2))]), [4]);
    let step = case.submit_as("a", 0, [train(1, 1), train(2, 2), train(3, 1), train(4, 3)]);
    assert_eq!(started(&step), ["t1 on w1:1"]);
    assert_eq!(case.why(T2), "needs 2 slots, project a uses 1 of its quota of 2");
    assert_eq!(case.why(T3), "behind t2, which needs 2 slots");
    assert_eq!(case.why(T4), "needs 3 slots, the quota of project a is 2");
    assert_eq!(started(&case.submit_as("b", 0, [train(5, 3)])), ["t5 on w1:3"]);
    assert_eq!(started(&case.finish(W1, A1, "one")), [""; 0], "three slots are used by the other");
    assert_eq!(started(&case.finish(W1, A2, "five")), ["t2 on w1:2"]);
}

#[test]
fn only_a_worker_that_has_what_a_trial_requires_is_given_it() {
    let mut case = Case::new();
    let cuda =
        |memory_mib| Requirements { device: Some("cuda".to_owned()), memory_mib, ..Requirements::default() };
    let mut plan = plan([train(1, 1), train(2, 1), train(3, 1), train(4, 3)]);
    plan.trials[0].policy.requires = cuda(None);
    plan.trials[1].policy.requires = cuda(Some(40_000));
    plan.trials[3].policy.requires = cuda(None);
    let _ = case.submit_plan(plan);
    let cpu = Traits { device: Some("cpu".to_owned()), ..Traits::default() };
    assert_eq!(started(&labelled(&mut case, 1, 4, cpu)), ["t3 on w1:1"]);
    assert_eq!(case.why(T2), "no worker has what it requires: device cuda, 40000 MiB a slot");
    let small =
        Traits { device: Some("cuda".to_owned()), slot_memory_mib: Some(16_000), ..Traits::default() };
    assert_eq!(started(&labelled(&mut case, 2, 2, small.clone())), ["t1 on w2:1"]);
    assert_eq!(case.why(T4), "needs 3 slots, the workers with device cuda offer 2");
    let large = Traits { slot_memory_mib: Some(40_000), ..small };
    assert_eq!(started(&labelled(&mut case, 3, 1, large)), ["t2 on w3:1"]);
    assert!(case.why(T4).starts_with("needs 3 slots, 1 is free; reserved on w2:2, w3:1"));
}

#[test]
fn workers_near_each_other_are_preferred_and_fewer_workers_even_more() {
    let mut case = Case::new();
    for (worker, slots, rack) in [(1, 2, "a"), (2, 2, "b"), (3, 2, "a"), (4, 2, "b"), (5, 2, "a")] {
        let _ = labelled(&mut case, worker, slots, in_rack(rack));
    }
    assert_eq!(started(&case.submit([train(1, 4)])), ["t1 on w2:2 w4:2"], "rack b is left with the fewest");
    assert_eq!(started(&case.submit([train(2, 6)])), ["t2 on w1:2 w3:2 w5:2"]);
}

#[test]
fn a_trial_avoids_workers_on_which_it_failed() {
    let mut case = Case::with_workers([1, 2, 1]);
    assert_eq!(started(&case.submit([train(1, 1)])), ["t1 on w1:1"]);
    let step = case.end(W1, A1, Err(FailureCause::OutOfMemory));
    assert_eq!(started(&step), ["t1 on w3:1"], "not the same again, and not the larger one");
    let step = case.end(W3, A2, Err(FailureCause::Preempted));
    assert_eq!(started(&step), ["t1 on w3:1"], "to be preempted is no failure of the worker");
}

/// Trials of two lengths have succeeded: 100 ms and 1 s.
fn with_known_durations(slots: u32) -> Case {
    let mut case = Case::with_workers([slots]);
    for (id, (seed, epochs, millis)) in (1..).zip([(101, 1, 100), (102, 9, 1_000)]) {
        let _ = case.submit([long(seed, 1, epochs)]);
        case.wait(millis);
        let _ = case.finish(W1, common::AttemptId(id), &seed.to_string());
    }
    case
}

#[test]
fn held_slots_are_lent_to_what_ends_before_they_are_needed() {
    let mut case = with_known_durations(2);
    let _ = case.submit([long(1, 1, 9)]);
    case.wait(10);
    let step = case.submit([train(2, 2), long(3, 1, 9), long(4, 1, 1), long(5, 1, 77)]);
    assert_eq!(started(&step), ["t6 on w1:1"], "the short one ends in time");
    assert!(case.why(T4).contains("reserved on w1:2; starts in about 1 s"), "{}", case.why(T4));
    case.wait(100);
    let step = case.finish(W1, common::AttemptId(4), "four");
    assert_eq!(started(&step), [""; 0]);
    let late = "needs 1 slot, 1 is free, kept for t4: this one would end about 1 s after that one can start";
    assert_eq!(case.why(TrialId(5)), late);
    let unknown = "kept for t4: no trial like this one has ended yet, so how long it runs is not known";
    assert!(case.why(TrialId(7)).ends_with(unknown), "{}", case.why(TrialId(7)));
    let step = case.finish(W1, A3, "three");
    assert_eq!(started(&step), ["t4 on w1:2"]);
}

#[test]
fn nothing_is_lent_once_the_attempts_that_a_reservation_awaits_have_ended() {
    let mut case = with_known_durations(2);
    let _ = case.submit([long(1, 1, 9)]);
    let _ = case.submit([train(2, 2), long(3, 1, 1)]);
    // What was awaited ends early, and the short one late.
    let _ = case.finish(W1, A3, "three");
    let step = case.submit([long(4, 1, 1)]);
    assert_eq!(started(&step), [""; 0]);
    assert!(case.why(TrialId(6)).ends_with("that one starts as soon as the last slots are back"));
    case.wait(10_000);
    assert_eq!(started(&case.finish(W1, common::AttemptId(4), "four")), ["t4 on w1:2"]);
}

#[test]
fn attempts_of_lower_priority_make_way_and_no_more_than_it_takes() {
    let mut case = Case::with_workers([4]);
    let _ = case.submit([train(1, 2), train(2, 1), train(3, 1)]);
    let step = case.submit_as("default", 1, [train(4, 1)]);
    assert_eq!(asked(&step), [3], "the youngest of those that lose one slot");
    assert_eq!(case.why(T4), "needs 1 slot, which it has when at a checkpoint stop a3");
    let step = case.submit_as("default", 2, [train(5, 1)]);
    assert_eq!(asked(&step), [2], "one slot is coming, and two are wanted");
    assert_eq!(asked(&case.heartbeat(W1, [runs(A1, 1), runs(A2, 1), runs(A3, 1)])), [2, 3], "only repeated");
    let step = case.end(W1, A2, Err(FailureCause::Preempted));
    assert_eq!(started(&step), ["t5 on w1:1"]);
    let step = case.end(W1, A3, Err(FailureCause::Preempted));
    assert_eq!(started(&step), ["t4 on w1:1"]);
}

#[test]
fn nobody_is_asked_in_vain_nor_at_equal_priority_nor_an_evaluation() {
    let mut case = Case::with_workers([2]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.submit([train(1, 1), evaluate([network(1, 1)])]);
    let _ = case.finish(W1, A1, "one");
    let _ = case.submit([train(2, 1)]);
    assert_eq!(asked(&case.submit([train(3, 1)])), [0; 0], "of equal priority");
    let step = case.submit_as("default", 1, [train(4, 2)]);
    assert_eq!(asked(&step), [0; 0], "the evaluation keeps the other slot");
    let step = case.submit_as("default", 1, [train(5, 1)]);
    assert_eq!(asked(&step), [3], "one slot is enough for this one");
}

#[test]
fn a_reservation_gives_way_to_a_higher_priority_only() {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit([train(1, 1), train(2, 2), train(3, 1)]);
    assert!(case.why(T3).contains("kept for t2"));
    let mut urgent = plan([train(4, 1)]);
    urgent.priority = 1;
    assert_eq!(started(&case.submit_plan(urgent)), ["t4 on w2:1"]);
}

/// Once an attempt that a reservation awaits was asked to stop, it is known when that reservation can start, and so what may be
/// lent until then: in the same step, and not at the next input.
#[test]
fn what_a_request_to_stop_lends_is_lent_at_once() {
    let mut case = with_known_durations(1);
    let _ = labelled(&mut case, 1, 1, in_rack("r1"));
    // How long the one on worker 1 takes is not known; that on worker 2 takes 1 s.
    let _ = case.submit([long(3, 1, 7)]);
    let _ = case.hello(W2, 1, []);
    let _ = case.submit([long(4, 1, 9)]);
    let _ = case.hello(W3, 1, []);
    let _ = case.submit([train(5, 3), long(6, 1, 1)]);
    let short = TrialId(6);
    assert!(case.why(short).contains("kept for t5"), "{}", case.why(short));

    let mut urgent = plan([train(7, 1)]);
    urgent.priority = 5;
    urgent.trials[0].policy.requires =
        Requirements { labels: labels([("rack", "r1")]), ..Requirements::default() };
    let step = case.submit_plan(urgent);
    assert_eq!(asked(&step), [case.cluster.trial(T3).unwrap().attempt().unwrap().id.0]);
    assert_eq!(started(&step), ["t6 on w3:1"]);
}
