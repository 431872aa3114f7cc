//! The coordinator's driver: it persists what the core decides, then performs it, and may die before and between.

use common::result::MetricRow;
use common::session::{Blob, FromWorker, Hello, Launch, ToWorker};
use common::timeouts::Timeouts;
use common::{AttemptId, Digest, FailureCause, TrialId, WorkerId};
use coordinator_core::{Effect, Input, Millis, Phase, Reject, Step, Traits};
use rand::Rng;

use super::World;
use crate::network::{ConnId, Down, Packet};

/// What became of an input.
#[derive(Debug, PartialEq)]
pub(super) enum Fate {
    Done,
    /// The coordinator died; nobody was told what became of it.
    Crashed,
    Refused(Reject),
}

impl World {
    pub(super) fn handle(&mut self, input: Input) -> Fate {
        match self.decide(input) {
            Ok(effects) => {
                self.perform_all(effects);
                Fate::Done
            }
            Err(fate) => fate,
        }
    }

    fn decide(&mut self, input: Input) -> Result<Vec<Effect>, Fate> {
        if self.fault(0.002) {
            self.oracle.note("coordinator crashed before persisting");
            self.crash_coordinator();
            return Err(Fate::Crashed);
        }
        self.oracle.proves_absence =
            matches!(input, Input::Hello { .. } | Input::Tick | Input::WorkerLeft { .. });
        let Step { events, effects } = self.cluster.handle(Millis(self.now), input).map_err(Fate::Refused)?;
        if !events.is_empty() {
            self.trace(&events);
            self.log.extend(events.iter().cloned());
            self.check(&events);
        }
        if !events.is_empty() && self.fault(0.02) {
            self.oracle.note("coordinator crashed after persisting");
            self.crash_coordinator();
            return Err(Fate::Crashed);
        }
        Ok(effects)
    }

