//! Every event ever written decodes, and means what it meant.

use std::collections::BTreeMap;

use common::plan::Cell;
use common::result::{Artifact, Scores, TrialResult};
use common::session::SessionOrder;
use common::spec::{Requirements, RunPolicy};
use common::{Digest, FailureCause};
use coordinator_core::{
    DropReason, Event, Millis, Outcome, Placement, QuarantineReason, Strike, Traits, YieldReason,
};

use crate::case::*;
use crate::support::{evaluate, network};

/// One event a line, as the first version of the format wrote them. Never edited: a new version of the format
/// gets a file of its own.
const V1: &str = include_str!("../fixtures/events-v1.jsonl");

/// What version 2 added.
const V2: &str = include_str!("../fixtures/events-v2.jsonl");

/// What version 3 added.
const V3: &str = include_str!("../fixtures/events-v3.jsonl");

const AT: Millis = Millis(1_763_000_000_123);

fn every_event() -> Vec<Event> {
    let at = AT;
    let plan = plan([common::spec::TrialSpec::Train(network(3, 2)), evaluate([network(3, 2)])]);
    let submitted = |trial, needs, planned: &common::plan::PlannedTrial| Event::TrialSubmitted {
        trial,
        experiment: E1,
        key: planned.spec.key(),
        needs,
        spec: Box::new(planned.spec.clone()),
        policy: planned.policy.clone(),
        label: planned.label.clone(),
        at,
    };
    let ended = |trial, outcome| Event::TrialEnded { trial, outcome, at };
    let dropped = |reason| Event::CheckpointDropped { trial: T1, digest: Digest::of(b"x"), reason, at };
    let (name, grid, cells) = (plan.name.clone(), "name = \"grid\"\n".to_owned(), plan.cells.clone());
    let mut events = vec![
        submitted(T1, vec![], &plan.trials[0]),
        submitted(T2, vec![T1], &plan.trials[1]),
        experiment(name, grid, cells, "default", 0),
        joined(Traits::default()),
        Event::AttemptStarted { trial: T1, attempt: A1, placement: Placement::new([(W1, 1), (W2, 1)]), at },
        Event::CheckpointCommitted { trial: T1, attempt: A1, checkpoint: checkpoint(10, "ten"), at },
        dropped(DropReason::Superseded),
        dropped(DropReason::Damaged),
        dropped(DropReason::Incompatible),
        ended(T1, Outcome::Succeeded { result: scores() }),
        ended(T1, Outcome::Failed { cause: FailureCause::NonFiniteLoss { step: 7 } }),
        ended(T1, Outcome::Cancelled),
        ended(T2, Outcome::NeedFailed { need: T1 }),
        Event::TrialReopened { trial: T1, at },
        Event::TrialResubmitted { trial: T1, experiment: E2, policy: plan.trials[0].policy.clone(), at },
        Event::ExperimentCancelled { experiment: E1, at },
        Event::WorkerLost { worker: W1, at },
        Event::WorkerLeft { worker: W1, at },
    ];
    let failed = |cause| Event::AttemptFailed { trial: T1, attempt: A1, cause, worker: None, at };
    events.extend(every_cause().into_iter().map(failed));
    events
}

fn experiment(name: String, grid: String, cells: Vec<Cell>, project: &str, priority: i32) -> Event {
    let (trials, project) = (vec![T1, T2], project.to_owned());
    Event::ExperimentSubmitted { experiment: E1, name, grid, cells, trials, project, priority, at: AT }
}

fn joined(traits: Traits) -> Event {
    let (name, host) = (name_of(W1), "10.0.0.1".to_owned());
    Event::WorkerJoined { worker: W1, name, host, slots: 1, traits, at: AT }
}

/// What version 2 added: events, and fields that version 1 did not write.
fn new_in_version_2() -> Vec<Event> {
    let labels = BTreeMap::from([("rack".to_owned(), "r1".to_owned())]);
    let requires =
        Requirements { labels: labels.clone(), device: Some("cuda".to_owned()), memory_mib: Some(16_000) };
    let policy = RunPolicy { requires, ..RunPolicy::default() };
    let mut events = vec![
        experiment("grid".to_owned(), String::new(), Vec::new(), "vision", -3),
        joined(Traits { labels, device: Some("cuda".to_owned()), slot_memory_mib: Some(80_000) }),
        Event::ExperimentPrioritized { experiment: E1, priority: 7, at: AT },
        Event::TrialResubmitted { trial: T1, experiment: E2, policy, at: AT },
    ];
    events.extend(operations());
    events.extend(new_causes().into_iter().map(|cause| Event::AttemptFailed {
        trial: T1,
        attempt: A1,
        worker: Some(W1),
        cause,
        at: AT,
    }));
    let reason = QuarantineReason::Unhealthy { message: "GPU 3 is lost".to_owned() };
    events.push(Event::WorkerQuarantined { worker: W1, reason, at: AT });
    events
}

/// What version 3 added.
fn new_in_version_3() -> Vec<Event> {
    let order = SessionOrder { start: 1_763_000_000_000_000, session: 3 };
    vec![Event::SessionOpened { worker: W1, order, at: AT }]
}

