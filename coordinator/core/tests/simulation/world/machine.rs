//! What a machine does: its agent decides, and what it asks for is done.

use std::collections::BTreeMap;

use common::result::Checkpoint;
use common::session::{AttemptReport, FromWorker, Hello, PROTOCOL, SessionOrder};
use common::{AttemptId, Digest, FailureCause, WorkerId};
use rand::Rng;
use worker_core::{Action, AttemptEvent, Input, SessionNumber, SpoolEvent, SpoolOrder};

use super::{SLOTS, World};
use crate::grid::score;
use crate::network::{Packet, Up};
use crate::node::{Pace, Share};

/// Where a worker stands.
fn zone(id: WorkerId) -> &'static str {
    if id.0 < 2 { "a" } else { "b" }
}

impl World {
    pub(super) fn tick_node(&mut self, id: WorkerId, together: &BTreeMap<AttemptId, u64>) {
        if !self.nodes[&id].is_live(self.now) {
            return;
        }
        if !self.nodes[&id].is_asleep(self.now) {
            self.tick_agent(id);
        }
        for attempt in self.nodes[&id].shares.keys().copied().collect::<Vec<_>>() {
            if self.nodes[&id].is_live(self.now) {
                self.tick_share(id, attempt, together.get(&attempt).copied());
            }
        }
    }

    fn tick_agent(&mut self, id: WorkerId) {
        while let Some(input) = self.node(id).unheard.pop_front() {
            self.tell_agent(id, input);
        }
        for attempt in std::mem::take(&mut self.node(id).remains) {
            self.oracle.note("remains");
            self.tell_agent(id, Input::Remains(attempt));
            self.tell_agent(id, Input::Attempt(attempt, stored_log(attempt)));
            self.tell_agent(id, Input::Attempt(attempt, AttemptEvent::ProcessesGone));
        }
        while self.nodes[&id].spooled.front().is_some_and(|&(at, ..)| at <= self.now) {
            let (_, attempt, event) = self.node(id).spooled.pop_front().unwrap();
            self.tell_agent(id, Input::Spool(attempt, event));
        }
        // The agent first: what slept over its lease suspends before anything else goes on.
        let node = &self.nodes[&id];
        if node.agent.next_deadline() <= node.clock(self.now) {
            self.tell_agent(id, Input::Timer);
        }
        let node = &self.nodes[&id];
        let live = node.is_live(self.now);
        let (due, clock) = (node.agent.next_deadline(), node.clock(self.now));
        assert!(!live || due > clock, "{id}: a timer left a deadline in the past: {:?}", node.agent);
    }

    /// Lets the agent decide, and does what it asks for; then it says what the coordinator was not told yet.
    pub(super) fn tell_agent(&mut self, id: WorkerId, input: Input) {
        let node = self.nodes.get_mut(&id).unwrap();
        if node.is_asleep(self.now) {
            return node.unheard.push_back(input);
        }
        let now = node.clock(self.now);
        let suspended = node.shares.values().any(|share| share.suspended);
        let actions = node.agent.handle(now, input);
        for action in actions {
            self.act(id, action);
        }
        let node = self.node(id);
        if !suspended && node.shares.values().any(|share| share.suspended) {
            self.oracle.note("worker fenced itself");
        }
        self.tell_rest(id);
    }

    fn tell_rest(&mut self, id: WorkerId) {
        // The session may have no room.
        let room = if self.fault(0.02) { self.rng.random_range(0..3) } else { usize::MAX };
        let node = self.node(id);
        let Some(conn) = node.link.filter(|_| node.open) else { return };
        let mut told = Vec::new();
        node.agent.tell(|message| {
            let fits = told.len() < room;
            if fits {
                told.push(message);
            }
            fits
        });
        for message in told {
            if let FromWorker::AttemptEnded { attempt, end: Err(FailureCause::Preempted) } = &message {
                self.note_withdrawn(id, *attempt);
            }
            self.send(Packet::Up(conn, Up::Message(message)));
        }
    }

    /// What was never started has no ranks that could lose work.
    fn note_withdrawn(&mut self, id: WorkerId, attempt: AttemptId) {
        if !self.nodes[&id].started.contains(&attempt)
            && let Some(first_rank) = self.oracle.first_rank(attempt, id)
        {
            self.oracle.note("withdrawn");
            self.oracle.share_finished(attempt, first_rank, false);
        }
    }

    fn dial(
        &mut self,
        id: WorkerId,
        session: SessionNumber,
        attempts: Vec<AttemptReport>,
        faults: Vec<String>,
    ) {
        let conn = self.network.dial(id, session, self.crashes);
        let node = self.node(id);
        (node.link, node.open) = (Some(conn), false);
        let hello = Hello {
            protocol: PROTOCOL,
            worker: id,
            order: SessionOrder { start: node.starts, session: session.0 },
            name: format!("node-{id}"),
            host: format!("10.0.0.{}", id.0),
            slots: node.slots,
            labels: [("zone".to_owned(), zone(id).to_owned())].into(),
            device: String::new(),
            slot_memory_mib: None,
            prefetches: true,
            faults,
            version: String::new(),
            attempts,
        };
        self.send(Packet::Up(conn, Up::Message(FromWorker::Hello(Box::new(hello)))));
    }

