//! Workers that are taken out of service for what happened there.

use common::{AttemptId, FailureCause, TrialId, WorkerId};
use coordinator_core::{Input, Policy, QuarantineReason, Reject};

use crate::case::*;
use crate::support::{evaluate, network, plan_with, policy};

const BAD: FailureCause = FailureCause::TrainerSignal { signal: 7 };

/// A worker is quarantined after three failures.
fn limits() -> Policy {
    Policy { quarantine_after: Policy::default().quarantine_after, ..policy() }
}

/// Workers with one slot each, and a trial that may fail often for each and some more.
fn cluster(workers: u64) -> Case {
    let slots = (0..workers).map(|_| 1);
    let mut case = Case::with_policy(limits(), slots);
    let _ = case.submit_plan(plan_with(20, (0..workers + 8).map(|seed| train(seed, 1))));
    case
}

fn running(case: &Case, worker: WorkerId) -> Option<(TrialId, AttemptId)> {
    case.cluster.trials().find_map(|(id, trial)| {
        let attempt = trial.attempt()?;
        (attempt.placement.leader() == Some(worker)).then_some((id, attempt.id))
    })
}

/// What runs on the worker fails; the trial is out of the way afterwards, so that another one comes.
fn fail(case: &mut Case, worker: WorkerId, cause: FailureCause) -> Vec<String> {
    let (trial, attempt) = running(case, worker).unwrap();
    let mut events = outline(&case.end(worker, attempt, Err(cause)));
    if !case.cluster.trial(trial).unwrap().has_ended() {
        events.extend(outline(&case.handle(Input::CancelTrial { trial })));
    }
    events
}

/// What runs on the worker leaves a checkpoint.
fn save(case: &mut Case, worker: WorkerId, step: u64) {
    let (_, attempt) = running(case, worker).unwrap();
    let _ = case.commit(worker, attempt, checkpoint(step, &format!("{attempt} at {step}")));
}

fn is_quarantined(case: &Case, worker: WorkerId) -> bool {
    case.cluster.quarantined().any(|(id, _)| id == worker)
}

#[test]
fn a_worker_on_which_several_trials_fail_in_a_row_is_quarantined_and_named_with_them() {
    let mut case = cluster(2);
    let _ = fail(&mut case, W1, BAD);
    save(&mut case, W2, 10);
    let _ = fail(&mut case, W1, FailureCause::OutOfMemory);
    let events = fail(&mut case, W1, BAD);
    assert_eq!(events[..2], ["a6 failed: a trainer was ended by signal 7", "w1 quarantined"]);
    assert!(running(&case, W1).is_none());
    let view = case.cluster.worker(W1).unwrap();
    let text = view.quarantine.unwrap().reason.to_string();
    let expected = "3 attempts failed there in a row: a1 of t1 (a trainer was ended by signal 7), \
                    a4 of t3 (out of memory), a6 of t4 (a trainer was ended by signal 7)";
    assert_eq!(text, expected);

    case.restart();
    let (_, attempt) = running(&case, W2).unwrap();
    let _ = case.hello(W2, 1, [runs(attempt, 11)]);
    let _ = case.hello(W1, 1, []);
    assert!(running(&case, W1).is_none() && is_quarantined(&case, W1));
    let step = case.handle(Input::Undrain { worker: W1 });
    assert_eq!(outline(&step)[0], "w1 undrained");
    assert!(running(&case, W1).is_some());
}

#[test]
fn counting_starts_again_when_a_worker_is_taken_back() {
    let mut case = cluster(2);
    for step in [10, 20] {
        let _ = fail(&mut case, W1, BAD);
        save(&mut case, W2, step);
    }
    assert_eq!(outline(&case.handle(Input::Undrain { worker: W1 })), ["w1 undrained"]);
    let _ = fail(&mut case, W1, BAD);
    assert!(!is_quarantined(&case, W1));
}

