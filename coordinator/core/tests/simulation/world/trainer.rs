//! What workers and their trainers do in one tick.

use std::collections::BTreeMap;

use common::result::{Artifact, Checkpoint, TrialResult};
use common::session::AttemptEnd;
use common::spec::TrialSpec;
use common::{AttemptId, Digest, FailureCause, WorkerId};
use coordinator_core::{Event, Input, Traits};
use rand::Rng;

use super::{SLOTS, World};
use crate::grid::{poison, steps};
use crate::worker::{Order, State, Trainer};

/// Steps between checkpoints.
const CHECKPOINT: u64 = 4;
/// Where a worker stands.
fn zone(id: WorkerId) -> &'static str {
    if id.0 < 2 { "a" } else { "b" }
}

/// Ticks without peers after which a collective fails, and how long the first one waits.
const COLLECTIVE: u64 = 5;
const MEETING: u64 = 300;

impl World {
    /// Groups whose ranks have all met, with the step of rank 0.
    pub(super) fn groups(&self) -> BTreeMap<AttemptId, u64> {
        let mut joined: BTreeMap<AttemptId, (u32, u32, u64)> = BTreeMap::new();
        let held = self.workers.values().flat_map(|worker| worker.held.values());
        for held in held.filter(|held| held.has_joined()) {
            let group = joined.entry(held.order.attempt).or_insert((0, held.order.world_size, 0));
            group.0 += held.order.share.ranks;
            if let (State::Running(trainer), true) = (&held.state, held.leads()) {
                group.2 = trainer.step;
            }
        }
        let whole = joined.into_iter().filter(|(_, (ranks, world_size, _))| ranks == world_size);
        whole.map(|(attempt, (_, _, step))| (attempt, step)).collect()
    }

    pub(super) fn tick_worker(&mut self, id: WorkerId, together: &BTreeMap<AttemptId, u64>) {
        self.break_worker(id);
        self.connect(id);
        let now = self.now;
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.fence(now) && !worker.held.is_empty() {
            self.oracle.note("worker fenced itself");
        }
        let worker = self.workers.get_mut(&id).unwrap();
        // A session that nobody answers is given up.
        if worker.fenced && worker.connected && now > worker.heard + 60 {
            worker.connected = false;
        }
        let started = worker.start_pending(now);
        assert!(worker.used() <= worker.slots, "{id} runs more than it has slots for");
        let held = worker.held.keys().copied().collect::<Vec<_>>();
        for attempt in started {
            // A late order may start an old attempt again, which can meet nobody and is soon released.
            if self.cluster.is_current(attempt, id) {
                self.oracle.share_started(attempt, id);
            }
        }
        for attempt in held {
            self.tick_share(id, attempt, together.get(&attempt).copied());
        }
        let worker = &self.workers[&id];
        // By its own clock, too.
        let beats = |at: u64| (worker.clock(at) / 10.0) as u64;
        if worker.connected && beats(now) > beats(now - 1) {
            let attempts = worker.reports();
            self.send(id, Input::Heartbeat { worker: id, attempts });
        }
    }

    fn break_worker(&mut self, id: WorkerId) {
        if self.fault(0.003) {
            let slots = SLOTS[id.0 as usize] + u32::from(self.chance(0.2));
            self.workers.get_mut(&id).unwrap().crash(slots);
        }
        if self.fault(0.005) {
            let until = self.now + self.rng.random_range(0..150);
            let noticed = self.chance(0.5);
            let worker = self.workers.get_mut(&id).unwrap();
            worker.connected = false;
            worker.away_until = until;
            if noticed && self.is_up() {
                let _ = self.handle(Input::Disconnected { worker: id });
            }
        }
        if self.fault(0.001) {
            let until = self.now + self.rng.random_range(10..200);
            let deaf = self.chance(0.5);
            self.oracle.note(if deaf { "worker deaf" } else { "worker mute" });
            let worker = self.workers.get_mut(&id).unwrap();
            *if deaf { &mut worker.deaf_until } else { &mut worker.mute_until } = until;
        }
        if self.fault(0.0005) {
            let until = self.now + 200;
            self.workers.get_mut(&id).unwrap().broken_until = until;
        }
        if self.fault(0.001) && self.workers[&id].connected && self.is_up() {
            let _ = self.handle(Input::WorkerLeft { worker: id });
            let until = self.now + self.rng.random_range(0..100);
            let worker = self.workers.get_mut(&id).unwrap();
            worker.crash(SLOTS[id.0 as usize]);
            worker.away_until = until;
        }
    }

