//! Durable state of pauses, drains and quarantines, and what follows from it.

use std::collections::BTreeSet;

use common::{AttemptId, ExperimentId, FailureCause, TrialId, WorkerId};
use serde::{Deserialize, Serialize};

use super::{Failure, Phase, Setbacks, State, Trial};
use crate::standing::{loses_worker, may_blame_worker};
use crate::{Drain, Millis, Quarantine, Strike};

/// Failures on a worker that may be its fault, since a trial last succeeded there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Doubt {
    pub(crate) strikes: Vec<Strike>,
    /// Whether an attempt elsewhere left a checkpoint or a result since the first of them.
    pub(crate) others_do_well: bool,
}

impl State {
    /// Whether a trial is to run for nobody now: it is paused by its name, or all who want it are.
    pub(crate) fn is_held(&self, trial: &Trial) -> bool {
        let paused = |id: &ExperimentId| self.experiments.get(id).is_some_and(|e| e.paused.is_some());
        trial.paused.is_some() || (!trial.wanted_by.is_empty() && trial.wanted_by.iter().all(paused))
    }

    /// Whether a worker is given nothing new.
    pub(crate) fn is_barred(&self, worker: WorkerId) -> bool {
        self.drained.contains_key(&worker) || self.quarantined.contains_key(&worker)
    }

    pub(super) fn apply_trial_paused(&mut self, id: TrialId, paused: Option<Millis>) {
        if let Some(record) = self.trials.get_mut(&id) {
            record.paused = paused;
        }
        self.reconsider(id);
    }

    pub(super) fn apply_experiment_paused(&mut self, id: ExperimentId, paused: Option<Millis>) {
        let Some(experiment) = self.experiments.get_mut(&id) else {
            return;
        };
        experiment.paused = paused;
        for trial in experiment.trials.clone() {
            self.reconsider(trial);
        }
        self.reconsider_standing(id);
    }

    pub(super) fn apply_drained(&mut self, worker: WorkerId, drain: Drain) {
        self.drained.insert(worker, drain);
    }

    pub(super) fn apply_quarantined(&mut self, worker: WorkerId, quarantine: Quarantine) {
        self.quarantined.insert(worker, quarantine);
        self.doubts.remove(&worker);
    }

    pub(super) fn apply_undrained(&mut self, worker: WorkerId) {
        self.drained.remove(&worker);
        self.quarantined.remove(&worker);
        self.doubts.remove(&worker);
    }

    pub(super) fn apply_attempt_failed(
        &mut self,
        id: TrialId,
        attempt: AttemptId,
        cause: &FailureCause,
        worker: Option<WorkerId>,
        at: Millis,
    ) {
        if let Some(worker) = worker.filter(|_| may_blame_worker(cause)) {
            self.doubt(worker, Strike { trial: id, attempt, cause: cause.clone() });
        }
        if let Some(record) = self.trials.get_mut(&id) {
            record.failures.push(Failure { attempt, cause: cause.clone(), worker, at });
            record.counted_failures += u32::from(cause.counts());
            let first_lost = *cause == FailureCause::WorkerLost && record.workers_lost == 0;
            record.workers_lost += u32::from(loses_worker(cause));
            if let (Phase::Running(running), false) = (&record.phase, *cause == FailureCause::Preempted) {
                let gang = running.placement.shares().iter().map(|share| share.worker);
                let mut again = false;
                for other in gang.filter(|&other| worker.is_none_or(|worker| worker == other)) {
                    again |= record.failed_on.contains(&other);
                    record.failed_on.include(other);
                }
                if cause.counts() {
                    record.setbacks = Setbacks::default();
                } else if again && !first_lost {
                    let in_a_row = record.setbacks.in_a_row.saturating_add(1);
                    record.setbacks = Setbacks { in_a_row, last: Some(at) };
                }
            }
        }
        self.open(id);
    }

    /// A trial that fails on one worker after the other is itself to blame, and then no worker is.
    fn doubt(&mut self, worker: WorkerId, strike: Strike) {
        let failures = self.trials.get(&strike.trial).into_iter().flat_map(|record| &record.failures);
        let elsewhere = failures
            .filter(|failure| may_blame_worker(&failure.cause))
            .any(|failure| failure.worker.is_some_and(|other| other != worker));
        if elsewhere {
            for doubt in self.doubts.values_mut() {
                doubt.strikes.retain(|other| other.trial != strike.trial);
            }
            self.doubts.retain(|_, doubt| !doubt.strikes.is_empty());
        } else {
            self.doubts.entry(worker).or_default().strikes.push(strike);
        }
    }

    /// A trial that runs left a checkpoint: elsewhere than on the workers in doubt, training works.
    pub(super) fn does_well(&mut self, trial: TrialId) {
        let workers = self.workers_of(trial);
        for (_, doubt) in self.doubts.iter_mut().filter(|(worker, _)| !workers.contains(worker)) {
            doubt.others_do_well = true;
        }
    }

    /// A trial that runs succeeded: its workers are beyond doubt.
    pub(super) fn did_well(&mut self, trial: TrialId) {
        self.does_well(trial);
        for worker in self.workers_of(trial) {
            self.doubts.remove(&worker);
        }
    }

    fn workers_of(&self, trial: TrialId) -> BTreeSet<WorkerId> {
        let attempt = self.trials.get(&trial).and_then(Trial::attempt);
        let shares = attempt.into_iter().flat_map(|attempt| attempt.placement.shares());
        shares.map(|share| share.worker).collect()
    }
}
