//! Logs of running ranks: who asked for which, and the worker's answers on their way back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use common::session::{LogPart, ToWorker};
use common::{AttemptId, WorkerId};
use futures::stream::{self, Stream};
use proto::status::{ErrorKind, Kind};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::driver::{DriverError, Handle};

/// Parts that may wait for a slow reader. Beyond that the answer is given up, so that no reader holds up a
/// worker's heartbeats.
const PARTS: usize = 1024;

/// How long a worker may be silent in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(10);

/// Why the log of a running rank cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(
        "worker {0} has no session, so the log of its running rank cannot be read: try again when it is back"
    )]
    NotConnected(WorkerId),
    #[error("worker {0} did not send the log within {SILENCE:?}: try again")]
    Silent(WorkerId),
    #[error("the log comes faster than it is read: ask for a shorter tail")]
    TooSlow,
    #[error("worker {worker} cannot read the log: {message}")]
    Unreadable { worker: WorkerId, message: String },
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl Kind for LogError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotConnected(_) | Self::Silent(_) => ErrorKind::Unavailable,
            Self::TooSlow => ErrorKind::ResourceExhausted,
            Self::Unreadable { .. } => ErrorKind::NotFound,
            Self::Driver(error) => error.kind(),
        }
    }
}

#[derive(Debug)]
struct Pending {
    worker: WorkerId,
    parts: mpsc::Sender<LogPart>,
}

#[derive(Debug, Default)]
struct Requests {
    last: u64,
    open: BTreeMap<u64, Pending>,
}

/// Every open request. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveLogs(Arc<Mutex<Requests>>);

impl LiveLogs {
    /// Asks the worker of a running rank for its log.
    pub(crate) async fn fetch(
        &self,
        driver: &Handle,
        worker: WorkerId,
        (attempt, rank): (AttemptId, u32),
        tail: Option<u64>,
    ) -> Result<impl Stream<Item = Result<Bytes, LogError>> + Send + use<>, LogError> {
        let (parts, answer) = mpsc::channel(PARTS);
        let request = self.register(Pending { worker, parts });
        let open = OpenRequest { logs: self.clone(), request, worker, parts: answer };
        let message = ToWorker::FetchLog { request, attempt, rank, tail };
        if !driver.send(worker, message).await? {
            return Err(LogError::NotConnected(worker));
        }
        Ok(stream::try_unfold(Some(open), OpenRequest::next))
    }

    /// Hands a part of an answer to whoever asked for it.
    pub(crate) fn deliver(&self, worker: WorkerId, request: u64, part: LogPart) {
        let mut requests = self.lock();
        let Some(pending) = requests.open.get(&request).filter(|pending| pending.worker == worker) else {
            return;
        };
        let last = matches!(part, LogPart::End | LogPart::Unreadable(_));
        if pending.parts.try_send(part).is_err() || last {
            requests.open.remove(&request);
        }
    }

    fn register(&self, pending: Pending) -> u64 {
        let mut requests = self.lock();
        requests.last += 1;
        let request = requests.last;
        requests.open.insert(request, pending);
        request
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        // Nothing panics while it is held, and its content is whole after every line.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the request when the reader goes away.
struct OpenRequest {
    logs: LiveLogs,
    request: u64,
    worker: WorkerId,
    parts: mpsc::Receiver<LogPart>,
}

impl OpenRequest {
    async fn next(open: Option<Self>) -> Result<Option<(Bytes, Option<Self>)>, LogError> {
        let Some(mut open) = open else { return Ok(None) };
        let worker = open.worker;
        match timeout(SILENCE, open.parts.recv()).await {
            Ok(Some(LogPart::Data(data))) => Ok(Some((Bytes::from(data), Some(open)))),
            Ok(Some(LogPart::End)) => Ok(None),
            Ok(Some(LogPart::Unreadable(message))) => Err(LogError::Unreadable { worker, message }),
            Ok(None) => Err(LogError::TooSlow),
            Err(_) => Err(LogError::Silent(worker)),
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.logs.lock().open.remove(&self.request);
    }
}
