//! What the driver can be told, and what it puts off until the events are durable.

use common::session::{FromWorker, Hello, ToWorker};
use common::{AttemptId, Digest, WorkerId};
use coordinator_core::{Effect, Input};
use tokio::sync::oneshot;

use super::{Applied, DriverError, Outgoing, SessionId, View};
use crate::store::Batch;

/// A look at the state.
pub(super) type Look = Box<dyn FnOnce(&View<'_>) + Send>;

/// What the driver can be told.
pub(super) enum Command {
    Apply {
        input: Input,
        reply: oneshot::Sender<Result<Applied, DriverError>>,
    },
    Read(Look),
    OpenSession {
        hello: Box<Hello>,
        outgoing: Outgoing,
        reply: oneshot::Sender<Result<SessionId, DriverError>>,
    },
    FromWorker {
        worker: WorkerId,
        session: SessionId,
        message: FromWorker,
    },
    SessionClosed {
        worker: WorkerId,
        session: SessionId,
    },
    Send {
        worker: WorkerId,
        message: ToWorker,
        reply: oneshot::Sender<bool>,
    },
    Collect(Vec<Digest>),
    Stop,
}

/// What waits for the flush.
pub(super) enum Deferred {
    Perform(Effect),
    Answer {
        reply: oneshot::Sender<Result<Applied, DriverError>>,
        answer: Result<Applied, DriverError>,
    },
    Welcome {
        worker: WorkerId,
        session: SessionId,
        /// Attempts of the hello that are current.
        current: Vec<AttemptId>,
        reply: oneshot::Sender<Result<SessionId, DriverError>>,
    },
    Acknowledge {
        worker: WorkerId,
        attempt: AttemptId,
        sequence: u64,
    },
    /// Best effort, like every message to a worker.
    Tell {
        worker: WorkerId,
        message: ToWorker,
    },
    Referenced(Digest),
    Show(Look),
}

/// Commands that share one flush, and what follows it.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) batch: Batch,
    pub(super) deferred: Vec<Deferred>,
    /// Something that readers can see changed.
    pub(super) changed: bool,
    pub(super) stop: bool,
}

impl Turn {
    /// Answers everybody who waits that nothing is durable.
    pub(super) fn fail(self, failure: &DriverError) {
        for deferred in self.deferred {
            let failure = failure.clone();
            match deferred {
                Deferred::Answer { reply, .. } => drop(reply.send(Err(failure))),
                Deferred::Welcome { reply, .. } => drop(reply.send(Err(failure))),
                Deferred::Perform(_)
                | Deferred::Acknowledge { .. }
                | Deferred::Tell { .. }
                | Deferred::Referenced(_)
                | Deferred::Show(_) => {}
            }
        }
    }
}
