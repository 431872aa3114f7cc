use coordinator_core::{Counts, Input, Reject};

use crate::case::*;
use crate::support::{evaluate, network};

#[test]
fn a_cancelled_experiment_releases_what_runs_and_frees_its_slots() {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit([train(1, 2), evaluate([network(1, 2)])]);
    let _ = case.submit([train(2, 1)]);
    let step = case.handle(Input::CancelExperiment { experiment: E1 });
    assert_eq!(outline(&step), ["e1 cancelled", "t2 cancelled", "t1 cancelled", "a2 of t3 started on w1:1"]);
    assert_eq!(step.effects[..2], [release(W1, A1), release(W2, A1)]);
}

#[test]
fn a_trial_that_another_experiment_wants_survives() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), train(2, 1)]);
    let _ = case.submit([train(1, 1)]);
    let step = case.handle(Input::CancelExperiment { experiment: E1 });
    assert_eq!(outline(&step), ["e1 cancelled", "t2 cancelled"]);
    assert_eq!(step.effects, []);
    let step = case.handle(Input::CancelExperiment { experiment: E2 });
    assert_eq!(outline(&step), ["e2 cancelled", "t1 cancelled"]);
}

#[test]
fn an_experiment_whose_trial_had_ended_does_not_keep_it_when_it_runs_again_for_another() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.handle(Input::CancelTrial { trial: T1 });
    let _ = case.submit([train(1, 1)]);
    let step = case.handle(Input::CancelExperiment { experiment: E2 });
    assert_eq!(outline(&step), ["e2 cancelled", "t1 cancelled"]);
}

#[test]
fn cancelling_twice_changes_nothing() {
    let mut case = Case::new();
    let _ = case.submit([train(1, 1), train(2, 1)]);
    let _ = case.handle(Input::CancelTrial { trial: T1 });
    assert_eq!(case.handle(Input::CancelTrial { trial: T1 }).events, []);
    let _ = case.handle(Input::CancelExperiment { experiment: E1 });
    assert_eq!(case.handle(Input::CancelExperiment { experiment: E1 }).events, []);
    assert_eq!(case.cluster.counts(E1), Some(Counts { cancelled: 2, ..Counts::default() }));
}

#[test]
fn what_ended_or_never_was_cannot_be_cancelled() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.finish(W1, A1, "network");
    assert_eq!(case.refuse(Input::CancelTrial { trial: T1 }), Reject::TrialEnded(T1));
    assert_eq!(case.refuse(Input::CancelTrial { trial: T2 }), Reject::UnknownTrial(T2));
    assert_eq!(case.refuse(Input::CancelExperiment { experiment: E2 }), Reject::UnknownExperiment(E2));
}

#[test]
fn a_result_that_comes_after_the_cancellation_is_acknowledged_and_dropped() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.handle(Input::CancelTrial { trial: T1 });
    let step = case.end(W1, A1, success());
    assert_eq!(step.events, []);
    assert_eq!(step.effects, [release(W1, A1)]);
}
