//! What happened to every attempt: read by people, never by decisions.
//!
//! The core forgets an attempt that is over. Who asks where it ran, when, and what became of it is answered
//! from here. It is built from the same events, live and on replay.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use common::{AttemptId, FailureCause, TrialId, WorkerId};
use coordinator_core::{Event, Millis, Outcome, Placement, Shared};
use serde::{Deserialize, Serialize};

/// One execution of a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AttemptRecord {
    /// Its trial.
    pub trial: TrialId,
    /// Where it ran.
    pub placement: Placement,
    /// When it was placed.
    pub started: Millis,
    /// What became of it; `None` while it runs.
    pub end: Option<AttemptEnd>,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AttemptEnd {
    /// When.
    pub at: Millis,
    /// How.
    pub how: AttemptOutcome,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptOutcome {
    /// Its trial succeeded.
    Succeeded,
    /// It failed.
    Failed(Box<FailureCause>),
    /// Its trial ended for another reason.
    Cancelled,
}

/// Every attempt that ever was.
#[derive(Clone, Debug, Default)]
pub struct History {
    attempts: Shared<AttemptId, AttemptRecord>,
    by_trial: BTreeSet<(TrialId, AttemptId)>,
    names: BTreeMap<WorkerId, String>,
}

/// A part of a history, as a snapshot stores it. Like an event, it must decode for ever.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HistoryPart<'a> {
    Attempt(AttemptId, Cow<'a, AttemptRecord>),
    Worker(WorkerId, Cow<'a, str>),
}

impl History {
    /// The records alone, for a snapshot. Attempts are shared with the original, not copied.
    pub(super) fn copy(&self) -> Self {
        let Self { attempts, by_trial: _, names } = self;
        Self { attempts: attempts.clone(), by_trial: BTreeSet::new(), names: names.clone() }
    }

    /// Its parts.
    pub(super) fn parts(&self) -> impl Iterator<Item = HistoryPart<'_>> {
        let attempts = self.attempts.iter();
        let attempts = attempts.map(|(&id, record)| HistoryPart::Attempt(id, Cow::Borrowed(record)));
        let names = self.names.iter().map(|(&id, name)| HistoryPart::Worker(id, Cow::Borrowed(name)));
        attempts.chain(names)
    }

    /// Takes the next part.
    pub(super) fn push(&mut self, part: HistoryPart<'_>) {
        match part {
            HistoryPart::Attempt(id, record) => {
                self.by_trial.insert((record.trial, id));
                self.attempts.insert(id, record.into_owned());
            }
            HistoryPart::Worker(id, name) => {
                self.names.insert(id, name.into_owned());
            }
        }
    }

    /// An attempt.
    pub fn attempt(&self, id: AttemptId) -> Option<&AttemptRecord> {
        self.attempts.get(&id)
    }

    /// Attempts of a trial, oldest first.
    pub fn attempts_of(
        &self,
        trial: TrialId,
    ) -> impl DoubleEndedIterator<Item = (AttemptId, &AttemptRecord)> {
        let pairs = self.by_trial.range((trial, AttemptId(0))..=(trial, AttemptId(u64::MAX)));
        pairs.filter_map(|&(_, id)| Some((id, self.attempts.get(&id)?)))
    }

    /// Name of a worker, also of one that is gone.
    pub fn worker_name(&self, id: WorkerId) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// Whether `worker` had a share of `attempt`, and its trial.
    pub fn trial_on(&self, attempt: AttemptId, worker: WorkerId) -> Option<TrialId> {
        let record = self.attempts.get(&attempt)?;
        record.placement.share_of(worker).map(|_| record.trial)
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::AttemptStarted { trial, attempt, placement, at } => {
                let record =
                    AttemptRecord { trial: *trial, placement: placement.clone(), started: *at, end: None };
                self.attempts.insert(*attempt, record);
                self.by_trial.insert((*trial, *attempt));
            }
            Event::AttemptFailed { attempt, cause, at, .. } => {
                self.end(*attempt, *at, AttemptOutcome::Failed(Box::new(cause.clone())));
            }
            Event::TrialEnded { trial, outcome, at } => {
                let Some((attempt, _)) = self.attempts_of(*trial).next_back() else { return };
                let how = match outcome {
                    Outcome::Succeeded { .. } => AttemptOutcome::Succeeded,
                    Outcome::Failed { .. }
                    | Outcome::LostWorkers { .. }
                    | Outcome::Cancelled
                    | Outcome::NeedFailed { .. } => AttemptOutcome::Cancelled,
                };
                self.end(attempt, *at, how);
            }
            Event::WorkerJoined { worker, name, .. } => {
                self.names.insert(*worker, name.clone());
            }
            Event::TrialSubmitted { .. }
            | Event::TrialResubmitted { .. }
            | Event::TrialReopened { .. }
            | Event::ExperimentSubmitted { .. }
            | Event::ExperimentPrioritized { .. }
            | Event::TrialPaused { .. }
            | Event::TrialResumed { .. }
            | Event::ExperimentPaused { .. }
            | Event::ExperimentResumed { .. }
            | Event::WorkerDrained { .. }
            | Event::WorkerQuarantined { .. }
            | Event::WorkerUndrained { .. }
            | Event::CheckpointPinned { .. }
            | Event::CheckpointUnpinned { .. }
            | Event::ExperimentCancelled { .. }
            | Event::SessionOpened { .. }
            | Event::WorkerLost { .. }
            | Event::WorkerLeft { .. }
            | Event::YieldRequested { .. }
            | Event::CheckpointCommitted { .. }
            | Event::CheckpointDropped { .. } => {}
        }
    }

    /// The first end counts: a trial's end follows the failure of its last attempt.
    fn end(&mut self, attempt: AttemptId, at: Millis, how: AttemptOutcome) {
        if let Some(record) = self.attempts.get_mut(&attempt) {
            record.end.get_or_insert(AttemptEnd { at, how });
        }
    }
}
