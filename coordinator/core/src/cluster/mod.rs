//! The cluster state machine: one entry for live inputs, one for the log.
//!
//! Each family of inputs has its own file. They decide by reading the state, and change it only by emitting
//! events; what they keep in [`Live`] may be lost at any time without a wrong decision.

mod attempt;
mod cancel;
mod check;
mod drain;
mod live;
mod pause;
mod prefetch;
mod resize;
mod rest;
mod retention;
mod schedule;
mod session;
mod submit;
mod view;
mod yielding;

use std::borrow::Borrow;

use common::{AttemptId, TrialId};

pub use check::Violation;
pub use live::Session;
pub use view::WorkerView;

use crate::state::State;
use crate::{Effect, Event, Input, Millis, Outcome, Policy, Reject, Snapshot, Step};
use live::Live;

/// The coordinator's state machine.
#[derive(Clone, Debug)]
pub struct Cluster {
    policy: Policy,
    state: State,
    live: Live,
}

impl Cluster {
    /// An empty cluster.
    pub fn new(policy: Policy) -> Self {
        Self { policy, state: State::default(), live: Live::default() }
    }

    /// Rebuilds a cluster from its log at time `now`.
    ///
    /// Every member gets a full lease: while the coordinator was away nobody could extend one.
    pub fn replay(policy: Policy, now: Millis, log: impl IntoIterator<Item: Borrow<Event>>) -> Self {
        Self::restore(policy, now, Snapshot::default(), log)
    }

    /// Rebuilds a cluster from a snapshot and the events that followed it.
    pub fn restore(
        policy: Policy,
        now: Millis,
        snapshot: Snapshot,
        log: impl IntoIterator<Item: Borrow<Event>>,
    ) -> Self {
        let lease_ends = now + policy.lease;
        let mut cluster = Self { policy, state: snapshot.into_state(), live: Live::default() };
        cluster.live.now = now;
        for event in log {
            cluster.state.apply(event.borrow());
        }
        for &worker in cluster.state.workers.keys() {
            cluster.live.await_session(worker, lease_ends);
        }
        cluster.rest_all();
        cluster
    }

