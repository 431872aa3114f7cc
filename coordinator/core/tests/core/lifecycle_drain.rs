//! Workers that their operators take out of service.

use common::FailureCause;
use coordinator_core::{Input, Reject, WaitReason, YieldReason};

use crate::case::*;
use crate::support::{evaluate, network};

fn drain(worker: common::WorkerId, now: bool) -> Input {
    Input::Drain { worker, now, reason: "new disk".to_owned() }
}

fn started(case: &mut Case, input: Input) -> Vec<String> {
    outline(&case.handle(input))
}

#[test]
fn a_drained_worker_ends_what_it_runs_and_is_given_nothing_new() {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit([train(1, 1), train(2, 1), train(3, 1)]);
    assert_eq!(started(&mut case, drain(W1, false)), ["w1 drained: new disk"]);
    assert_eq!(outline(&case.finish(W1, A1, "one")), ["t1 succeeded"]);
    assert_eq!(outline(&case.finish(W2, A2, "two")).last().unwrap(), "a3 of t3 started on w2:1");
    let view = case.cluster.worker(W1).unwrap();
    assert_eq!((view.drain.unwrap().reason.as_str(), view.used, view.quarantine), ("new disk", 0, None));
    assert_eq!(case.cluster.worker(W2).unwrap().drain, None);
}

#[test]
fn a_worker_that_is_drained_now_stops_what_it_runs_at_a_checkpoint() {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit([train(1, 2)]);
    let _ = case.submit([train(2, 1)]);
    let step = case.handle(drain(W2, true));
    assert_eq!(outline(&step), ["w2 drained: new disk", "a1 asked to yield: w2 is to run nothing any more"]);
    assert_eq!(step.effects.len(), 2);
    let reason = case.cluster.trial(T1).unwrap().attempt().unwrap().yielding.unwrap().reason;
    assert_eq!(reason, YieldReason::Draining { worker: W2 });
    let _ = case.end(W2, A1, Err(FailureCause::Preempted));
    let step = case.end(W1, A1, Err(FailureCause::Preempted));
    assert_eq!(outline(&step), ["a1 failed: preempted", "a2 of t2 started on w1:1"]);
}

#[test]
fn a_drain_may_become_urgent() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), evaluate([network(1, 1)])]);
    let _ = case.handle(drain(W1, false));
    assert_eq!(case.handle(drain(W1, false)).events, []);
    assert_eq!(started(&mut case, drain(W1, true)), ["a1 asked to yield: w1 is to run nothing any more"]);
    case.wait(199);
    assert_eq!(case.heartbeat(W1, [runs(A1, 1)]).events, []);
    case.wait(1);
    assert_eq!(outline(&case.heartbeat(W1, [runs(A1, 1)])), ["a1 failed: preempted"]);
}

#[test]
fn an_attempt_on_a_worker_that_is_back_in_service_may_take_its_time_to_stop() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.handle(drain(W1, true));
    let _ = case.handle(Input::Undrain { worker: W1 });
    case.wait(390);
    assert_eq!(case.heartbeat(W1, [runs(A1, 1)]).events, []);
}

#[test]
fn a_drain_outlives_the_membership_and_the_coordinator() {
    let mut case = Case::with_workers([1]);
    let _ = case.handle(drain(W1, false));
    let _ = case.submit([train(1, 1)]);
    case.wait(50);
    assert_eq!(outline(&case.handle(Input::Tick)), ["w1 lost"]);
    assert_eq!(case.cluster.drained().map(|(worker, _)| worker).collect::<Vec<_>>(), [W1]);
    assert_eq!(case.handle(drain(W1, true)).events, []);
    case.restart();
    assert_eq!(outline(&case.hello(W1, 1, [])), ["w1 joined with 1"]);
    assert_eq!(case.cluster.worker(W1).unwrap().used, 0);
    let _ = case.handle(Input::WorkerLeft { worker: W1 });
    assert_eq!(outline(&case.hello(W1, 2, [])), ["w1 joined with 2"]);
    let step = case.handle(Input::Undrain { worker: W1 });
    assert_eq!(outline(&step), ["w1 undrained", "a1 of t1 started on w1:1"]);
    assert_eq!(case.cluster.drained().count(), 0);
}

#[test]
fn a_waiting_trial_is_told_that_workers_are_out_of_service() {
    let mut case = Case::with_workers([1, 2]);
    let _ = case.handle(drain(W1, false));
    let _ = case.handle(drain(W2, false));
    let _ = case.submit([train(1, 1)]);
    let why = case.cluster.explain(T1).unwrap();
    assert_eq!(why, WaitReason::OutOfService(vec![W1, W2]));
    assert_eq!(why.to_string(), "all that is connected is drained or quarantined: w1, w2");
}

#[test]
fn slots_that_are_out_of_service_are_not_waited_for() {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.handle(drain(W2, false));
    let step = case.submit([train(1, 2), train(2, 1)]);
    assert_eq!(outline(&step).last().unwrap(), "a1 of t2 started on w1:1", "the wide one holds up nobody");
    let step = case.handle(Input::Undrain { worker: W2 });
    assert_eq!(outline(&step), ["w2 undrained"], "now it does");
}

#[test]
fn draining_again_changes_the_reason() {
    let mut case = Case::with_workers([1]);
    let _ = case.handle(drain(W1, false));
    let again = Input::Drain { worker: W1, now: false, reason: "new kernel".to_owned() };
    assert_eq!(started(&mut case, again), ["w1 drained: new kernel"]);
    assert_eq!(started(&mut case, Input::Undrain { worker: W1 }), ["w1 undrained"]);
    assert_eq!(case.handle(Input::Undrain { worker: W1 }).events, []);
}

#[test]
fn a_worker_that_nobody_knows_cannot_be_drained() {
    let mut case = Case::with_workers([1]);
    assert_eq!(case.refuse(drain(W2, false)), Reject::NoSuchWorker(W2));
    assert_eq!(case.refuse(Input::Undrain { worker: W2 }), Reject::NoSuchWorker(W2));
}
