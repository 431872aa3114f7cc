use std::time::Duration;

use common::FailureCause;
use common::plan::Plan;
use coordinator_core::{Counts, Event, Input, Outcome, Placement, Reject};

use crate::case::*;
use crate::support::{cell, evaluate, network, plan_with};

const EXIT: FailureCause = FailureCause::TrainerExit { code: 1 };

#[test]
fn a_submission_records_its_trials_before_itself_and_then_places_them() {
    let mut case = Case::with_workers([1]);
    let plan = plan([train(1, 1), evaluate([network(1, 1)])]);
    let step = case.submit_plan(plan.clone());

    let [first, second] = &plan.trials[..] else { unreachable!() };
    let trial = |trial, needs, planned: &common::plan::PlannedTrial| Event::TrialSubmitted {
        trial,
        experiment: E1,
        key: planned.spec.key(),
        needs,
        spec: Box::new(planned.spec.clone()),
        policy: planned.policy.clone(),
        label: planned.label.clone(),
        at: case.now,
    };
    let experiment = Event::ExperimentSubmitted {
        experiment: E1,
        name: "grid".to_owned(),
        grid: "text of the grid".to_owned(),
        cells: plan.cells.clone(),
        trials: vec![T1, T2],
        project: "default".to_owned(),
        priority: 0,
        at: case.now,
    };
    let placement = Placement::new([(W1, 1)]);
    let started = Event::AttemptStarted { trial: T1, attempt: A1, placement, at: case.now };
    assert_eq!(step.events, [trial(T1, vec![], first), trial(T2, vec![T1], second), experiment, started]);
    assert_eq!(step.experiment(), Some(E1));
    assert_eq!(step.effects.len(), 1);
}

#[test]
fn identical_trials_of_two_experiments_are_one_trial() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), train(2, 1)]);
    let step = case.submit([train(2, 1), train(3, 1)]);
    assert_eq!(outline(&step), ["t3 submitted", "e2 submitted"]);
    assert_eq!(case.cluster.experiment(E2).unwrap().trials, [T2, T3]);
    assert_eq!(case.cluster.trial_by_key(train(2, 1).key()), Some(T2));
}

#[test]
fn the_same_trial_twice_in_one_plan_is_one_trial() {
    let mut case = Case::new();
    let step = case.submit([train(1, 1), train(1, 1)]);
    assert_eq!(outline(&step), ["t1 submitted", "e1 submitted"]);
    assert_eq!(case.cluster.experiment(E1).unwrap().trials, [T1]);
}

#[test]
fn a_file_submitted_twice_computes_nothing_twice() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), evaluate([network(1, 1)])]);
    let _ = case.finish(W1, A1, "network");
    let _ = case.end(W1, A2, success());
    let step = case.submit([train(1, 1), evaluate([network(1, 1)])]);
    assert_eq!(outline(&step), ["e2 submitted"]);
    assert_eq!(step.effects, []);
    assert_eq!(case.cluster.counts(E2), Some(Counts { succeeded: 2, ..Counts::default() }));
    assert_eq!(case.cluster.trial(T1).unwrap().result(), Some(&result()));
}

#[test]
fn a_grid_that_grew_by_a_seed_adds_only_the_missing_trials() {
    let mut case = Case::with_workers([1]);
    let cells = |seeds: std::ops::Range<u64>| {
        let seeds = seeds.collect::<Vec<_>>();
        let trials = seeds.iter().flat_map(|&seed| [train(seed, 1), evaluate([network(seed, 1)])]);
        plan(trials.collect::<Vec<_>>())
    };
    let _ = case.submit_plan(cells(0..2));
    let step = case.submit_plan(cells(0..3));
    assert_eq!(outline(&step), ["t5 submitted", "t6 submitted", "e2 submitted"]);
}

