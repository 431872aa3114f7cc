use common::FailureCause;
use common::result::TrialResult;
use coordinator_core::{Effect, Input, Outcome, Reject};

use crate::case::*;
use crate::support::{evaluate, network, plan_with};

const EXIT: FailureCause = FailureCause::TrainerExit { code: 1 };
const ECHO: FailureCause = FailureCause::CollectiveFailed { rank: 0 };

/// A gang of two ranks, one on each of two workers.
fn gang() -> Case {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit([train(1, 2)]);
    case
}

fn told(worker: common::WorkerId, address: &str) -> Effect {
    Effect::Rendezvous { worker, attempt: A1, address: address.to_owned() }
}

#[test]
fn a_gang_has_succeeded_when_its_last_share_has() {
    let mut case = gang();
    let _ = case.commit(W1, A1, checkpoint(100, "network"));
    let step = case.end(W1, A1, success());
    assert_eq!((step.events, step.effects), (vec![], vec![]));
    let step = case.end(W2, A1, Ok(None));
    assert_eq!(outline(&step), ["t1 succeeded"]);
    assert_eq!(step.effects, [release(W1, A1), release(W2, A1)]);
    assert_eq!(case.cluster.trial(T1).unwrap().result(), Some(&result()));
}

#[test]
fn the_result_is_that_of_rank_0_in_whatever_order_the_shares_end() {
    let mut case = gang();
    let _ = case.commit(W1, A1, checkpoint(100, "network"));
    let _ = case.end(W2, A1, Ok(Some(TrialResult::default())));
    let _ = case.end(W1, A1, success());
    assert_eq!(case.cluster.trial(T1).unwrap().result(), Some(&result()));
}

#[test]
fn a_share_that_says_twice_that_it_ended_counts_once() {
    let mut case = gang();
    let _ = case.commit(W1, A1, checkpoint(100, "network"));
    let _ = case.end(W1, A1, success());
    assert_eq!(case.end(W1, A1, success()).events, []);
    assert_eq!(case.heartbeat(W1, [ended(A1, success())]).events, []);
}

#[test]
fn an_end_that_only_a_restarted_coordinator_had_heard_of_is_told_again() {
    let mut case = gang();
    let _ = case.commit(W1, A1, checkpoint(100, "network"));
    let _ = case.end(W1, A1, success());
    case.restart();
    let _ = case.hello(W2, 1, [ended(A1, Ok(None))]);
    assert_eq!(outline(&case.hello(W1, 1, [ended(A1, success())])), ["t1 succeeded"]);
}

#[test]
fn the_first_share_that_fails_ends_the_attempt_everywhere() {
    let mut case = gang();
    let step = case.end(W2, A1, Err(EXIT));
    assert_eq!(
        outline(&step),
        ["a1 failed: a trainer exited with status 1", "a2 of t1 started on w1:1 w2:1"]
    );
    assert_eq!(step.effects[..2], [release(W1, A1), release(W2, A1)]);
}

#[test]
fn messages_of_an_old_attempt_change_nothing() {
    let mut case = gang();
    let _ = case.end(W2, A1, Err(EXIT));
    let step = case.end(W1, A1, success());
    assert_eq!((step.events, step.effects), (vec![], vec![release(W1, A1)]));
    let stale = Reject::StaleAttempt(A1);
    let address = "node-1:29500".to_owned();
    assert_eq!(case.refuse(Input::RendezvousOpened { worker: W1, attempt: A1, address }), stale);
    let checkpoint = checkpoint(5, "late");
    assert_eq!(case.refuse(Input::CheckpointCommitted { worker: W1, attempt: A1, checkpoint }), stale);
    let digest = common::Digest::of(b"late");
    assert_eq!(case.refuse(Input::CheckpointDamaged { attempt: A1, digest }), stale);
    assert!(!case.cluster.is_current(A1, W1));
    assert!(case.cluster.is_current(A2, W1));
}

#[test]
fn a_worker_cannot_speak_for_a_gang_that_it_has_no_share_of() {
    let mut case = Case::with_workers([1, 1, 1]);
    let _ = case.submit([train(1, 2)]);
    let outsider = common::WorkerId(3);
    let step = case.end(outsider, A1, Err(EXIT));
    assert_eq!((step.events, step.effects), (vec![], vec![release(outsider, A1)]));
    let checkpoint = checkpoint(5, "forged");
    let commit = Input::CheckpointCommitted { worker: outsider, attempt: A1, checkpoint };
    assert_eq!(case.refuse(commit), Reject::StaleAttempt(A1));
}

#[test]
fn a_trial_is_given_up_after_more_failures_than_its_policy_forgives() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit_plan(plan_with(1, [train(1, 1)]));
    let _ = case.end(W1, A1, Err(EXIT));
    let step = case.end(W1, A2, Err(FailureCause::OutOfMemory));
    assert_eq!(outline(&step), ["a2 failed: out of memory", "t1 failed: out of memory"]);
    let causes: Vec<_> = case.cluster.trial(T1).unwrap().failures.iter().map(|f| f.cause.clone()).collect();
    assert_eq!(causes, [EXIT, FailureCause::OutOfMemory]);
}

#[test]
fn lost_workers_cost_a_trial_nothing() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit_plan(plan_with(0, [train(1, 1)]));
    for _ in 0..5 {
        let _ = case.hello(W1, 1, []);
    }
    let trial = case.cluster.trial(T1).unwrap();
    assert_eq!((trial.attempts, trial.counted_failures, trial.has_ended()), (6, 0, false));
}