#[test]
fn a_success_puts_a_worker_beyond_doubt() {
    let mut case = cluster(2);
    for step in [10, 20] {
        let _ = fail(&mut case, W1, BAD);
        save(&mut case, W2, step);
        let _ = fail(&mut case, W1, BAD);
        let (_, attempt) = running(&case, W1).unwrap();
        let _ = case.finish(W1, attempt, &format!("network {step}"));
    }
    assert!(!is_quarantined(&case, W1));
}

#[test]
fn failures_of_one_trial_do_not_blame_the_worker() {
    let mut case = Case::with_policy(limits(), [1, 1]);
    let _ = case.submit_plan(plan_with(9, [train(1, 1), train(2, 1)]));
    save(&mut case, W2, 10);
    for _ in 0..6 {
        let (_, attempt) = running(&case, W1).unwrap();
        let _ = case.end(W1, attempt, Err(BAD));
    }
    assert!(!is_quarantined(&case, W1));
}

#[test]
fn causes_that_are_not_the_workers_do_not_blame_it() {
    let mut case = cluster(2);
    save(&mut case, W2, 10);
    for step in 0..5 {
        let _ = fail(&mut case, W1, FailureCause::NonFiniteLoss { step });
    }
    assert!(!is_quarantined(&case, W1));
}

#[test]
fn a_trial_that_fails_everywhere_is_itself_to_blame() {
    let mut case = Case::with_policy(limits(), [1, 1]);
    let _ = case.submit_plan(plan_with(9, [train(1, 1), train(2, 1)]));
    // The first trial fails on the one worker, then, while that is gone, on the other.
    let (_, attempt) = running(&case, W1).unwrap();
    let _ = case.handle(Input::Drain { worker: W1, now: false, reason: String::new() });
    let _ = case.end(W1, attempt, Err(BAD));
    let (trial, attempt) = running(&case, W2).unwrap();
    assert_eq!(trial, T2);
    let _ = case.finish(W2, attempt, "two");
    let (trial, attempt) = running(&case, W2).unwrap();
    assert_eq!(trial, T1);
    let _ = case.end(W2, attempt, Err(BAD));
    let _ = case.handle(Input::CancelTrial { trial: T1 });
    let _ = case.handle(Input::Drain { worker: W2, now: false, reason: String::new() });
    let _ = case.handle(Input::Undrain { worker: W1 });
    let _ = case.handle(Input::Undrain { worker: W2 });
    // Neither worker is in doubt: two more failures of other trials are not enough.
    let _ = case.submit_plan(plan_with(9, (10..20).map(|seed| train(seed, 1))));
    let _ = fail(&mut case, W1, BAD);
    save(&mut case, W2, 10);
    let _ = fail(&mut case, W1, BAD);
    assert!(!is_quarantined(&case, W1));
    let _ = fail(&mut case, W1, BAD);
    assert!(is_quarantined(&case, W1));
}

#[test]
fn a_grid_that_fails_everywhere_takes_no_worker_out_of_service() {
    let mut case = cluster(4);
    for _ in 0..5 {
        for worker in 1..=2 {
            let _ = fail(&mut case, WorkerId(worker), BAD);
        }
    }
    assert_eq!(case.cluster.quarantined().count(), 0, "nobody does well, so nobody does worse");
}

