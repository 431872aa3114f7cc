//! What may be read. Nothing here changes anything.

use common::result::Checkpoint;
use common::{AttemptId, Digest, ExperimentId, TrialId, TrialKey, WorkerId};

use super::{Cluster, Session};
use crate::state::sponsor;
use crate::{Counts, Drain, Experiment, Millis, Policy, Quarantine, Trial, Worker};

/// A member of the cluster and its standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerView<'a> {
    /// Its id.
    pub id: WorkerId,
    /// What it said about itself.
    pub worker: &'a Worker,
    /// Slots that attempts hold.
    pub used: u32,
    /// Whether it can be told anything.
    pub session: Session,
    /// When it is lost, unless it is heard of.
    pub lease_ends: Millis,
    /// Whether its operator took it out of service.
    pub drain: Option<&'a Drain>,
    /// Whether it was taken out of service for what happened there.
    pub quarantine: Option<&'a Quarantine>,
}

impl Cluster {
    /// The limits that it was made with.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// When [`crate::Input::Tick`] is due next, unless another input comes first.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.live.next_deadline()
    }

    /// Every experiment, oldest first.
    pub fn experiments(&self) -> impl DoubleEndedIterator<Item = (ExperimentId, &Experiment)> {
        self.state.experiments.iter().map(|(&id, experiment)| (id, experiment))
    }

    /// An experiment.
    pub fn experiment(&self, id: ExperimentId) -> Option<&Experiment> {
        self.state.experiments.get(&id)
    }

    /// How many trials of an experiment are in each phase.
    pub fn counts(&self, id: ExperimentId) -> Option<Counts> {
        self.state.index.counts.get(&id).copied()
    }

    /// How many experiments and trials there are.
    pub fn records(&self) -> usize {
        self.state.experiments.len() + self.state.trials.len()
    }

    /// Every trial, oldest first.
    pub fn trials(&self) -> impl DoubleEndedIterator<Item = (TrialId, &Trial)> {
        self.state.trials.iter().map(|(&id, trial)| (id, trial))
    }

    /// A trial.
    pub fn trial(&self, id: TrialId) -> Option<&Trial> {
        self.state.trials.get(&id)
    }

    /// The trial with this name.
    pub fn trial_by_key(&self, key: TrialKey) -> Option<TrialId> {
        self.state.index.by_key.get(&key).copied()
    }

    /// The trial whose current attempt this is. `None` for an old one.
    pub fn trial_of(&self, attempt: AttemptId) -> Option<TrialId> {
        self.state.trial_of(attempt)
    }

    /// Fence for what does not pass through here, such as metric rows and uploads: whether `worker` holds a
    /// share of `attempt`, and `attempt` is current.
    pub fn is_current(&self, attempt: AttemptId, worker: WorkerId) -> bool {
        self.state.is_current(attempt, worker)
    }

    /// Final checkpoints of the trials that `trial` needs, in the order of its networks.
    ///
    /// A queued or running trial has all of them; for a waiting one those are left out that do not exist yet.
    pub fn networks(&self, trial: TrialId) -> impl Iterator<Item = (TrialKey, &Checkpoint)> {
        let needs = self.state.trials.get(&trial).into_iter().flat_map(|record| &record.needs);
        needs.filter_map(|need| {
            let record = self.state.trials.get(need).filter(|record| record.has_succeeded())?;
            Some((record.key, record.checkpoints.last()?))
        })
    }

    /// Newest step that the running attempt of a trial reported since this coordinator started.
    pub fn reported_step(&self, trial: TrialId) -> Option<u64> {
        let attempt = self.state.trials.get(&trial)?.attempt()?.id;
        self.live.gangs.get(&attempt)?.progress.map(|progress| progress.step)
    }

    /// Every member.
    pub fn workers(&self) -> impl DoubleEndedIterator<Item = WorkerView<'_>> {
        self.state.workers.keys().filter_map(|&id| self.worker(id))
    }

    /// A member.
    pub fn worker(&self, id: WorkerId) -> Option<WorkerView<'_>> {
        let worker = self.state.workers.get(&id)?;
        let lease = self.live.leases.get(&id)?;
        let free = self.state.index.free.get(&id).copied().unwrap_or_default();
        let used = worker.slots.saturating_sub(free);
        let drain = self.state.drained.get(&id);
        let quarantine = self.state.quarantined.get(&id);
        let (session, lease_ends) = (lease.session, lease.ends);
        Some(WorkerView { id, worker, used, session, lease_ends, drain, quarantine })
    }

    /// Workers that their operators took out of service, members or not.
    pub fn drained(&self) -> impl Iterator<Item = (WorkerId, &Drain)> {
        self.state.drained.iter().map(|(&id, drain)| (id, drain))
    }

    /// Workers that were taken out of service for what happened there, members or not.
    pub fn quarantined(&self) -> impl Iterator<Item = (WorkerId, &Quarantine)> {
        self.state.quarantined.iter().map(|(&id, quarantine)| (id, quarantine))
    }

    /// The experiment that decides the priority of a trial and whose project it is charged to, while one wants it.
    pub fn sponsor(&self, trial: &Trial) -> Option<&Experiment> {
        sponsor(trial, &self.state.experiments)
    }

    /// Current attempts that have a share on a worker.
    pub fn attempts_on(&self, worker: WorkerId) -> impl Iterator<Item = AttemptId> {
        self.state.attempts_on(worker)
    }

    /// Checkpoints of a trial that users want kept, oldest first.
    pub fn pinned(&self, trial: TrialId) -> impl Iterator<Item = &Checkpoint> {
        let record = self.state.trials.get(&trial);
        record.into_iter().flat_map(|record| record.checkpoints.iter().filter(|held| record.is_pinned(held)))
    }

    /// Whether a durable record refers to a blob: a checkpoint that is kept, or an artifact of a result.
    ///
    /// Logs and whatever else the caller stores it must account for itself.
    pub fn is_referenced(&self, blob: Digest) -> bool {
        self.state.index.blobs.contains_key(&blob)
    }

    /// Whether `other` holds the same durable state.
    pub fn same_durable_state(&self, other: &Self) -> bool {
        self.state == other.state
    }
}
