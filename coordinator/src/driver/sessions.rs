//! Who can be told what: the open session of each worker.
//!
//! Delivery is best effort by design. What does not reach a worker is asked for again when it next reports.

use std::collections::BTreeMap;

use common::WorkerId;
use common::session::{Blob, ToWorker};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

/// Messages that may wait for a slow worker. Beyond that they are dropped, as if the network had lost them.
pub(crate) const OUTGOING: usize = 256;

/// Names a session among all sessions of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(u64);

/// Why a session was ended by the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionEnd {
    /// The worker opened a newer one.
    #[error("a newer session of worker {0} took over")]
    Superseded(WorkerId),
    /// The worker's lease ended, so what it says no longer counts.
    #[error("the lease of worker {0} ended: open a new session")]
    LeaseEnded(WorkerId),
    /// A second hello within a session.
    #[error("a session has one hello, its first message")]
    SecondHello,
    /// The worker said goodbye.
    #[error("goodbye")]
    Goodbye,
    /// The coordinator cannot write its log now.
    #[error("the coordinator is paused: {0}")]
    Paused(String),
    /// The coordinator stops.
    #[error("the coordinator is stopping: connect again when it is back")]
    Stopping,
}

/// The coordinator's end of a session's stream.
#[derive(Debug)]
pub struct Outgoing {
    /// Messages.
    pub messages: mpsc::Sender<ToWorker>,
    /// The last word.
    pub end: oneshot::Sender<SessionEnd>,
}

/// What a worker's hello said of its build.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) version: String,
    /// Whether it knows [`ToWorker::Prefetch`].
    pub(super) prefetches: bool,
}

#[derive(Debug)]
struct Entry {
    id: SessionId,
    outgoing: Outgoing,
    peer: Peer,
    /// Nothing may come before the welcome.
    welcomed: bool,
}

/// Every open session.
#[derive(Debug, Default)]
pub struct Sessions {
    last: u64,
    open: BTreeMap<WorkerId, Entry>,
}

impl Sessions {
    /// Registers a session and ends an earlier one of the same worker.
    pub(super) fn open(&mut self, worker: WorkerId, peer: Peer, outgoing: Outgoing) -> SessionId {
        self.end(worker, SessionEnd::Superseded(worker));
        self.last += 1;
        let id = SessionId(self.last);
        self.open.insert(worker, Entry { id, outgoing, peer, welcomed: false });
        id
    }

    pub(super) fn is_newest(&self, worker: WorkerId, session: SessionId) -> bool {
        self.open.get(&worker).is_some_and(|entry| entry.id == session)
    }

    pub(super) fn welcome(&mut self, worker: WorkerId, session: SessionId, welcome: ToWorker) {
        if let Some(entry) = self.open.get_mut(&worker).filter(|entry| entry.id == session) {
            entry.welcomed = true;
            self.send(worker, welcome);
        }
    }

    /// Whether the message is on its way. It may still be lost.
    pub(super) fn send(&self, worker: WorkerId, message: ToWorker) -> bool {
        let Some(entry) = self.open.get(&worker).filter(|entry| entry.welcomed) else {
            debug!(%worker, "no session to send on");
            return false;
        };
        let sent = entry.outgoing.messages.try_send(message);
        if let Err(error) = &sent {
            debug!(%worker, %error, "a message is dropped");
        }
        sent.is_ok()
    }

    /// Tells a worker what it may fetch ahead of time, unless it would not understand, or has much else to read first.
    pub(super) fn prefetch(&self, worker: WorkerId, blobs: Vec<Blob>) {
        let takes =
            |entry: &Entry| entry.peer.prefetches && entry.outgoing.messages.capacity() > OUTGOING / 2;
        if self.open.get(&worker).is_some_and(takes) {
            self.send(worker, ToWorker::Prefetch { blobs });
        }
    }

    pub(super) fn end(&mut self, worker: WorkerId, end: SessionEnd) {
        if let Some(entry) = self.open.remove(&worker) {
            // A stream that is gone already needs no last word.
            let _ = entry.outgoing.end.send(end);
        }
    }

    pub(super) fn end_all(&mut self, end: &SessionEnd) {
        while let Some((_, entry)) = self.open.pop_first() {
            let _ = entry.outgoing.end.send(end.clone());
        }
    }

    /// Version of the build that opened a worker's session.
    pub fn version(&self, worker: WorkerId) -> Option<&str> {
        self.open.get(&worker).map(|entry| entry.peer.version.as_str())
    }
}
