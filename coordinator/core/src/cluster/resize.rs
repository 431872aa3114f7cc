//! Growth of elastic trials into slots that nobody else can use.
//!
//! A trial that runs with fewer ranks than it may have is asked to stop at a checkpoint, and goes on with more, when
//! nothing at all is queued and enough slots are free. One at a time, and none that has only just been placed or is about
//! to end: a checkpoint and a start are not worth a few steps. Projects with a quota do not grow.

use common::{AttemptId, WorkerId};

use super::Cluster;
use crate::{Attempt, Millis, Step, Trial, YieldReason};

impl Cluster {
    /// Asks the oldest attempt that can grow to stop at a checkpoint.
    pub(super) fn grow(&mut self, now: Millis, step: &mut Step) {
        let idle = self.state.index.queue.is_empty() && self.state.index.free.values().any(|&free| free > 0);
        if !idle || now < self.live.next_growth {
            return;
        }
        // Heartbeats come often enough to look again; every input would be too often.
        self.live.next_growth = now + self.policy.resize_after / 4;
        let growing = self.state.index.running.iter().find_map(|(&attempt, trial)| {
            let record = self.state.trials.get(trial)?;
            let to = self.wider(now, record, record.attempt()?)?;
            Some((attempt, to))
        });
        let growing: Option<(AttemptId, u32)> = growing;
        if let Some((attempt, to)) = growing {
            self.ask_to_yield(now, attempt, YieldReason::Resized { to }, step);
        }
    }

    /// Ranks with which a trial would go on, if it can have more than it has.
    fn wider(&self, now: Millis, record: &Trial, running: &Attempt) -> Option<u32> {
        let has = running.placement.world_size();
        let settled = now.since(running.started) >= self.policy.resize_after;
        let lasts = running.expected_end.is_none_or(|end| end > now + self.policy.resize_after);
        if record.spec.min_slots() == record.slots() || has >= record.slots() || running.yielding.is_some() {
            return None;
        }
        if !settled || !lasts || self.has_quota(record) {
            return None;
        }
        let usable = |worker: &WorkerId| {
            let member = self.state.workers.get(worker);
            self.live.is_connected(*worker)
                && !self.state.is_barred(*worker)
                && member.is_some_and(|member| member.traits.meet(&record.policy.requires))
        };
        let free: u32 =
            self.state.index.free.iter().filter(|(worker, _)| usable(worker)).map(|(_, free)| free).sum();
        let most = record.slots().min(has.saturating_add(free));
        (has + 1..=most).rev().find(|&ranks| record.spec.allows(ranks))
    }

    fn has_quota(&self, record: &Trial) -> bool {
        let experiment = self.state.experiments.get(&record.queued_by);
        experiment.is_some_and(|experiment| self.policy.project(&experiment.project).quota.is_some())
    }
}
