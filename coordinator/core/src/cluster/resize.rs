//! Growth of elastic trials into slots that nobody else can use.
//!
//! A trial that runs with fewer ranks than it may have is asked to stop at a checkpoint, and goes on with more, when
//! nothing at all is queued and enough slots are free. One at a time, and none that has only just been placed or is about
//! to end: a checkpoint and a start are not worth a few steps. Projects with a quota do not grow.

use common::TrialId;

use super::Cluster;
use crate::{Millis, Step, YieldReason};

impl Cluster {
    /// Asks the oldest attempt that can grow to stop at a checkpoint.
    pub(super) fn grow(&mut self, now: Millis, step: &mut Step) {
        // Heartbeats come often enough to look again; every input would be too often.
        if now < self.live.next_growth || !self.state.index.queue.is_empty() {
            return;
        }
        self.live.next_growth = now + self.policy.resize_after / 4;
        let growing = self
            .state
            .index
            .running
            .iter()
            .find_map(|(&attempt, &trial)| Some((attempt, self.wider(now, trial)?)));
        if let Some((attempt, to)) = growing {
            self.ask_to_yield(now, attempt, YieldReason::Resized { to }, step);
        }
    }

    /// Ranks with which a running trial would go on, if it can have more than it has.
    fn wider(&self, now: Millis, trial: TrialId) -> Option<u32> {
        let record = self.state.trials.get(&trial)?;
        let running = record.attempt().filter(|running| running.yielding.is_none())?;
        let has = running.placement.world_size();
        if !record.spec.is_elastic() || has >= record.slots() {
            return None;
        }
        let settled = now.since(running.started) >= self.policy.resize_after;
        let lasts = running.expected_end.is_none_or(|end| end > now + self.policy.resize_after);
        let class = self.state.index.class_of(trial)?;
        if !settled || !lasts || self.policy.project(&class.project).quota.is_some() {
            return None;
        }
        let most = record.slots().min(has.saturating_add(self.free_for(&class.requires)));
        (has + 1..=most).rev().find(|&ranks| record.spec.allows(ranks))
    }
}
