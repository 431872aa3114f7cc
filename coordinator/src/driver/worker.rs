//! What workers say, put into the core's words.
//!
//! Attempts fence everything: rows, progress and checkpoints of an attempt that is not current on the sender
//! change nothing. They are acknowledged where the sender would repeat them otherwise.

use common::result::{Checkpoint, MetricRow};
use common::session::{FromWorker, Hello, ToWorker};
use common::{AttemptId, Digest, FailureCause, TrialId, WorkerId};
use coordinator_core::{Input, Reject, Traits};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::command::{Deferred, Turn};
use super::sessions::Peer;
use super::task::Driver;
use super::{DriverError, Outgoing, SessionEnd, SessionId};
use crate::store::{MetricReport, StoredLog, Warning};

impl Driver {
    pub(super) fn open_session(
        &mut self,
        hello: Hello,
        outgoing: Outgoing,
        reply: oneshot::Sender<Result<SessionId, DriverError>>,
        turn: &mut Turn,
    ) {
        let Hello {
            protocol: _,
            worker,
            order,
            name,
            host,
            slots,
            version,
            attempts,
            labels,
            device,
            slot_memory_mib,
            prefetches,
            faults,
        } = hello;
        let device = (!device.is_empty()).then_some(device);
        let traits = Traits { labels, device, slot_memory_mib };
        // Before the effects of the hello, because the welcome is the first message of a session; but it names what is current
        // after it.
        let named: Vec<AttemptId> = attempts.iter().map(|report| report.attempt).collect();
        let place = turn.deferred.len();
        // First, so that nothing is placed on a worker that is broken.
        if !self.cluster.is_overtaken(worker, order) {
            self.hear_faults(worker, faults, turn);
        }
        let hello = Input::Hello { worker, order, name, host, slots, traits, attempts };
        if let Err(reject) = self.decide(hello, turn) {
            debug!(%worker, ?order, %reject, "a hello is refused");
            // Who asked is probably dead.
            let _ = reply.send(Err(reject.into()));
            return;
        }
        let session = self.live.sessions.open(worker, Peer { version, prefetches }, outgoing);
        let current = self.current_of(worker, named);
        turn.deferred.insert(place, Deferred::Welcome { worker, session, current, reply });
        turn.changed = true;
    }

    pub(super) async fn hear(&mut self, worker: WorkerId, message: FromWorker, turn: &mut Turn) {
        match message {
            FromWorker::Hello(_) => {
                self.live.sessions.end(worker, SessionEnd::SecondHello);
                self.decide_or_note(Input::Disconnected { worker }, turn);
            }
            FromWorker::Heartbeat { sequence, attempts, faults } => {
                self.hear_faults(worker, faults, turn);
                let named = attempts.iter().map(|report| report.attempt).collect();
                if self.decide_as_member(worker, Input::Heartbeat { worker, attempts }, turn) {
                    let current = self.current_of(worker, named);
                    let message = ToWorker::HeartbeatAck { sequence, current };
                    turn.deferred.push(Deferred::Tell { worker, message });
                }
            }
            FromWorker::RendezvousOpened { attempt, address } => {
                self.decide_or_note(Input::RendezvousOpened { worker, attempt, address }, turn);
            }
            FromWorker::AttemptEnded { attempt, end } => {
                self.decide_as_member(worker, Input::Ended { worker, attempt, end }, turn);
            }
            FromWorker::CheckpointStored { attempt, checkpoint } => {
                self.checkpoint_stored(worker, attempt, checkpoint, turn).await;
            }
            FromWorker::CheckpointDamaged { attempt, digest, message } => {
                self.checkpoint_damaged(worker, attempt, digest, &message, turn);
            }
            FromWorker::Progress { attempt, progress } => {
                if self.cluster.is_current(attempt, worker) {
                    self.live.progress.insert(attempt, progress);
                    turn.changed = true;
                }
            }
            FromWorker::Metrics { attempt, sequence, rows } => {
                self.metrics(worker, attempt, sequence, rows, turn);
            }
            FromWorker::Incident { attempt, rank, pattern, line, quarantine } => {
                let message = format!("rank {rank}: a line of its log matches `{pattern}`: {line}");
                self.warning(worker, attempt, message, turn);
                let incident = Input::Incident { worker, attempt, rank, pattern, line, quarantine };
                self.decide_or_note(incident, turn);
            }
            FromWorker::Warning { attempt, message } => self.warning(worker, attempt, message, turn),
            FromWorker::LogStored { attempt, rank, digest, bytes } => {
                self.log_stored(worker, (attempt, rank), StoredLog { digest, bytes }, turn).await;
            }
            // Its session hands it to whoever asked.
            FromWorker::LogData { request, .. } => debug!(%worker, request, "log data for nobody"),
            FromWorker::Goodbye => {
                self.live.sessions.end(worker, SessionEnd::Goodbye);
                self.decide_or_note(Input::WorkerLeft { worker }, turn);
            }
        }
    }

    /// What a worker says is wrong with it, as long as it lasts.
    fn hear_faults(&mut self, worker: WorkerId, faults: Vec<String>, turn: &mut Turn) {
        if !faults.is_empty() {
            self.decide_or_note(Input::Unhealthy { worker, message: faults.join("; ") }, turn);
        }
    }