    /// The durable state, as it is now. Cheap: its records are shared with this cluster until one changes.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.state)
    }

    /// Takes one input at time `now`.
    ///
    /// # Errors
    ///
    /// [`Reject`] when the input is stale or invalid; the cluster is unchanged.
    pub fn handle(&mut self, now: Millis, input: Input) -> Result<Step, Reject> {
        let mut step = Step::default();
        self.dispatch(now, input, &mut step)?;
        self.schedule(now, &mut step);
        self.grow(now, &mut step);
        Ok(step)
    }

    fn dispatch(&mut self, now: Millis, input: Input, step: &mut Step) -> Result<(), Reject> {
        match input {
            Input::Submit { plan, grid } => self.submit(now, plan, grid, step),
            Input::SetPriority { experiment, priority } => self.set_priority(now, experiment, priority, step),
            Input::CancelExperiment { experiment } => self.cancel_experiment(now, experiment, step),
            Input::CancelTrial { trial } => self.cancel_trial(now, trial, step),
            Input::PauseTrial { trial } => self.pause_trial(now, trial, step),
            Input::ResumeTrial { trial } => self.resume_trial(now, trial, step),
            Input::PauseExperiment { experiment } => self.pause_experiment(now, experiment, step),
            Input::ResumeExperiment { experiment } => self.resume_experiment(now, experiment, step),
            Input::Drain { worker, now: stop, reason } => self.drain(now, worker, reason, stop, step),
            Input::Undrain { worker } => self.undrain(now, worker, step),
            Input::PinCheckpoint { trial, step: at } => self.pin(now, trial, at, step),
            Input::UnpinCheckpoint { trial, step: at } => self.unpin(now, trial, at, step),
            Input::Hello { worker, order, name, host, slots, traits, attempts } => {
                self.say_hello(now, worker, order, step)?;
                self.hello(now, worker, session::Offer { name, host, slots, traits }, attempts, step);
                Ok(())
            }
            Input::Heartbeat { worker, attempts } => self.heartbeat(now, worker, attempts, step),
            Input::Disconnected { worker } => self.disconnected(worker),
            Input::WorkerLeft { worker } => self.worker_left(now, worker, step),
            Input::Ended { worker, attempt, end } => {
                self.member(worker)?;
                self.share_ended(now, worker, attempt, end, step);
                Ok(())
            }
            Input::RendezvousOpened { worker, attempt, address } => {
                self.current(worker, attempt)?;
                self.rendezvous_opened(worker, attempt, address, step);
                Ok(())
            }
            Input::CheckpointCommitted { worker, attempt, checkpoint } => {
                self.checkpoint_committed(now, worker, attempt, checkpoint, step)
            }
            Input::CheckpointDamaged { attempt, digest } => {
                self.checkpoint_damaged(now, attempt, digest, step)
            }
            Input::Incident { worker, attempt, rank, pattern, line, quarantine } => {
                let line = drain::Line { rank, pattern, line };
                self.incident(now, worker, attempt, quarantine, line, step)
            }
            Input::Unhealthy { worker, message } => {
                self.unhealthy(now, worker, message, step);
                Ok(())
            }
            Input::Tick => {
                self.tick(now, step);
                Ok(())
            }
        }
    }

    fn emit(&mut self, event: Event, step: &mut Step) {
        self.state.apply(&event);
        self.note_change(&event);
        step.events.push(event);
    }

    /// Takes note of what the scheduler must look at again.
    fn note_change(&mut self, event: &Event) {
        match event {
            Event::WorkerJoined { .. }
            | Event::WorkerLost { .. }
            | Event::WorkerLeft { .. }
            | Event::WorkerDrained { .. }
            | Event::WorkerQuarantined { .. }
            | Event::WorkerUndrained { .. } => {
                self.live.pools.forget();
                self.live.changed = true;
            }
            Event::TrialSubmitted { .. }
            | Event::TrialResubmitted { .. }
            | Event::TrialReopened { .. }
            | Event::ExperimentSubmitted { .. }
            | Event::ExperimentPrioritized { .. }
            | Event::TrialPaused { .. }
            | Event::TrialResumed { .. }
            | Event::ExperimentPaused { .. }
            | Event::ExperimentResumed { .. }
            | Event::ExperimentCancelled { .. }
            | Event::AttemptStarted { .. }
            | Event::YieldRequested { .. }
            | Event::AttemptFailed { .. } => self.live.changed = true,
            Event::TrialEnded { trial, .. } => {
                self.live.resting.remove(trial);
                self.live.changed = true;
            }
            Event::SessionOpened { .. }
            | Event::CheckpointCommitted { .. }
            | Event::CheckpointPinned { .. }
            | Event::CheckpointUnpinned { .. }
            | Event::CheckpointDropped { .. } => {}
        }
    }

    /// Ends a trial, and those that can never run because of it.
    fn end(&mut self, now: Millis, trial: TrialId, outcome: Outcome, step: &mut Step) {
        let failed = !outcome.is_success();
        self.emit(Event::TrialEnded { trial, outcome, at: now }, step);
        if !failed {
            return;
        }
        for dependent in self.state.index.dependents_of(trial).collect::<Vec<_>>() {
            if self.state.trials.get(&dependent).is_some_and(crate::Trial::is_pending) {
                self.end(now, dependent, Outcome::NeedFailed { need: trial }, step);
            }
        }
    }

    /// Tells every worker of an attempt to forget it. Comes before the event that ends the attempt.
    fn release(&mut self, attempt: AttemptId, step: &mut Step) {
        self.live.forget(attempt);
        let Some((_, running)) = self.state.running(attempt) else {
            return;
        };
        let shares = running.placement.shares().iter();
        step.effects.extend(shares.map(|share| Effect::Release { worker: share.worker, attempt }));
    }
}
