//! Durable state: everything that replaying the log rebuilds, and the only code that changes it.
//!
//! [`State::apply`] trusts its events, because the handlers made them; [`crate::Cluster::check`] verifies.

mod apply;
mod checkpoint;
mod index;
mod outcome;
mod record;
mod standing;

use std::collections::BTreeMap;

use common::{AttemptId, ExperimentId, TrialId, WorkerId};

use crate::{Drain, Quarantine};
pub(crate) use index::{Index, QueueKey, artifacts};
pub use outcome::{Failure, Outcome};
pub use record::{Attempt, Counts, Experiment, Phase, Trial, Worker, Yielding};
pub(crate) use standing::Doubt;

/// What the log says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) experiments: BTreeMap<ExperimentId, Experiment>,
    pub(crate) trials: BTreeMap<TrialId, Trial>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    /// Workers that are given nothing new, members or not.
    pub(crate) drained: BTreeMap<WorkerId, Drain>,
    pub(crate) quarantined: BTreeMap<WorkerId, Quarantine>,
    /// Workers on which attempts failed since a trial last succeeded there.
    pub(crate) doubts: BTreeMap<WorkerId, Doubt>,
    /// Newest ids that were given out. They are never given out again.
    pub(crate) last_experiment: u64,
    pub(crate) last_trial: u64,
    pub(crate) last_attempt: u64,
    /// Follows from the rest.
    pub(crate) index: Index,
}

impl State {
    /// The trial whose current attempt is `attempt`.
    pub(crate) fn trial_of(&self, attempt: AttemptId) -> Option<TrialId> {
        self.index.running.get(&attempt).copied()
    }

    /// The current attempt `attempt`, with its trial.
    pub(crate) fn running(&self, attempt: AttemptId) -> Option<(TrialId, &Attempt)> {
        let trial = self.trial_of(attempt)?;
        Some((trial, self.trials.get(&trial)?.attempt()?))
    }

    /// Current attempts with a share on `worker`.
    pub(crate) fn attempts_on(&self, worker: WorkerId) -> impl Iterator<Item = AttemptId> {
        self.index.on_worker.get(&worker).into_iter().flatten().copied()
    }

    /// Whether `worker` holds a share of the current attempt `attempt`.
    pub(crate) fn is_current(&self, attempt: AttemptId, worker: WorkerId) -> bool {
        self.index.on_worker.get(&worker).is_some_and(|attempts| attempts.contains(&attempt))
    }

    /// Whether every trial that `trial` needs has succeeded.
    pub(crate) fn needs_met(&self, trial: &Trial) -> bool {
        trial.needs.iter().all(|need| self.trials.get(need).is_some_and(Trial::has_succeeded))
    }
}
