//! Elastic trials: growth into slots that nobody else can use, and what becomes of one that stopped for another number of
//! ranks.
//!
//! A trial that runs with fewer ranks than it may have is asked to stop at a checkpoint, and goes on with more, when
//! nothing at all is queued and enough slots are free, within its project's quota. One at a time, and none that has only
//! just been placed or is about to end: a checkpoint and a start are not worth a few steps. Who shrinks, and for whom, is
//! decided where the queue is looked at: [`crate::scheduling`].
//!
//! Whichever it was asked for, the ranks that it keeps stay its own. In the step in which it has stopped it goes on there,
//! before all that waits at its priority, whatever was reserved meanwhile; only a trial of a higher priority goes first.

use common::{AttemptId, FailureCause, TrialId};

use super::Cluster;
use crate::scheduling::is_settled;
use crate::{Millis, Phase, Placement, Step, YieldReason};

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
        let running = record.attempt().filter(|running| is_settled(running, now, &self.policy))?;
        let has = running.placement.world_size();
        if !record.spec.is_elastic() || has >= record.slots() {
            return None;
        }
        let class = self.state.index.class_of(trial)?;
        let used = self.state.index.used.get(&class.project).copied().unwrap_or_default();
        let quota = self.policy.project(&class.project).quota;
        let spare =
            quota.map_or(u32::MAX, |quota| quota.saturating_sub(used)).min(self.free_for(&class.requires));
        let most = record.slots().min(has.saturating_add(spare));
        (has + 1..=most).rev().find(|&ranks| record.spec.allows(ranks))
    }

    /// Lets the queue be looked at again because of the time alone: attempts may have run long enough to shrink.
    pub(super) fn mind_the_time(&mut self, now: Millis) {
        let index = &self.state.index;
        if now >= self.live.next_shrink && !index.elastic.is_empty() && !index.queue.is_empty() {
            self.live.next_shrink = now + self.policy.resize_after / 4;
            self.live.changed = true;
        }
    }

    /// The slots that stay an attempt's own when it has stopped to go on with another number of ranks.
    pub(super) fn own_slots(&self, attempt: AttemptId, cause: &FailureCause) -> Option<Placement> {
        let (_, running) = self.state.running(attempt)?;
        let stays = running.stays();
        (*cause == FailureCause::Preempted && stays > 0).then(|| running.placement.first(stays))
    }

    /// Takes note that a trial goes on where it was. One that is alone in the queue takes whatever it may have.
    pub(super) fn may_go_on(&mut self, trial: TrialId, own: Option<Placement>) {
        let queued = self.state.trials.get(&trial).is_some_and(|record| record.phase == Phase::Queued);
        if let Some(own) = own.filter(|_| queued && self.state.index.is_anything_queued_besides(trial)) {
            self.live.resuming.insert(trial, own);
        }
    }

    /// Whoever awaits the end of an attempt awaits that of the one in which its trial goes on.
    pub(super) fn go_on(&mut self, trial: TrialId, attempt: AttemptId, placement: &Placement) {
        if self.live.resuming.remove(&trial).as_ref() == Some(placement)
            && let Some(before) = self.state.trials.get(&trial).and_then(|record| record.failures.last())
        {
            self.live.reservations.succeed(before.attempt, attempt);
        }
    }
}
