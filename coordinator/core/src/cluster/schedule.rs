//! Which queued trial runs next, and why the others do not.
//!
//! Order: older submissions first; of one submission, evaluations before training. Slots go to the *next*
//! trial only: the first in that order that the members could run at all. While it does not fit it holds up
//! those behind it, however narrow, so that a wide trial is never starved. A trial wider than all members
//! together is passed over, so that it holds up nobody. No trial waits for one that can never run.

use std::collections::BTreeMap;

use common::{AttemptId, TrialId, WorkerId};

use super::Cluster;
use crate::state::QueueKey;
use crate::{Effect, Event, Millis, Phase, Step, Trial, WaitReason, place};

impl Cluster {
    /// Places queued trials until the next one does not fit.
    pub(super) fn schedule(&mut self, now: Millis, step: &mut Step) {
        let mut free = None;
        while let Some((trial, slots)) = self.next() {
            let free = free.get_or_insert_with(|| self.free());
            let Some(placement) = place(free, slots) else {
                return;
            };
            for share in placement.shares() {
                if let Some(slots) = free.get_mut(&share.worker) {
                    *slots -= share.ranks;
                }
            }
            let attempt = AttemptId(self.state.last_attempt + 1);
            let world_size = placement.world_size();
            let launch = |&share| Effect::Launch { attempt, trial, share, world_size };
            step.effects.extend(placement.shares().iter().map(launch));
            self.emit(Event::AttemptStarted { trial, attempt, placement, at: now }, step);
        }
    }

    /// Why a trial does not run yet; `None` if it runs or ended, or is not known.
    pub fn explain(&self, trial: TrialId) -> Option<WaitReason> {
        let record = self.state.trials.get(&trial)?;
        match record.phase {
            Phase::Waiting => Some(WaitReason::Needs(self.unmet_needs(record))),
            Phase::Queued => Some(self.explain_queued(trial, record.slots())),
            Phase::Paused => {
                let by_name = record.paused.is_some();
                Some(WaitReason::Paused { by_name, experiments: self.paused_with(record) })
            }
            Phase::Running(_) | Phase::Ended { .. } => None,
        }
    }

    fn explain_queued(&self, trial: TrialId, needs: u32) -> WaitReason {
        let offered = self.state.index.offered;
        if !self.state.workers.keys().any(|&worker| self.live.is_connected(worker)) {
            return WaitReason::NoWorker;
        }
        if self.free().is_empty() {
            let connected = self.state.workers.keys().filter(|&&worker| self.live.is_connected(worker));
            return WaitReason::OutOfService(connected.copied().collect());
        }
        match self.next() {
            Some((next, slots)) if next != trial && needs <= offered => {
                WaitReason::Behind { trial: next, needs: slots }
            }
            Some((next, _)) if next == trial => WaitReason::Slots { needs, free: self.free().values().sum() },
            Some(_) | None => WaitReason::TooWide { needs, offered },
        }
    }

    fn unmet_needs(&self, trial: &Trial) -> Vec<TrialId> {
        let mut unmet = Vec::new();
        for &need in &trial.needs {
            let met = self.state.trials.get(&need).is_some_and(Trial::has_succeeded);
            if !met && !unmet.contains(&need) {
                unmet.push(need);
            }
        }
        unmet
    }

    /// The next trial to run, and the slots that it needs.
    pub(super) fn next(&self) -> Option<(TrialId, u32)> {
        let narrow_enough = self.state.index.queue.range(..=self.state.index.offered);
        let first = narrow_enough.filter_map(|(&slots, queue)| queue.first().map(|&key| (key, slots)));
        first.min().map(|(QueueKey { trial, .. }, slots)| (trial, slots))
    }

    /// Free slots where an order to launch can be delivered.
    pub(super) fn free(&self) -> BTreeMap<WorkerId, u32> {
        let free = self.state.index.free.iter();
        let in_service = |worker| self.live.is_connected(worker) && !self.state.is_barred(worker);
        free.filter(|&(&worker, _)| in_service(worker)).map(|(&w, &slots)| (w, slots)).collect()
    }
}