/// What operators do, and what is done because of it.
fn operations() -> Vec<Event> {
    let yields = [
        YieldReason::Preempted { by: T2 },
        YieldReason::Paused,
        YieldReason::Draining { worker: W1 },
        YieldReason::Resized { to: 2 },
    ];
    let cause = FailureCause::TrainerSignal { signal: 11 };
    let reasons = [
        QuarantineReason::Failures { strikes: vec![Strike { trial: T1, attempt: A1, cause }] },
        QuarantineReason::Incident {
            attempt: A1,
            rank: 1,
            pattern: "ecc".to_owned(),
            line: "uncorrectable".to_owned(),
        },
    ];
    let mut events = vec![
        Event::TrialPaused { trial: T1, at: AT },
        Event::TrialResumed { trial: T1, at: AT },
        Event::ExperimentPaused { experiment: E1, at: AT },
        Event::ExperimentResumed { experiment: E1, at: AT },
        Event::WorkerDrained { worker: W1, reason: "new fans".to_owned(), at: AT },
        Event::WorkerUndrained { worker: W1, at: AT },
        Event::CheckpointPinned { trial: T1, step: 7, at: AT },
        Event::CheckpointUnpinned { trial: T1, step: 7, at: AT },
        Event::TrialEnded { trial: T1, outcome: Outcome::LostWorkers { attempts: 5 }, at: AT },
    ];
    events.extend(reasons.map(|reason| Event::WorkerQuarantined { worker: W1, reason, at: AT }));
    events.extend(yields.map(|reason| Event::YieldRequested { trial: T1, attempt: A1, reason, at: AT }));
    events
}

fn new_causes() -> Vec<FailureCause> {
    let (worker, phase) = ("node-1".to_owned(), "backward".to_owned());
    vec![
        FailureCause::Hung { rank: 1, worker, step: 7, phase, silent_ms: 2_500 },
        FailureCause::StorageFull { message: "why".to_owned() },
        FailureCause::Unhealthy { message: "why".to_owned() },
    ]
}

fn name_of(worker: common::WorkerId) -> String {
    name(worker)
}

fn scores() -> TrialResult {
    let metrics = Scores::from([
        ("accuracy".to_owned(), 0.1 + 0.2),
        ("auroc".to_owned(), f64::INFINITY),
        ("margin".to_owned(), f64::NEG_INFINITY),
        ("parameters".to_owned(), 36_500_000.0),
    ]);
    let artifact =
        Artifact { name: "predictions.safetensors".to_owned(), digest: Digest::of(b"p"), bytes: 5 };
    TrialResult { metrics, artifacts: vec![artifact] }
}

fn every_cause() -> Vec<FailureCause> {
    let message = || "why".to_owned();
    vec![
        FailureCause::WorkerLost,
        FailureCause::Preempted,
        FailureCause::TrainerExit { code: -1 },
        FailureCause::TrainerSignal { signal: 9 },
        FailureCause::LaunchFailed { message: message() },
        FailureCause::OutOfMemory,
        FailureCause::Stalled,
        FailureCause::CollectiveFailed { rank: 1 },
        FailureCause::NonFiniteLoss { step: u64::MAX },
        FailureCause::SpecRejected { message: message() },
        FailureCause::DataMissing { message: message() },
        FailureCause::CheckpointIncompatible { message: message() },
    ]
}

#[test]
fn every_event_of_version_1_decodes() {
    let decoded: Vec<Event> = V1.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(decoded, every_event());
}

#[test]
fn every_event_of_version_2_decodes() {
    let decoded: Vec<Event> = V2.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(decoded, new_in_version_2());
}

#[test]
fn every_event_of_version_3_decodes() {
    let decoded: Vec<Event> = V3.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(decoded, new_in_version_3());
}

#[test]
fn every_event_reads_back_as_it_was_written() {
    for event in every_event().into_iter().chain(new_in_version_2()).chain(new_in_version_3()) {
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
    }
}

/// Fails when an event changes its form. Old lines must go on decoding then, and the new form needs its file:
/// `EVENTS=tests/fixtures/events-v3.jsonl cargo test -p coordinator-core --test core events_are_written`.
#[test]
fn events_are_written_as_the_newest_version_says() {
    let text = |events: Vec<Event>| {
        let lines = events.iter().map(|event| serde_json::to_string(event).unwrap() + "\n");
        lines.collect::<String>()
    };
    match std::env::var_os("EVENTS") {
        Some(path) => std::fs::write(path, text(new_in_version_3())).unwrap(),
        None => {
            let written = [every_event(), new_in_version_2(), new_in_version_3()].map(text);
            assert_eq!(written, [V1, V2, V3]);
        }
    }
}

#[test]
fn a_score_that_is_not_a_number_survives_the_log() {
    let metrics = Scores::from([("auroc".to_owned(), f64::NAN)]);
    let result = TrialResult { metrics, artifacts: Vec::new() };
    let event = Event::TrialEnded { trial: T1, outcome: Outcome::Succeeded { result }, at: Millis(0) };
    let text = serde_json::to_string(&event).unwrap();
    let Event::TrialEnded { outcome: Outcome::Succeeded { result }, .. } =
        serde_json::from_str(&text).unwrap()
    else {
        panic!("another event came back: {text}");
    };
    assert!(result.metrics["auroc"].is_nan());
}

#[test]
fn an_event_that_this_build_does_not_know_is_an_error_and_not_skipped() {
    assert!(serde_json::from_str::<Event>(r#"{"event":"trial-multiplied","trial":1,"at":0}"#).is_err());
}