#[test]
fn a_failure_that_would_repeat_itself_is_final() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let cause = FailureCause::NonFiniteLoss { step: 12 };
    let _ = case.end(W1, A1, Err(cause.clone()));
    assert_eq!(case.cluster.trial(T1).unwrap().outcome(), Some(&Outcome::Failed { cause }));
}

#[test]
fn a_success_without_a_result_is_a_failure() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.commit(W1, A1, checkpoint(100, "network"));
    let step = case.end(W1, A1, Ok(None));
    assert_eq!(outline(&step)[0], "a1 failed: a trainer exited with status 0");
}

#[test]
fn a_network_that_left_no_checkpoint_was_not_trained() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    assert_eq!(outline(&case.end(W1, A1, success()))[0], "a1 failed: a trainer exited with status 0");
}

#[test]
fn a_collective_that_fails_because_a_peer_was_lost_is_not_held_against_the_trial() {
    let mut case = gang();
    case.wait(10);
    let _ = case.heartbeat(W1, [runs(A1, 0)]);
    let step = case.end(W1, A1, Err(ECHO));
    assert_eq!((step.events, step.effects), (vec![], vec![]));
    case.wait(40);
    assert_eq!(outline(&case.handle(Input::Tick)), ["a1 failed: a worker was lost", "w2 lost"]);
    assert_eq!(case.cluster.trial(T1).unwrap().counted_failures, 0);
}

#[test]
fn a_collective_that_fails_because_a_peer_failed_has_the_peers_cause() {
    let mut case = gang();
    let _ = case.end(W1, A1, Err(ECHO));
    let step = case.end(W2, A1, Err(FailureCause::NonFiniteLoss { step: 3 }));
    assert_eq!(outline(&step)[0], "a1 failed: the loss was not finite at step 3");
}

#[test]
fn a_collective_that_fails_on_every_worker_is_the_cause() {
    let mut case = gang();
    let _ = case.end(W1, A1, Err(ECHO));
    let step = case.end(W2, A1, Err(FailureCause::CollectiveFailed { rank: 1 }));
    assert_eq!(outline(&step)[0], "a1 failed: a collective failed on rank 0");
}

#[test]
fn a_collective_whose_failure_nothing_explains_within_a_lease_is_the_cause() {
    let mut case = gang();
    let _ = case.end(W1, A1, Err(ECHO));
    case.wait(30);
    for worker in [W1, W2] {
        let report = if worker == W1 { ended(A1, Err(ECHO)) } else { runs(A1, 0) };
        assert_eq!(case.heartbeat(worker, [report]).events, []);
    }
    assert_eq!(case.cluster.next_deadline(), Some(coordinator_core::Millis(1_050)));
    case.wait(20);
    assert_eq!(outline(&case.handle(Input::Tick))[0], "a1 failed: a collective failed on rank 0");
    assert_eq!(case.cluster.trial(T1).unwrap().counted_failures, 1);
}

#[test]
fn the_address_of_rank_0_is_passed_on_once_and_to_the_others_only() {
    let mut case = gang();
    let address = "node-1:29500".to_owned();
    let opened = Input::RendezvousOpened { worker: W1, attempt: A1, address };
    assert_eq!(case.handle(opened.clone()).effects, [told(W2, "node-1:29500")]);
    assert_eq!(case.handle(opened).effects, []);
    assert_eq!(case.heartbeat(W1, [hosts(A1, "node-1:29500")]).effects, []);
}

#[test]
fn an_address_that_was_lost_on_the_way_is_told_again_until_the_first_step() {
    let mut case = gang();
    let _ = case.heartbeat(W1, [hosts(A1, "node-1:29500")]);
    assert_eq!(case.heartbeat(W2, [runs(A1, 0)]).effects, [told(W2, "node-1:29500")]);
    let _ = case.heartbeat(W1, [runs(A1, 1)]);
    assert_eq!(case.heartbeat(W2, [runs(A1, 0)]).effects, []);
}

#[test]
fn an_address_from_another_rank_is_not_passed_on() {
    let mut case = gang();
    let address = "node-2:29500".to_owned();
    assert_eq!(case.handle(Input::RendezvousOpened { worker: W2, attempt: A1, address }).effects, []);
}

#[test]
fn an_attempt_without_a_new_step_for_too_long_has_stalled() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.heartbeat(W1, [runs(A1, 5)]);
    case.wait(399);
    assert_eq!(case.heartbeat(W1, [runs(A1, 5)]).events, []);
    case.wait(1);
    assert_eq!(outline(&case.heartbeat(W1, [runs(A1, 5)]))[0], "a1 failed: no progress");
}

#[test]
fn an_attempt_that_makes_steps_has_not_stalled() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    for step in 1..10 {
        case.wait(399);
        assert_eq!(case.heartbeat(W1, [runs(A1, step)]).events, []);
    }
    assert_eq!(case.cluster.reported_step(T1), Some(9));
}

#[test]
fn an_attempt_that_reports_no_steps_never_stalls() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.finish(W1, A1, "network");
    let _ = case.submit([train(1, 1), evaluate([network(1, 1)])]);
    let _ = case.heartbeat(W1, [runs(A2, 0)]);
    case.wait(10_000);
    assert_eq!(case.heartbeat(W1, [runs(A2, 0)]).events, []);
}

#[test]
fn silence_is_no_stall() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.heartbeat(W1, [runs(A1, 5)]);
    case.wait(10_000);
    assert_eq!(case.heartbeat(W1, [runs(A1, 6)]).events, []);
}
