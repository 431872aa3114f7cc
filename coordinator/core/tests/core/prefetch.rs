//! Who is told ahead of time what to fetch.

use common::session::{Blob, SessionOrder};
use common::spec::{Requirements, TrialSpec};
use common::{AttemptId, Digest, FailureCause, TrialId, WorkerId};
use coordinator_core::{Effect, Input, Phase, Policy, ProjectPolicy, Step, Traits};

use crate::arena::labels;
use crate::case::*;
use crate::support::{evaluate, network, policy};

const W3: WorkerId = WorkerId(3);

/// What workers are told, like `w1 t2 one two`; blobs go by the texts that they hold.
fn told(step: &Step, texts: &[&str]) -> Vec<String> {
    let name = |blob: &Blob| texts.iter().find(|text| Digest::of(text.as_bytes()) == blob.digest).unwrap();
    let told = step.effects.iter().filter_map(|effect| match effect {
        Effect::Prefetch { worker, trial, blobs } => {
            assert!(blobs.iter().all(|blob| blob.bytes == 1_000));
            let names = blobs.iter().map(|blob| format!(" {}", name(blob)));
            Some(format!("{worker} {trial}{}", names.collect::<String>()))
        }
        Effect::Launch { .. }
        | Effect::Release { .. }
        | Effect::Rendezvous { .. }
        | Effect::Preempt { .. }
        | Effect::DeleteBlob { .. } => None,
    });
    told.collect()
}

const NONE: [&str; 0] = [];

/// Workers of one slot that run trials 2, 3, … for ever; trial 1 has left the network `one`.
fn busy(workers: u64) -> Case {
    let mut case = Case::with_workers([1]);
    let _ = case.submit((1..=workers + 1).map(|seed| train(seed, 1)));
    let _ = case.finish(W1, A1, "one");
    for worker in 2..=workers {
        case.wait(1);
        let _ = case.hello(WorkerId(worker), 1, []);
    }
    case
}

/// An evaluation of the network of trial 1, told from others by `seed`.
fn reads_one(seed: u64) -> [TrialSpec; 2] {
    let mut reads = evaluate([network(1, 1)]);
    if let TrialSpec::Evaluate(spec) = &mut reads {
        spec.seed = seed;
    }
    [train(1, 1), reads]
}

#[test]
fn the_first_in_line_is_prefetched_where_the_next_slot_comes_free_and_once_only() {
    let mut case = busy(3);
    // No duration is known, so the attempt that runs the longest ends first: that of the first worker.
    let step = case.submit(reads_one(0));
    assert_eq!(told(&step, &["one"]), ["w1 t5 one"]);
    let _ = case.heartbeat(W1, [runs(A2, 1)]);
    let step = case.submit([train(9, 1)]);
    assert_eq!(told(&step, &[]), NONE, "it is remembered");
    // In the line there is a place for each slot that comes free.
    let step = case.submit(reads_one(1));
    assert_eq!(told(&step, &["one"]), ["w3 t7 one"], "the third worker has not got it");
}

#[test]
fn what_can_start_at_once_is_launched_and_nothing_is_prefetched() {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit(reads_one(0));
    let step = case.finish(W1, A1, "one");
    assert!(matches!(case.cluster.trial(T2).unwrap().phase, Phase::Running(_)));
    assert_eq!(told(&step, &[]), NONE);
    let step = case.submit([train(5, 1), train(6, 1)]);
    assert_eq!(told(&step, &[]), NONE, "who reads nothing is not spoken of");
    let step = case.heartbeat(W1, []);
    assert_eq!(told(&step, &[]), NONE);
}

#[test]
fn a_trial_that_reads_nothing_has_the_slot_that_comes_free_before_those_behind_it() {
    let mut case = busy(2);
    let _ = case.submit_as("default", 1, [train(11, 1)]);
    // The first slot is that of an attempt that makes way for it.
    let step = case.submit(reads_one(0));
    let asked: Vec<_> = case.cluster.trials().filter(|(_, trial)| trial.attempt().is_some()).collect();
    let yields = asked.iter().find(|(_, trial)| trial.attempt().unwrap().yielding.is_some());
    let [share] = yields.unwrap().1.attempt().unwrap().placement.shares() else { panic!("one slot") };
    let other = if share.worker == W1 { W2 } else { W1 };
    assert_eq!(told(&step, &["one"]), [format!("{other} t5 one")]);
}

#[test]
fn trials_that_others_make_way_for_are_prefetched_where_they_stop_however_many_wait() {
    let mut case = busy(6);
    let reads = |seeds: std::ops::Range<u64>| {
        let reads = seeds.map(|seed| reads_one(seed)[1].clone());
        [train(1, 1)].into_iter().chain(reads)
    };
    let steps = [0..4, 4..6].map(|seeds| {
        let step = case.submit_as("default", 1, reads(seeds));
        let asked = step.effects.iter().filter(|effect| matches!(effect, Effect::Preempt { .. })).count();
        (asked, told(&step, &["one"]).len())
    });
    assert_eq!(steps, [(4, 4), (2, 2)]);
}

