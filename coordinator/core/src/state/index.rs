//! Lookups that make every input cheap however many trials there are.
//!
//! They are derived: [`Index::of`] computes them from the records alone, and the invariant check compares.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::plan::DEFAULT_PROJECT;
use common::spec::{Requirements, Workload};
use common::{AttemptId, Digest, ExperimentId, TrialId, TrialKey, WorkerId};

use super::{Attempt, Counts, Experiment, Outcome, Phase, Shared, State, Trial, Worker};
use crate::Millis;

/// Order of one class: older submissions first; of one submission, evaluations before training, because they
/// are short and finish rows of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    pub(crate) submission: ExperimentId,
    pub(crate) kind: Kind,
    pub(crate) trial: TrialId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Evaluate,
    Train,
}

impl QueueKey {
    pub(crate) fn of(id: TrialId, trial: &Trial) -> Self {
        let kind = if trial.spec.trains() { Kind::Train } else { Kind::Evaluate };
        Self { submission: trial.queued_by, kind, trial: id }
    }
}

/// Trials that the scheduler need not tell apart but by their age: what fits one fits all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    /// Highest first.
    pub(crate) priority: Reverse<i32>,
    pub(crate) project: String,
    pub(crate) requires: Requirements,
    /// Slots that each is given at most.
    pub(crate) slots: u32,
    /// Slots that each needs at least.
    pub(crate) least: u32,
    pub(crate) workload: Workload,
}

/// Of several experiments that want a trial and are not paused, the one of the highest priority, and of these
/// the oldest, decides its priority and whose share it is charged to.
pub(crate) fn sponsor<'a>(
    trial: &Trial,
    experiments: &'a Shared<ExperimentId, Experiment>,
) -> Option<&'a Experiment> {
    let wanting = trial.wanted_by.iter().filter_map(|id| Some((id, experiments.get(id)?)));
    let first = wanting
        .max_by_key(|(id, experiment)| (experiment.paused.is_none(), experiment.priority, Reverse(**id)));
    first.map(|(_, experiment)| experiment)
}

impl Class {
    fn of(trial: &Trial, experiments: &Shared<ExperimentId, Experiment>) -> Self {
        let (priority, project) = match sponsor(trial, experiments) {
            Some(experiment) => (experiment.priority, experiment.project.clone()),
            // Its experiment follows in the same step.
            None => (0, DEFAULT_PROJECT.to_owned()),
        };
        let slots = trial.slots();
        let least = (trial.spec.min_slots()..=slots).find(|&ranks| trial.spec.allows(ranks)).unwrap_or(slots);
        let requires = trial.policy.requires.clone();
        Self { priority: Reverse(priority), project, slots, least, requires, workload: trial.workload() }
    }
}

/// A queued or running trial's place among the others, as it was when it got there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    class: Arc<Class>,
    key: QueueKey,
}

/// When a running attempt will end: the earliest first, those of which it is not known last, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    expected: Millis,
    started: Millis,
    pub(crate) attempt: AttemptId,
}

impl End {
    pub(crate) fn new(attempt: AttemptId, started: Millis, expected: Option<Millis>) -> Self {
        Self { expected: expected.unwrap_or(Millis(u64::MAX)), started, attempt }
    }

    pub(crate) fn expected(&self) -> Option<Millis> {
        Some(self.expected).filter(|expected| *expected != Millis(u64::MAX))
    }

    fn of(attempt: &Attempt) -> Self {
        Self::new(attempt.id, attempt.started, attempt.expected_end)
    }
}

/// The records that lookups are derived from, besides a trial's own.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) experiments: &'a Shared<ExperimentId, Experiment>,
}

/// Derived lookups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) by_key: BTreeMap<TrialKey, TrialId>,
    /// Each trial that is needed, with each that needs it, ended or not.
    dependents: BTreeSet<(TrialId, TrialId)>,
    /// Queued trials by class, so that of a million only the first of each class need be looked at.
    pub(crate) queue: BTreeMap<Arc<Class>, BTreeSet<QueueKey>>,
    standing: BTreeMap<TrialId, Standing>,
    pub(crate) running: BTreeMap<AttemptId, TrialId>,
    /// Running train attempts by priority: these can write a checkpoint and make way.
    pub(crate) trains: BTreeMap<i32, BTreeSet<AttemptId>>,
    /// Those of them that could go on with fewer ranks.
    pub(crate) elastic: BTreeMap<i32, BTreeSet<AttemptId>>,
    pub(crate) ends: BTreeSet<End>,
    /// Running attempts that were asked to stop at a checkpoint.
    pub(crate) yielding: BTreeSet<AttemptId>,
    /// Current attempts on each member.
    pub(crate) on_worker: BTreeMap<WorkerId, BTreeSet<AttemptId>>,
    /// Free slots of each member.
    pub(crate) free: BTreeMap<WorkerId, u32>,
    /// Members that have any.
    pub(crate) vacant: BTreeSet<WorkerId>,
    /// Slots that each project uses.
    pub(crate) used: BTreeMap<String, u32>,
    pub(crate) counts: BTreeMap<ExperimentId, Counts>,
    /// How many records refer to a blob.
    pub(crate) blobs: BTreeMap<Digest, u32>,
}

impl Index {
    /// The lookups that follow from the records of `state`.
    pub(crate) fn of(state: &State) -> Self {
        let mut index = Self::default();
        for (&id, worker) in &state.workers {
            index.add_worker(id, worker);
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
            index.enter(id, trial, Sources { experiments: &state.experiments });
        }
        index
    }

