//! Workers that are given nothing new: drained by an operator, or quarantined for what happened there.
//!
//! Both are recorded by the worker's id and hold until they are lifted, also when the worker is lost, comes back,
//! or the coordinator starts again.
//!
//! Failures quarantine a worker only if the worker is the likeliest explanation. A trial that fails on one worker after
//! the other speaks against itself, not against them. Nothing speaks against a worker while attempts elsewhere leave
//! no checkpoint and no result either: then the grid is broken, or the network. And at least half of the members
//! stay in service, because a cluster that took itself out of service would never work again unattended. A line of
//! a log that names broken hardware needs no such care.

use common::{AttemptId, FailureCause, WorkerId};

use super::Cluster;
use crate::{Event, Millis, QuarantineReason, Reject, Step, YieldReason};

/// A line of a rank's log that matched a pattern.
pub(super) struct Line {
    pub(super) rank: u32,
    pub(super) pattern: String,
    pub(super) line: String,
}

impl Cluster {
    /// Draining again changes the reason; with `now` it also stops what runs there.
    pub(super) fn drain(
        &mut self,
        now: Millis,
        worker: WorkerId,
        reason: String,
        stop: bool,
        step: &mut Step,
    ) -> Result<(), Reject> {
        self.known_worker(worker)?;
        if self.state.drained.get(&worker).is_none_or(|drain| drain.reason != reason) {
            self.emit(Event::WorkerDrained { worker, reason, at: now }, step);
        }
        if stop {
            for attempt in self.state.attempts_on(worker).collect::<Vec<_>>() {
                self.ask_to_yield(now, attempt, YieldReason::Draining { worker }, step);
            }
        }
        Ok(())
    }

    pub(super) fn undrain(&mut self, now: Millis, worker: WorkerId, step: &mut Step) -> Result<(), Reject> {
        self.known_worker(worker)?;
        if self.state.is_barred(worker) || self.state.doubts.contains_key(&worker) {
            self.emit(Event::WorkerUndrained { worker, at: now }, step);
        }
        Ok(())
    }

    /// A member, or one that was and is still drained.
    fn known_worker(&self, worker: WorkerId) -> Result<(), Reject> {
        let known = self.state.workers.contains_key(&worker) || self.state.is_barred(worker);
        if known { Ok(()) } else { Err(Reject::NoSuchWorker(worker)) }
    }

    /// A line of a log blames the worker for what becomes of the attempt.
    pub(super) fn incident(
        &mut self,
        now: Millis,
        worker: WorkerId,
        attempt: AttemptId,
        quarantine: bool,
        Line { rank, pattern, line }: Line,
        step: &mut Step,
    ) -> Result<(), Reject> {
        self.current(worker, attempt)?;
        let message = format!("the log of rank {rank} matches `{pattern}`: {line}");
        if quarantine && !self.state.quarantined.contains_key(&worker) {
            let reason = QuarantineReason::Incident { attempt, rank, pattern, line };
            self.emit(Event::WorkerQuarantined { worker, reason, at: now }, step);
        }
        self.fail_on(now, attempt, Some(worker), FailureCause::Unhealthy { message }, step);
        Ok(())
    }

    /// A worker knows that it is broken. What runs there runs on: its agent ends what cannot.
    pub(super) fn unhealthy(&mut self, now: Millis, worker: WorkerId, message: String, step: &mut Step) {
        if !self.state.quarantined.contains_key(&worker) {
            let reason = QuarantineReason::Unhealthy { message };
            self.emit(Event::WorkerQuarantined { worker, reason, at: now }, step);
        }
    }

    /// Quarantines a worker that is the likeliest explanation for the failures there.
    pub(super) fn suspect(&mut self, now: Millis, worker: WorkerId, step: &mut Step) {
        let Some(doubt) = self.state.doubts.get(&worker).filter(|doubt| doubt.others_do_well) else {
            return;
        };
        let enough = doubt.strikes.len() >= self.policy.quarantine_after.get();
        let several = doubt.strikes.iter().any(|strike| strike.trial != doubt.strikes[0].trial);
        if enough && several && !self.state.is_barred(worker) && self.can_spare(worker) {
            let reason = QuarantineReason::Failures { strikes: doubt.strikes.clone() };
            self.emit(Event::WorkerQuarantined { worker, reason, at: now }, step);
        }
    }

    /// Whether at least half of the members are in service without `worker`.
    fn can_spare(&self, worker: WorkerId) -> bool {
        let members = self.state.workers.keys();
        let left = members.filter(|&&member| member != worker && !self.state.is_barred(member)).count();
        left > 0 && left * 2 >= self.state.workers.len()
    }
}
