//! Pauses of trials that fail again and again in a way that no budget counts.

use std::time::Duration;

use common::{FailureCause, WorkerId};
use coordinator_core::{Input, Policy};

use crate::case::*;
use crate::support::policy;

fn full() -> FailureCause {
    FailureCause::StorageFull { message: "no space".to_owned() }
}

fn case(slots: &[u32]) -> Case {
    let (lease, stall) = (Duration::from_secs(3_600), None);
    let (retry_after, retry_after_most) = (Duration::from_secs(1), Duration::from_secs(60));
    let policy = Policy { lease, stall, retry_after, retry_after_most, ..policy() };
    Case::with_policy(policy, slots.iter().copied())
}

/// The attempt that runs.
fn current(case: &Case) -> common::AttemptId {
    case.cluster.trial(T1).unwrap().attempt().unwrap().id
}

fn fail(case: &mut Case, worker: WorkerId, cause: FailureCause) {
    let attempt = current(case);
    let _ = case.end(worker, attempt, Err(cause));
}

fn runs_now(case: &Case) -> bool {
    case.cluster.trial(T1).unwrap().attempt().is_some()
}

/// The pause that it makes now, which the clock ends and nothing else does.
fn pause(case: &mut Case) -> u64 {
    assert!(!runs_now(case));
    let due = case.cluster.next_deadline().unwrap();
    let pause = due.since(case.now);
    case.wait(u64::try_from(pause.as_millis()).unwrap() - 1);
    let _ = case.handle(Input::Tick);
    assert!(!runs_now(case), "it is tried again too soon");
    case.wait(1);
    let _ = case.handle(Input::Tick);
    assert!(runs_now(case), "it is not tried again");
    pause.as_secs()
}

#[test]
fn a_trial_waits_longer_with_each_failure_on_the_same_worker_up_to_a_minute() {
    let mut case = case(&[1]);
    let _ = case.submit([train(1, 1)]);
    fail(&mut case, W1, full());
    assert!(runs_now(&case), "the first one costs no time");
    for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
        fail(&mut case, W1, full());
        assert_eq!(pause(&mut case), expected);
    }
    assert_eq!(case.cluster.trial(T1).unwrap().counted_failures, 0);
}

#[test]
fn a_trial_that_rests_says_for_how_long_and_why_and_holds_up_nobody() {
    let mut case = case(&[1]);
    let _ = case.submit([train(1, 1), train(2, 1)]);
    for expected in [None, Some("waits 1 s after 1 failure that does not count: "), None] {
        let _ = case.handle(Input::PauseTrial { trial: T2 });
        fail(&mut case, W1, full());
        match expected {
            Some(text) => {
                let why = case.why(T1);
                assert!(why.starts_with(text) && why.contains("no space"), "{why}");
                let _ = pause(&mut case);
            }
            None => assert!(
                runs_now(&case) || case.why(T1).starts_with("waits 2 s after 2 failures that do not count")
            ),
        }
    }
    let step = case.handle(Input::ResumeTrial { trial: T2 });
    assert_eq!(outline(&step), ["t2 resumed", "a4 of t2 started on w1:1"]);
}

#[test]
fn a_trial_is_tried_at_once_where_it_has_not_failed_yet() {
    let mut case = case(&[1, 1]);
    let _ = case.submit([train(1, 1)]);
    fail(&mut case, W1, full());
    assert_eq!(case.cluster.trial(T1).unwrap().attempt().unwrap().placement.leader(), Some(W2));
    fail(&mut case, W2, full());
    assert!(runs_now(&case));
    fail(&mut case, W1, full());
    assert_eq!(pause(&mut case), 1);
}

#[test]
fn a_checkpoint_ends_the_row_and_so_does_a_failure_that_counts() {
    for counts in [false, true] {
        let mut case = case(&[1]);
        let _ = case.submit([train(1, 1)]);
        for _ in 0..4 {
            fail(&mut case, W1, full());
            if !runs_now(&case) {
                let _ = pause(&mut case);
            }
        }
        let attempt = current(&case);
        if counts {
            fail(&mut case, W1, FailureCause::OutOfMemory);
            assert!(runs_now(&case));
        } else {
            let _ = case.commit(W1, attempt, checkpoint(7, "seven"));
        }
        fail(&mut case, W1, full());
        assert_eq!(pause(&mut case), 1);
    }
}

#[test]
fn a_worker_that_is_lost_costs_no_time_until_it_is_lost_again() {
    let mut case = case(&[1]);
    let _ = case.submit([train(1, 1)]);
    // Its agent comes back without the attempt.
    let _ = case.hello(W1, 1, []);
    assert!(runs_now(&case));
    let _ = case.hello(W1, 1, []);
    assert!(case.why(T1).starts_with("waits 1 s after 1 failure that does not count: a worker was lost"));
    assert_eq!(pause(&mut case), 1);
}

#[test]
fn a_preemption_is_no_failure() {
    let mut case = case(&[1]);
    let _ = case.submit([train(1, 1)]);
    for _ in 0..5 {
        fail(&mut case, W1, FailureCause::Preempted);
        assert!(runs_now(&case));
    }
}

#[test]
fn a_restarted_coordinator_remembers_who_rests() {
    let mut case = case(&[1]);
    let _ = case.submit([train(1, 1)]);
    for _ in 0..2 {
        fail(&mut case, W1, full());
    }
    let due = case.cluster.next_deadline().unwrap();
    case.wait(400);
    case.restart();
    let _ = case.hello(W1, 1, []);
    assert!(!runs_now(&case));
    assert_eq!(case.cluster.next_deadline(), Some(due));
    case.wait(600);
    let _ = case.handle(Input::Tick);
    assert!(runs_now(&case));
}

#[test]
fn a_pause_by_hand_does_not_end_it_whoever_forgets_it_meanwhile() {
    for restarts in [false, true] {
        let mut case = case(&[1]);
        let _ = case.submit([train(1, 1)]);
        for _ in 0..2 {
            fail(&mut case, W1, full());
        }
        let _ = case.handle(Input::PauseTrial { trial: T1 });
        case.wait(400);
        if restarts {
            case.restart();
            let _ = case.hello(W1, 1, []);
        }
        let _ = case.handle(Input::ResumeTrial { trial: T1 });
        assert!(case.why(T1).starts_with("waits 1 s after 1 failure"), "{}", case.why(T1));
        case.wait(600);
        let _ = case.handle(Input::Tick);
        assert!(runs_now(&case));
    }
}
