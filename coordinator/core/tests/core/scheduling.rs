use coordinator_core::{Input, WaitReason};

use crate::case::*;
use crate::support::{evaluate, network};

fn why(case: &Case, trial: common::TrialId) -> Option<String> {
    case.cluster.explain(trial).map(|reason| reason.to_string())
}

#[test]
fn trials_run_in_the_order_of_their_submission() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), train(2, 1)]);
    let _ = case.submit([train(3, 1)]);
    assert_eq!(outline(&case.finish(W1, A1, "one")).last().unwrap(), "a2 of t2 started on w1:1");
    assert_eq!(outline(&case.finish(W1, A2, "two")).last().unwrap(), "a3 of t3 started on w1:1");
}

#[test]
fn of_one_submission_an_evaluation_goes_before_training() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), train(2, 1), evaluate([network(1, 1)])]);
    assert_eq!(outline(&case.finish(W1, A1, "one")).last().unwrap(), "a2 of t3 started on w1:1");
}

#[test]
fn an_evaluation_does_not_go_before_the_training_of_an_older_submission() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), train(2, 1)]);
    let _ = case.submit([train(1, 1), evaluate([network(1, 1)])]);
    assert_eq!(outline(&case.finish(W1, A1, "one")).last().unwrap(), "a2 of t2 started on w1:1");
}

#[test]
fn a_wide_trial_that_waits_for_slots_is_not_passed_by_narrow_ones() {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.submit([train(2, 2), train(3, 1)]);
    let reserved = "needs 2 slots, 1 is free; reserved on w1:1, w2:1; when it starts is not known yet";
    assert_eq!(why(&case, T2).unwrap(), reserved);
    let held = "needs 1 slot, 1 is free, kept for t2: when that one starts is not known";
    assert_eq!(why(&case, T3).unwrap(), held);
    let step = case.finish(W1, A1, "one");
    assert_eq!(outline(&step).last().unwrap(), "a2 of t2 started on w1:1 w2:1");
    assert_eq!(why(&case, T3).unwrap(), "needs 1 slot, 0 are free");
}

/// It is the next of its class behind an older one that starts, too, and has no reservation any more.
#[test]
fn a_trial_that_starts_where_slots_were_kept_for_it_is_not_looked_at_again() {
    let mut case = Case::with_workers([2, 2]);
    let _ = case.submit([train(1, 2)]);
    let _ = case.submit([train(2, 1)]);
    let _ = case.submit([train(3, 2)]);
    assert!(why(&case, T3).unwrap().contains("reserved"));
    // The first worker comes back without what ran there, and with room for three such trials.
    let step = case.hello(W1, 6, []);
    let started = outline(&step).into_iter().filter(|line| line.contains("started")).collect::<Vec<_>>();
    assert_eq!(started, ["a3 of t3 started on w1:2", "a4 of t1 started on w1:2"]);
}

#[test]
fn a_trial_wider_than_the_whole_cluster_holds_up_nobody() {
    let mut case = Case::with_workers([1, 1]);
    let step = case.submit([train(1, 4), train(2, 1)]);
    assert_eq!(outline(&step).last().unwrap(), "a1 of t2 started on w1:1");
    assert_eq!(why(&case, T1).unwrap(), "needs 4 slots, the cluster offers 2");
    let step = case.hello(common::WorkerId(3), 2, []);
    assert_eq!(outline(&step), ["w3 joined with 2"]);
    let reserved = "needs 4 slots, 3 are free; reserved on w1:1, w2:1, w3:2; when it starts is not known yet";
    assert_eq!(why(&case, T1).unwrap(), reserved);
    assert_eq!(outline(&case.finish(W1, A1, "two")).last().unwrap(), "a2 of t1 started on w3:2 w1:1 w2:1");
}

#[test]
fn a_waiting_evaluation_names_what_it_waits_for() {
    let mut case = Case::with_workers([1]);
    let networks = || (1..9).map(|seed| network(seed, 1));
    let trains = networks().map(common::spec::TrialSpec::Train);
    let ensemble = evaluate(networks().chain([network(1, 1)]));
    let _ = case.submit(trains.chain([ensemble]));
    let evaluation = common::TrialId(9);
    assert_eq!(why(&case, evaluation).unwrap(), "waits for t1, t2, t3, t4, t5 and 3 more");
    let _ = case.finish(W1, A1, "one");
    assert_eq!(why(&case, evaluation).unwrap(), "waits for t2, t3, t4, t5, t6 and 2 more");
    assert_eq!(why(&case, T1), None, "a trial that ended waits for nothing");
    assert_eq!(why(&case, T2), None, "a trial that runs waits for nothing");
    assert_eq!(why(&case, common::TrialId(99)), None);
}

#[test]
fn without_a_connected_worker_there_is_nobody_to_run_a_trial() {
    let mut case = Case::new();
    let _ = case.submit([train(1, 1)]);
    assert_eq!(why(&case, T1).unwrap(), "no worker is connected");
    let _ = case.hello(W1, 1, []);
    let _ = case.submit([train(2, 1)]);
    let _ = case.handle(Input::Disconnected { worker: W1 });
    assert_eq!(case.cluster.explain(T2), Some(WaitReason::NoWorker));
}

#[test]
fn a_retried_trial_keeps_its_place() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.submit([train(2, 1)]);
    let step = case.end(W1, A1, Err(common::FailureCause::OutOfMemory));
    assert_eq!(outline(&step).last().unwrap(), "a2 of t1 started on w1:1");
}
