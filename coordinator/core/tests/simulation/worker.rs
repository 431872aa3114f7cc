//! A simulated agent and its trainers, as the design says they behave.
//!
//! Trainers train on while the coordinator is out of reach. A share is started only when the slots that it
//! needs are held by no process, also not by one that was told to stop and is not gone yet. What ended is
//! repeated until it is released.
//!
//! A worker whose lease may be over, by its own clock, suspends what it holds. It goes on with what the
//! coordinator names in the first answer that proves a lease again; the rest stands still until it is released.

use std::collections::{BTreeMap, VecDeque};

use common::result::Checkpoint;
use common::session::{AttemptEnd, AttemptReport, AttemptState};
use common::spec::TrialSpec;
use common::{AttemptId, Digest};
use coordinator_core::Share;

/// Time after sending a heartbeat that was answered in which the lease holds: a lease less the drift of clocks.
const PROVEN: f64 = 45.0;

/// What a worker is told to start.
#[derive(Clone, Debug)]
pub struct Order {
    pub attempt: AttemptId,
    pub share: Share,
    pub world_size: u32,
    pub spec: TrialSpec,
    pub label: String,
    /// Newest first.
    pub restore: Vec<Checkpoint>,
    pub networks: Vec<Digest>,
}

#[derive(Debug)]
pub enum State {
    /// Waits for processes of older attempts to be gone.
    Pending,
    Running(Trainer),
    Ended(AttemptEnd),
}

/// The ranks of one share, which keep step with each other.
#[derive(Debug, Default)]
pub struct Trainer {
    /// Whether it has read what it starts from.
    pub ready: bool,
    pub rendezvous: Option<String>,
    /// Whether the group ever stepped together.
    pub met: bool,
    /// Ticks without its peers.
    pub alone: u64,
    pub step: u64,
    pub hung: bool,
    /// Makes no more steps, because it was asked to stop at a checkpoint.
    pub stopping: bool,
    /// Checkpoints that are not committed yet, oldest first.
    pub uploads: VecDeque<Checkpoint>,
}

#[derive(Debug)]
pub struct Held {
    pub order: Order,
    pub state: State,
    /// Stands still, because another worker may have been given its trial.
    pub suspended: bool,
    /// When it stops at a checkpoint, if it was asked to.
    pub stop_at: Option<u64>,
}

#[derive(Debug)]
pub struct SimWorker {
    /// Its seconds in one of the coordinator's.
    pub rate: f64,
    /// Until when the lease is proven, by its own clock.
    pub proof: f64,
    pub fenced: bool,
    /// Hears nothing, and is heard by nobody, before these times.
    pub deaf_until: u64,
    pub mute_until: u64,
    /// Most trainers die there before then.
    pub broken_until: u64,
    /// When the session was opened or last proven.
    pub heard: u64,
    pub slots: u32,
    pub session: u64,
    pub connected: bool,
    /// Cannot connect before this time.
    pub away_until: u64,
    pub held: BTreeMap<AttemptId, Held>,
    /// Ranks that were told to stop, and when they are gone.
    pub dying: Vec<(u64, u32)>,
}

impl Default for SimWorker {
    fn default() -> Self {
        Self {
            rate: 1.0,
            proof: 0.0,
            fenced: true,
            deaf_until: 0,
            mute_until: 0,
            broken_until: 0,
            heard: 0,
            slots: 0,
            session: 0,
            connected: false,
            away_until: 0,
            held: BTreeMap::new(),
            dying: Vec::new(),
        }
    }
}

impl Held {
    /// Whether the share can step with its peers: it leads, or it was told where to meet.
    pub fn has_joined(&self) -> bool {
        match &self.state {
            State::Running(trainer) => {
                let alone = self.order.share.ranks == self.order.world_size;
                !self.suspended
                    && !trainer.stopping
                    && trainer.ready
                    && !trainer.hung
                    && (alone || trainer.rendezvous.is_some())
            }
            State::Pending | State::Ended(_) => false,
        }
    }

    pub fn leads(&self) -> bool {
        self.order.share.first_rank == 0
    }
}

