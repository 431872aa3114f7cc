//! Pauses of trials that fail again and again in a way that no budget counts: a worker without space, or one that is broken,
//! would otherwise be given the same trial without end, and without a pause.
//!
//! The first failure on a worker, and the first worker that is lost, cost no time: elsewhere, or once more, all may be
//! well. From then on each one doubles the pause ([`crate::Policy::pause`]), until the trial leaves a checkpoint or fails in
//! a way that counts. A preemption is no failure. What is durable is the number and the time of the last one; who rests
//! now follows.

use common::TrialId;

use super::Cluster;
use crate::{Millis, Trial, WaitReason};

impl Cluster {
    /// Until when a trial is not tried again. One that is paused rests meanwhile.
    fn rests_until(&self, record: &Trial) -> Option<Millis> {
        let last = record.setbacks.last.filter(|_| record.is_pending())?;
        Some(last + self.policy.pause(record.setbacks.in_a_row))
    }

    /// Takes note of whether a trial that failed rests.
    pub(super) fn rest(&mut self, trial: TrialId) {
        if let Some(until) = self.state.trials.get(&trial).and_then(|record| self.rests_until(record)) {
            self.live.resting.insert(trial, until);
        }
    }

    /// The same for all trials, after a restart.
    pub(super) fn rest_all(&mut self) {
        let resting =
            self.state.trials.iter().filter_map(|(&id, record)| Some((id, self.rests_until(record)?)));
        self.live.resting = resting.filter(|&(_, until)| until > self.live.now).collect();
    }

    /// Puts back in line whoever has rested.
    pub(super) fn wake(&mut self, now: Millis) {
        let before = self.live.resting.len();
        self.live.resting.retain(|_, until| *until > now);
        self.live.changed |= self.live.resting.len() < before;
    }

    /// Why a trial that rests is not tried.
    pub(super) fn explain_rest(&self, trial: TrialId, record: &Trial) -> Option<WaitReason> {
        let until = *self.live.resting.get(&trial)?;
        let cause = record.failures.last()?.cause.clone();
        Some(WaitReason::Resting {
            time: until.since(self.live.now),
            failures: record.setbacks.in_a_row,
            cause,
        })
    }
}
