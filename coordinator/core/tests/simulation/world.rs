//! The world around the core: driver, network, blob store, time, faults.

mod trainer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use common::result::Checkpoint;
use common::{AttemptId, Digest, WorkerId};
use coordinator_core::{Cluster, Effect, Event, Input, Millis, Policy, ProjectPolicy, Reject, Session, Step};
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

use crate::grid::steps;
use crate::oracle::Oracle;
use crate::support;
use crate::worker::{Order, SimWorker, State};

/// Slots of the workers. The others hold 6 without [`DEAD`]: not enough for the widest trials.
pub const SLOTS: [u32; 4] = [1, 2, 3, 3];
/// Goes away when the faults stop, and never returns.
pub const DEAD: WorkerId = WorkerId(3);

/// Time for which an attempt that is over may run on where it was not heard of yet.
const GRACE: u64 = 150;

fn policy(rng: &mut SmallRng) -> Policy {
    let weight = |weight, quota| ProjectPolicy { weight: NonZeroU32::new(weight).unwrap(), quota };
    // Short enough for a hung trainer to be found out before some other fault ends it.
    let mut policy = Policy {
        stall: Some(Duration::from_millis(100)),
        resize_after: Duration::from_millis(10),
        // Shorter than trials run, so that those that do not stop in time are noticed.
        yield_limit: Duration::from_millis(40),
        ..support::policy()
    };
    policy.projects.insert("alpha".to_owned(), weight(2, None));
    policy.projects.insert("beta".to_owned(), weight(1, Some(rng.random_range(2..6))));
    if rng.random_bool(0.5) {
        policy.quarantine_after = NonZeroUsize::MIN.saturating_add(1);
    }
    if rng.random_bool(0.3) {
        policy.max_workers_lost = NonZeroU32::MIN.saturating_add(3);
    }
    policy
}

enum Packet {
    /// Sent at a time by the worker's clock.
    ToCoordinator {
        worker: WorkerId,
        session: u64,
        sent: f64,
        input: Input,
    },
    ToWorker {
        worker: WorkerId,
        session: u64,
        order: ToWorker,
    },
}

#[derive(Clone)]
enum ToWorker {
    Launch(Box<Order>),
    Release(AttemptId),
    Preempt(AttemptId),
    /// What was sent then extended the lease, and these attempts are current.
    Proven(f64, Vec<AttemptId>),
    Rendezvous(AttemptId, String),
    Uploaded(AttemptId, Checkpoint),
}

pub struct World {
    policy: Policy,
    pub rng: SmallRng,
    pub cluster: Cluster,
    pub workers: BTreeMap<WorkerId, SimWorker>,
    pub oracle: Oracle,
    now: u64,
    log: Vec<Event>,
    wire: VecDeque<(u64, Packet)>,
    /// Stored blobs, and those of them whose bytes are wrong.
    blobs: BTreeSet<Digest>,
    rotten: BTreeSet<Digest>,
    /// The coordinator is down until then.
    down_until: u64,
    /// The coordinator stands still until then, and what is sent to it waits.
    frozen_until: u64,
    /// How long what is being sent waits for a slow disk.
    flush: u64,
    faults: bool,
    crashes: u32,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let policy = policy(&mut rng);
        let workers = (0..).zip(SLOTS).map(|(id, slots)| {
            let rate = rng.random_range(0.95..1.05);
            (WorkerId(id), SimWorker { slots, rate, ..SimWorker::default() })
        });
        Self {
            workers: workers.collect(),
            rng,
            cluster: Cluster::new(policy.clone()),
            oracle: Oracle::new(policy.clone()),
            policy,
            now: 0,
            log: Vec::new(),
            wire: VecDeque::new(),
            blobs: BTreeSet::new(),
            rotten: BTreeSet::new(),
            down_until: 0,
            frozen_until: 0,
            flush: 0,
            faults: true,
            crashes: 0,
        }
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    fn fault(&mut self, probability: f64) -> bool {
        self.faults && self.chance(probability)
    }

    pub fn is_idle(&self) -> bool {
        self.cluster.trials().all(|(_, trial)| trial.has_ended())
    }

    /// The queue and the workers, for whoever reads why a seed fails.
    pub fn scene(&self) -> String {
        let open = self.cluster.trials().filter(|(_, trial)| !trial.has_ended()).map(|(id, trial)| {
            let (least, most) = (trial.spec.min_slots(), trial.slots());
            let (priority, project) = support::explained::standing(&self.cluster, trial);
            let labels = &trial.policy.requires.labels;
            let reason = self.cluster.explain(id);
            let phase = &trial.phase;
            format!(
                "\n{id} of {project} at {priority}, {least} to {most} slots {labels:?}: {phase:?}, {reason:?}"
            )
        });
        let kept = self.cluster.reservations().map(|reservation| format!("\n{reservation:?}"));
        let members = self.cluster.workers().map(|view| format!("\n{view:?}"));
        let workers = self.workers.values().map(|worker| format!("\n{worker:?}"));
        open.chain(kept).chain(members).chain(workers).collect()
    }