#[test]
fn a_failed_trial_is_queued_again_with_a_fresh_budget() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit_plan(plan_with(0, [train(1, 1)]));
    let step = case.end(W1, A1, Err(EXIT));
    assert_eq!(
        outline(&step),
        ["a1 failed: a trainer exited with status 1", "t1 failed: a trainer exited with status 1"]
    );

    let step = case.submit_plan(plan_with(1, [train(1, 1)]));
    assert_eq!(outline(&step), ["t1 resubmitted", "e2 submitted", "a2 of t1 started on w1:1"]);
    let step = case.end(W1, A2, Err(EXIT));
    assert_eq!(outline(&step), ["a2 failed: a trainer exited with status 1", "a3 of t1 started on w1:1"]);
    let trial = case.cluster.trial(T1).unwrap();
    assert_eq!((trial.attempts, trial.failures.len(), trial.counted_failures), (3, 2, 1));
}

#[test]
fn an_open_trial_keeps_its_place_and_its_budget_when_it_is_submitted_again() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit_plan(plan_with(1, [train(1, 1)]));
    let _ = case.end(W1, A1, Err(EXIT));
    let _ = case.submit_plan(plan_with(9, [train(2, 1)]));
    let step = case.submit_plan(plan_with(9, [train(1, 1)]));
    assert_eq!(outline(&step), ["e3 submitted"]);
    let step = case.end(W1, A2, Err(EXIT));
    assert_eq!(outline(&step).last().unwrap(), "a3 of t2 started on w1:1");
    let cause = Outcome::Failed { cause: EXIT };
    assert_eq!(case.cluster.trial(T1).unwrap().outcome(), Some(&cause));
}

#[test]
fn a_trial_that_could_not_read_its_checkpoints_starts_without_them_when_submitted_again() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.commit(W1, A1, checkpoint(10, "old layout"));
    let cause = FailureCause::CheckpointIncompatible { message: "layer conv1 is missing".to_owned() };
    let _ = case.end(W1, A1, Err(cause));
    assert_eq!(case.cluster.trial(T1).unwrap().restore().count(), 1);
    let step = case.submit([train(1, 1)]);
    assert_eq!(outline(&step)[..2], ["t1 dropped one: Incompatible", "t1 resubmitted"]);
    assert_eq!(case.cluster.trial(T1).unwrap().restore().count(), 0);
}

#[test]
fn a_resubmitted_trial_goes_on_from_its_checkpoints() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let _ = case.commit(W1, A1, checkpoint(10, "ten"));
    let _ = case.handle(Input::CancelTrial { trial: T1 });
    let _ = case.submit([train(1, 1)]);
    assert_eq!(case.cluster.trial(T1).unwrap().restore().next(), Some(&checkpoint(10, "ten")));
}

#[test]
fn a_plan_that_makes_no_sense_is_refused_whole() {
    let mut case = Case::with_workers([1]);
    let submit = |plan| Input::Submit { plan, grid: String::new() };
    let empty = Reject::EmptyPlan { name: "grid".to_owned() };
    assert_eq!(case.refuse(submit(plan([]))), empty);
    let no_slots = Reject::NoSlots { label: "trial 1".to_owned() };
    assert_eq!(case.refuse(submit(plan([train(1, 1), train(2, 0)]))), no_slots);
    let late = Reject::MissingNeed { label: "trial 0".to_owned(), need: train(1, 1).key() };
    assert_eq!(case.refuse(submit(plan([evaluate([network(1, 1)]), train(1, 1)]))), late);
    let cells = vec![cell(7, train(9, 1).key())];
    let Reject::MissingTrial { seed: 7, .. } = case.refuse(submit(Plan { cells, ..plan([train(1, 1)]) }))
    else {
        panic!("a cell without a trial was accepted");
    };
}

#[test]
fn times_are_those_that_the_caller_gave() {
    let mut case = Case::with_workers([1]);
    let submitted = case.now;
    let _ = case.submit([train(1, 1)]);
    case.wait(20);
    let _ = case.finish(W1, A1, "network");
    let trial = case.cluster.trial(T1).unwrap();
    assert_eq!(trial.submitted, submitted);
    let coordinator_core::Phase::Ended { at, .. } = trial.phase else { panic!("not ended") };
    assert_eq!(at.since(submitted), Duration::from_millis(20));
}