#[test]
fn half_of_the_workers_stay_in_service_whatever_fails() {
    let mut case = cluster(4);
    let _ = case.submit_plan(plan_with(20, (50..70).map(|seed| train(seed, 1))));
    let last = WorkerId(4);
    for round in 0..6 {
        for worker in 1..=3 {
            if running(&case, WorkerId(worker)).is_some() {
                let _ = fail(&mut case, WorkerId(worker), BAD);
            }
        }
        save(&mut case, last, 10 * (round + 1));
    }
    assert_eq!(case.cluster.quarantined().map(|(worker, _)| worker.0).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_rank_that_hangs_blames_its_own_worker() {
    let mut case = Case::with_policy(limits(), [1, 1]);
    let _ = case.submit_plan(plan_with(20, [train(1, 2)]));
    let hung = FailureCause::Hung {
        rank: 1,
        worker: name(W2),
        step: 5,
        phase: "backward".to_owned(),
        silent_ms: 3_000,
    };
    let _ = case.end(W1, A1, Err(hung));
    assert_eq!(case.cluster.trial(T1).unwrap().failures[0].worker, Some(W2));
}

fn incident(attempt: AttemptId, quarantine: bool) -> Input {
    let (pattern, line) = ("ecc".to_owned(), "uncorrectable ECC error".to_owned());
    Input::Incident { worker: W1, attempt, rank: 0, pattern, line, quarantine }
}

#[test]
fn a_line_that_names_broken_hardware_quarantines_even_the_last_worker() {
    let mut case = Case::with_workers([2]);
    let _ = case.submit_plan(plan_with(0, [train(1, 1), train(2, 1)]));
    let step = case.handle(incident(A1, true));
    let text = "the log of rank 0 matches `ecc`: uncorrectable ECC error";
    let failed = format!("a1 failed: the worker is unhealthy: {text}");
    assert_eq!(outline(&step), ["w1 quarantined".to_owned(), failed]);
    assert_eq!(step.effects, [release(W1, A1)]);
    assert_eq!(case.cluster.trial(T1).unwrap().counted_failures, 0);
    assert!(case.cluster.trial(T2).unwrap().attempt().is_some(), "what else runs there runs on");
    let reason = &case.cluster.worker(W1).unwrap().quarantine.unwrap().reason;
    assert!(matches!(reason, QuarantineReason::Incident { attempt: A1, rank: 0, .. }));
    assert_eq!(reason.to_string(), "the log of rank 0 of a1 matches `ecc`: uncorrectable ECC error");
    assert_eq!(case.refuse(incident(A1, true)), Reject::StaleAttempt(A1));
}

#[test]
fn a_worker_that_says_it_is_broken_is_given_nothing_more_and_what_runs_there_runs_on() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit_plan(plan_with(0, [train(1, 1), train(2, 1)]));
    let said = || Input::Unhealthy { worker: W1, message: "GPU 3 is lost".to_owned() };
    assert_eq!(outline(&case.handle(said())), ["w1 quarantined"]);
    assert!(case.cluster.trial(T1).unwrap().attempt().is_some());
    assert_eq!(outline(&case.handle(said())), [""; 0], "it is said again with every heartbeat");
    assert_eq!(
        case.cluster.worker(W1).unwrap().quarantine.unwrap().to_string(),
        "in quarantine: GPU 3 is lost"
    );
    let _ = case.end(W1, A1, Ok(None));
    assert!(case.cluster.trial(T2).unwrap().attempt().is_none());
    // An operator lifts it, and it is not mended.
    let _ = case.handle(Input::Undrain { worker: W1 });
    assert_eq!(outline(&case.handle(said())), ["w1 quarantined"]);
}

#[test]
fn what_is_said_before_a_hello_keeps_trials_away_from_the_first_moment() {
    let mut case = Case::with_workers([]);
    let _ = case.submit_plan(plan_with(0, [train(1, 1)]));
    let _ = case.handle(Input::Unhealthy { worker: W1, message: "GPU 3 is lost".to_owned() });
    let _ = case.hello(W1, 1, []);
    assert!(case.cluster.trial(T1).unwrap().attempt().is_none());
}

#[test]
fn a_line_may_blame_the_worker_without_a_quarantine() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit_plan(plan_with(0, [train(1, 1), evaluate([network(1, 1)])]));
    let step = case.handle(incident(A1, false));
    assert_eq!(outline(&step)[1..], ["a2 of t1 started on w1:1"]);
    assert!(!is_quarantined(&case, W1));
}