    /// The class of a queued or running trial.
    pub(crate) fn class_of(&self, id: TrialId) -> Option<&Arc<Class>> {
        self.standing.get(&id).map(|standing| &standing.class)
    }

    pub(super) fn add_needs(&mut self, id: TrialId, trial: &Trial) {
        for &need in &trial.needs {
            self.dependents.insert((need, id));
        }
    }

    /// Whether anything but `trial` is queued.
    pub(crate) fn is_anything_queued_besides(&self, trial: TrialId) -> bool {
        self.queue.values().flatten().take(2).any(|key| key.trial != trial)
    }

    /// Running attempts that were not asked to stop, in the order of their expected ends.
    pub(crate) fn undisturbed(&self) -> impl Iterator<Item = &End> {
        self.ends.iter().filter(|end| !self.yielding.contains(&end.attempt))
    }

    /// Trials that need `id`, ended or not, in order.
    pub(crate) fn dependents_of(&self, id: TrialId) -> impl Iterator<Item = TrialId> {
        let pairs = self.dependents.range((id, TrialId(0))..=(id, TrialId(u64::MAX)));
        pairs.map(|&(_, dependent)| dependent)
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
    pub(super) fn enter(&mut self, id: TrialId, trial: &Trial, sources: Sources<'_>) {
        match &trial.phase {
            Phase::Waiting | Phase::Paused => {}
            Phase::Queued => {
                let standing = self.stand(id, trial, sources);
                self.queue.entry(standing.class).or_default().insert(standing.key);
            }
            Phase::Running(attempt) => {
                let standing = self.stand(id, trial, sources);
                self.running.insert(attempt.id, id);
                self.ends.insert(End::of(attempt));
                if attempt.yielding.is_some() {
                    self.yielding.insert(attempt.id);
                }
                if standing.key.kind == Kind::Train {
                    self.trains.entry(standing.class.priority.0).or_default().insert(attempt.id);
                }
                let ranks = attempt.placement.world_size();
                if ranks > standing.class.least {
                    self.elastic.entry(standing.class.priority.0).or_default().insert(attempt.id);
                }
                match self.used.get_mut(&standing.class.project) {
                    Some(used) => *used += ranks,
                    None => drop(self.used.insert(standing.class.project.clone(), ranks)),
                }
                for share in attempt.placement.shares() {
                    self.on_worker.entry(share.worker).or_default().insert(attempt.id);
                    let free = self.free.entry(share.worker).or_default();
                    *free = free.saturating_sub(share.ranks);
                    if *free == 0 {
                        self.vacant.remove(&share.worker);
                    }
                }
            }
            Phase::Ended { outcome, .. } => {
                for digest in artifacts(outcome) {
                    self.add_blob(digest);
                }
            }
        }
    }

    fn stand(&mut self, id: TrialId, trial: &Trial, sources: Sources<'_>) -> Standing {
        let class = Class::of(trial, sources.experiments);
        // The one that the others of the class share, if there are others.
        let shared = self.queue.get_key_value(&class).map(|(shared, _)| Arc::clone(shared));
        let class = shared.unwrap_or_else(|| Arc::new(class));
        let standing = Standing { class, key: QueueKey::of(id, trial) };
        self.standing.insert(id, standing.clone());
        standing
    }

    /// Undoes [`Self::enter`].
    pub(super) fn leave(&mut self, id: TrialId, trial: &Trial) {
        match &trial.phase {
            Phase::Waiting | Phase::Paused => {}
            Phase::Queued => {
                if let Some(Standing { class, key }) = self.standing.remove(&id)
                    && let Some(queue) = self.queue.get_mut(&class)
                {
                    queue.remove(&key);
                    if queue.is_empty() {
                        self.queue.remove(&class);
                    }
                }
            }
            Phase::Running(attempt) => {
                self.running.remove(&attempt.id);
                self.ends.remove(&End::of(attempt));
                self.yielding.remove(&attempt.id);
                if let Some(Standing { class, key: _ }) = self.standing.remove(&id) {
                    self.stop(attempt, &class);
                }
                for share in attempt.placement.shares() {
                    if let Some(attempts) = self.on_worker.get_mut(&share.worker) {
                        attempts.remove(&attempt.id);
                    }
                    if let Some(free) = self.free.get_mut(&share.worker) {
                        *free += share.ranks;
                        self.vacant.insert(share.worker);
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

    fn stop(&mut self, attempt: &Attempt, class: &Class) {
        for by_priority in [&mut self.trains, &mut self.elastic] {
            if let Some(attempts) = by_priority.get_mut(&class.priority.0) {
                attempts.remove(&attempt.id);
                if attempts.is_empty() {
                    by_priority.remove(&class.priority.0);
                }
            }
        }
        if let Some(used) = self.used.get_mut(&class.project) {
            *used = used.saturating_sub(attempt.placement.world_size());
            if *used == 0 {
                self.used.remove(&class.project);
            }
        }
    }

    pub(super) fn add_worker(&mut self, id: WorkerId, worker: &Worker) {
        self.free.insert(id, worker.slots);
        self.on_worker.insert(id, BTreeSet::new());
        if worker.slots > 0 {
            self.vacant.insert(id);
        }
    }

    /// Forgets a member that holds no attempt any more.
    pub(super) fn remove_worker(&mut self, id: WorkerId) {
        self.free.remove(&id);
        self.vacant.remove(&id);
        self.on_worker.remove(&id);
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
