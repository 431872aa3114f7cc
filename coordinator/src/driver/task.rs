//! The loop: wait, decide, persist, perform.

use std::collections::BTreeSet;
use std::sync::Arc;

use common::session::{Launch, ToWorker};
use common::spec::RunPolicy;
use common::{AttemptId, Digest, TrialId};
use coordinator_core::{Cluster, Effect, Event, Input, Millis, Outcome, Phase, Reject, Share, Step};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tracing::{debug, error, info, warn};

use super::clock::Clock;
use super::command::{Command, Deferred, Turn};
use super::recovery::{Recovered, Snapshots, recover};
use super::{Applied, DriverError, History, Limits, Live, SessionEnd, View, journal};
use crate::blobs::Blobs;
use crate::store::{Batch, Store, StoreError};

/// Commands that share one flush at most, so that no answer waits for ever.
const TURN: usize = 512;

/// The driver's state.
pub(super) struct Driver {
    pub(super) cluster: Cluster,
    pub(super) history: History,
    pub(super) live: Live,
    pub(super) blobs: Blobs,
    /// Blobs that hold logs. The core does not know them.
    pub(super) logs: BTreeSet<Digest>,
    pub(super) limits: Limits,
    clock: Clock,
    /// Until then nobody's silence is judged.
    pub(super) lenient_until: Millis,
    pub(super) news: News,
    pub(super) snapshots: Snapshots,
}

/// What everybody can watch.
pub(super) struct News {
    /// Counts changes of what readers see.
    pub(super) notify: watch::Sender<u64>,
    /// Why the driver is paused, while it is.
    pub(super) pauses: watch::Sender<Option<Arc<StoreError>>>,
}

enum Wake {
    Command(Command),
    Deadline,
    Alone,
}

impl Driver {
    pub(super) fn replay(
        store: &Store,
        blobs: Blobs,
        limits: Limits,
        news: News,
    ) -> Result<Self, StoreError> {
        let clock = Clock::start();
        let recovered = recover(store, &limits.policy, clock.now())?;
        let logs = store.reader().log_blobs()?.into_iter().collect();
        let live = Live::default();
        let lenient_until = Millis(0);
        let snapshots = Snapshots::new(limits.snapshot_events, 0, &recovered.cluster);
        let (cluster, history) = (Cluster::new(limits.policy.clone()), History::default());
        let mut driver =
            Self { cluster, history, live, blobs, logs, limits, clock, lenient_until, news, snapshots };
        driver.take_over(recovered);
        info!(took = ?clock.elapsed(), "state read");
        Ok(driver)
    }

    /// Makes what the disk says the state.
    pub(super) fn take_over(&mut self, recovered: Recovered) {
        let Recovered { cluster, history, covered, replayed, damaged } = recovered;
        for damage in damaged {
            let error = &damage as &dyn std::error::Error;
            warn!(error, "a snapshot is damaged; an older one and the events since took its place");
        }
        if let Err(violation) = cluster.check() {
            // A bug, here or in the build that wrote the log. To stop would not undo it, and what runs is worth more.
            error!(%violation, "the log leads to a state that should not exist: please report it");
        }
        info!(snapshot = covered, events = replayed, "log replayed");
        self.snapshots = Snapshots::new(self.limits.snapshot_events, covered, &cluster);
        self.cluster = cluster;
        self.history = history;
    }

    pub(super) async fn run(
        mut self,
        mut store: Store,
        mut inbox: mpsc::Receiver<Command>,
    ) -> Result<(), Arc<StoreError>> {
        let reader = store.reader();
        loop {
            let mut turn = Turn::default();
            match self.wait(&mut inbox).await {
                Wake::Command(command) => self.take(command, &mut turn).await,
                Wake::Deadline => {}
                Wake::Alone => break,
            }
            let drained = self.drain(&mut inbox, &mut turn).await;
            // Never before the inbox is empty: it may hold the heartbeat that the deadline is about.
            if drained {
                self.tick(&mut turn);
            }
            store = match commit(store, std::mem::take(&mut turn.batch)).await {
                Ok((store, events)) => {
                    events.iter().for_each(journal::log);
                    store
                }
                Err(failure) if failure.may_pass() => {
                    match self.pause(turn, failure, &reader, &mut inbox).await? {
                        Some(again) => store = again,
                        None => break,
                    }
                    continue;
                }
                Err(failure) => return Err(self.give_up(turn, failure)),
            };
            let stop = turn.stop;
            self.perform(turn).await;
            if stop {
                break;
            }
            self.snapshots.consider(&store, &self.cluster, &self.history);
        }
        self.snapshots.stop().await;
        self.live.sessions.end_all(&SessionEnd::Stopping);
        info!("the driver stops: everything it answered is durable");
        Ok(())
    }

