//! Lookups that make every input cheap however many trials there are.
//!
//! They are derived: [`Index::of`] computes them from the records alone, and the invariant check compares.

use std::collections::{BTreeMap, BTreeSet};

use common::spec::TrialSpec;
use common::{AttemptId, Digest, ExperimentId, TrialId, TrialKey, WorkerId};

use super::{Counts, Outcome, Phase, State, Trial};

/// Order of the queue: older submissions first; of one submission, evaluations before training, because they
/// are short and finish rows of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    submission: ExperimentId,
    kind: Kind,
    pub(crate) trial: TrialId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Evaluate,
    Train,
}

impl QueueKey {
    pub(crate) fn of(id: TrialId, trial: &Trial) -> Self {
        let kind = match trial.spec {
            TrialSpec::Evaluate(_) => Kind::Evaluate,
            TrialSpec::Train(_) => Kind::Train,
        };
        Self { submission: trial.queued_by, kind, trial: id }
    }
}

/// Derived lookups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) by_key: BTreeMap<TrialKey, TrialId>,
    /// Trials that need a trial, ended or not.
    pub(crate) dependents: BTreeMap<TrialId, BTreeSet<TrialId>>,
    /// Queued trials by width, so that those too wide for the cluster need not be looked at one by one.
    pub(crate) queue: BTreeMap<u32, BTreeSet<QueueKey>>,
    pub(crate) running: BTreeMap<AttemptId, TrialId>,
    /// Current attempts on each member.
    pub(crate) on_worker: BTreeMap<WorkerId, BTreeSet<AttemptId>>,
    /// Free slots of each member.
    pub(crate) free: BTreeMap<WorkerId, u32>,
    /// Slots that members offer which are given work.
    pub(crate) offered: u32,
    pub(crate) counts: BTreeMap<ExperimentId, Counts>,
    /// How many records refer to a blob.
    pub(crate) blobs: BTreeMap<Digest, u32>,
}

impl Index {
    /// The lookups that follow from the records of `state`.
    pub(crate) fn of(state: &State) -> Self {
        let mut index = Self::default();
        for (&id, worker) in &state.workers {
            index.add_worker(id, worker.slots);
            if state.is_barred(id) {
                index.bar(worker.slots);
            }
        }
        for &id in state.experiments.keys() {
            index.counts.insert(id, Counts::default());
        }
        for (&id, trial) in &state.trials {
            index.by_key.insert(trial.key, id);
            index.add_needs(id, trial);
            for checkpoint in &trial.checkpoints {
                index.add_blob(checkpoint.digest);
            }
            for experiment in &trial.experiments {
                index.count(*experiment, &trial.phase);
            }
            index.enter(id, trial);
        }
        index
    }

    pub(super) fn add_needs(&mut self, id: TrialId, trial: &Trial) {
        for &need in &trial.needs {
            self.dependents.entry(need).or_default().insert(id);
        }
    }

    /// Counts a trial in `phase` for `experiment`.
    pub(super) fn count(&mut self, experiment: ExperimentId, phase: &Phase) {
        *self.counts.entry(experiment).or_default().of_phase(phase) += 1;
    }

    pub(super) fn uncount(&mut self, experiment: ExperimentId, phase: &Phase) {
        let counts = self.counts.entry(experiment).or_default();
        let count = counts.of_phase(phase);
        *count = count.saturating_sub(1);
    }

    /// Takes note of what the trial's phase holds: a place in the queue, slots, or artifacts.
    pub(super) fn enter(&mut self, id: TrialId, trial: &Trial) {
        match &trial.phase {
            Phase::Waiting | Phase::Paused => {}
            Phase::Queued => {
                self.queue.entry(trial.slots()).or_default().insert(QueueKey::of(id, trial));
            }
            Phase::Running(attempt) => {
                self.running.insert(attempt.id, id);
                for share in attempt.placement.shares() {
                    self.on_worker.entry(share.worker).or_default().insert(attempt.id);
                    let free = self.free.entry(share.worker).or_default();
                    *free = free.saturating_sub(share.ranks);
                }
            }
            Phase::Ended { outcome, .. } => {
                for digest in artifacts(outcome) {
                    self.add_blob(digest);
                }
            }
        }
    }

    /// Undoes [`Self::enter`].
    pub(super) fn leave(&mut self, id: TrialId, trial: &Trial) {
        match &trial.phase {
            Phase::Waiting | Phase::Paused => {}
            Phase::Queued => {
                if let Some(queue) = self.queue.get_mut(&trial.slots()) {
                    queue.remove(&QueueKey::of(id, trial));
                    if queue.is_empty() {
                        self.queue.remove(&trial.slots());
                    }
                }
            }
            Phase::Running(attempt) => {
                self.running.remove(&attempt.id);
                for share in attempt.placement.shares() {
                    if let Some(attempts) = self.on_worker.get_mut(&share.worker) {
                        attempts.remove(&attempt.id);
                    }
                    if let Some(free) = self.free.get_mut(&share.worker) {
                        *free += share.ranks;
                    }
                }
            }
            Phase::Ended { outcome, .. } => {
                for digest in artifacts(outcome) {
                    self.remove_blob(digest);
                }
            }
        }
    }

    pub(super) fn add_worker(&mut self, id: WorkerId, slots: u32) {
        self.free.insert(id, slots);
        self.on_worker.insert(id, BTreeSet::new());
        self.offered += slots;
    }

    /// Forgets a member that holds no attempt any more.
    pub(super) fn remove_worker(&mut self, id: WorkerId, slots: u32) {
        self.free.remove(&id);
        self.on_worker.remove(&id);
        self.offered = self.offered.saturating_sub(slots);
    }

    /// Slots of a member that is given nothing new are not on offer.
    pub(super) fn bar(&mut self, slots: u32) {
        self.offered = self.offered.saturating_sub(slots);
    }

    /// Undoes [`Self::bar`].
    pub(super) fn unbar(&mut self, slots: u32) {
        self.offered += slots;
    }

    pub(super) fn add_blob(&mut self, digest: Digest) {
        *self.blobs.entry(digest).or_default() += 1;
    }

    pub(super) fn remove_blob(&mut self, digest: Digest) {
        if let Some(references) = self.blobs.get_mut(&digest) {
            *references = references.saturating_sub(1);
            if *references == 0 {
                self.blobs.remove(&digest);
            }
        }
    }
}

/// Blobs that an outcome refers to.
pub(crate) fn artifacts(outcome: &Outcome) -> impl Iterator<Item = Digest> {
    let result = match outcome {
        Outcome::Succeeded { result } => Some(result),
        Outcome::Failed { .. }
        | Outcome::LostWorkers { .. }
        | Outcome::Cancelled
        | Outcome::NeedFailed { .. } => None,
    };
    result.into_iter().flat_map(|result| result.artifacts.iter().map(|artifact| artifact.digest))
}