    /// Those that `worker` may compute.
    fn current_of(&self, worker: WorkerId, mut attempts: Vec<AttemptId>) -> Vec<AttemptId> {
        attempts.retain(|&attempt| self.cluster.is_current(attempt, worker));
        attempts
    }

    /// Whether the input was accepted. Who is no member any more must say hello again, so its session ends.
    fn decide_as_member(&mut self, worker: WorkerId, input: Input, turn: &mut Turn) -> bool {
        match self.decide(input, turn) {
            Ok(_) => return true,
            Err(Reject::UnknownWorker(_)) => {
                self.live.sessions.end(worker, SessionEnd::LeaseEnded(worker));
                turn.changed = true;
            }
            Err(reject) => debug!(%worker, %reject, "an input is refused"),
        }
        false
    }

    /// A manifest may only name bytes that are there (I11).
    async fn checkpoint_stored(
        &mut self,
        worker: WorkerId,
        attempt: AttemptId,
        checkpoint: Checkpoint,
        turn: &mut Turn,
    ) {
        let Checkpoint { step, digest, bytes, score: _ } = checkpoint;
        if !self.is_stored(digest, bytes).await {
            // Nobody sends it again, and without it the trial would go on, or even end, as if it had made fewer steps.
            let message = format!("the checkpoint of step {step} was stored, and is not there any more");
            warn!(%worker, %attempt, step, %digest, "the attempt fails: {message}");
            let end = Err(FailureCause::LaunchFailed { message });
            self.decide_as_member(worker, Input::Ended { worker, attempt, end }, turn);
            return;
        }
        let input = Input::CheckpointCommitted { worker, attempt, checkpoint };
        match self.decide(input, turn) {
            Ok(_) => turn.deferred.push(Deferred::Referenced(digest)),
            Err(reject) => debug!(%worker, %attempt, step, %reject, "a checkpoint is refused"),
        }
    }

    fn checkpoint_damaged(
        &mut self,
        worker: WorkerId,
        attempt: AttemptId,
        digest: Digest,
        message: &str,
        turn: &mut Turn,
    ) {
        if !self.cluster.is_current(attempt, worker) {
            return;
        }
        warn!(%worker, %attempt, %digest, message, "a checkpoint did not load");
        if let Some((holder, step)) = self.holder(attempt, digest) {
            let message =
                format!("the checkpoint of step {step} of {holder} is damaged and used no more: {message}");
            self.warning(worker, attempt, message, turn);
        }
        self.decide_or_note(Input::CheckpointDamaged { attempt, digest }, turn);
    }

    /// Trial and step of a checkpoint that an attempt reads: its own, or that of a network that it needs.
    fn holder(&self, attempt: AttemptId, digest: Digest) -> Option<(TrialId, u64)> {
        let trial = self.cluster.trial_of(attempt)?;
        let needs = &self.cluster.trial(trial)?.needs;
        std::iter::once(&trial).chain(needs).find_map(|&id| {
            let held = self.cluster.trial(id)?.checkpoints.iter().find(|held| held.digest == digest)?;
            Some((id, held.step))
        })
    }

    fn metrics(
        &mut self,
        worker: WorkerId,
        attempt: AttemptId,
        sequence: u64,
        rows: Vec<MetricRow>,
        turn: &mut Turn,
    ) {
        match self.cluster.trial_of(attempt).filter(|_| self.cluster.is_current(attempt, worker)) {
            Some(trial) => turn.batch.metrics.push(MetricReport { trial, attempt, sequence, rows }),
            None => debug!(%worker, %attempt, sequence, "metric rows of an old attempt are dropped"),
        }
        turn.deferred.push(Deferred::Acknowledge { worker, attempt, sequence });
    }

    /// Also of an attempt that is over: it may be why.
    fn warning(&mut self, worker: WorkerId, attempt: AttemptId, message: String, turn: &mut Turn) {
        if let Some(trial) = self.history.trial_on(attempt, worker) {
            warn!(%trial, %attempt, message, "a warning for the user");
            let at = self.now();
            turn.batch.warnings.push((trial, Warning { attempt, message, at }));
        }
    }

    /// Also of an attempt that is over: that is when logs are stored.
    async fn log_stored(
        &mut self,
        worker: WorkerId,
        (attempt, rank): (AttemptId, u32),
        log: StoredLog,
        turn: &mut Turn,
    ) {
        let Some(trial) = self.history.trial_on(attempt, worker) else { return };
        if !self.is_stored(log.digest, log.bytes).await {
            warn!(%trial, %attempt, rank, "the log's bytes are not stored");
            return;
        }
        self.logs.insert(log.digest);
        turn.batch.logs.push((attempt, rank, log));
        turn.deferred.push(Deferred::Referenced(log.digest));
    }

    async fn is_stored(&self, digest: Digest, bytes: u64) -> bool {
        match self.blobs.size(digest).await {
            Ok(size) => size == Some(bytes),
            Err(failure) => {
                warn!(%digest, error = &failure as &dyn std::error::Error, "cannot look for a blob");
                false
            }
        }
    }
}
