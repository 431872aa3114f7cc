//! Durable state: everything that replaying the log rebuilds, and the only code that changes it.
//!
//! [`State::apply`] trusts its events, because the handlers made them; [`crate::Cluster::check`] verifies.

mod apply;
mod checkpoint;
mod durations;
mod few;
mod index;
mod outcome;
mod pool;
mod record;
mod shared;
mod spec;
mod standing;

use std::collections::BTreeMap;

use common::session::SessionOrder;
use common::{AttemptId, ExperimentId, TrialId, WorkerId};
use serde::{Deserialize, Serialize};

use crate::{Drain, Millis, Quarantine};
pub(crate) use durations::Durations;
pub use few::Few;
pub(crate) use index::{Class, End, Index, QueueKey, Sources, artifacts, sponsor};
pub use outcome::{Failure, Outcome};
pub(crate) use pool::Pool;
pub use record::{Attempt, Counts, Experiment, Phase, Setbacks, Trial, Worker, Yielding};
pub use shared::Shared;
pub use spec::Spec;
pub(crate) use standing::Doubt;

/// What the log says.
///
/// A snapshot holds it: experiments and trials in parts of their own, because there are many, and the rest in
/// its head. A field that is added gets `#[serde(default)]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct State {
    #[serde(skip)]
    pub(crate) experiments: Shared<ExperimentId, Experiment>,
    #[serde(skip)]
    pub(crate) trials: Shared<TrialId, Trial>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    #[serde(default)]
    /// Workers that are given nothing new, members or not.
    pub(crate) drained: BTreeMap<WorkerId, Drain>,
    #[serde(default)]
    pub(crate) quarantined: BTreeMap<WorkerId, Quarantine>,
    #[serde(default)]
    /// Workers on which attempts failed since a trial last succeeded there.
    pub(crate) doubts: BTreeMap<WorkerId, Doubt>,
    /// The latest session of each worker that ever said which it is, member or not.
    #[serde(default)]
    pub(crate) sessions: BTreeMap<WorkerId, SessionOrder>,
    /// Newest ids that were given out. They are never given out again.
    pub(crate) last_experiment: u64,
    pub(crate) last_trial: u64,
    pub(crate) last_attempt: u64,
    /// How long trials take.
    #[serde(default)]
    pub(crate) durations: Durations,
    /// What records share.
    #[serde(skip)]
    pub(crate) pool: Pool,
    /// Follows from the rest.
    #[serde(skip)]
    pub(crate) index: Index,
}

impl State {
    /// The id that the attempt after `others` new ones will have.
    pub(crate) fn next_attempt(&self, others: usize) -> AttemptId {
        let others = u64::try_from(others).unwrap_or(u64::MAX);
        AttemptId(self.last_attempt.saturating_add(1).saturating_add(others))
    }

    /// The records alone. Experiments and trials are shared with the original, not copied.
    pub(crate) fn records(&self) -> Self {
        Self {
            experiments: self.experiments.clone(),
            trials: self.trials.clone(),
            workers: self.workers.clone(),
            drained: self.drained.clone(),
            quarantined: self.quarantined.clone(),
            doubts: self.doubts.clone(),
            sessions: self.sessions.clone(),
            last_experiment: self.last_experiment,
            last_trial: self.last_trial,
            last_attempt: self.last_attempt,
            durations: self.durations.clone(),
            pool: Pool::default(),
            index: Index::default(),
        }
    }

    /// The trial whose current attempt is `attempt`.
    pub(crate) fn trial_of(&self, attempt: AttemptId) -> Option<TrialId> {
        self.index.running.get(&attempt).copied()
    }

    /// The current attempt `attempt`, with its trial.
    pub(crate) fn running(&self, attempt: AttemptId) -> Option<(TrialId, &Attempt)> {
        let trial = self.trial_of(attempt)?;
        Some((trial, self.trials.get(&trial)?.attempt()?))
    }

    /// When `attempt` will end, as far as is known; `None` when it does not run.
    pub(crate) fn expected_end(&self, attempt: AttemptId) -> Option<Option<Millis>> {
        let (_, running) = self.running(attempt)?;
        // One that was asked to stop does so as soon as it can.
        Some(running.yielding.map(|asked| asked.since).or(running.expected_end))
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
