//! Membership: hellos, heartbeats, leases.

use std::collections::BTreeSet;

use common::session::{AttemptReport, AttemptState, SessionOrder};
use common::{AttemptId, FailureCause, WorkerId};

use super::Cluster;
use super::live::Session;
use crate::{Effect, Event, Millis, Reject, Step, Traits};

/// What a worker says about itself.
pub(super) struct Offer {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) slots: u32,
    pub(super) traits: Traits,
}

impl Cluster {
    /// Whether a later hello of the worker came before this one: what it says is out of date.
    pub fn is_overtaken(&self, worker: WorkerId, order: SessionOrder) -> bool {
        // Agents of older builds do not say which of their hellos it is.
        order.start > 0 && self.state.sessions.get(&worker).is_some_and(|&latest| order < latest)
    }

    /// Refuses a hello that a later one of the same worker overtook, also over a restart of the coordinator.
    pub(super) fn say_hello(
        &mut self,
        now: Millis,
        worker: WorkerId,
        order: SessionOrder,
        step: &mut Step,
    ) -> Result<(), Reject> {
        if self.is_overtaken(worker, order) {
            return Err(Reject::Overtaken(worker));
        }
        let latest = self.state.sessions.get(&worker).copied().unwrap_or_default();
        if order.start > 0 && order > latest {
            self.emit(Event::SessionOpened { worker, order, at: now }, step);
        }
        Ok(())
    }

    pub(super) fn hello(
        &mut self,
        now: Millis,
        worker: WorkerId,
        offer: Offer,
        attempts: Vec<AttemptReport>,
        step: &mut Step,
    ) {
        let Offer { name, host, slots, traits } = offer;
        if self.state.workers.get(&worker).is_some_and(|member| member.slots != slots) {
            self.lose(now, worker, Event::WorkerLost { worker, at: now }, step);
        }
        let unchanged =
            |member: &crate::Worker| member.name == name && member.host == host && member.traits == traits;
        if !self.state.workers.get(&worker).is_some_and(unchanged) {
            self.emit(Event::WorkerJoined { worker, name, host, slots, traits, at: now }, step);
        }
        self.live.connect(worker, now + self.policy.lease);
        self.live.told.forget(worker);

        for attempt in self.unreported(worker, &attempts) {
            self.fail(now, attempt, FailureCause::WorkerLost, step);
        }
        self.ask_anew(now, worker);
        self.reports(now, worker, attempts, step);
    }

    pub(super) fn heartbeat(
        &mut self,
        now: Millis,
        worker: WorkerId,
        attempts: Vec<AttemptReport>,
        step: &mut Step,
    ) -> Result<(), Reject> {
        // A heartbeat of a session that is over says nothing about the worker now.
        if !self.live.is_connected(worker) {
            return Err(Reject::UnknownWorker(worker));
        }
        self.live.connect(worker, now + self.policy.lease);
        for attempt in self.unreported(worker, &attempts) {
            self.launch_again(worker, attempt, step);
        }
        self.reports(now, worker, attempts, step);
        Ok(())
    }

    pub(super) fn disconnected(&mut self, worker: WorkerId) -> Result<(), Reject> {
        let lease = self.live.leases.get_mut(&worker).ok_or(Reject::UnknownWorker(worker))?;
        lease.session = Session::Awaited;
        self.live.changed = true;
        Ok(())
    }

    pub(super) fn worker_left(
        &mut self,
        now: Millis,
        worker: WorkerId,
        step: &mut Step,
    ) -> Result<(), Reject> {
        self.member(worker)?;
        self.lose(now, worker, Event::WorkerLeft { worker, at: now }, step);
        Ok(())
    }

    pub(super) fn tick(&mut self, now: Millis, step: &mut Step) {
        let expired = self.live.leases.iter().filter(|(_, lease)| lease.ends <= now);
        for worker in expired.map(|(&worker, _)| worker).collect::<Vec<_>>() {
            self.lose(now, worker, Event::WorkerLost { worker, at: now }, step);
        }
        self.judge(now, step);
    }

    /// Members only: whoever is none must say hello first.
    pub(super) fn member(&self, worker: WorkerId) -> Result<(), Reject> {
        if self.state.workers.contains_key(&worker) { Ok(()) } else { Err(Reject::UnknownWorker(worker)) }
    }

    /// Ends a membership, and every attempt that has a share there.
    fn lose(&mut self, now: Millis, worker: WorkerId, gone: Event, step: &mut Step) {
        let attempts = self.state.attempts_on(worker).collect::<Vec<_>>();
        for attempt in attempts {
            self.fail(now, attempt, FailureCause::WorkerLost, step);
        }
        self.live.leases.remove(&worker);
        self.live.told.forget(worker);
        self.emit(gone, step);
    }

    /// Current attempts on `worker` that it does not speak of.
    fn unreported(&self, worker: WorkerId, reports: &[AttemptReport]) -> Vec<AttemptId> {
        let reported = reports.iter().map(|report| report.attempt).collect::<BTreeSet<_>>();
        self.state.attempts_on(worker).filter(|attempt| !reported.contains(attempt)).collect()
    }

    /// The order to launch may have been lost, and silence does not prove it: a worker that has it ignores
    /// the second one.
    fn launch_again(&self, worker: WorkerId, attempt: AttemptId, step: &mut Step) {
        let Some((trial, running)) = self.state.running(attempt) else {
            return;
        };
        let ended = self.live.gangs.get(&attempt).is_some_and(|gang| gang.ends.contains_key(&worker));
        if let Some(&share) = running.placement.share_of(worker).filter(|_| !ended) {
            let world_size = running.placement.world_size();
            step.effects.push(Effect::Launch { attempt, trial, share, world_size });
            if running.yielding.is_some() {
                step.effects.push(Effect::Preempt { worker, attempt });
            }
        }
    }

    fn reports(&mut self, now: Millis, worker: WorkerId, reports: Vec<AttemptReport>, step: &mut Step) {
        for AttemptReport { attempt, state } in reports {
            match state {
                AttemptState::Ended(end) => self.share_ended(now, worker, attempt, end, step),
                AttemptState::Running { rendezvous, step: reached } => {
                    self.share_runs(now, worker, attempt, rendezvous, reached, step);
                }
            }
        }
    }
}