#[test]
fn what_a_preempted_trial_goes_on_from_is_prefetched_on_the_workers_of_its_reservation() {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit([train(1, 2)]);
    let _ = case.commit(W1, A1, checkpoint(3, "three"));
    let _ = case.commit(W1, A1, checkpoint(4, "four"));
    // A trial that goes first takes one of its slots.
    let _ = case.submit_as("default", 1, [train(2, 1)]);
    let _ = case.end(W1, A1, Err(FailureCause::Preempted));
    let step = case.end(W2, A1, Err(FailureCause::Preempted));
    let (reserved, reservation, _) = case.cluster.reservations().next().unwrap();
    assert_eq!((reserved, reservation.slots.len()), (T1, 2));
    assert_eq!(told(&step, &["three", "four"]), ["w1 t1 four three", "w2 t1 four three"]);
    // One that comes back may have lost what it had.
    let attempt = case.cluster.trial(T2).unwrap().attempt().unwrap();
    let (attempt, worker) = (attempt.id, attempt.placement.leader().unwrap());
    let _ = case.handle(Input::Disconnected { worker });
    let step = case.hello(worker, 1, [runs(attempt, 0)]);
    assert_eq!(told(&step, &["three", "four"]), [format!("{worker} t1 four three")]);
}

#[test]
fn slots_that_are_kept_for_another_do_not_count_as_coming_free() {
    let mut case = Case::with_workers([2]);
    let _ = case.submit((1..=3).map(|seed| train(seed, 1)));
    let _ = case.finish(W1, A1, "one");
    case.wait(1);
    let _ = case.hello(W2, 1, []);
    let _ = case.submit([train(4, 1), train(5, 2)]);
    let _ = case.finish(W1, A2, "two");
    assert_eq!(case.cluster.reservations().next().unwrap().1.slots, [(W1, 2)].into());
    let step = case.submit(reads_one(0));
    assert_eq!(told(&step, &["one"]), ["w2 t6 one"], "the first worker's attempt runs the longest");
}

#[test]
fn a_worker_is_told_only_of_what_it_may_run() {
    let mut case = Case::new();
    for (worker, rack) in [(W1, "a"), (W2, "b"), (W3, "b")] {
        case.wait(1);
        let traits = Traits { labels: labels([("rack", rack)]), ..Traits::default() };
        let (name, host) = (name(worker), name(worker));
        let _ = case.handle(Input::Hello {
            order: SessionOrder::default(),
            worker,
            name,
            host,
            slots: 1,
            traits,
            attempts: vec![],
        });
    }
    let _ = case.submit((1..5).map(|seed| train(seed, 1)));
    let _ = case.finish(W1, A1, "one");
    let _ = case.handle(Input::Drain { worker: W2, now: false, reason: String::new() });
    let mut plan = plan(reads_one(0));
    let labels = labels([("rack", "b")]);
    plan.trials[1].policy.requires = Requirements { labels, ..Requirements::default() };
    let step = case.submit_plan(plan);
    assert_eq!(told(&step, &["one"]), ["w3 t5 one"]);
}

#[test]
fn a_project_at_its_quota_is_passed_over() {
    let limits = ProjectPolicy { quota: Some(1), ..ProjectPolicy::default() };
    let policy = Policy { projects: [("a".to_owned(), limits)].into(), ..policy() };
    let mut case = Case::with_policy(policy, [2]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.finish(W1, A1, "one");
    let _ = case.submit_as("a", 0, [train(2, 1)]);
    let _ = case.submit([train(3, 1)]);
    let step = case.submit_as("a", 0, reads_one(0));
    assert_eq!(told(&step, &[]), NONE);
    let step = case.submit(reads_one(1));
    assert_eq!(told(&step, &["one"]), ["w1 t5 one"]);
}

#[test]
fn of_a_large_ensemble_only_a_part_is_prefetched_and_not_again_and_again() {
    const MEMBERS: u64 = 40;
    let mut case = Case::with_workers([1]);
    let _ = case.submit((1..=MEMBERS + 1).map(|seed| train(seed, 1)));
    for attempt in 1..=MEMBERS {
        let _ = case.finish(W1, AttemptId(attempt), &attempt.to_string());
    }
    let members = (1..=MEMBERS).map(|seed| train(seed, 1));
    let step = case.submit(members.chain([evaluate((1..=MEMBERS).map(|seed| network(seed, 1)))]));
    let blobs = |step: &Step| match &step.effects[..] {
        [Effect::Prefetch { worker: W1, trial, blobs }] => (trial.0, blobs.len()),
        [] => (0, 0),
        other => panic!("{other:?}"),
    };
    assert_eq!(blobs(&step), (MEMBERS + 2, 32));
    assert_eq!(blobs(&case.submit([train(90, 1)])), (0, 0));
    assert_eq!(case.cluster.trial(TrialId(MEMBERS + 2)).unwrap().phase, Phase::Queued);
}
