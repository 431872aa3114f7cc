use common::FailureCause;
use coordinator_core::{Counts, Input, Outcome, Phase};

use crate::case::*;
use crate::support::{evaluate, network, plan_with};

const NAN: FailureCause = FailureCause::NonFiniteLoss { step: 7 };

fn phase(case: &Case, trial: common::TrialId) -> &Phase {
    &case.cluster.trial(trial).unwrap().phase
}

#[test]
fn an_evaluation_runs_when_the_last_of_its_networks_is_trained() {
    let mut case = Case::with_workers([2]);
    let _ = case.submit([train(1, 1), train(2, 1), evaluate([network(1, 1), network(2, 1)])]);
    assert_eq!(outline(&case.finish(W1, A1, "one")), ["t1 succeeded"]);
    assert_eq!(phase(&case, T3), &Phase::Waiting);
    assert_eq!(outline(&case.finish(W1, A2, "two")), ["t2 succeeded", "a3 of t3 started on w1:1"]);
}

#[test]
fn an_evaluation_is_given_its_networks_in_the_order_of_its_ensemble() {
    let mut case = Case::with_workers([2]);
    let ensemble = || [network(2, 1), network(1, 1), network(2, 1)];
    let _ = case.submit([train(1, 1), train(2, 1), evaluate(ensemble())]);
    let _ = case.finish(W1, A1, "one");
    let _ = case.finish(W1, A2, "two");
    let networks: Vec<_> = case.cluster.networks(T3).map(|(key, held)| (key, held.digest)).collect();
    let digest = |text: &str| common::Digest::of(text.as_bytes());
    let [one, two] = [(train(1, 1).key(), digest("one")), (train(2, 1).key(), digest("two"))];
    assert_eq!(networks, [two, one, two]);
}

#[test]
fn an_evaluation_of_trained_networks_is_queued_at_once() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.finish(W1, A1, "network");
    let step = case.submit([train(1, 1), evaluate([network(1, 1)])]);
    assert_eq!(outline(&step), ["t2 submitted", "e2 submitted", "a2 of t2 started on w1:1"]);
}

#[test]
fn an_evaluation_whose_network_fails_for_good_ends_and_names_it() {
    let mut case = Case::with_workers([2]);
    let _ = case.submit([train(1, 1), train(2, 1), evaluate([network(1, 1), network(2, 1)])]);
    let step = case.end(W1, A2, Err(NAN));
    assert_eq!(
        outline(&step),
        [
            "a2 failed: the loss was not finite at step 7",
            "t2 failed: the loss was not finite at step 7",
            "t3 needs t2, which ended without success",
        ]
    );
    assert_eq!(case.cluster.counts(E1), Some(Counts { running: 1, failed: 2, ..Counts::default() }));
}

#[test]
fn a_failure_that_is_tried_again_keeps_evaluations_waiting() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), evaluate([network(1, 1)])]);
    let step = case.end(W1, A1, Err(FailureCause::OutOfMemory));
    assert_eq!(outline(&step), ["a1 failed: out of memory", "a2 of t1 started on w1:1"]);
    assert_eq!(phase(&case, T2), &Phase::Waiting);
}

#[test]
fn an_evaluation_waits_again_when_it_is_submitted_again_with_its_network() {
    let mut case = Case::with_workers([1]);
    let trials = || plan_with(0, [train(1, 1), evaluate([network(1, 1)])]);
    let _ = case.submit_plan(trials());
    let _ = case.end(W1, A1, Err(NAN));
    let step = case.submit_plan(trials());
    assert_eq!(
        outline(&step),
        ["t1 resubmitted", "t2 resubmitted", "e2 submitted", "a2 of t1 started on w1:1"]
    );
    assert_eq!(phase(&case, T2), &Phase::Waiting);
    let _ = case.finish(W1, A2, "network");
    let _ = case.end(W1, A3, success());
    assert_eq!(case.cluster.counts(E1), Some(Counts { succeeded: 2, ..Counts::default() }));
}

#[test]
fn a_network_that_is_submitted_again_alone_does_not_bring_its_evaluations_back() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit_plan(plan_with(0, [train(1, 1), evaluate([network(1, 1)])]));
    let _ = case.end(W1, A1, Err(NAN));
    let _ = case.submit([train(1, 1)]);
    assert_eq!(case.cluster.trial(T2).unwrap().outcome(), Some(&Outcome::NeedFailed { need: T1 }));
}

#[test]
fn a_cancelled_network_ends_the_evaluations_that_wait_for_it() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), evaluate([network(1, 1)])]);
    let step = case.handle(Input::CancelTrial { trial: T1 });
    assert_eq!(outline(&step), ["t1 cancelled", "t2 needs t1, which ended without success"]);
}