    fn perform_all(&mut self, effects: Vec<Effect>) {
        self.flush = if self.fault(0.02) { self.rng.random_range(1..25) } else { 0 };
        for effect in effects {
            self.perform(effect);
        }
        self.flush = 0;
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Launch { attempt, trial, share, world_size } => {
                let record = self.cluster.trial(trial).unwrap();
                let networks: Vec<_> =
                    self.cluster.networks(trial).map(|(key, held)| (key, held.clone())).collect();
                assert!(networks.len() == record.needs.len(), "{trial} lacks a network");
                let launch = Launch {
                    attempt,
                    key: record.key,
                    label: trial.to_string(),
                    spec: record.spec.to_spec(),
                    policy: (*record.policy).clone(),
                    first_rank: share.first_rank,
                    ranks: share.ranks,
                    world_size,
                    restore: record.restore().cloned().collect(),
                    networks,
                };
                self.tell_worker(share.worker, ToWorker::Launch(Box::new(launch)));
            }
            Effect::Release { worker, attempt } => self.tell_worker(worker, ToWorker::Release { attempt }),
            Effect::Rendezvous { worker, attempt, address } => {
                self.tell_worker(worker, ToWorker::Rendezvous { attempt, address });
            }
            Effect::Preempt { worker, attempt } => self.tell_worker(worker, ToWorker::Preempt { attempt }),
            Effect::Prefetch { worker, trial, blobs } => self.prefetch(worker, trial, blobs),
            Effect::DeleteBlob { digest } => self.delete(digest),
        }
    }

    /// What is not there, or would not be read, is not worth telling.
    fn prefetch(&mut self, worker: WorkerId, trial: TrialId, blobs: Vec<Blob>) {
        let record = self.cluster.trial(trial).unwrap();
        assert_eq!(record.phase, Phase::Queued, "{worker} is to prefetch for {trial}, which does not wait");
        let networks = self.cluster.networks(trial).map(|(_, held)| held.digest);
        let reads = record.restore().map(|held| held.digest).chain(networks).collect::<Vec<_>>();
        for Blob { digest, .. } in &blobs {
            assert!(self.blobs.contains(digest), "{worker} is to prefetch {digest}, which is not stored");
            assert!(reads.contains(digest), "{worker} is to prefetch {digest}, which {trial} does not read");
        }
        self.oracle.note("prefetch told");
        self.tell_worker(worker, ToWorker::Prefetch { blobs });
    }

    /// What was just stored waits for its record.
    fn delete(&mut self, digest: Digest) {
        if !self.cluster.is_referenced(digest) && !self.fresh.contains(&digest) {
            self.blobs.remove(&digest);
            self.rotten.remove(&digest);
        }
    }

    /// The welcome is the first message of a session, and names what is current after its hello.
    pub(super) fn open_session(&mut self, conn: ConnId, hello: Hello) {
        let Hello { worker, order, name, host, slots, labels, attempts, faults, .. } = hello;
        let named: Vec<AttemptId> = attempts.iter().map(|report| report.attempt).collect();
        let traits = Traits { labels, ..Traits::default() };
        if !self.cluster.is_overtaken(worker, order) {
            self.hear_faults(worker, &faults);
        }
        let effects = match self.decide(Input::Hello { worker, order, name, host, slots, traits, attempts }) {
            Ok(effects) => effects,
            Err(Fate::Refused(Reject::Overtaken(_))) => {
                let late = self.network.conns[&conn].crashes != self.crashes;
                self.oracle.note(if late { "hello overtaken over a restart" } else { "hello overtaken" });
                return self.send(Packet::Down(conn, Down::Closed));
            }
            Err(_) => return,
        };
        let accepted = self.network.conns.get_mut(&conn).unwrap();
        (accepted.crashes, accepted.accepted) = (self.crashes, true);
        if let Some(older) = self.sessions.insert(worker, conn) {
            self.send(Packet::Down(older, Down::Closed));
        }
        self.send(Packet::Down(conn, Down::Opened));
        let timeouts = Timeouts::of(self.policy.lease);
        let (lease, heartbeat) = (timeouts.lease(), timeouts.heartbeat());
        let current = self.current_of(worker, named);
        let welcome = ToWorker::Welcome { lease, heartbeat, version: String::new(), current };
        self.send(Packet::Down(conn, Down::Message(Box::new(welcome))));
        self.perform_all(effects);
    }

    /// What a worker says is wrong with it.
    fn hear_faults(&mut self, worker: WorkerId, faults: &[String]) {
        if !faults.is_empty() {
            self.handle(Input::Unhealthy { worker, message: faults.join("; ") });
        }
    }

    fn current_of(&self, worker: WorkerId, mut attempts: Vec<AttemptId>) -> Vec<AttemptId> {
        attempts.retain(|&attempt| self.cluster.is_current(attempt, worker));
        attempts
    }

    /// Puts what a worker says into the core's words, as the driver does.
    pub(super) fn hear(&mut self, worker: WorkerId, message: FromWorker, newest: bool) {
        match message {
            FromWorker::Heartbeat { sequence, attempts, faults } => {
                self.hear_faults(worker, &faults);
                let named = attempts.iter().map(|report| report.attempt).collect();
                let fate = self.handle(Input::Heartbeat { worker, attempts });
                if fate == Fate::Done {
                    let current = self.current_of(worker, named);
                    self.tell_worker(worker, ToWorker::HeartbeatAck { sequence, current });
                }
                self.end_session_of_a_stranger(worker, newest, &fate);
            }
            FromWorker::AttemptEnded { attempt, end } => {
                let fate = self.handle(Input::Ended { worker, attempt, end });
                self.end_session_of_a_stranger(worker, newest, &fate);
            }
            FromWorker::RendezvousOpened { attempt, address } => {
                let _ = self.handle(Input::RendezvousOpened { worker, attempt, address });
            }
            FromWorker::CheckpointStored { attempt, checkpoint } => {
                let digest = checkpoint.digest;
                if !self.blobs.contains(&digest) {
                    self.oracle.note("checkpoint lost");
                    let end = Err(FailureCause::LaunchFailed { message: "lost".to_owned() });
                    let fate = self.handle(Input::Ended { worker, attempt, end });
                    return self.end_session_of_a_stranger(worker, newest, &fate);
                }
                let fate = self.handle(Input::CheckpointCommitted { worker, attempt, checkpoint });
                if fate == Fate::Done {
                    self.fresh.remove(&digest);
                }
            }
            FromWorker::CheckpointDamaged { attempt, digest, message: _ } => {
                if self.cluster.is_current(attempt, worker) {
                    let _ = self.handle(Input::CheckpointDamaged { attempt, digest });
                }
            }
            FromWorker::Metrics { attempt, sequence, rows } => {
                self.store_rows(worker, attempt, sequence, rows)
            }
            FromWorker::Incident { attempt, rank, pattern, line, quarantine } => {
                let incident = Input::Incident { worker, attempt, rank, pattern, line, quarantine };
                let _ = self.handle(incident);
            }
            FromWorker::Goodbye => {
                self.sessions.remove(&worker);
                let _ = self.handle(Input::WorkerLeft { worker });
            }
            FromWorker::Hello(_)
            | FromWorker::Progress { .. }
            | FromWorker::Warning { .. }
            | FromWorker::LogStored { .. }
            | FromWorker::LogData { .. } => {}
        }
    }

    /// Who is no member any more must say hello again.
    fn end_session_of_a_stranger(&mut self, worker: WorkerId, newest: bool, fate: &Fate) {
        if newest
            && matches!(fate, Fate::Refused(Reject::UnknownWorker(_)))
            && let Some(conn) = self.sessions.remove(&worker)
        {
            self.send(Packet::Down(conn, Down::Closed));
        }
    }

    /// Durable, then acknowledged; those of an attempt that is over are only acknowledged.
    fn store_rows(&mut self, worker: WorkerId, attempt: AttemptId, sequence: u64, rows: Vec<MetricRow>) {
        if self.fault(0.001) {
            self.oracle.note("coordinator crashed before persisting");
            return self.crash_coordinator();
        }
        if self.cluster.is_current(attempt, worker) {
            let reports = self.rows.entry(attempt).or_default();
            let stored = reports.entry(sequence).or_insert_with(|| rows.clone());
            assert_eq!(*stored, rows, "report {sequence} of {attempt} says two things");
        }
        if self.fault(0.001) {
            self.oracle.note("coordinator crashed after persisting");
            return self.crash_coordinator();
        }
        self.tell_worker(worker, ToWorker::MetricAck { attempt, sequence });
    }
}
