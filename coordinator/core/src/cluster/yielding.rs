//! Attempts that are asked to stop at a checkpoint, so that their slots come free and no work is lost.
//!
//! The request is durable; the order to the workers may be lost and is repeated whenever one of them reports that
//! the attempt still runs. The attempt is over when each share has ended. It ends as [`FailureCause::Preempted`],
//! which no budget counts, unless rank 0 was done before it could stop: then it has succeeded.

use common::{AttemptId, FailureCause, WorkerId};

use super::Cluster;
use super::live::Gang;
use crate::{Effect, Event, Millis, Step, YieldReason};

impl Cluster {
    /// Asks a training attempt to stop at a checkpoint. Asking again changes nothing, unless somebody insists now.
    ///
    /// An evaluation has no checkpoint: it is left alone, or stopped at once where somebody insists, and starts
    /// over later.
    pub(super) fn ask_to_yield(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        reason: YieldReason,
        step: &mut Step,
    ) {
        let Some((trial, running)) = self.state.running(attempt) else {
            return;
        };
        let insists = reason.insists();
        if running.yielding.is_some_and(|asked| asked.reason.insists() || !insists) {
            return;
        }
        if !self.state.trials.get(&trial).is_some_and(|record| record.spec.trains()) {
            if insists {
                self.fail(now, attempt, FailureCause::Preempted, step);
            }
            return;
        }
        let shares = running.placement.shares().iter();
        step.effects.extend(shares.map(|share| Effect::Preempt { worker: share.worker, attempt }));
        self.emit(Event::YieldRequested { trial, attempt, reason, at: now }, step);
        self.live.gang(attempt).asked = Some(now);
    }

    /// Repeats the request to a worker on which the attempt still runs, or stops waiting for it.
    pub(super) fn still_runs(&mut self, now: Millis, worker: WorkerId, attempt: AttemptId, step: &mut Step) {
        let Some(asked) = self.state.running(attempt).and_then(|(_, running)| running.yielding) else {
            return;
        };
        let since = *self.live.gang(attempt).asked.get_or_insert(now);
        if self.must_stop(attempt, asked.reason) && now.since(since) >= self.policy.yield_limit {
            self.fail(now, attempt, FailureCause::Preempted, step);
        } else {
            step.effects.push(Effect::Preempt { worker, attempt });
        }
    }

    /// Whether somebody still insists on that the attempt stops: what was resumed meanwhile may take its time.
    fn must_stop(&self, attempt: AttemptId, reason: YieldReason) -> bool {
        let trial = self.state.trial_of(attempt).and_then(|trial| self.state.trials.get(&trial));
        match reason {
            YieldReason::Paused => trial.is_some_and(|record| self.state.is_held(record)),
            YieldReason::Draining { worker } => self.state.is_barred(worker),
            YieldReason::Preempted { .. } | YieldReason::Resized { .. } => false,
        }
    }

    /// A new session may not have heard the request: the time that the attempt has starts again.
    pub(super) fn ask_anew(&mut self, now: Millis, worker: WorkerId) {
        for attempt in self.state.attempts_on(worker).collect::<Vec<_>>() {
            if let Some(asked) = self.live.gangs.get_mut(&attempt).and_then(|gang| gang.asked.as_mut()) {
                *asked = now;
            }
        }
    }

    /// Whether the attempt was asked to stop at a checkpoint.
    pub(super) fn is_yielding(&self, attempt: AttemptId) -> bool {
        self.state.running(attempt).is_some_and(|(_, running)| running.yielding.is_some())
    }
}

impl Gang {
    /// Whether a share stopped because it was asked to. Peers that fail for want of it do so because of that.
    pub(super) fn has_yielded(&self) -> bool {
        self.ends.values().any(|end| matches!(end, Err(FailureCause::Preempted)))
    }
}
