//! What goes wrong.

use common::WorkerId;
use coordinator_core::{Cluster, Millis};
use rand::Rng;
use rand::seq::IteratorRandom;
use worker_core::Input;

use super::{DEAD, SLOTS, World};
use crate::network::{Down, Packet};

impl World {
    /// From here on everything works, but one worker is gone.
    pub fn stop_faults(&mut self) {
        self.faults = false;
        self.down_until = self.down_until.map(|_| self.now);
        self.frozen_until = self.now;
        for (&id, node) in &mut self.nodes {
            let slots = SLOTS[id.0 as usize];
            let off_until = if id == DEAD { u64::MAX } else { self.now };
            if id == DEAD || node.slots != slots {
                node.crash(slots, off_until);
            }
            (node.deaf_until, node.mute_until) = (self.now, self.now);
            (node.frozen_until, node.asleep_until, node.broken_until) = (self.now, self.now, self.now);
            node.off_until = off_until;
        }
    }

    pub(super) fn break_things(&mut self) {
        if self.down_until.is_some_and(|until| self.now >= until) {
            self.restart_coordinator();
        }
        if self.fault(0.01)
            && let Some(&digest) = self.blobs.iter().choose(&mut self.rng)
        {
            self.rotten.insert(digest);
        }
        // Its process or its machine stands still; then its clock has jumped, and its sockets are full.
        if self.is_up() && self.fault(0.001) {
            self.oracle.note("coordinator frozen");
            self.frozen_until = self.now + self.rng.random_range(5..150);
        }
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.break_node(id);
        }
    }

    fn break_node(&mut self, id: WorkerId) {
        if self.now < self.nodes[&id].off_until {
            return;
        }
        if self.fault(0.0015) {
            let slots = SLOTS[id.0 as usize] + u32::from(self.chance(0.2));
            let off = if self.chance(0.7) { 0 } else { self.rng.random_range(0..150) };
            self.oracle.note("agent crashed");
            self.crash_node(id, slots, off);
        }
        if self.fault(0.002)
            && let Some(conn) = self.nodes[&id].link
        {
            self.oracle.note("connection broke");
            self.break_conn(conn);
        }
        if self.fault(0.0015) {
            self.partition(id);
        }
        if self.fault(0.0005) {
            let until = self.now + 200;
            self.node(id).broken_until = until;
        }
        if self.fault(0.001) {
            self.oracle.note("machine frozen");
            let until = self.now + self.rng.random_range(5..200);
            self.node(id).frozen_until = until;
        }
        if self.fault(0.001) {
            self.oracle.note("agent frozen alone");
            let until = self.now + self.rng.random_range(5..200);
            self.node(id).asleep_until = until;
        }
        if self.fault(0.0005) && self.nodes[&id].is_live(self.now) {
            self.node(id).leaving = true;
            self.tell_agent(id, Input::Shutdown);
        }
    }

    /// In one direction or in both.
    fn partition(&mut self, id: WorkerId) {
        let until = self.now + self.rng.random_range(5..200);
        let kind = self.rng.random_range(0..4);
        let loses = self.chance(0.5);
        self.oracle.note(if loses { "partition" } else { "messages held up" });
        let node = self.node(id);
        node.loses = loses;
        if kind != 0 {
            node.mute_until = until;
        }
        if kind != 1 {
            node.deaf_until = until;
        }
        self.oracle.note(["worker deaf", "worker mute", "worker cut off", "worker cut off"][kind]);
    }

    pub(super) fn crash_node(&mut self, id: WorkerId, slots: u32, off: u64) {
        let until = self.now + off;
        let node = self.node(id);
        let link = node.link;
        node.crash(slots, until);
        // The machine closes the connections of a process that died, unless it died itself.
        if let Some(conn) = link.filter(|_| off == 0) {
            self.close_up(conn);
        }
    }

    /// Sessions break; workers work on.
    pub(super) fn crash_coordinator(&mut self) {
        self.crashes += 1;
        self.down_until = Some(self.now + self.rng.random_range(1..100));
        self.sessions.clear();
        self.fresh.clear();
        let links = self.nodes.values().filter_map(|node| node.link).collect::<Vec<_>>();
        for conn in links {
            self.send(Packet::Down(conn, Down::Closed));
        }
    }

    /// Only what JSON holds survives, and leases count from now.
    fn restart_coordinator(&mut self) {
        self.down_until = None;
        let text = serde_json::to_string(&self.log).unwrap();
        self.log = serde_json::from_str(&text).unwrap();
        self.cluster = Cluster::replay(self.policy.clone(), Millis(self.now), &self.log);
        self.cluster.check().unwrap();
    }
}
