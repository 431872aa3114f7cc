//! Attempts that are asked to stop at a checkpoint.

use common::FailureCause;
use coordinator_core::{Effect, Input, YieldReason};

use crate::case::*;
use crate::support::{evaluate, network};

const PREEMPTED: FailureCause = FailureCause::Preempted;
const ECHO: FailureCause = FailureCause::CollectiveFailed { rank: 0 };

fn preempt(worker: common::WorkerId) -> Effect {
    Effect::Preempt { worker, attempt: A1 }
}

/// A paused gang of two ranks, one on each of two workers. Both were asked to stop.
fn yielding() -> Case {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit([train(1, 2)]);
    let step = case.handle(Input::PauseTrial { trial: T1 });
    assert_eq!(outline(&step), ["t1 paused", "a1 asked to yield: paused"]);
    assert_eq!(step.effects, [preempt(W1), preempt(W2)]);
    case
}

fn trial(case: &Case) -> &coordinator_core::Trial {
    case.cluster.trial(T1).unwrap()
}

#[test]
fn an_attempt_that_was_asked_to_yield_is_over_when_every_share_is() {
    let mut case = yielding();
    let step = case.end(W2, A1, Err(PREEMPTED));
    assert_eq!((step.events, step.effects), (vec![], vec![]), "rank 0 may still store its checkpoint");
    assert_eq!(outline(&case.commit(W1, A1, checkpoint(10, "ten"))), ["t1 committed 10"]);
    let step = case.end(W1, A1, Err(PREEMPTED));
    assert_eq!(outline(&step), ["a1 failed: preempted"]);
    assert_eq!(step.effects, [release(W1, A1), release(W2, A1)]);
    assert_eq!((trial(&case).counted_failures, trial(&case).attempts), (0, 1));
    assert_eq!(trial(&case).restore().next(), Some(&checkpoint(10, "ten")));
}

#[test]
fn an_attempt_is_asked_once_and_its_workers_until_they_have_heard() {
    let mut case = yielding();
    assert_eq!(case.handle(Input::PauseTrial { trial: T1 }).events, []);
    assert_eq!(case.heartbeat(W2, [runs(A1, 0)]).effects, [preempt(W2)]);
    assert_eq!(case.heartbeat(W2, [runs(A1, 0)]).effects, [preempt(W2)]);
    let step = case.end(W2, A1, Err(PREEMPTED));
    assert_eq!(step.events, []);
    assert_eq!(case.heartbeat(W2, [ended(A1, Err(PREEMPTED))]).effects, []);
}

#[test]
fn an_attempt_that_was_never_launched_is_launched_and_asked() {
    let mut case = yielding();
    let step = case.heartbeat(W2, []);
    assert!(matches!(step.effects[..], [Effect::Launch { attempt: A1, .. }, Effect::Preempt { .. }]));
}

#[test]
fn a_restarted_coordinator_remembers_whom_it_asked() {
    let mut case = yielding();
    case.restart();
    assert_eq!(case.hello(W1, 1, [runs(A1, 5)]).effects, [preempt(W1)]);
    let _ = case.hello(W2, 1, [ended(A1, Err(PREEMPTED))]);
    assert_eq!(outline(&case.end(W1, A1, Err(PREEMPTED))), ["a1 failed: preempted"]);
}

#[test]
fn an_attempt_that_was_done_before_it_could_stop_has_succeeded() {
    let mut case = yielding();
    let _ = case.end(W2, A1, Err(PREEMPTED));
    let _ = case.commit(W1, A1, checkpoint(100, "network"));
    assert_eq!(outline(&case.end(W1, A1, success())), ["t1 succeeded"]);
}