    fn connect(&mut self, id: WorkerId) {
        let up = self.is_up();
        let worker = self.workers.get_mut(&id).unwrap();
        let cut = worker.away_until.max(worker.deaf_until).max(worker.mute_until);
        if worker.connected || self.now < cut || !up {
            return;
        }
        worker.connected = true;
        worker.session += 1;
        worker.heard = self.now;
        let sent = worker.clock(self.now);
        let (slots, attempts) = (worker.slots, worker.reports());
        let (name, host) = (format!("node-{id}"), format!("10.0.0.{}", id.0));
        let labels = [("zone".to_owned(), zone(id).to_owned())].into();
        let traits = Traits { labels, ..Traits::default() };
        let known = attempts.iter().map(|report| report.attempt).collect();
        self.listen(id, sent, known, Input::Hello { worker: id, name, host, slots, traits, attempts });
    }

    fn tick_share(&mut self, id: WorkerId, attempt: AttemptId, together: Option<u64>) {
        let broken = self.now < self.workers[&id].broken_until;
        let dies = self.fault(if broken { 0.05 } else { 0.002 });
        let hangs = self.fault(0.005);
        let blamed = self.fault(0.0004);
        let held = &self.workers[&id].held[&attempt];
        let State::Running(trainer) = &held.state else {
            return;
        };
        let order = held.order.clone();
        let stops = held.stop_at.is_some_and(|at| at <= self.now);
        if dies {
            return self.end_share(id, &order, Err(FailureCause::TrainerExit { code: 1 }));
        }
        if held.suspended {
            return;
        }
        if !trainer.ready {
            return if stops {
                self.end_share(id, &order, Err(FailureCause::Preempted))
            } else {
                self.prepare(id, &order)
            };
        }
        if blamed {
            self.blame(id, &order);
        }
        let held = &self.workers[&id].held[&attempt];
        let State::Running(trainer) = &held.state else {
            return;
        };
        // Once rank 0 made its last step it only waits for its uploads; the others are done by then.
        if trainer.met && trainer.step >= steps(&order.spec) {
            return self.finish(id, &order);
        }
        if trainer.hung {
            return;
        }
        if stops {
            return self.stop(id, &order);
        }
        self.step(id, &order, together, hangs);
    }

    /// The ranks of a share make a step with their peers, or wait for them.
    fn step(&mut self, id: WorkerId, order: &Order, together: Option<u64>, hangs: bool) {
        let attempt = order.attempt;
        let begun = self.trainer(id, attempt).step > 0;
        // What hangs without ever having reported a step is found out by nobody but its user.
        let alone = order.share.ranks == order.world_size;
        let found = !alone || matches!(order.spec, TrialSpec::Train(_)) && begun;
        let hangs = hangs && found;
        match together {
            Some(step) => {
                let trainer = self.trainer(id, attempt);
                trainer.met = true;
                trainer.hung = hangs;
                if hangs {
                    return;
                }
                // One that went on from its last checkpoint has no step left to make.
                let reached = (step + 1).min(steps(&order.spec));
                trainer.step = reached;
                if reached > step {
                    self.after_step(id, order, reached);
                }
            }
            None => {
                let trainer = self.trainer(id, attempt);
                trainer.alone += 1;
                if trainer.alone > if trainer.met { COLLECTIVE } else { MEETING } {
                    let rank = order.share.first_rank;
                    self.end_share(id, order, Err(FailureCause::CollectiveFailed { rank }));
                }
            }
        }
    }

    fn trainer(&mut self, id: WorkerId, attempt: AttemptId) -> &mut Trainer {
        let held = self.workers.get_mut(&id).unwrap().held.get_mut(&attempt).unwrap();
        match &mut held.state {
            State::Running(trainer) => trainer,
            State::Pending | State::Ended(_) => panic!("{attempt} does not run"),
        }
    }

    /// Stops at a checkpoint; rank 0 once it is committed.
    fn stop(&mut self, id: WorkerId, order: &Order) {
        let trainer = self.trainer(id, order.attempt);
        let first = !std::mem::replace(&mut trainer.stopping, true);
        let step = trainer.step;
        if order.share.first_rank == 0 {
            if first && step > 0 && matches!(order.spec, TrialSpec::Train(_)) {
                self.save(id, order, step);
            }
            if !self.trainer(id, order.attempt).uploads.is_empty() {
                if self.now.is_multiple_of(6) {
                    self.upload(id, order.attempt);
                }
                return;
            }
        } else if !self.chance(0.3) {
            return;
        }
        self.oracle.note("stopped at a checkpoint");
        self.end_share(id, order, Err(FailureCause::Preempted));
    }

    /// A line of a log says that the worker is broken.
    fn blame(&mut self, id: WorkerId, order: &Order) {
        self.oracle.note("incident");
        let (attempt, rank) = (order.attempt, order.share.first_rank);
        let (pattern, line) = ("ecc".to_owned(), "uncorrectable ECC error".to_owned());
        let quarantine = self.chance(0.4);
        self.send(id, Input::Incident { worker: id, attempt, rank, pattern, line, quarantine });
    }