    pub(super) fn give_up(&mut self, turn: Turn, failure: StoreError) -> Arc<StoreError> {
        error!(error = &failure as &dyn std::error::Error, "cannot write the log: the coordinator stops");
        self.live.sessions.end_all(&SessionEnd::Stopping);
        let failure = Arc::new(failure);
        turn.fail(&DriverError::Store(failure.clone()));
        failure
    }

    async fn wait(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Wake {
        let due = self.cluster.next_deadline().map(|due| due.max(self.lenient_until));
        let deadline = async {
            match due {
                Some(due) => sleep_until(self.clock.instant(due)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            command = inbox.recv() => command.map_or(Wake::Alone, Wake::Command),
            () = deadline => Wake::Deadline,
        }
    }

    /// Takes what else waits; false when more may wait.
    async fn drain(&mut self, inbox: &mut mpsc::Receiver<Command>, turn: &mut Turn) -> bool {
        for _ in 1..TURN {
            if turn.stop {
                return true;
            }
            match inbox.try_recv() {
                Ok(command) => self.take(command, turn).await,
                Err(mpsc::error::TryRecvError::Empty | mpsc::error::TryRecvError::Disconnected) => {
                    return true;
                }
            }
        }
        false
    }

    /// Judges silence, unless this process was silent itself: when it slept over a deadline (it was stopped,
    /// the machine was suspended, a flush took long), heartbeats may wait in the sockets.
    fn tick(&mut self, turn: &mut Turn) {
        let now = self.clock.now();
        let Some(due) = self.cluster.next_deadline() else {
            return;
        };
        if due > now || self.lenient_until > now {
            return;
        }
        let late = now.since(due.max(self.lenient_until));
        if late > self.limits.heartbeat {
            warn!(?late, "slept over a deadline: every lease is extended once");
            self.lenient_until = now + self.limits.policy.lease;
            return;
        }
        // A tick is never refused.
        let _ = self.decide(Input::Tick, turn);
    }

    async fn take(&mut self, command: Command, turn: &mut Turn) {
        match command {
            Command::Apply { input, reply } => {
                let answer = self.decide(input, turn).map_err(DriverError::from);
                turn.deferred.push(Deferred::Answer { reply, answer });
            }
            Command::Read(look) => turn.deferred.push(Deferred::Show(look)),
            Command::OpenSession { hello, outgoing, reply } => {
                self.open_session(*hello, outgoing, reply, turn);
            }
            Command::FromWorker { worker, session, message } => {
                if self.live.sessions.is_newest(worker, session) {
                    self.hear(worker, message, turn).await;
                } else {
                    debug!(%worker, "a message of an old session is ignored");
                }
            }
            Command::SessionClosed { worker, session } => {
                if self.live.sessions.is_newest(worker, session) {
                    self.live.sessions.end(worker, SessionEnd::Stopping);
                    self.decide_or_note(Input::Disconnected { worker }, turn);
                }
            }
            Command::Send { worker, message, reply } => {
                // Who asked may have gone away.
                let _ = reply.send(self.live.sessions.send(worker, message));
            }
            Command::Collect(blobs) => {
                for blob in blobs {
                    self.delete(blob).await;
                }
            }
            Command::Stop => turn.stop = true,
        }
    }

    /// Lets the core decide, and puts off what follows.
    pub(super) fn decide(&mut self, input: Input, turn: &mut Turn) -> Result<Applied, Reject> {
        let Step { events, effects } = self.cluster.handle(self.clock.now(), input)?;
        let applied = summary(&events);
        for event in &events {
            self.history.apply(event);
        }
        turn.changed |= !events.is_empty();
        turn.batch.events.extend(events);
        turn.deferred.extend(effects.into_iter().map(Deferred::Perform));
        Ok(applied)
    }

    /// For inputs whose sender needs no answer.
    pub(super) fn decide_or_note(&mut self, input: Input, turn: &mut Turn) {
        if let Err(reject) = self.decide(input, turn) {
            debug!(%reject, "an input is refused");
        }
    }

    pub(super) fn now(&self) -> Millis {
        self.clock.now()
    }

    async fn perform(&mut self, turn: Turn) {
        for deferred in turn.deferred {
            match deferred {
                Deferred::Perform(effect) => self.perform_effect(effect).await,
                Deferred::Answer { reply, answer } => drop(reply.send(answer)),
                Deferred::Welcome { worker, session, current, reply } => {
                    let Limits { policy, heartbeat, snapshot_events: _ } = &self.limits;
                    let version = env!("CARGO_PKG_VERSION").to_owned();
                    let (lease, heartbeat) = (policy.lease, *heartbeat);
                    let welcome = ToWorker::Welcome { lease, heartbeat, version, current };
                    self.live.sessions.welcome(worker, session, welcome);
                    drop(reply.send(Ok(session)));
                }
                Deferred::Acknowledge { worker, attempt, sequence } => {
                    self.live.sessions.send(worker, ToWorker::MetricAck { attempt, sequence });
                }
                Deferred::Tell { worker, message } => {
                    self.live.sessions.send(worker, message);
                }
                Deferred::Referenced(digest) => self.blobs.unpin(digest).await,
                Deferred::Show(look) => look(&self.view()),
            }
        }
        if turn.changed {
            let cluster = &self.cluster;
            self.live.progress.retain(|&attempt, _| cluster.trial_of(attempt).is_some());
            self.news.notify.send_modify(|version| *version += 1);
        }
    }

    async fn perform_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Launch { attempt, trial, share, world_size } => {
                self.launch(attempt, trial, share, world_size);
            }
            Effect::Release { worker, attempt } => {
                self.live.sessions.send(worker, ToWorker::Release { attempt });
            }
            Effect::Rendezvous { worker, attempt, address } => {
                self.live.sessions.send(worker, ToWorker::Rendezvous { attempt, address });
            }
            Effect::Preempt { worker, attempt } => {
                self.live.sessions.send(worker, ToWorker::Preempt { attempt });
            }
            Effect::Prefetch { worker, trial, blobs } => {
                // A later input of the same turn may have started it.
                if self.cluster.trial(trial).is_some_and(|record| record.phase == Phase::Queued) {
                    self.live.sessions.prefetch(worker, blobs);
                }
            }
            Effect::DeleteBlob { digest } => self.delete(digest).await,
        }
    }

    fn launch(&self, attempt: AttemptId, trial: TrialId, share: Share, world_size: u32) {
        // A later input of the same turn may have ended it.
        if !self.cluster.is_current(attempt, share.worker) {
            return;
        }
        let Some(record) = self.cluster.trial(trial) else { return };
        let networks: Vec<_> =
            self.cluster.networks(trial).map(|(key, checkpoint)| (key, checkpoint.clone())).collect();
        if networks.len() < record.needs.len() {
            warn!(%trial, %attempt, "not launched: a trial that it needs runs again");
            return;
        }
        let launch = Launch {
            attempt,
            key: record.key,
            label: record.label.clone(),
            spec: record.spec.to_spec(),
            policy: RunPolicy::clone(&record.policy),
            first_rank: share.first_rank,
            ranks: share.ranks,
            world_size,
            restore: record.restore().cloned().collect(),
            networks,
        };
        self.live.sessions.send(share.worker, ToWorker::Launch(Box::new(launch)));
    }

    /// Here and not in a task of its own, so that no commit comes between the look and the deletion.
    async fn delete(&self, digest: Digest) {
        if self.cluster.is_referenced(digest) || self.logs.contains(&digest) {
            return;
        }
        if let Err(failure) = self.blobs.delete(digest).await {
            let error = &failure as &dyn std::error::Error;
            warn!(%digest, error, "a blob is not deleted; the next sweep tries again");
        }
    }

    fn view(&self) -> View<'_> {
        let Self { cluster, history, live, clock, .. } = self;
        View { cluster, history, live, now: clock.now() }
    }
}