#[test]
fn a_rank_that_fails_because_its_peer_stopped_is_not_held_against_the_trial() {
    for first in [W1, W2] {
        let mut case = yielding();
        let (end, other) = if first == W1 { (ECHO, PREEMPTED) } else { (PREEMPTED, ECHO) };
        let _ = case.end(W1, A1, Err(end));
        let step = case.end(W2, A1, Err(other));
        assert_eq!(outline(&step), ["a1 failed: preempted"]);
    }
    let mut case = yielding();
    let _ = case.end(W1, A1, Err(PREEMPTED));
    let _ = case.end(W2, A1, Err(PREEMPTED));
    assert_eq!(trial(&case).counted_failures, 0);
}

#[test]
fn a_rank_that_fails_while_it_stops_has_failed() {
    let mut case = yielding();
    let step = case.end(W1, A1, Err(FailureCause::OutOfMemory));
    assert_eq!(outline(&step), ["a1 failed: out of memory"]);
    assert_eq!(trial(&case).counted_failures, 1);
}

#[test]
fn a_worker_that_stops_a_share_unasked_stops_the_attempt() {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit([train(1, 2)]);
    let step = case.end(W2, A1, Err(PREEMPTED));
    assert_eq!(outline(&step), ["a1 failed: preempted", "a2 of t1 started on w1:1 w2:1"]);
}

#[test]
fn an_attempt_that_does_not_stop_in_time_is_stopped_if_its_user_still_wants_that() {
    let mut case = yielding();
    case.wait(40);
    let _ = case.heartbeat(W1, [runs(A1, 1)]);
    let _ = case.heartbeat(W2, [runs(A1, 1)]);
    for now in 2..6 {
        case.wait(40);
        let step = case.heartbeat(W2, [runs(A1, now)]);
        let _ = case.heartbeat(W1, if step.events.is_empty() { vec![runs(A1, now)] } else { vec![] });
        let expected: &[&str] = if now < 5 { &[] } else { &["a1 failed: preempted"] };
        assert_eq!(outline(&step), expected);
    }
    let mut case = yielding();
    let _ = case.handle(Input::ResumeTrial { trial: T1 });
    case.wait(10_000);
    assert_eq!(case.heartbeat(W1, [runs(A1, 1)]).effects, [preempt(W1)]);
}

#[test]
fn the_time_to_stop_in_starts_again_with_a_session_that_may_not_have_heard() {
    let mut case = yielding();
    let _ = case.handle(Input::Disconnected { worker: W1 });
    case.wait(10_000);
    assert_eq!(case.hello(W1, 1, [runs(A1, 1)]).events, []);
    case.wait(199);
    assert_eq!(case.heartbeat(W1, [runs(A1, 2)]).events, []);
    case.wait(1);
    assert_eq!(outline(&case.heartbeat(W1, [runs(A1, 3)])), ["a1 failed: preempted"]);
}

#[test]
fn silence_stops_nothing_that_yields() {
    let mut case = yielding();
    case.restart();
    case.wait(10_000);
    assert_eq!(case.hello(W1, 1, [runs(A1, 1)]).effects, [preempt(W1)]);
}

#[test]
fn an_evaluation_has_nothing_to_save_and_is_stopped_at_once() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), evaluate([network(1, 1)])]);
    let _ = case.finish(W1, A1, "network");
    let step = case.handle(Input::PauseTrial { trial: T2 });
    assert_eq!(outline(&step), ["t2 paused", "a2 failed: preempted"]);
    assert_eq!(step.effects, [release(W1, A2)]);
}

#[test]
fn a_reason_says_whether_somebody_insists() {
    let reasons = [
        (YieldReason::Preempted { by: T2 }, false, "t2 goes first"),
        (YieldReason::Paused, true, "paused"),
        (YieldReason::Draining { worker: W1 }, true, "w1 is to run nothing any more"),
        (YieldReason::Resized { to: 2 }, false, "goes on with 2 ranks"),
    ];
    for (reason, insists, text) in reasons {
        assert_eq!((reason.insists(), reason.to_string().as_str()), (insists, text));
    }
}
