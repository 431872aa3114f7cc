//! From the state to the wire.

use common::{ExperimentId, TrialId};
use coordinator_core::{Counts, Experiment, Outcome, Phase, Trial};
use proto::v1;

use crate::driver::View;

pub(super) fn experiment(view: &View<'_>, id: ExperimentId, record: &Experiment) -> v1::Experiment {
    let counts = view.cluster.counts(id).unwrap_or_default();
    v1::Experiment {
        id: id.to_string(),
        name: record.name.clone(),
        submitted_at_ms: record.submitted.0,
        state: experiment_state(record, counts).into(),
        counts: Some(v1::Counts {
            // The protocol has no word of its own for what is paused; the reason of a trial says it.
            waiting: counts.waiting + counts.paused,
            queued: counts.queued,
            running: counts.running,
            succeeded: counts.succeeded,
            failed: counts.failed,
            cancelled: counts.cancelled,
            paused: counts.paused,
        }),
        project: record.project.clone(),
        priority: record.priority,
        paused: record.paused.is_some(),
    }
}

pub(super) fn experiment_state(record: &Experiment, counts: Counts) -> v1::ExperimentState {
    if counts.succeeded == counts.total() {
        v1::ExperimentState::Succeeded
    } else if record.cancelled.is_some() {
        v1::ExperimentState::Cancelled
    } else if counts.open() > 0 {
        v1::ExperimentState::Active
    } else if counts.failed > 0 {
        v1::ExperimentState::Failed
    } else {
        v1::ExperimentState::Cancelled
    }
}

pub(super) fn trial(view: &View<'_>, id: TrialId, record: &Trial) -> v1::Trial {
    let newest = view.history.attempts_of(id).next_back();
    let ended = match &record.phase {
        Phase::Ended { at, .. } => at.0,
        Phase::Waiting | Phase::Queued | Phase::Paused | Phase::Running(_) => 0,
    };
    v1::Trial {
        id: id.to_string(),
        key: record.key.to_string(),
        label: record.label.clone(),
        state: trial_state(record).into(),
        slots: record.slots(),
        attempts: record.attempts,
        failures: record.counted_failures,
        reason: reason(view, id, record),
        progress: view.progress(id).map(Into::into),
        submitted_at_ms: record.submitted.0,
        started_at_ms: newest.map_or(0, |(_, attempt)| attempt.started.0),
        ended_at_ms: ended,
        min_slots: record.spec.min_slots(),
    }
}

pub(super) fn trial_state(record: &Trial) -> v1::TrialState {
    match &record.phase {
        Phase::Waiting => v1::TrialState::Waiting,
        Phase::Paused => v1::TrialState::Paused,
        Phase::Queued => v1::TrialState::Queued,
        Phase::Running(_) => v1::TrialState::Running,
        Phase::Ended { outcome, .. } => match outcome.as_ref() {
            Outcome::Succeeded { .. } => v1::TrialState::Succeeded,
            Outcome::Failed { .. } | Outcome::LostWorkers { .. } | Outcome::NeedFailed { .. } => {
                v1::TrialState::Failed
            }
            Outcome::Cancelled => v1::TrialState::Cancelled,
        },
    }
}

/// Why a trial does not run, or how it failed; empty otherwise.
fn reason(view: &View<'_>, id: TrialId, record: &Trial) -> String {
    match record.outcome() {
        None => view.cluster.explain(id).map(|reason| reason.to_string()).unwrap_or_default(),
        Some(Outcome::Succeeded { .. } | Outcome::Cancelled) => String::new(),
        Some(Outcome::Failed { cause }) => cause.to_string(),
        Some(outcome @ Outcome::LostWorkers { .. }) => outcome.to_string(),
        Some(outcome @ Outcome::NeedFailed { .. }) => failure(view, outcome),
    }
}

/// How a trial failed, down to the trial that is to blame.
pub(super) fn failure(view: &View<'_>, outcome: &Outcome) -> String {
    let Outcome::NeedFailed { need } = outcome else { return outcome.to_string() };
    match view.cluster.trial(*need).and_then(|record| Some((record, record.outcome()?))) {
        Some((record, blame)) => format!("needs {need} ({}), which {}", record.label, became(blame)),
        None => outcome.to_string(),
    }
}

fn became(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Cancelled => "was cancelled".to_owned(),
        Outcome::Succeeded { .. } | Outcome::Failed { .. } | Outcome::LostWorkers { .. } => {
            outcome.to_string()
        }
        Outcome::NeedFailed { need } => format!("needs {need}, which failed"),
    }
}

/// Why a trial stands where it stands, in sentences, the most important first.
pub(super) fn explanation(view: &View<'_>, id: TrialId, record: &Trial) -> Vec<String> {
    let mut sentences = Vec::new();
    match &record.phase {
        Phase::Waiting | Phase::Queued | Phase::Paused => {
            sentences.extend(view.cluster.explain(id).map(|reason| reason.to_string()));
            sentences.extend(out_of_service(view));
        }
        Phase::Running(attempt) => {
            let shares = attempt.placement.shares().iter().map(|share| {
                let name = view.history.worker_name(share.worker).unwrap_or_default();
                format!("{name} ({} slot{})", share.ranks, plural(share.ranks))
            });
            let shares = shares.collect::<Vec<_>>().join(", ");
            let since = view.now.since(attempt.started).as_secs();
            sentences.push(format!("{} runs on {shares} for {since} s", attempt.id));
            if let Some(yielding) = attempt.yielding {
                sentences.push(format!("stops at its next checkpoint: {}", yielding.reason));
            }
        }
        Phase::Ended { .. } => {
            let why = reason(view, id, record);
            sentences.extend(
                record.outcome().map(|outcome| if why.is_empty() { outcome.to_string() } else { why }),
            );
        }
    }
    sentences.extend(standing(view, record));
    sentences
}

/// Workers that take nothing new, which is why slots may be missing.
fn out_of_service(view: &View<'_>) -> Vec<String> {
    let name = |id| view.history.worker_name(id).unwrap_or_default();
    let drained = view.cluster.drained().map(|(id, drain)| format!("{} ({id}) is {drain}", name(id)));
    let quarantined = view.cluster.quarantined();
    let quarantined = quarantined.map(|(id, quarantine)| format!("{} ({id}) is {quarantine}", name(id)));
    drained.chain(quarantined).collect()
}

/// Priority, project, requirements and budget of a trial.
fn standing(view: &View<'_>, record: &Trial) -> Vec<String> {
    let mut sentences = Vec::new();
    if let Some(first) = view.cluster.sponsor(record) {
        sentences.push(format!("priority {}, project {}", first.priority, first.project));
    }
    if !record.policy.requires.is_empty() {
        sentences.push(format!("requires {}", record.policy.requires));
    }
    if record.counted_failures > 0 {
        let (failures, allowed) = (record.counted_failures, record.policy.max_failures);
        sentences.push(format!("failed {failures} time{}, of {allowed} that it may", plural(failures)));
    }
    sentences
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}
