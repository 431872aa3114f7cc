//! The only place where durable state changes; live steps and replay share it.

use std::collections::BTreeSet;

use common::result::Checkpoint;
use common::spec::TrialSpec;
use common::{AttemptId, Digest, ExperimentId, FailureCause, TrialId, WorkerId};

use super::{Attempt, Experiment, Failure, Outcome, Phase, Sources, State, Trial, Worker};
use crate::{DropReason, Event, Millis, Placement};

impl State {
    /// Makes `event` true.
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::TrialSubmitted { .. } => self.apply_trial_submitted(event),
            Event::TrialResubmitted { trial, experiment, policy, at: _ } => {
                if let Some(record) = self.trials.get_mut(trial) {
                    record.policy = policy.clone();
                    record.queued_by = *experiment;
                    record.counted_failures = 0;
                }
                self.open(*trial);
            }
            Event::TrialReopened { trial, at: _ } => self.apply_trial_reopened(*trial),
            Event::ExperimentSubmitted { .. } => self.apply_experiment_submitted(event),
            Event::ExperimentPrioritized { experiment, priority, at: _ } => {
                if let Some(record) = self.experiments.get_mut(experiment) {
                    record.priority = *priority;
                }
                self.reconsider_standing(*experiment);
            }
            Event::ExperimentCancelled { experiment, at } => self.apply_cancelled(*experiment, *at),
            Event::WorkerJoined { worker, name, host, slots, traits, at } => {
                let (name, host, traits) = (name.clone(), host.clone(), traits.clone());
                let joined = Worker { name, host, slots: *slots, traits, joined: *at };
                self.apply_worker_joined(*worker, joined);
            }
            Event::WorkerLost { worker, at: _ } | Event::WorkerLeft { worker, at: _ } => {
                if let Some(gone) = self.workers.remove(worker) {
                    self.index.remove_worker(*worker, gone.slots);
                }
            }
            Event::AttemptStarted { trial, attempt, placement, at } => {
                self.apply_attempt_started(*trial, *attempt, placement, *at);
            }
            Event::AttemptFailed { trial, attempt, cause, at } => {
                self.apply_attempt_failed(*trial, *attempt, cause, *at);
            }
            Event::TrialEnded { trial, outcome, at } => self.apply_trial_ended(*trial, outcome, *at),
            Event::CheckpointCommitted { trial, checkpoint, .. } => {
                self.apply_checkpoint_committed(*trial, checkpoint);
            }
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
        let trial = Trial {
            key: *key,
            spec: TrialSpec::clone(spec),
            workload: spec.workload(),
            policy: policy.clone(),
            label: label.clone(),
            needs: needs.clone(),
            submitted: *at,
            experiments: BTreeSet::new(),
            wanted_by: BTreeSet::new(),
            queued_by: *experiment,
            phase: Phase::Waiting,
            attempts: 0,
            failures: Vec::new(),
            failed_on: BTreeSet::new(),
            counted_failures: 0,
            checkpoints: Vec::new(),
            newest_damaged: false,
        };
        self.last_trial = id.0;
        self.index.by_key.insert(*key, *id);
        self.index.add_needs(*id, &trial);
        self.trials.insert(*id, trial);
        self.open(*id);
    }

    fn apply_trial_reopened(&mut self, id: TrialId) {
        let dependents = self.index.dependents.get(&id).into_iter().flatten();
        let open = dependents.filter_map(|dependent| self.trials.get(dependent)).filter(|t| !t.has_ended());
        let wanted_by = open.flat_map(|trial| trial.wanted_by.iter().copied()).collect();
        if let Some(record) = self.trials.get_mut(&id) {
            record.wanted_by = wanted_by;
            record.counted_failures = 0;
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
        let experiment = Experiment {
            name: name.clone(),
            grid: grid.clone(),
            cells: cells.clone(),
            trials: trials.clone(),
            project: project.clone(),
            priority: *priority,
            submitted: *at,
            cancelled: None,
        };
        self.last_experiment = id.0;
        self.experiments.insert(*id, experiment);
        self.index.counts.insert(*id, super::Counts::default());
        for trial in trials {
            let Some(record) = self.trials.get_mut(trial) else {
                continue;
            };
            record.experiments.insert(*id);
            if !record.has_ended() {
                record.wanted_by.insert(*id);
            }
            self.index.count(*id, &record.phase);
        }
        self.reconsider_standing(*id);
    }

    fn apply_cancelled(&mut self, id: ExperimentId, at: Millis) {
        let Some(experiment) = self.experiments.get_mut(&id) else {
            return;
        };
        experiment.cancelled = Some(at);
        for trial in &experiment.trials {
            if let Some(record) = self.trials.get_mut(trial) {
                record.wanted_by.remove(&id);
            }
        }
        self.reconsider_standing(id);
    }

    /// Gives the open trials of an experiment the priority and the project that they have now.
    fn reconsider_standing(&mut self, id: ExperimentId) {
        let trials = self.experiments.get(&id).map(|experiment| experiment.trials.as_slice());
        let sources = Sources { experiments: &self.experiments };
        for trial in trials.unwrap_or_default() {
            if let Some(record) = self.trials.get(trial).filter(|record| !record.has_ended()) {
                self.index.leave(*trial, record);
                self.index.enter(*trial, record, sources);
            }
        }
    }

    fn apply_attempt_started(&mut self, id: TrialId, attempt: AttemptId, placement: &Placement, at: Millis) {
        self.last_attempt = attempt.0;
        let Some(record) = self.trials.get_mut(&id) else {
            return;
        };
        record.attempts += 1;
        let estimate = self.durations.estimate(record.workload, placement.world_size());
        let expected_end = estimate.map(|estimate| at + estimate.typical);
        let attempt = Attempt { id: attempt, placement: placement.clone(), started: at, expected_end };
        self.set_phase(id, Phase::Running(attempt));
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

    fn apply_attempt_failed(&mut self, id: TrialId, attempt: AttemptId, cause: &FailureCause, at: Millis) {
        if let Some(record) = self.trials.get_mut(&id) {
            record.failures.push(Failure { attempt, cause: cause.clone(), at });
            record.counted_failures += u32::from(cause.counts());
            if let (Phase::Running(running), false) = (&record.phase, *cause == FailureCause::Preempted) {
                record.failed_on.extend(running.placement.shares().iter().map(|share| share.worker));
            }
        }
        self.open(id);
    }

    fn apply_trial_ended(&mut self, id: TrialId, outcome: &Outcome, at: Millis) {
        if let Some(record) = self.trials.get_mut(&id) {
            record.wanted_by.clear();
            // One that went on from a checkpoint took less than it takes.
            if let (Phase::Running(running), 1, true) = (&record.phase, record.attempts, outcome.is_success())
            {
                let ranks = running.placement.world_size();
                self.durations.learn(record.workload, ranks, at.since(running.started));
            }
        }
        self.set_phase(id, Phase::Ended { outcome: outcome.clone(), at });
        self.reconsider_dependents(id);
    }

    fn apply_checkpoint_committed(&mut self, id: TrialId, checkpoint: &Checkpoint) {
        if let Some(record) = self.trials.get_mut(&id) {
            record.checkpoints.push(checkpoint.clone());
            record.newest_damaged = false;
            self.index.add_blob(checkpoint.digest);
        }
    }

    fn apply_checkpoint_dropped(&mut self, id: TrialId, digest: Digest, reason: DropReason) {
        let Some(record) = self.trials.get_mut(&id) else {
            return;
        };
        if let Some(position) = record.checkpoints.iter().position(|held| held.digest == digest) {
            record.checkpoints.remove(position);
            record.newest_damaged |= reason == DropReason::Damaged && position == record.checkpoints.len();
            self.index.remove_blob(digest);
        }
    }

    /// Makes a trial runnable, or waiting for what it needs.
    fn open(&mut self, id: TrialId) {
        let Some(record) = self.trials.get(&id) else {
            return;
        };
        let phase = if self.needs_met(record) { Phase::Queued } else { Phase::Waiting };
        self.set_phase(id, phase);
    }

    /// Queues what waited for `id`, or holds back what no longer has it.
    fn reconsider_dependents(&mut self, id: TrialId) {
        let dependents = self.index.dependents.get(&id).cloned().unwrap_or_default();
        for dependent in dependents {
            if self.trials.get(&dependent).is_some_and(Trial::is_pending) {
                self.open(dependent);
            }
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
