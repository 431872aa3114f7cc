//! Trials whose attempts lose one worker after the other.

use common::FailureCause;
use coordinator_core::{Input, Outcome, Policy};

use crate::case::*;
use crate::support::policy;

/// A trial is given up after five lost workers.
fn training() -> Case {
    let limits = Policy { max_workers_lost: Policy::default().max_workers_lost, ..policy() };
    let mut case = Case::with_policy(limits, [1]);
    let _ = case.submit([train(1, 1)]);
    case
}

/// The worker comes back without what it ran.
fn lose(case: &mut Case) -> Vec<String> {
    outline(&case.hello(W1, 1, []))
}

fn attempt(case: &Case) -> common::AttemptId {
    case.cluster.trial(T1).unwrap().attempt().unwrap().id
}

#[test]
fn a_trial_that_loses_every_worker_is_given_up() {
    let mut case = training();
    for _ in 0..4 {
        let _ = lose(&mut case);
        case.restart();
    }
    let events = lose(&mut case);
    let why = "t1 failed: 5 attempts in a row lost a worker and left no new checkpoint";
    assert_eq!(events, ["a5 failed: a worker was lost", why]);
    let outcome = case.cluster.trial(T1).unwrap().outcome();
    assert_eq!(outcome, Some(&Outcome::LostWorkers { attempts: 5 }));
    let step = case.submit([train(1, 1)]);
    assert_eq!(outline(&step), ["t1 resubmitted", "e2 submitted", "a6 of t1 started on w1:1"]);
    for _ in 0..4 {
        let _ = lose(&mut case);
    }
    assert!(!case.cluster.trial(T1).unwrap().has_ended(), "it has a fresh budget");
}

#[test]
fn a_trial_that_gets_on_may_lose_any_number_of_workers() {
    let mut case = training();
    for step in 1..20 {
        let _ = case.commit(W1, attempt(&case), checkpoint(step, &step.to_string()));
        for _ in 0..3 {
            let _ = lose(&mut case);
        }
    }
    assert!(!case.cluster.trial(T1).unwrap().has_ended());
}

#[test]
fn a_worker_that_a_log_blames_is_lost_to_the_attempt_too() {
    let mut case = training();
    for round in 0..5 {
        let (attempt, pattern, line) = (attempt(&case), "xid".to_owned(), "Xid 31".to_owned());
        let incident = Input::Incident { worker: W1, attempt, rank: 0, pattern, line, quarantine: false };
        let given_up = outline(&case.handle(incident)).iter().any(|event| event.starts_with("t1 failed"));
        assert_eq!(given_up, round == 4);
    }
}

#[test]
fn attempts_that_yield_or_fail_otherwise_lose_no_worker() {
    let mut case = training();
    for _ in 0..4 {
        let _ = lose(&mut case);
    }
    let _ = case.end(W1, attempt(&case), Err(FailureCause::OutOfMemory));
    let _ = case.end(W1, attempt(&case), Err(FailureCause::Preempted));
    assert!(!case.cluster.trial(T1).unwrap().has_ended());
    assert_eq!(lose(&mut case).len(), 2);
    assert!(case.cluster.trial(T1).unwrap().has_ended());
}