    /// From here on everything works, but one worker is gone.
    pub fn stop_faults(&mut self) {
        self.faults = false;
        self.down_until = self.now;
        self.frozen_until = self.now;
        for (&id, worker) in &mut self.workers {
            let slots = SLOTS[id.0 as usize];
            if id == DEAD || worker.slots != slots {
                worker.crash(slots);
            }
            (worker.deaf_until, worker.mute_until) = (self.now, self.now);
            worker.away_until = if id == DEAD { u64::MAX } else { self.now };
        }
    }

    /// Whether the coordinator does anything.
    fn is_up(&self) -> bool {
        self.now >= self.down_until && self.now >= self.frozen_until
    }

    /// A client's call. It fails if the coordinator is down; the client does not insist.
    pub fn client(&mut self, input: Input) {
        if self.is_up() {
            if let Input::CancelTrial { trial } = input {
                self.oracle.cancelling = Some(trial);
            }
            let _ = self.handle(input);
            self.oracle.cancelling = None;
        }
    }

    pub fn tick(&mut self) {
        self.now += 1;
        if self.fault(0.01) {
            self.rot();
        }
        let together = self.groups();
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            self.tick_worker(id, &together);
        }
        self.freeze();
        let now = self.now;
        let frozen = now < self.frozen_until;
        if !frozen && self.fault(0.2) {
            self.clock_strikes();
        }
        let waits = |packet: &Packet| frozen && matches!(packet, Packet::ToCoordinator { .. });
        let wire = std::mem::take(&mut self.wire);
        let (due, later): (VecDeque<_>, VecDeque<_>) =
            wire.into_iter().partition(|(at, packet)| *at <= now && !waits(packet));
        self.wire = later;
        for (_, packet) in due {
            self.deliver(packet);
        }
        self.clock_strikes();
        self.check_fences();
    }

    fn clock_strikes(&mut self) {
        let now = self.now;
        if self.is_up() && self.cluster.next_deadline().is_some_and(|due| due.0 <= now) {
            let _ = self.handle(Input::Tick);
            let deadline = self.cluster.next_deadline();
            assert!(deadline.is_none_or(|due| due.0 > now), "a tick left a deadline in the past");
        }
    }

    /// The coordinator's process or machine stands still; then its clock has jumped, and its sockets are full.
    fn freeze(&mut self) {
        if self.is_up() && self.fault(0.001) {
            self.oracle.note("coordinator frozen");
            self.frozen_until = self.now + self.rng.random_range(5..150);
        }
    }

    /// What computes is current. Where it is not any more, a worker that was lost has stopped it before; any other
    /// one hears of it soon.
    fn check_fences(&self) {
        for (&id, worker) in &self.workers {
            for (&attempt, held) in &worker.held {
                let computes = matches!(held.state, State::Running(_)) && !held.suspended;
                if !computes || self.cluster.is_current(attempt, id) {
                    continue;
                }
                let end = self.oracle.end_of(attempt);
                assert!(!end.lost.contains(&id), "{attempt} runs on {id}, which was lost");
                assert!(
                    self.now - end.at <= GRACE,
                    "{attempt} still runs on {id}, and is over since {}",
                    end.at
                );
            }
        }
    }

    /// The driver: persist, then perform; it may die before and between.
    fn handle(&mut self, input: Input) -> Result<(), Reject> {
        if self.fault(0.002) {
            self.oracle.note("coordinator crashed before persisting");
            self.crash_coordinator();
            return Ok(());
        }
        self.oracle.proves_absence =
            matches!(input, Input::Hello { .. } | Input::Tick | Input::WorkerLeft { .. });
        let Step { events, effects } = self.cluster.handle(Millis(self.now), input)?;
        if !events.is_empty() {
            self.log.extend(events.iter().cloned());
            self.check(&events);
        }
        if !events.is_empty() && self.fault(0.02) {
            self.oracle.note("coordinator crashed after persisting");
            self.crash_coordinator();
            return Ok(());
        }
        if self.fault(0.02) {
            self.flush = self.rng.random_range(1..25);
        }
        for effect in effects {
            self.perform(effect);
        }
        self.flush = 0;
        Ok(())
    }

    fn check(&mut self, events: &[Event]) {
        let violation = self.cluster.check().err();
        assert!(violation.is_none(), "{violation:?} at {} after {events:?}: {}", self.now, self.scene());
        let replayed = Cluster::replay(self.policy.clone(), Millis(self.now), &self.log);
        assert!(replayed.same_durable_state(&self.cluster), "the log does not rebuild the state");
        for event in events {
            self.oracle.read(self.now, event);
        }
        self.oracle.check_priorities(&self.cluster, events);
        crate::support::explained::check_explanations(&self.cluster);
        for view in self.cluster.workers().filter(|view| view.session == Session::Connected) {
            let worker = &self.workers[&view.id];
            assert!(!worker.connected || worker.slots == view.worker.slots, "{} has other slots", view.id);
        }
        for (id, trial) in self.cluster.trials() {
            if trial.spec.trains() && trial.has_succeeded() {
                let others = trial
                    .checkpoints
                    .iter()
                    .filter(|held| !trial.is_pinned(held) || held.step == steps(&trial.spec.to_spec()));
                let last = others.map(|held| held.step).collect::<Vec<_>>();
                assert_eq!(
                    last,
                    [steps(&trial.spec.to_spec())],
                    "{id} succeeded with another network than its last"
                );
            }
            let artifacts = trial.result().into_iter().flat_map(|result| &result.artifacts);
            let named = artifacts.map(|artifact| artifact.digest);
            for digest in named.chain(trial.checkpoints.iter().map(|held| held.digest)) {
                assert!(self.blobs.contains(&digest), "a blob of {id} was deleted");
            }
        }
    }

    /// Only what JSON holds survives. Sessions break; workers work on.
    fn crash_coordinator(&mut self) {
        self.crashes += 1;
        let text = serde_json::to_string(&self.log).unwrap();
        self.log = serde_json::from_str(&text).unwrap();
        self.cluster = Cluster::replay(self.policy.clone(), Millis(self.now), &self.log);
        self.cluster.check().unwrap();
        self.down_until = self.now + self.rng.random_range(0..100);
        for worker in self.workers.values_mut() {
            worker.connected = false;
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Launch { attempt, trial, share, world_size } => {
                let record = self.cluster.trial(trial).unwrap();
                let order = Order {
                    attempt,
                    share,
                    world_size,
                    spec: record.spec.to_spec(),
                    label: trial.to_string(),
                    restore: record.restore().cloned().collect(),
                    networks: self.cluster.networks(trial).map(|(_, held)| held.digest).collect(),
                };
                assert!(order.networks.len() == record.needs.len(), "{trial} lacks a network");
                self.send_to_worker(share.worker, ToWorker::Launch(Box::new(order)));
            }
            Effect::Release { worker, attempt } => self.send_to_worker(worker, ToWorker::Release(attempt)),
            Effect::Rendezvous { worker, attempt, address } => {
                self.send_to_worker(worker, ToWorker::Rendezvous(attempt, address));
            }
            Effect::Preempt { worker, attempt } => self.send_to_worker(worker, ToWorker::Preempt(attempt)),
            Effect::DeleteBlob { digest } => {
                if !self.cluster.is_referenced(digest) {
                    self.blobs.remove(&digest);
                    self.rotten.remove(&digest);
                }
            }
        }
    }

    fn send_to_worker(&mut self, worker: WorkerId, order: ToWorker) {
        let session = self.workers[&worker].session;
        if self.fault(0.05) {
            return;
        }
        if self.fault(0.05) {
            let order = order.clone();
            self.put_on_wire(Packet::ToWorker { worker, session, order });
        }
        self.put_on_wire(Packet::ToWorker { worker, session, order });
    }

    fn send(&mut self, worker: WorkerId, input: Input) {
        let (session, sent) = (self.workers[&worker].session, self.workers[&worker].clock(self.now));
        if self.fault(0.05) || self.now < self.workers[&worker].mute_until {
            return;
        }
        if self.fault(0.05) {
            let input = input.clone();
            self.put_on_wire(Packet::ToCoordinator { worker, session, sent, input });
        }
        self.put_on_wire(Packet::ToCoordinator { worker, session, sent, input });
    }

    fn put_on_wire(&mut self, packet: Packet) {
        let delay = self.rng.random_range(1..15) + self.flush;
        self.wire.push_back((self.now + delay, packet));
    }

    fn deliver(&mut self, packet: Packet) {
        match packet {
            Packet::ToCoordinator { worker, session, sent, input } => {
                let current = self.workers[&worker].session == session && self.workers[&worker].connected;
                // An upload does not pass through the session, and so may outlive it; and a driver may be slow
                // to notice that a session is over. What says "I am alive" never comes late.
                let fenced = match input {
                    Input::Ended { .. }
                    | Input::RendezvousOpened { .. }
                    | Input::CheckpointCommitted { .. }
                    | Input::CheckpointDamaged { .. }
                    | Input::Incident { .. } => true,
                    Input::Submit { .. }
                    | Input::SetPriority { .. }
                    | Input::PauseTrial { .. }
                    | Input::ResumeTrial { .. }
                    | Input::PauseExperiment { .. }
                    | Input::ResumeExperiment { .. }
                    | Input::Drain { .. }
                    | Input::Undrain { .. }
                    | Input::PinCheckpoint { .. }
                    | Input::UnpinCheckpoint { .. }
                    | Input::CancelExperiment { .. }
                    | Input::CancelTrial { .. }
                    | Input::Hello { .. }
                    | Input::Heartbeat { .. }
                    | Input::Disconnected { .. }
                    | Input::WorkerLeft { .. }
                    | Input::Tick => false,
                };
                let late = !current && fenced && self.chance(0.5);
                if self.now >= self.down_until && (current || late) {
                    if late {
                        self.oracle.note("late message");
                    }
                    self.receive(worker, sent, input);
                }
            }
            Packet::ToWorker { worker: id, session, order } => {
                let now = self.now;
                let gone = now + self.rng.random_range(0..15);
                let stop_at = now + self.patience();
                let worker = self.workers.get_mut(&id).unwrap();
                if worker.session != session || !worker.connected || now < worker.deaf_until {
                    return;
                }
                match order {
                    ToWorker::Launch(order) => worker.launch(*order),
                    ToWorker::Release(attempt) => worker.release(attempt, gone),
                    ToWorker::Preempt(attempt) => worker.preempt(attempt, stop_at),
                    ToWorker::Proven(sent, current) => worker.proven(now, sent, &current),
                    ToWorker::Rendezvous(attempt, address) => worker.rendezvous(attempt, address),
                    ToWorker::Uploaded(attempt, checkpoint) => worker.uploaded(attempt, &checkpoint),
                }
            }
        }
    }

    /// What the driver does with a worker's message besides asking the core.
    fn receive(&mut self, worker: WorkerId, sent: f64, input: Input) {
        if let Input::Heartbeat { attempts, .. } = &input {
            let attempts = attempts.iter().map(|report| report.attempt).collect();
            return self.listen(worker, sent, attempts, input);
        }
        if let Input::CheckpointCommitted { attempt, checkpoint, .. } = &input {
            let (attempt, checkpoint) = (*attempt, checkpoint.clone());
            if self.blobs.contains(&checkpoint.digest) {
                self.commit(worker, attempt, checkpoint, input);
            }
        } else if let Err(Reject::UnknownWorker(worker)) = self.handle(input) {
            self.workers.get_mut(&worker).unwrap().connected = false;
        }
    }

    /// Handles what extends a lease, and says so.
    fn listen(&mut self, worker: WorkerId, sent: f64, mut attempts: Vec<AttemptId>, input: Input) {
        let crashes = self.crashes;
        match self.handle(input) {
            Ok(()) if self.crashes == crashes => {
                attempts.retain(|&attempt| self.cluster.is_current(attempt, worker));
                self.send_to_worker(worker, ToWorker::Proven(sent, attempts));
            }
            Ok(()) => {}
            Err(_) => self.workers.get_mut(&worker).unwrap().connected = false,
        }
    }

    /// How long an attempt that is asked to stop goes on: mostly not long, and sometimes for ever.
    fn patience(&mut self) -> u64 {
        match self.rng.random_range(0..10) {
            0 if self.faults => u64::MAX / 2,
            1 if self.faults => self.rng.random_range(10..100),
            _ => self.rng.random_range(0..4),
        }
    }

    /// An upload is answered; a worker that gets no answer sends it again.
    fn commit(&mut self, worker: WorkerId, attempt: AttemptId, checkpoint: Checkpoint, input: Input) {
        let crashes = self.crashes;
        let done = match self.handle(input) {
            Ok(()) => self.crashes == crashes,
            Err(reject) => matches!(reject, Reject::StaleCheckpoint { .. }),
        };
        if done {
            self.send_to_worker(worker, ToWorker::Uploaded(attempt, checkpoint));
        }
    }

    fn rot(&mut self) {
        if let Some(&digest) = self.blobs.iter().choose(&mut self.rng) {
            self.rotten.insert(digest);
        }
    }
}
