//! Submission: which trials are new, which are known, and which run again.

use std::collections::BTreeMap;

use common::plan::{Cell, Plan, PlannedTrial};
use common::spec::RunPolicy;
use common::{ExperimentId, FailureCause, TrialId, TrialKey};

use super::Cluster;
use crate::{Event, Experiment, Millis, Outcome, Reject, Step};

/// A planned trial with its name and the names of those that it needs.
struct Named {
    planned: PlannedTrial,
    key: TrialKey,
    needs: Vec<TrialKey>,
}

impl Cluster {
    pub(super) fn submit(
        &mut self,
        now: Millis,
        plan: Plan,
        grid: String,
        step: &mut Step,
    ) -> Result<(), Reject> {
        let Plan { name, project, priority, trials, cells } = plan;
        if trials.is_empty() {
            return Err(Reject::EmptyPlan { name });
        }
        let named = trials.into_iter().map(Named::new).collect::<Vec<_>>();
        let mut known = std::collections::BTreeSet::new();
        for trial in &named {
            trial.check(|need| known.contains(need))?;
            known.insert(trial.key);
        }
        if let Some(cell) = cells.iter().find(|cell| !known.contains(&cell.trial)) {
            let Cell { data, model, method, seed, trial: _ } = cell;
            return Err(Reject::MissingTrial {
                data: data.to_string(),
                model: model.to_string(),
                method: method.to_string(),
                seed: *seed,
            });
        }

        let experiment = ExperimentId(self.state.last_experiment + 1);
        let mut ids = BTreeMap::new();
        let mut trials = Vec::with_capacity(named.len());
        for trial in named {
            let key = trial.key;
            if ids.contains_key(&key) {
                continue;
            }
            let id = self.want(now, experiment, trial, &ids, step);
            ids.insert(key, id);
            trials.push(id);
        }
        let submitted =
            Event::ExperimentSubmitted { experiment, name, grid, cells, trials, project, priority, at: now };
        self.emit(submitted, step);
        Ok(())
    }

    /// The experiment that a client names.
    pub(super) fn known_experiment(&self, experiment: ExperimentId) -> Result<&Experiment, Reject> {
        self.state.experiments.get(&experiment).ok_or(Reject::UnknownExperiment(experiment))
    }

    /// A cancelled experiment takes a priority too: it means nothing, unless its trials are wanted again.
    pub(super) fn set_priority(
        &mut self,
        now: Millis,
        experiment: ExperimentId,
        priority: i32,
        step: &mut Step,
    ) -> Result<(), Reject> {
        let record = self.known_experiment(experiment)?;
        if record.priority != priority {
            self.emit(Event::ExperimentPrioritized { experiment, priority, at: now }, step);
        }
        Ok(())
    }

    /// Sees to it that a trial is known, and open unless it has a result.
    fn want(
        &mut self,
        now: Millis,
        experiment: ExperimentId,
        trial: Named,
        ids: &BTreeMap<TrialKey, TrialId>,
        step: &mut Step,
    ) -> TrialId {
        let Named { planned: PlannedTrial { spec, policy, label }, key, needs } = trial;
        if let Some(&id) = self.state.index.by_key.get(&key) {
            self.want_again(now, experiment, id, policy, step);
            return id;
        }
        let id = TrialId(self.state.last_trial + 1);
        let needs = needs.iter().filter_map(|need| ids.get(need).copied()).collect();
        let spec = Box::new(spec);
        let submitted =
            Event::TrialSubmitted { trial: id, experiment, key, needs, spec, policy, label, at: now };
        self.emit(submitted, step);
        id
    }

    fn want_again(
        &mut self,
        now: Millis,
        experiment: ExperimentId,
        id: TrialId,
        policy: RunPolicy,
        step: &mut Step,
    ) {
        let Some(outcome) = self.state.trials.get(&id).and_then(|trial| trial.outcome()) else {
            return;
        };
        match outcome {
            Outcome::Succeeded { .. } => return,
            // It would be handed the same checkpoints and fail again.
            Outcome::Failed { cause: FailureCause::CheckpointIncompatible { .. } } => {
                self.drop_unreadable(now, id, step);
            }
            Outcome::Failed { .. }
            | Outcome::LostWorkers { .. }
            | Outcome::Cancelled
            | Outcome::NeedFailed { .. } => {}
        }
        self.emit(Event::TrialResubmitted { trial: id, experiment, policy, at: now }, step);
        // The new policy may not be to keep the best one.
        self.drop_surplus(now, id, step);
    }
}

impl Named {
    fn new(planned: PlannedTrial) -> Self {
        let key = planned.spec.key();
        let needs = planned.spec.needs();
        Self { planned, key, needs }
    }

    fn check(&self, known: impl Fn(&TrialKey) -> bool) -> Result<(), Reject> {
        if self.planned.spec.slots() == 0 {
            return Err(Reject::NoSlots { label: self.planned.label.clone() });
        }
        match self.needs.iter().find(|need| !known(need)) {
            Some(&need) => Err(Reject::MissingNeed { label: self.planned.label.clone(), need }),
            None => Ok(()),
        }
    }
}
