//! Pauses, of a trial by its name or of all that an experiment wants.
//!
//! A paused trial that runs stops at a checkpoint and is not queued again until it is resumed. A trial that several
//! experiments want runs while one of them is not paused; a pause by its name holds for all. What needs a paused
//! trial waits for it.

use common::{ExperimentId, TrialId};

use super::Cluster;
use crate::{Event, Millis, Reject, Step, Trial, YieldReason};

impl Cluster {
    pub(super) fn pause_trial(&mut self, now: Millis, trial: TrialId, step: &mut Step) -> Result<(), Reject> {
        if self.open_trial(trial)?.paused.is_none() {
            self.emit(Event::TrialPaused { trial, at: now }, step);
            self.hold(now, trial, step);
        }
        Ok(())
    }

    /// The experiments that want it may be paused, too: then it stays so.
    pub(super) fn resume_trial(
        &mut self,
        now: Millis,
        trial: TrialId,
        step: &mut Step,
    ) -> Result<(), Reject> {
        if self.open_trial(trial)?.paused.is_some() {
            self.emit(Event::TrialResumed { trial, at: now }, step);
        }
        Ok(())
    }

    /// A cancelled experiment wants nothing that could be paused.
    pub(super) fn pause_experiment(
        &mut self,
        now: Millis,
        experiment: ExperimentId,
        step: &mut Step,
    ) -> Result<(), Reject> {
        let record = self.known_experiment(experiment)?;
        if record.paused.is_some() || record.cancelled.is_some() {
            return Ok(());
        }
        let trials = record.trials.clone();
        self.emit(Event::ExperimentPaused { experiment, at: now }, step);
        for trial in trials {
            self.hold(now, trial, step);
        }
        Ok(())
    }

    pub(super) fn resume_experiment(
        &mut self,
        now: Millis,
        experiment: ExperimentId,
        step: &mut Step,
    ) -> Result<(), Reject> {
        let record = self.known_experiment(experiment)?;
        if record.paused.is_some() {
            self.emit(Event::ExperimentResumed { experiment, at: now }, step);
        }
        Ok(())
    }

    /// Stops a trial that runs and that nobody wants for now.
    pub(super) fn hold(&mut self, now: Millis, trial: TrialId, step: &mut Step) {
        let held = self.state.trials.get(&trial).filter(|record| self.state.is_held(record));
        if let Some(attempt) = held.and_then(Trial::attempt).map(|attempt| attempt.id) {
            self.ask_to_yield(now, attempt, YieldReason::Paused, step);
        }
    }

    /// Experiments because of which a trial is paused: all that want it, or none.
    pub(super) fn paused_with(&self, trial: &Trial) -> Vec<ExperimentId> {
        let paused = |id: &ExperimentId| self.state.experiments.get(id).is_some_and(|e| e.paused.is_some());
        if trial.wanted_by.iter().all(paused) {
            trial.wanted_by.iter().copied().collect()
        } else {
            Vec::new()
        }
    }

    fn open_trial(&self, trial: TrialId) -> Result<&Trial, Reject> {
        let record = self.state.trials.get(&trial).ok_or(Reject::UnknownTrial(trial))?;
        if record.has_ended() { Err(Reject::TrialEnded(trial)) } else { Ok(record) }
    }
}
