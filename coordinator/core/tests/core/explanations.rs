//! Reasons are right in random states: taking away what a trial is said to wait for lets it start.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use common::spec::{Requirements, TrialSpec};
use common::{AttemptId, ExperimentId, TrialId, WorkerId};
use coordinator_core::{Cluster, Event, Input, Millis, Phase, ProjectPolicy, Traits, WaitReason};
use rand::Rng;

use crate::arena::{Arena, hello, labels};
use crate::case::{self, Case, train};
use crate::support::explained::standing;
use crate::support::{evaluate, network, policy};

fn cuda() -> Traits {
    let labels = labels([("rack", "r1"), ("gpu", "h100")]);
    Traits { labels, device: Some("cuda".to_owned()), slot_memory_mib: Some(80_000) }
}

fn traits(arena: &mut Arena) -> Traits {
    match arena.rng.random_range(0..4) {
        0 => cuda(),
        1 => Traits { labels: labels([("rack", "r1")]), ..Traits::default() },
        2 => Traits { labels: labels([("rack", "r2"), ("numa", "0")]), ..Traits::default() },
        _ => Traits::default(),
    }
}

fn requirements() -> [Requirements; 6] {
    let none = Requirements::default;
    [
        none(),
        none(),
        none(),
        Requirements { device: Some("cuda".to_owned()), ..none() },
        Requirements { labels: labels([("rack", "r1")]), memory_mib: None, device: None },
        Requirements { memory_mib: Some(40_000), ..none() },
    ]
}

fn limits() -> BTreeMap<String, ProjectPolicy> {
    let project = |weight, quota| ProjectPolicy { weight: NonZeroU32::new(weight).unwrap(), quota };
    let projects = [("a", project(2, None)), ("b", project(1, Some(4)))];
    projects.map(|(name, limits)| (name.to_owned(), limits)).into()
}

fn act(arena: &mut Arena) {
    let experiments = u64::try_from(arena.cluster.experiments().count()).unwrap();
    let any = |arena: &mut Arena| ExperimentId(arena.rng.random_range(1..=experiments.max(1)));
    match arena.rng.random_range(0..100) {
        0..30 => {
            let mut plan = arena.plan(6, &requirements());
            plan.project = ["a", "b", "default"][arena.rng.random_range(0..3)].to_owned();
            plan.priority = [0, 0, 0, 1, 5, -2][arena.rng.random_range(0..6)];
            let _ = arena.handle(Input::Submit { plan, grid: String::new() });
        }
        30..85 => drop(arena.end_next()),
        85..88 => {
            let (worker, slots) = (arena.rng.random_range(1..7), arena.rng.random_range(1..5));
            let traits = traits(arena);
            if arena.cluster.worker(WorkerId(worker)).is_none() {
                let _ = arena.hello(worker, slots, traits);
            }
        }
        88..90 if arena.cluster.workers().count() > 2 => {
            let worker = arena.cluster.workers().next().unwrap().id;
            let _ = arena.handle(Input::WorkerLeft { worker });
        }
        90..93 => {
            let worker = arena.cluster.workers().last().map(|view| view.id);
            if let Some(worker) = worker {
                let input = match arena.cluster.worker(worker).unwrap().drain {
                    Some(_) => Input::Undrain { worker },
                    None => Input::Drain { worker, now: arena.chance(0.5), reason: String::new() },
                };
                let _ = arena.handle(input);
            }
        }
        93..97 if experiments > 0 => {
            let (experiment, priority) = (any(arena), arena.rng.random_range(-1..6));
            let _ = arena.handle(Input::SetPriority { experiment, priority });
        }
        97..99 if experiments > 0 => {
            let experiment = any(arena);
            let _ = arena.handle(Input::CancelExperiment { experiment });
        }
        _ => {}
    }
}

#[test]
fn what_a_trial_is_said_to_wait_for_is_what_it_waits_for() {
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..60 {
        let mut policy = policy();
        policy.projects = limits();
        let mut arena = Arena::new(seed, policy);
        for worker in 1..4 {
            let (slots, traits) = (arena.rng.random_range(1..5), traits(&mut arena));
            let _ = arena.hello(worker, slots, traits);
        }
        for step in 0..120 {
            act(&mut arena);
            if step % 6 == 0 {
                take_obstacles_away(&arena, &mut told);
            }
        }
    }
    let kinds =
        ["behind", "held", "no match", "over quota", "quota", "reserved", "slots", "too wide", "yielding"];
    for kind in kinds {
        assert!(told.get(kind).is_some_and(|&count| count > 10), "{kind} is hardly ever told: {told:?}");
    }
}