/// Flushing waits for the disk, so it must not hold up the other tasks.
async fn commit(mut store: Store, batch: Batch) -> Result<(Store, Vec<Event>), StoreError> {
    if batch.is_empty() {
        return Ok((store, Vec::new()));
    }
    let write = move || store.commit(&batch).map(|()| (store, batch.events));
    tokio::task::spawn_blocking(write).await.unwrap_or(Err(StoreError::Abnormal))
}

fn summary(events: &[Event]) -> Applied {
    let mut applied = Applied::default();
    for event in events {
        match event {
            Event::TrialSubmitted { .. } => applied.new_trials += 1,
            Event::ExperimentSubmitted { experiment, .. } => applied.experiment = Some(*experiment),
            Event::TrialEnded { outcome, .. } => match outcome {
                Outcome::Succeeded { .. } => {}
                Outcome::Failed { .. }
                | Outcome::LostWorkers { .. }
                | Outcome::Cancelled
                | Outcome::NeedFailed { .. } => {
                    applied.cancelled += 1;
                }
            },
            Event::TrialResubmitted { .. }
            | Event::TrialReopened { .. }
            | Event::ExperimentPrioritized { .. }
            | Event::TrialPaused { .. }
            | Event::TrialResumed { .. }
            | Event::ExperimentPaused { .. }
            | Event::ExperimentResumed { .. }
            | Event::WorkerDrained { .. }
            | Event::WorkerQuarantined { .. }
            | Event::WorkerUndrained { .. }
            | Event::CheckpointPinned { .. }
            | Event::CheckpointUnpinned { .. }
            | Event::ExperimentCancelled { .. }
            | Event::WorkerJoined { .. }
            | Event::SessionOpened { .. }
            | Event::WorkerLost { .. }
            | Event::WorkerLeft { .. }
            | Event::AttemptStarted { .. }
            | Event::YieldRequested { .. }
            | Event::AttemptFailed { .. }
            | Event::CheckpointCommitted { .. }
            | Event::CheckpointDropped { .. } => {}
        }
    }
    applied
}
