//! What people ask for besides submitting and cancelling.

use std::collections::BTreeSet;

use common::{ExperimentId, TrialId, WorkerId};
use coordinator_core::{Input, Phase, WaitReason};
use rand::Rng;
use rand::seq::IteratorRandom;

use crate::world::{DEAD, SLOTS, World};

/// Requests of each kind in a tick.
const OFTEN: f64 = 0.003;

impl World {
    /// What people ask for in one tick. Much of it is refused: what it names may not exist any more.
    pub fn people(&mut self) {
        for _ in 0..10 {
            if self.chance(OFTEN)
                && let Some(input) = self.request()
            {
                self.client(input);
            }
        }
    }

    fn request(&mut self) -> Option<Input> {
        let open = self.cluster.trials().filter(|(_, record)| !record.has_ended()).map(|(id, _)| id);
        let trial = open.choose(&mut self.rng).unwrap_or(TrialId(1));
        let recent = self.cluster.experiments().map(|(id, _)| id).rev().take(8);
        let experiment = recent.choose(&mut self.rng).unwrap_or(ExperimentId(1));
        let worker = WorkerId(self.rng.random_range(0..4));
        Some(match self.rng.random_range(0..12) {
            0 => Input::PauseTrial { trial },
            1 | 2 => Input::ResumeTrial { trial: self.paused_trial()? },
            3 => Input::PauseExperiment { experiment },
            4 | 5 => Input::ResumeExperiment { experiment: self.paused_experiment()? },
            6 => Input::SetPriority { experiment, priority: self.rng.random_range(-2..=2) },
            7 => Input::Drain { worker, now: self.chance(0.5), reason: "service".to_owned() },
            8 | 9 => Input::Undrain { worker: self.barred_worker()? },
            kind => {
                let records = self.cluster.trials();
                let held =
                    records.flat_map(|(id, record)| record.checkpoints.iter().map(move |c| (id, c.step)));
                let (trial, step) = held.choose(&mut self.rng)?;
                if kind == 10 {
                    Input::PinCheckpoint { trial, step }
                } else {
                    Input::UnpinCheckpoint { trial, step }
                }
            }
        })
    }

    /// Clients and operators give up on what can never run on the workers that are left, and let everything else
    /// run. Not once: a trial that had succeeded runs again when its checkpoint turns out to be damaged.
    pub fn settle(&mut self) {
        let barred =
            self.cluster.drained().map(|(id, _)| id).chain(self.cluster.quarantined().map(|(id, _)| id));
        for worker in barred.collect::<BTreeSet<_>>() {
            self.client(Input::Undrain { worker });
        }
        let paused = self.cluster.experiments().filter(|(_, record)| record.paused.is_some());
        for experiment in paused.map(|(id, _)| id).collect::<Vec<_>>() {
            self.client(Input::ResumeExperiment { experiment });
        }
        let paused = self.cluster.trials().filter(|(_, trial)| trial.paused.is_some() && !trial.has_ended());
        for trial in paused.map(|(id, _)| id).collect::<Vec<_>>() {
            self.client(Input::ResumeTrial { trial });
        }
        // Only once the worker that is gone is lost: until then its slots are counted on.
        if self.cluster.worker(DEAD).is_none() && self.cluster.workers().count() == SLOTS.len() - 1 {
            for trial in self.hopeless() {
                self.client(Input::CancelTrial { trial });
            }
        }
    }

    fn hopeless(&self) -> Vec<TrialId> {
        let trials = self.cluster.trials().filter(|(_, trial)| matches!(trial.phase, Phase::Queued));
        let hopeless = trials.filter(|&(id, _)| match self.cluster.explain(id) {
            Some(WaitReason::TooWide { .. } | WaitReason::OverQuota { .. } | WaitReason::NoMatch { .. }) => {
                true
            }
            Some(
                WaitReason::Needs(_)
                | WaitReason::NoWorker
                | WaitReason::Resting { .. }
                | WaitReason::Paused { .. }
                | WaitReason::OutOfService(_)
                | WaitReason::Quota { .. }
                | WaitReason::Slots { .. }
                | WaitReason::Reserved { .. }
                | WaitReason::Yielding { .. }
                | WaitReason::Held { .. }
                | WaitReason::Behind { .. },
            )
            | None => false,
        });
        hopeless.map(|(id, _)| id).collect()
    }

    fn paused_trial(&mut self) -> Option<TrialId> {
        let paused = self.cluster.trials().filter(|(_, record)| record.paused.is_some());
        paused.map(|(id, _)| id).choose(&mut self.rng)
    }

    fn paused_experiment(&mut self) -> Option<ExperimentId> {
        let paused = self.cluster.experiments().filter(|(_, record)| record.paused.is_some());
        paused.map(|(id, _)| id).choose(&mut self.rng)
    }

    fn barred_worker(&mut self) -> Option<WorkerId> {
        let drained = self.cluster.drained().map(|(id, _)| id);
        drained.chain(self.cluster.quarantined().map(|(id, _)| id)).choose(&mut self.rng)
    }
}