impl SimWorker {
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.dying.is_empty()
    }

    /// Slots that processes hold.
    pub fn used(&self) -> u32 {
        let running = self.held.values().filter(|held| matches!(held.state, State::Running(_)));
        let running: u32 = running.map(|held| held.order.share.ranks).sum();
        running + self.dying.iter().map(|&(_, ranks)| ranks).sum::<u32>()
    }

    /// Reaps what is gone, and starts what then fits, oldest first. Returns what was started.
    pub fn start_pending(&mut self, now: u64) -> Vec<AttemptId> {
        self.dying.retain(|&(gone, _)| gone > now);
        let pending: Vec<AttemptId> = self
            .held
            .iter()
            .filter(|(_, held)| matches!(held.state, State::Pending) && !held.suspended)
            .map(|(&attempt, _)| attempt)
            .collect();
        let mut started = Vec::new();
        for attempt in pending {
            let used = self.used();
            let held = self.held.get_mut(&attempt).unwrap();
            if used + held.order.share.ranks <= self.slots {
                held.state = State::Running(Trainer::default());
                started.push(attempt);
            }
        }
        started
    }

    pub fn launch(&mut self, order: Order) {
        let suspended = self.fenced;
        let held = Held { order, state: State::Pending, suspended, stop_at: None };
        self.held.entry(held.order.attempt).or_insert(held);
    }

    /// Asked again, it goes on with what it does.
    pub fn preempt(&mut self, attempt: AttemptId, stop_at: u64) {
        if let Some(held) = self.held.get_mut(&attempt) {
            held.stop_at.get_or_insert(stop_at);
        }
    }

    pub fn clock(&self, now: u64) -> f64 {
        now as f64 * self.rate
    }

    /// What was sent at `sent` extended the lease, and then `current` was current.
    pub fn proven(&mut self, now: u64, sent: f64, current: &[AttemptId]) {
        self.heard = now;
        self.proof = self.proof.max(sent + PROVEN);
        if self.clock(now) <= self.proof {
            self.fenced = false;
            for attempt in current {
                if let Some(held) = self.held.get_mut(attempt) {
                    held.suspended = false;
                }
            }
        }
    }

    /// Suspends everything once the lease may be over.
    pub fn fence(&mut self, now: u64) -> bool {
        let over = self.clock(now) > self.proof;
        let fenced = std::mem::replace(&mut self.fenced, over);
        if self.fenced {
            self.held.values_mut().for_each(|held| held.suspended = true);
        }
        self.fenced && !fenced
    }

    /// Processes are gone at `gone`, not at once.
    pub fn release(&mut self, attempt: AttemptId, gone: u64) {
        if let Some(Held { order, state: State::Running(_), .. }) = self.held.remove(&attempt) {
            self.dying.push((gone, order.share.ranks));
        }
    }

    pub fn rendezvous(&mut self, attempt: AttemptId, address: String) {
        if let Some(Held { state: State::Running(trainer), .. }) = self.held.get_mut(&attempt) {
            trainer.rendezvous = Some(address);
        }
    }

    /// The answer to an upload came: the checkpoint need not be sent again.
    pub fn uploaded(&mut self, attempt: AttemptId, checkpoint: &Checkpoint) {
        if let Some(Held { state: State::Running(trainer), .. }) = self.held.get_mut(&attempt) {
            trainer.uploads.retain(|waiting| waiting.step > checkpoint.step);
        }
    }

    /// The agent and all its processes die.
    pub fn crash(&mut self, slots: u32) {
        let Self { session, rate, deaf_until, mute_until, .. } = *self;
        *self = Self { slots, session, rate, deaf_until, mute_until, ..Self::default() };
    }

    pub fn reports(&self) -> Vec<AttemptReport> {
        let report = |(&attempt, held): (&AttemptId, &Held)| {
            let state = match &held.state {
                State::Pending => AttemptState::Running { rendezvous: None, step: 0 },
                State::Running(trainer) => {
                    let rendezvous = trainer.rendezvous.clone().filter(|_| held.leads());
                    let step = match held.order.spec {
                        TrialSpec::Train(_) if held.leads() => trainer.step,
                        TrialSpec::Train(_) | TrialSpec::Evaluate(_) => 0,
                    };
                    AttemptState::Running { rendezvous, step }
                }
                State::Ended(end) => AttemptState::Ended(end.clone()),
            };
            AttemptReport { attempt, state }
        };
        self.held.iter().map(report).collect()
    }
}