    fn act(&mut self, id: WorkerId, action: Action) {
        match action {
            Action::Dial { session, attempts, faults } => self.dial(id, session, attempts, faults),
            Action::HangUp(_) => {
                let node = self.node(id);
                node.open = false;
                if let Some(conn) = node.link.take() {
                    self.oracle.note("hung up");
                    self.close_up(conn);
                }
            }
            Action::Send(message) => {
                let node = &self.nodes[&id];
                let conn = node.link.filter(|_| node.open);
                if let Some(conn) = conn.filter(|_| !self.fault(0.02)) {
                    self.send(Packet::Up(conn, Up::Message(message)));
                }
            }
            Action::Start(launch) => {
                let attempt = launch.attempt;
                let node = self.nodes.get_mut(&id).unwrap();
                assert!(node.agent.lease().stands(node.clock(self.now)), "{attempt} started without a lease");
                assert!(node.started.insert(attempt), "{attempt} was started on {id} a second time");
                node.shares.insert(attempt, Share::new(*launch));
                // A late order may start an old attempt, which can meet nobody and is soon released.
                if self.cluster.is_current(attempt, id) {
                    self.oracle.share_started(attempt, id);
                }
            }
            Action::Order(attempt, order) => {
                let pace = Pace {
                    yields: self.now + self.patience(),
                    gone: self.now + self.rng.random_range(0..15),
                };
                let now = self.now;
                // One that is about to end takes no orders.
                if let Some(share) = self.node(id).shares.get_mut(&attempt) {
                    share.obey(now, order, pace);
                }
            }
            Action::Spool(attempt, order) => self.spool(id, attempt, order),
            Action::ReadLog(_) => {}
            Action::Prefetch(_) => self.oracle.note("prefetched"),
            Action::Exit => {
                let conn = self.nodes[&id].link;
                if let Some(conn) = conn {
                    self.send(Packet::Up(conn, Up::Message(FromWorker::Goodbye)));
                }
                let off = self.rng.random_range(1..100);
                self.crash_node(id, SLOTS[id.0 as usize], off);
            }
        }
    }

    /// The disk may be slow, and may have no room. What it has it keeps: what damage does is for the tests of its files.
    fn spool(&mut self, id: WorkerId, attempt: AttemptId, order: SpoolOrder) {
        let full = self.fault(0.2);
        let at = self.now + self.rng.random_range(0..4);
        let node = self.nodes.get_mut(&id).unwrap();
        let event = match order {
            SpoolOrder::Write { page: _, reports } if full => {
                self.oracle.note("rows kept from a full disk");
                SpoolEvent::NotWritten { reports, message: "no space".to_owned() }
            }
            SpoolOrder::Write { page, reports } => {
                self.oracle.note("rows put on disk");
                node.pages.insert((attempt, page), reports);
                SpoolEvent::Written { bytes: 100 }
            }
            SpoolOrder::Read { page } => {
                let reports = node.pages.remove(&(attempt, page)).expect("a page that was written");
                SpoolEvent::Read { reports }
            }
            SpoolOrder::Remove { page } => {
                node.pages.remove(&(attempt, page)).expect("a page that was written");
                return;
            }
        };
        node.spooled.push_back((at, attempt, event));
    }

    /// How long an attempt that is asked to stop goes on: mostly not long, and sometimes for ever.
    fn patience(&mut self) -> u64 {
        match self.rng.random_range(0..10) {
            0 if self.faults => u64::MAX / 2,
            1 if self.faults => self.rng.random_range(10..100),
            _ => self.rng.random_range(0..4),
        }
    }

    /// Whether a machine reaches the coordinator, and is answered.
    pub(super) fn reaches(&self, id: WorkerId) -> bool {
        let node = &self.nodes[&id];
        self.is_up() && self.now >= node.mute_until && self.now >= node.deaf_until
    }

    /// Uploads do not pass through the session. Content that is stored already is not sent again, unless it is wrong.
    pub(super) fn upload(&mut self, id: WorkerId, attempt: AttemptId) {
        if self.nodes[&id].is_asleep(self.now) || !self.reaches(id) || self.fault(0.3) {
            return;
        }
        let share = self.share(id, attempt);
        if let Some(checkpoint) = share.upload.take() {
            self.store(checkpoint.digest);
            self.tell_agent(id, Input::Attempt(attempt, AttemptEvent::Checkpoint(checkpoint)));
        }
    }

    pub(super) fn store(&mut self, digest: Digest) {
        self.blobs.insert(digest);
        self.rotten.remove(&digest);
        self.fresh.insert(digest);
    }

    /// The bytes do not depend on the attempt: training is deterministic.
    pub(super) fn save(&mut self, id: WorkerId, attempt: AttemptId, step: u64) {
        let share = self.share(id, attempt);
        let digest = Digest::of(format!("{} at {step}", share.launch.label).as_bytes());
        let score = share.launch.policy.keep_best.and_then(|_| score(&share.launch.spec, step));
        share.upload = Some(Checkpoint::new(step, digest, 1_000).scored(score));
    }
}

pub(super) fn stored_log(attempt: AttemptId) -> AttemptEvent {
    AttemptEvent::Log(0, Digest::of(format!("log of {attempt}").as_bytes()), 1)
}
