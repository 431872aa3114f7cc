//! The network between machines and the coordinator: connections that keep order, until they break.
//!
//! A message is never lost alone: what follows it on the same connection in the same direction is lost as well. The ends notice
//! soon, or only by the silence. In a partition messages are lost, or are held up and come when it ends, as TCP does
//! it; so what a connection carried can come long after its sender gave it up or died, its hello included.

use std::collections::{BTreeMap, VecDeque};

use common::WorkerId;
use common::session::{FromWorker, ToWorker};
use worker_core::SessionNumber;

/// Names a connection.
pub type ConnId = u64;

/// What comes to the coordinator.
#[derive(Clone, Debug)]
pub enum Up {
    Message(FromWorker),
    Closed,
}

/// What comes to a machine.
#[derive(Clone, Debug)]
pub enum Down {
    /// The hello was accepted.
    Opened,
    Message(Box<ToWorker>),
    Closed,
    /// Nobody listens at the coordinator's address.
    Refused,
}

#[derive(Clone, Debug)]
pub enum Packet {
    Up(ConnId, Up),
    Down(ConnId, Down),
}

impl Packet {
    pub fn conn(&self) -> ConnId {
        match *self {
            Self::Up(conn, _) | Self::Down(conn, _) => conn,
        }
    }
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lane {
    /// Nothing more is taken.
    pub lost: bool,
    /// Nothing more arrives, also of what is on its way.
    pub cut: bool,
    /// When what was sent last arrives. Nothing overtakes it.
    pub busy_until: u64,
}

#[derive(Debug)]
pub struct Conn {
    pub worker: WorkerId,
    /// As the agent names it.
    pub session: SessionNumber,
    /// How often the coordinator had died when it was dialled, or accepted.
    pub crashes: u32,
    pub accepted: bool,
    /// The coordinator hears nothing of it any more.
    pub ignored: bool,
    pub up: Lane,
    pub down: Lane,
}

#[derive(Debug, Default)]
pub struct Network {
    pub conns: BTreeMap<ConnId, Conn>,
    next: ConnId,
    wire: VecDeque<(u64, Packet)>,
}

impl Network {
    pub fn dial(&mut self, worker: WorkerId, session: SessionNumber, crashes: u32) -> ConnId {
        self.next += 1;
        let conn = Conn {
            worker,
            session,
            crashes,
            accepted: false,
            ignored: false,
            up: Lane::default(),
            down: Lane::default(),
        };
        self.conns.insert(self.next, conn);
        self.next
    }

    pub fn worker(&self, conn: ConnId) -> WorkerId {
        self.conns[&conn].worker
    }

    pub fn lane(&mut self, packet: &Packet) -> &mut Lane {
        let conn = self.conns.get_mut(&packet.conn()).unwrap();
        match packet {
            Packet::Up(..) => &mut conn.up,
            Packet::Down(..) => &mut conn.down,
        }
    }

    /// Lets a packet arrive then, or when what was sent before it does.
    pub fn send(&mut self, at: u64, packet: Packet) {
        let lane = self.lane(&packet);
        if lane.lost {
            return;
        }
        lane.busy_until = lane.busy_until.max(at);
        let at = lane.busy_until;
        self.wire.push_back((at, packet));
    }

    /// Takes out what arrives now, in the order in which it was sent. What `waits` stays.
    pub fn arrive(&mut self, now: u64, waits: impl Fn(WorkerId, &Packet) -> bool) -> Vec<Packet> {
        let mut due = Vec::new();
        let mut later = VecDeque::new();
        for (at, packet) in std::mem::take(&mut self.wire) {
            if at <= now && !waits(self.worker(packet.conn()), &packet) {
                due.push(packet);
            } else {
                later.push_back((at, packet));
            }
        }
        self.wire = later;
        due
    }
}