fn kind(reason: &WaitReason) -> &'static str {
    match reason {
        WaitReason::Needs(_) => "needs",
        WaitReason::Paused { .. } => "paused",
        WaitReason::OutOfService(_) => "out of service",
        WaitReason::NoWorker => "no worker",
        WaitReason::Resting { .. } => "resting",
        WaitReason::NoMatch { .. } => "no match",
        WaitReason::TooWide { .. } => "too wide",
        WaitReason::OverQuota { .. } => "over quota",
        WaitReason::Quota { .. } => "quota",
        WaitReason::Slots { .. } => "slots",
        WaitReason::Reserved { .. } => "reserved",
        WaitReason::Yielding { .. } => "yielding",
        WaitReason::Held { .. } => "held",
        WaitReason::Behind { .. } => "behind",
    }
}

fn runs(cluster: &Cluster, trial: TrialId) -> bool {
    matches!(cluster.trial(trial).unwrap().phase, Phase::Running(_))
}

fn take_obstacles_away(arena: &Arena, told: &mut BTreeMap<&'static str, usize>) {
    let queued = arena.cluster.trials().filter(|(_, trial)| trial.phase == Phase::Queued);
    let reasons = queued.map(|(id, _)| (id, arena.cluster.explain(id).unwrap())).collect::<Vec<_>>();
    // A worker that could run them all.
    let mut larger = arena.cluster.clone();
    let _ = larger.handle(Millis(arena.now), hello(WorkerId(99), 10_000, cuda())).unwrap();
    larger.check().unwrap();
    // No quotas, and that worker.
    let mut policy = arena.policy.clone();
    policy.projects.values_mut().for_each(|project| project.quota = None);
    let mut free = Cluster::replay(policy, Millis(arena.now), &arena.log);
    let _ = free.handle(Millis(arena.now), hello(WorkerId(99), 10_000, cuda())).unwrap();
    for (id, reason) in reasons {
        *told.entry(kind(&reason)).or_default() += 1;
        assert!(runs(&free, id), "{id} is told `{reason}`, and neither slots nor quotas help");
        match &reason {
            WaitReason::Needs(_) | WaitReason::Paused { .. } => unreachable!("{id} is queued"),
            WaitReason::OverQuota { .. } => assert!(!runs(&larger, id), "{id} is over its quota, and runs"),
            WaitReason::Quota { .. } => assert!(!runs(&larger, id), "{id} waits for its quota, and runs"),
            WaitReason::OutOfService(_)
            | WaitReason::NoWorker
            | WaitReason::Resting { .. }
            | WaitReason::NoMatch { .. }
            | WaitReason::TooWide { .. } => {}
            WaitReason::Slots { .. } | WaitReason::Reserved { .. } | WaitReason::Yielding { .. } => {
                // Others of its project may use up the quota then.
                let project = standing(&arena.cluster, arena.cluster.trial(id).unwrap()).1;
                let limited = arena.policy.project(&project).quota.is_some();
                assert!(limited || runs(&larger, id), "{id} is told `{reason}`, and slots do not help");
            }
            WaitReason::Held { by, .. } | WaitReason::Behind { trial: by, .. } => {
                let mut without = arena.cluster.clone();
                let _ = without.handle(Millis(arena.now), Input::CancelTrial { trial: *by }).unwrap();
                let named = match without.explain(id) {
                    Some(WaitReason::Held { by: other, .. } | WaitReason::Behind { trial: other, .. }) => {
                        Some(other)
                    }
                    Some(_) | None => None,
                };
                assert_ne!(
                    named,
                    Some(*by),
                    "{id} is told `{reason}`, and the same after that trial is gone"
                );
            }
        }
    }
}

/// More trials wait for attempts to stop than are looked for in one look.
#[test]
fn a_trial_waits_for_nobody_who_was_not_asked() {
    let mut case = Case::with_workers([1; 6]);
    let networks = (1..=6).map(|seed| network(seed, 1)).collect::<Vec<_>>();
    let trains = || networks.iter().cloned().map(TrialSpec::Train);
    let _ = case.submit(trains());
    for id in 1..=6 {
        let _ = case.finish(WorkerId(id), AttemptId(id), &format!("network {id}"));
    }
    let _ = case.submit((11..=16).map(|seed| train(seed, 1)));
    let evaluations = networks.iter().map(|network| evaluate([network.clone()]));
    let step = case.submit_as("default", 1, trains().chain(evaluations));
    let asked = step.events.iter().filter(|event| matches!(event, Event::YieldRequested { .. })).count();
    let told = (13..=18).map(|trial| case.why(TrialId(trial))).collect::<Vec<_>>();
    let waits =
        told.iter().filter(|why| why.starts_with("needs 1 slot, which it has when at a checkpoint stop a"));
    assert_eq!(waits.count(), asked, "{told:?}");
    assert!(asked < 6 && told[asked..].iter().all(|why| why.starts_with("behind t1")), "{told:?}");
    // They are asked for at the next look.
    let _ = case.heartbeat(WorkerId(1), [case::runs(AttemptId(7), 1)]);
    assert!(
        case.why(TrialId(18)).starts_with("needs 1 slot, which it has when"),
        "{}",
        case.why(TrialId(18))
    );
}
