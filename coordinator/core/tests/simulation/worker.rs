//! A simulated agent and its trainers, as the design says they behave.
//!
//! Trainers train on while the coordinator is out of reach. A share is started only when the slots that it
//! needs are held by no process, also not by one that was told to stop and is not gone yet. What ended is
//! repeated until it is released.

use std::collections::{BTreeMap, VecDeque};

use common::result::Checkpoint;
use common::session::{AttemptEnd, AttemptReport, AttemptState};
use common::spec::TrialSpec;
use common::{AttemptId, Digest};
use coordinator_core::Share;

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
    /// Checkpoints that are not committed yet, oldest first.
    pub uploads: VecDeque<Checkpoint>,
}

#[derive(Debug)]
pub struct Held {
    pub order: Order,
    pub state: State,
}

#[derive(Debug, Default)]
pub struct SimWorker {
    pub slots: u32,
    pub session: u64,
    pub connected: bool,
    /// Cannot connect before this time.
    pub away_until: u64,
    pub held: BTreeMap<AttemptId, Held>,
    /// Ranks that were told to stop, and when they are gone.
    pub dying: Vec<(u64, u32)>,
}

impl Held {
    /// Whether the share can step with its peers: it leads, or it was told where to meet.
    pub fn has_joined(&self) -> bool {
        match &self.state {
            State::Running(trainer) => {
                let alone = self.order.share.ranks == self.order.world_size;
                trainer.ready && !trainer.hung && (alone || trainer.rendezvous.is_some())
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
            .filter(|(_, held)| matches!(held.state, State::Pending))
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
        self.held.entry(order.attempt).or_insert(Held { order, state: State::Pending });
    }

    /// Processes are gone at `gone`, not at once.
    pub fn release(&mut self, attempt: AttemptId, gone: u64) {
        if let Some(Held { order, state: State::Running(_) }) = self.held.remove(&attempt) {
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
        let Self { session, .. } = *self;
        *self = Self { slots, session, ..Self::default() };
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
