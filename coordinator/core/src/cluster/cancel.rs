//! Cancellation, by experiment or by trial.

use common::{ExperimentId, TrialId};

use super::Cluster;
use crate::{Event, Millis, Outcome, Reject, Step};

impl Cluster {
    /// Trials that another experiment wants go on; cancelling twice changes nothing.
    pub(super) fn cancel_experiment(
        &mut self,
        now: Millis,
        experiment: ExperimentId,
        step: &mut Step,
    ) -> Result<(), Reject> {
        let record = self.known_experiment(experiment)?;
        if record.cancelled.is_some() {
            return Ok(());
        }
        let trials = record.trials.clone();
        self.emit(Event::ExperimentCancelled { experiment, at: now }, step);
        // Backwards, so that an evaluation is cancelled before it could end for want of its network.
        for trial in trials.into_iter().rev() {
            let unwanted = |record: &crate::Trial| !record.has_ended() && record.wanted_by.is_empty();
            if self.state.trials.get(&trial).is_some_and(unwanted) {
                self.cancel(now, trial, step);
            } else {
                // Those that want it still may be paused.
                self.hold(now, trial, step);
            }
        }
        Ok(())
    }

    pub(super) fn cancel_trial(
        &mut self,
        now: Millis,
        trial: TrialId,
        step: &mut Step,
    ) -> Result<(), Reject> {
        let record = self.state.trials.get(&trial).ok_or(Reject::UnknownTrial(trial))?;
        match record.outcome() {
            None => self.cancel(now, trial, step),
            Some(Outcome::Cancelled) => {}
            Some(
                Outcome::Succeeded { .. }
                | Outcome::Failed { .. }
                | Outcome::LostWorkers { .. }
                | Outcome::NeedFailed { .. },
            ) => {
                return Err(Reject::TrialEnded(trial));
            }
        }
        Ok(())
    }

    fn cancel(&mut self, now: Millis, trial: TrialId, step: &mut Step) {
        let attempt = self.state.trials.get(&trial).and_then(crate::Trial::attempt).map(|attempt| attempt.id);
        if let Some(attempt) = attempt {
            self.release(attempt, step);
        }
        self.end(now, trial, Outcome::Cancelled, step);
    }
}