    /// Reads what the trial starts from, and opens the store.
    fn prepare(&mut self, id: WorkerId, order: &Order) {
        let bad = |digest: &Digest| !self.blobs.contains(digest) || self.rotten.contains(digest);
        let attempt = order.attempt;
        if let Some(&digest) = order.networks.iter().find(|digest| bad(digest)) {
            // Said again until the attempt is released: the message may be lost.
            if self.now.is_multiple_of(7) {
                self.send(id, Input::CheckpointDamaged { attempt, digest });
            }
            return;
        }
        let damaged: Vec<Digest> =
            order.restore.iter().map(|held| held.digest).take_while(|digest| bad(digest)).collect();
        let step = order.restore.get(damaged.len()).map_or(0, |held| held.step);
        for digest in damaged {
            self.send(id, Input::CheckpointDamaged { attempt, digest });
        }
        let opens = order.share.first_rank == 0 && order.share.ranks < order.world_size;
        let address = opens.then(|| format!("{id}/{attempt}"));
        let trainer = self.trainer(id, attempt);
        trainer.ready = true;
        trainer.step = step;
        trainer.rendezvous = address.clone().or(trainer.rendezvous.take());
        if let Some(address) = address {
            self.send(id, Input::RendezvousOpened { worker: id, attempt, address });
        }
    }

    fn after_step(&mut self, id: WorkerId, order: &Order, step: u64) {
        if poison(&order.spec) == Some(step) {
            return self.end_share(id, order, Err(FailureCause::NonFiniteLoss { step }));
        }
        let saves = match order.spec {
            TrialSpec::Train(_) => step.is_multiple_of(CHECKPOINT) || step == steps(&order.spec),
            TrialSpec::Evaluate(_) => false,
        };
        if saves && order.share.first_rank == 0 {
            self.save(id, order, step);
        }
    }

    /// The bytes do not depend on the attempt: training is deterministic.
    fn save(&mut self, id: WorkerId, order: &Order, step: u64) {
        let digest = Digest::of(format!("{} at {step}", order.label).as_bytes());
        let checkpoint = Checkpoint { step, digest, bytes: 1_000 };
        self.trainer(id, order.attempt).uploads.push_back(checkpoint);
        self.upload(id, order.attempt);
    }

    /// Stores the oldest checkpoint that is not acknowledged, and commits it. Content that is stored already
    /// is not sent again, unless it is wrong.
    fn upload(&mut self, id: WorkerId, attempt: AttemptId) {
        if !self.workers[&id].connected || !self.is_up() {
            return;
        }
        if let Some(checkpoint) = self.trainer(id, attempt).uploads.front().cloned() {
            self.blobs.insert(checkpoint.digest);
            self.rotten.remove(&checkpoint.digest);
            self.send(id, Input::CheckpointCommitted { worker: id, attempt, checkpoint });
        }
    }

    /// All steps are made: rank 0's share ends when everything that it left is committed.
    fn finish(&mut self, id: WorkerId, order: &Order) {
        if order.share.first_rank != 0 {
            // Processes do not end all at once.
            if self.chance(0.1) {
                self.end_share(id, order, Ok(None));
            }
            return;
        }
        if !self.trainer(id, order.attempt).uploads.is_empty() {
            if self.now.is_multiple_of(6) {
                self.upload(id, order.attempt);
            }
            return;
        }
        let digest = Digest::of(format!("predictions of {}", order.attempt).as_bytes());
        self.blobs.insert(digest);
        let artifacts = vec![Artifact { name: "predictions".to_owned(), digest, bytes: 10 }];
        let shares = self.shares_of(order.attempt);
        let metrics = [("attempt", order.attempt.0 as f64), ("shares", shares as f64)];
        let metrics = metrics.map(|(name, value)| (name.to_owned(), value)).into();
        self.end_share(id, order, Ok(Some(TrialResult { metrics, artifacts })));
    }

    /// Shares that the log says the attempt was placed with.
    fn shares_of(&self, wanted: AttemptId) -> usize {
        let placed = self.log.iter().find_map(|event| match event {
            Event::AttemptStarted { attempt, placement, .. } => (*attempt == wanted).then_some(placement),
            Event::TrialSubmitted { .. }
            | Event::TrialResubmitted { .. }
            | Event::TrialReopened { .. }
            | Event::ExperimentSubmitted { .. }
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
            | Event::WorkerLost { .. }
            | Event::WorkerLeft { .. }
            | Event::YieldRequested { .. }
            | Event::AttemptFailed { .. }
            | Event::TrialEnded { .. }
            | Event::CheckpointCommitted { .. }
            | Event::CheckpointDropped { .. } => None,
        });
        placed.unwrap().shares().len()
    }

    fn end_share(&mut self, id: WorkerId, order: &Order, end: AttemptEnd) {
        if end.is_ok() || end == Err(FailureCause::Preempted) {
            self.oracle.share_finished(order.attempt, order.share.first_rank, end.is_ok());
        }
        let held = self.workers.get_mut(&id).unwrap().held.get_mut(&order.attempt).unwrap();
        held.state = State::Ended(end.clone());
        if self.workers[&id].connected {
            self.send(id, Input::Ended { worker: id, attempt: order.attempt, end });
        }
    }
}
