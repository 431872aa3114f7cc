//! Messages on their way.

use common::WorkerId;
use common::session::{FromWorker, ToWorker};
use coordinator_core::Input;
use rand::Rng;
use worker_core::Input as AgentInput;

use super::World;
use crate::network::{ConnId, Down, Packet, Up};

impl World {
    pub(super) fn send(&mut self, packet: Packet) {
        self.trace(&packet);
        let (slow, repeats) = match &packet {
            // Only what the coordinator performs waits for its disk.
            Packet::Down(..) => (self.flush, self.fault(0.02)),
            Packet::Up(..) => (0, self.fault(0.02)),
        };
        if self.fault(0.002) {
            self.oracle.note("message lost");
            self.network.lane(&packet).lost = true;
            if self.chance(0.5) {
                self.break_conn(packet.conn());
            }
            return;
        }
        // Now and then one takes long; what opens a connection longer than its sender waits, and than the coordinator may live.
        let opens = matches!(packet, Packet::Up(_, Up::Message(FromWorker::Hello(_))));
        let most = if opens && self.fault(0.03) {
            200
        } else if self.fault(0.05) {
            20
        } else {
            5
        };
        let at = self.now + self.rng.random_range(1..most) + slow;
        if repeats {
            self.network.send(at, packet.clone());
        }
        self.network.send(at, packet);
    }

    /// Both ends notice soon that a connection is over.
    pub(super) fn break_conn(&mut self, conn: ConnId) {
        let soon = self.now + self.rng.random_range(1..15);
        for end in [Packet::Up(conn, Up::Closed), Packet::Down(conn, Down::Closed)] {
            self.network.send(soon, end.clone());
            self.network.lane(&end).lost = true;
        }
    }

    /// The machine's end of a connection is closed.
    pub(super) fn close_up(&mut self, conn: ConnId) {
        self.send(Packet::Up(conn, Up::Closed));
    }

    /// What finds no room in a session is dropped, and the core asks for it again.
    pub(super) fn tell_worker(&mut self, worker: WorkerId, message: ToWorker) {
        if self.fault(0.01) {
            self.oracle.note("message dropped");
            return;
        }
        if let Some(&conn) = self.sessions.get(&worker) {
            self.send(Packet::Down(conn, Down::Message(Box::new(message))));
        }
    }

    pub(super) fn deliver(&mut self) {
        let now = self.now;
        let frozen = now < self.frozen_until;
        let nodes = &self.nodes;
        let due = self.network.arrive(now, |worker, packet| {
            let node = &nodes[&worker];
            match packet {
                Packet::Up(..) => frozen || (now < node.mute_until && !node.loses),
                Packet::Down(..) => {
                    let waits = now < node.frozen_until || node.is_asleep(now);
                    waits || (now < node.deaf_until && !node.loses)
                }
            }
        });
        for packet in due {
            let node = &self.nodes[&self.network.worker(packet.conn())];
            let cut = match &packet {
                Packet::Up(..) => now < node.mute_until,
                Packet::Down(..) => now < node.deaf_until,
            };
            let lane = self.network.lane(&packet);
            lane.cut |= cut;
            if lane.cut {
                continue;
            }
            match packet {
                Packet::Up(conn, up) => self.deliver_up(conn, up),
                Packet::Down(conn, down) => self.deliver_down(conn, down),
            }
        }
    }

    fn deliver_down(&mut self, conn: ConnId, down: Down) {
        let worker = self.network.worker(conn);
        let session = self.network.conns[&conn].session;
        let node = self.nodes.get_mut(&worker).unwrap();
        if self.now < node.off_until {
            return;
        }
        // Its end is closed, and its machine says so.
        if node.link != Some(conn) {
            if !matches!(down, Down::Closed | Down::Refused) {
                self.close_up(conn);
            }
            return;
        }
        match down {
            Down::Opened => {
                node.open = true;
                self.tell_agent(worker, AgentInput::SessionOpened(session));
            }
            Down::Message(message) => {
                // A repeated first message finds the session as it is.
                if node.open {
                    self.tell_agent(worker, AgentInput::Message(session, *message));
                }
            }
            Down::Closed => {
                (node.link, node.open) = (None, false);
                self.tell_agent(worker, AgentInput::SessionLost(session));
            }
            Down::Refused => {
                (node.link, node.open) = (None, false);
                self.oracle.note("connection refused");
                self.tell_agent(worker, AgentInput::CoordinatorDown(session));
            }
        }
    }

    fn deliver_up(&mut self, conn: ConnId, up: Up) {
        let worker = self.network.worker(conn);
        let dials = matches!(up, Up::Message(FromWorker::Hello(_)));
        if self.down_until.is_some() {
            if dials {
                self.send(Packet::Down(conn, Down::Refused));
            }
            return;
        }
        let newest = self.sessions.get(&worker) == Some(&conn);
        match up {
            Up::Message(FromWorker::Hello(_)) if self.network.conns[&conn].accepted => {}
            Up::Message(FromWorker::Hello(hello)) => {
                if self.nodes[&worker].link != Some(conn) {
                    // It may have been on its way since before the coordinator died.
                    self.oracle.note("hello held up");
                }
                self.open_session(conn, *hello);
            }
            Up::Message(message) => {
                // A driver may be slow to notice that a session is over, but then hears the rest no more. What says "I am
                // alive" never comes late.
                let ignores = !newest && self.chance(0.5);
                let conn = self.network.conns.get_mut(&conn).unwrap();
                conn.ignored |= ignores || conn.crashes != self.crashes;
                let late = !newest && !conn.ignored && is_fenced(&message);
                if late {
                    self.oracle.note("late message");
                }
                if newest || late {
                    self.hear(worker, message, newest);
                }
            }
            Up::Closed => {
                if newest {
                    self.sessions.remove(&worker);
                    let _ = self.handle(Input::Disconnected { worker });
                }
            }
        }
    }
}

/// Whether its attempt alone says what a message counts for.
fn is_fenced(message: &FromWorker) -> bool {
    match message {
        FromWorker::AttemptEnded { .. }
        | FromWorker::RendezvousOpened { .. }
        | FromWorker::CheckpointStored { .. }
        | FromWorker::CheckpointDamaged { .. }
        | FromWorker::Metrics { .. }
        | FromWorker::Incident { .. } => true,
        FromWorker::Hello(_)
        | FromWorker::Heartbeat { .. }
        | FromWorker::Progress { .. }
        | FromWorker::Warning { .. }
        | FromWorker::LogStored { .. }
        | FromWorker::LogData { .. }
        | FromWorker::Goodbye => false,
    }
}
