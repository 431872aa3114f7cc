//! The only place where durable state changes; live steps and replay share it.

use std::collections::BTreeSet;

use common::spec::RunPolicy;
use common::{AttemptId, ExperimentId, TrialId, WorkerId};

use super::{
    Attempt, Experiment, Few, Outcome, Phase, Setbacks, Sources, Spec, State, Trial, Worker, Yielding,
};
use crate::{Drain, Event, Millis, Quarantine};

impl State {
    /// Makes `event` true.
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::TrialSubmitted { .. } => self.apply_trial_submitted(event),
            Event::TrialResubmitted { trial, experiment, policy, at: _ } => {
                self.apply_trial_resubmitted(*trial, *experiment, policy);
            }
            Event::TrialReopened { trial, at: _ } => self.apply_trial_reopened(*trial),
            Event::ExperimentSubmitted { .. } => self.apply_experiment_submitted(event),
            Event::ExperimentPrioritized { experiment, priority, at: _ } => {
                if let Some(record) = self.experiments.get_mut(experiment) {
                    record.priority = *priority;
                }
                self.reconsider_standing(*experiment);
            }
            Event::TrialPaused { trial, at } => self.apply_trial_paused(*trial, Some(*at)),
            Event::TrialResumed { trial, at: _ } => self.apply_trial_paused(*trial, None),
            Event::ExperimentPaused { experiment, at } => {
                self.apply_experiment_paused(*experiment, Some(*at));
            }
            Event::ExperimentResumed { experiment, at: _ } => self.apply_experiment_paused(*experiment, None),
            Event::ExperimentCancelled { experiment, at } => self.apply_cancelled(*experiment, *at),
            Event::WorkerJoined { worker, name, host, slots, traits, at } => {
                let (name, host, traits) = (name.clone(), host.clone(), traits.clone());
                let joined = Worker { name, host, slots: *slots, traits, joined: *at };
                self.apply_worker_joined(*worker, joined);
            }
            Event::SessionOpened { worker, order, at: _ } => drop(self.sessions.insert(*worker, *order)),
            Event::WorkerLost { worker, at: _ } | Event::WorkerLeft { worker, at: _ } => {
                self.apply_worker_gone(*worker);
            }
            Event::WorkerDrained { worker, reason, at } => {
                self.apply_drained(*worker, Drain { reason: reason.clone(), since: *at });
            }
            Event::WorkerQuarantined { worker, reason, at } => {
                self.apply_quarantined(*worker, Quarantine { reason: reason.clone(), since: *at });
            }
            Event::WorkerUndrained { worker, at: _ } => self.apply_undrained(*worker),
            Event::AttemptStarted { trial, attempt, placement, at } => {
                let placement = placement.clone();
                let attempt =
                    Attempt { id: *attempt, placement, started: *at, expected_end: None, yielding: None };
                self.apply_attempt_started(*trial, attempt);
            }
            Event::YieldRequested { trial, attempt, reason, at } => {
                self.apply_yield_requested(*trial, *attempt, Yielding { reason: *reason, since: *at });
            }
            Event::AttemptFailed { trial, attempt, cause, worker, at } => {
                self.apply_attempt_failed(*trial, *attempt, cause, *worker, *at);
            }
            Event::TrialEnded { trial, outcome, at } => self.apply_trial_ended(*trial, outcome, *at),
            Event::CheckpointCommitted { trial, checkpoint, .. } => {
                self.apply_checkpoint_committed(*trial, checkpoint);
            }
            Event::CheckpointPinned { trial, step, at: _ } => self.apply_pinned(*trial, *step),
            Event::CheckpointUnpinned { trial, step, at: _ } => self.apply_unpinned(*trial, *step),
            Event::CheckpointDropped { trial, digest, reason, at: _ } => {
                self.apply_checkpoint_dropped(*trial, *digest, *reason);
            }
        }
    }

    fn apply_trial_submitted(&mut self, event: &Event) {
        let Event::TrialSubmitted { trial: id, experiment, key, needs, spec, policy, label, at } = event
        else {
            return;
        };
        let mut spec = Spec::from(spec.as_ref().clone());
        self.pool.share_spec(&mut spec);
        let trial = Trial {
            key: *key,
            spec,
            policy: self.pool.policy(policy),
            label: label.clone(),
            needs: needs.iter().copied().collect(),
            submitted: *at,
            experiments: Few::default(),
            wanted_by: Few::default(),
            queued_by: *experiment,
            phase: Phase::Waiting,
            attempts: 0,
            failures: Few::default(),
            failed_on: Few::default(),
            counted_failures: 0,
            workers_lost: 0,
            setbacks: Setbacks::default(),
            paused: None,
            checkpoints: Few::default(),
            newest_damaged: false,
            pins: Few::default(),
            world_sizes: Few::default(),
        };
        self.last_trial = id.0;
        self.index.by_key.insert(*key, *id);
        self.index.add_needs(*id, &trial);
        self.trials.insert(*id, trial);
        self.open(*id);
    }

    fn apply_trial_resubmitted(&mut self, id: TrialId, experiment: ExperimentId, policy: &RunPolicy) {
        if let Some(record) = self.trials.get_mut(&id) {
            record.policy = self.pool.policy(policy);
            record.queued_by = experiment;
            record.counted_failures = 0;
            record.workers_lost = 0;
            record.setbacks = Setbacks::default();
        }
        self.open(id);
    }

    fn apply_attempt_started(&mut self, id: TrialId, mut attempt: Attempt) {
        self.last_attempt = attempt.id.0;
        if let Some(record) = self.trials.get_mut(&id) {
            record.attempts += 1;
            record.setbacks.last = None;
            let estimate = self.durations.estimate(record.workload(), attempt.placement.world_size());
            attempt.expected_end = estimate.map(|estimate| attempt.started + estimate.typical);
        }
        self.set_phase(id, Phase::Running(Box::new(attempt)));
    }

    fn apply_yield_requested(&mut self, id: TrialId, attempt: AttemptId, asked: Yielding) {
        let running = self.trials.get_mut(&id).and_then(Trial::attempt_mut);
        if let Some(running) = running.filter(|running| running.id == attempt) {
            running.yielding = Some(asked);
            self.index.yielding.insert(attempt);
        }
    }

    fn apply_trial_reopened(&mut self, id: TrialId) {
        let dependents = self.index.dependents_of(id).filter_map(|dependent| self.trials.get(&dependent));
        let open = dependents.filter(|trial| !trial.has_ended());
        let wanted_by: BTreeSet<_> = open.flat_map(|trial| trial.wanted_by.iter().copied()).collect();
        if let Some(record) = self.trials.get_mut(&id) {
            record.wanted_by = wanted_by.into_iter().collect();
            record.counted_failures = 0;
            record.workers_lost = 0;
            record.setbacks = Setbacks::default();
        }
        self.open(id);
        self.reconsider_dependents(id);
    }

    fn apply_experiment_submitted(&mut self, event: &Event) {
        let Event::ExperimentSubmitted { experiment: id, name, grid, cells, trials, project, priority, at } =
            event
        else {
            return;
        };
        let mut cells = cells.clone();
        self.pool.share_cells(&mut cells);
        let experiment = Experiment {
            name: name.clone(),
            grid: grid.clone(),
            cells,
            trials: trials.clone(),
            project: project.clone(),
            priority: *priority,
            submitted: *at,
            cancelled: None,
            paused: None,
        };
        self.last_experiment = id.0;
        self.experiments.insert(*id, experiment);
        self.index.counts.insert(*id, super::Counts::default());
        for trial in trials {
            let Some(record) = self.trials.get_mut(trial) else {
                continue;
            };
            record.experiments.include(*id);
            if !record.has_ended() {
                record.wanted_by.include(*id);
            }
            self.index.count(*id, &record.phase);
        }
        // A trial that was paused for others is wanted by one that is not.
        for trial in trials {
            self.reconsider(*trial);
        }
        self.reconsider_standing(*id);
    }

    fn apply_cancelled(&mut self, id: ExperimentId, at: Millis) {
        let Some(experiment) = self.experiments.get_mut(&id) else {
            return;
        };
        experiment.cancelled = Some(at);
        experiment.paused = None;
        for trial in experiment.trials.clone() {
            if let Some(record) = self.trials.get_mut(&trial) {
                record.wanted_by.exclude(&id);
            }
            self.reconsider(trial);
        }
        self.reconsider_standing(id);
    }

    /// Gives the open trials of an experiment the priority and the project that they have now.
    pub(super) fn reconsider_standing(&mut self, id: ExperimentId) {
        let trials = self.experiments.get(&id).map(|experiment| experiment.trials.as_slice());
        let sources = Sources { experiments: &self.experiments };
        for trial in trials.unwrap_or_default() {
            if let Some(record) = self.trials.get(trial).filter(|record| !record.has_ended()) {
                self.index.leave(*trial, record);
                self.index.enter(*trial, record, sources);
            }
        }
    }

    fn apply_worker_joined(&mut self, id: WorkerId, joined: Worker) {
        match self.workers.get_mut(&id) {
            // Slots of a member never change: it is lost first, so that no attempt is left without its slot.
            Some(member) => {
                member.name = joined.name;
                member.host = joined.host;
                member.traits = joined.traits;
            }
            None => {
                self.index.add_worker(id, &joined);
                self.workers.insert(id, joined);
            }
        }
    }

    fn apply_worker_gone(&mut self, id: WorkerId) {
        if self.workers.remove(&id).is_some() {
            self.index.remove_worker(id);
        }
    }

    fn apply_trial_ended(&mut self, id: TrialId, outcome: &Outcome, at: Millis) {
        if outcome.is_success() {
            self.did_well(id);
            self.trained_with(id);
        }
        if let Some(record) = self.trials.get_mut(&id) {
            record.wanted_by.clear();
            record.paused = None;
            record.workers_lost = 0;
            record.setbacks = Setbacks::default();
            // One that went on from a checkpoint took less than it takes.
            if let (Phase::Running(running), 1, true) = (&record.phase, record.attempts, outcome.is_success())
            {
                let ranks = running.placement.world_size();
                self.durations.learn(record.workload(), ranks, at.since(running.started));
            }
        }
        let mut outcome = Box::new(outcome.clone());
        self.pool.share_outcome(&mut outcome);
        self.set_phase(id, Phase::Ended { outcome, at });
        self.reconsider_dependents(id);
    }

    /// Makes a trial runnable, or paused, or waiting for what it needs.
    pub(super) fn open(&mut self, id: TrialId) {
        if let Some(phase) = self.trials.get(&id).map(|record| self.pending_phase(record)) {
            self.set_phase(id, phase);
        }
    }

    /// Puts a trial that neither runs nor ended where it belongs.
    pub(super) fn reconsider(&mut self, id: TrialId) {
        let Some(record) = self.trials.get(&id).filter(|record| record.is_pending()) else {
            return;
        };
        let phase = self.pending_phase(record);
        if phase != record.phase {
            self.set_phase(id, phase);
        }
    }

    fn pending_phase(&self, record: &Trial) -> Phase {
        match (self.is_held(record), self.needs_met(record)) {
            (true, _) => Phase::Paused,
            (false, true) => Phase::Queued,
            (false, false) => Phase::Waiting,
        }
    }

    /// Queues what waited for `id`, or holds back what no longer has it.
    fn reconsider_dependents(&mut self, id: TrialId) {
        for dependent in self.index.dependents_of(id).collect::<Vec<_>>() {
            self.reconsider(dependent);
        }
    }

    fn set_phase(&mut self, id: TrialId, phase: Phase) {
        let Some(record) = self.trials.get_mut(&id) else {
            return;
        };
        self.index.leave(id, record);
        for experiment in &record.experiments {
            self.index.uncount(*experiment, &record.phase);
            self.index.count(*experiment, &phase);
        }
        record.phase = phase;
        let sources = Sources { experiments: &self.experiments };
        self.index.enter(id, record, sources);
    }
}
