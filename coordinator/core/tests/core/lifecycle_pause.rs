//! Pauses of trials and experiments.

use common::FailureCause;
use coordinator_core::{Counts, Input, Reject};

use crate::case::*;
use crate::support::{evaluate, network};

fn why(case: &Case, trial: common::TrialId) -> Option<String> {
    case.cluster.explain(trial).map(|reason| reason.to_string())
}

/// Stops the attempt of a worker that was asked to.
fn stop(case: &mut Case, attempt: common::AttemptId) -> Vec<String> {
    outline(&case.end(W1, attempt, Err(FailureCause::Preempted)))
}

#[test]
fn a_paused_trial_leaves_its_place_and_comes_back_to_it() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.submit([train(2, 1), train(3, 1)]);
    assert_eq!(outline(&case.handle(Input::PauseTrial { trial: T2 })), ["t2 paused"]);
    assert_eq!(why(&case, T2).unwrap(), "paused by its name");
    assert_eq!(case.cluster.counts(E2), Some(Counts { paused: 1, queued: 1, ..Counts::default() }));
    assert_eq!(case.cluster.counts(E2).unwrap().open(), 2);
    case.restart();
    let _ = case.hello(W1, 1, [runs(A1, 1)]);
    assert_eq!(outline(&case.handle(Input::ResumeTrial { trial: T2 })), ["t2 resumed"]);
    assert_eq!(outline(&case.finish(W1, A1, "one"))[2..], Vec::<String>::new());
    assert!(case.cluster.trial(T2).unwrap().attempt().is_some(), "it is older than t3");
}

#[test]
fn a_paused_trial_that_runs_stops_and_goes_on_from_its_checkpoint_when_resumed() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), train(2, 1)]);
    let _ = case.handle(Input::PauseTrial { trial: T1 });
    let _ = case.commit(W1, A1, checkpoint(10, "ten"));
    assert_eq!(stop(&mut case, A1), ["a1 failed: preempted", "a2 of t2 started on w1:1"]);
    assert_eq!(case.cluster.counts(E1), Some(Counts { paused: 1, running: 1, ..Counts::default() }));
    let _ = case.finish(W1, A2, "two");
    let step = case.handle(Input::ResumeTrial { trial: T1 });
    assert_eq!(outline(&step), ["t1 resumed", "a3 of t1 started on w1:1"]);
    assert_eq!(case.cluster.trial(T1).unwrap().restore().next(), Some(&checkpoint(10, "ten")));
}

#[test]
fn what_needs_a_paused_trial_waits() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), evaluate([network(1, 1)])]);
    let _ = case.handle(Input::PauseTrial { trial: T1 });
    let _ = stop(&mut case, A1);
    assert_eq!(why(&case, T2).unwrap(), "waits for t1");
    // A pause of what waits holds it back, too.
    let _ = case.handle(Input::PauseTrial { trial: T2 });
    let _ = case.handle(Input::ResumeTrial { trial: T1 });
    assert_eq!(outline(&case.finish(W1, A2, "network")), ["t1 succeeded"]);
    assert_eq!(why(&case, T2).unwrap(), "paused by its name");
}

#[test]
fn a_paused_experiment_stops_what_nobody_else_wants() {
    let mut case = Case::with_workers([2]);
    let _ = case.submit([train(1, 1), train(2, 1), train(3, 1)]);
    let _ = case.submit([train(2, 1)]);
    let step = case.handle(Input::PauseExperiment { experiment: E1 });
    assert_eq!(outline(&step), ["e1 paused", "a1 asked to yield: paused"]);
    assert_eq!(why(&case, T3).unwrap(), "paused with e1");
    assert_eq!(case.handle(Input::PauseExperiment { experiment: E1 }).events, []);

    let step = case.handle(Input::PauseExperiment { experiment: E2 });
    assert_eq!(outline(&step), ["e2 paused", "a2 asked to yield: paused"]);
    let _ = stop(&mut case, A2);
    assert_eq!(why(&case, T2).unwrap(), "paused with e1 and with e2");
    let step = case.handle(Input::ResumeExperiment { experiment: E2 });
    assert_eq!(outline(&step), ["e2 resumed", "a3 of t2 started on w1:1"]);
    let _ = stop(&mut case, A1);
    let step = case.handle(Input::ResumeExperiment { experiment: E1 });
    assert_eq!(outline(&step), ["e1 resumed", "a4 of t1 started on w1:1"]);
}

#[test]
fn a_pause_by_name_holds_for_every_experiment() {
    let mut case = Case::new();
    let _ = case.submit([train(1, 1)]);
    let _ = case.handle(Input::PauseTrial { trial: T1 });
    let _ = case.submit([train(1, 1)]);
    let _ = case.handle(Input::PauseExperiment { experiment: E1 });
    assert_eq!(why(&case, T1).unwrap(), "paused by its name");
    let _ = case.handle(Input::PauseExperiment { experiment: E2 });
    assert_eq!(why(&case, T1).unwrap(), "paused by its name and with e1 and with e2");
    let _ = case.handle(Input::ResumeTrial { trial: T1 });
    assert_eq!(why(&case, T1).unwrap(), "paused with e1 and with e2");
}

#[test]
fn an_experiment_that_is_not_paused_takes_up_the_trials_of_one_that_is() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.submit([train(2, 1)]);
    let _ = case.handle(Input::PauseExperiment { experiment: E2 });
    let _ = case.finish(W1, A1, "one");
    assert_eq!(why(&case, T2).unwrap(), "paused with e2");
    let step = case.submit([train(2, 1)]);
    assert_eq!(outline(&step), ["e3 submitted", "a2 of t2 started on w1:1"]);
    // And back, when the one that was not paused wants it no more.
    let step = case.handle(Input::CancelExperiment { experiment: common::ExperimentId(3) });
    assert_eq!(outline(&step), ["e3 cancelled", "a2 asked to yield: paused"]);
    let _ = stop(&mut case, A2);
    assert_eq!(why(&case, T2).unwrap(), "paused with e2");
}

#[test]
fn what_is_paused_can_be_cancelled_and_submitted_again() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), evaluate([network(1, 1)])]);
    let _ = case.handle(Input::PauseTrial { trial: T2 });
    let _ = case.handle(Input::PauseTrial { trial: T1 });
    let step = case.handle(Input::CancelTrial { trial: T1 });
    assert_eq!(outline(&step), ["t1 cancelled", "t2 needs t1, which ended without success"]);
    assert_eq!(case.refuse(Input::PauseTrial { trial: T1 }), Reject::TrialEnded(T1));
    assert_eq!(case.refuse(Input::ResumeTrial { trial: T1 }), Reject::TrialEnded(T1));
    let step = case.submit([train(1, 1)]);
    assert_eq!(outline(&step), ["t1 resubmitted", "e2 submitted", "a2 of t1 started on w1:1"]);
}

#[test]
fn who_never_was_cannot_be_paused() {
    let mut case = Case::new();
    assert_eq!(case.refuse(Input::PauseTrial { trial: T1 }), Reject::UnknownTrial(T1));
    assert_eq!(case.refuse(Input::ResumeExperiment { experiment: E1 }), Reject::UnknownExperiment(E1));
    assert_eq!(case.refuse(Input::PauseExperiment { experiment: E1 }), Reject::UnknownExperiment(E1));
    let _ = case.submit([train(1, 1)]);
    let _ = case.handle(Input::CancelExperiment { experiment: E1 });
    assert_eq!(case.handle(Input::PauseExperiment { experiment: E1 }).events, []);
}
