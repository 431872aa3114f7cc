//! The workers' service: one bidirectional stream for each, and the way of their blobs.
//!
//! A session translates and forwards; what a message means is the driver's matter. The exception is the log of
//! a running rank, which goes from the worker to the reader who asked, past the state.

mod blobs;
mod logs;

use std::time::Duration;

use common::WorkerId;
use common::session::{FromWorker, Hello, PROTOCOL, ToWorker};
use futures::stream::{self, BoxStream, StreamExt};
use proto::status::{ErrorKind, KEEPS_LEASES, Kind, chain, to_status};
use proto::v1;
use proto::v1::worker_session_server::{WorkerSession, WorkerSessionServer};
use tokio::sync::{mpsc, oneshot};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use crate::blobs::Blobs;
use crate::driver::{DriverError, Handle, OUTGOING, Outgoing, SessionEnd, SessionId};

pub(crate) use blobs::to_chunks;
pub(crate) use logs::{LiveLogs, LogError};

/// How long a caller may keep a session open without saying who it is.
const HELLO: Duration = Duration::from_secs(10);

/// Why a session does not begin.
#[derive(Debug, thiserror::Error)]
enum HelloError {
    #[error("the session ended before its hello")]
    Ended,
    #[error("no hello within {HELLO:?}")]
    Late,
    #[error("the first message of a session is its hello")]
    NotHello,
    #[error(
        "worker {worker} (version {build}) speaks protocol {theirs}, this coordinator (version {}) protocol {PROTOCOL}: run the \
         same version of credence on both",
        env!("CARGO_PKG_VERSION")
    )]
    Protocol { worker: WorkerId, theirs: u32, build: String },
}

impl Kind for HelloError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Ended | Self::Late => ErrorKind::Unavailable,
            Self::NotHello => ErrorKind::InvalidArgument,
            Self::Protocol { .. } => ErrorKind::FailedPrecondition,
        }
    }
}

impl Kind for SessionEnd {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Superseded(_) => ErrorKind::Aborted,
            Self::SecondHello => ErrorKind::InvalidArgument,
            Self::LeaseEnded(_) | Self::Goodbye | Self::Paused(_) | Self::Stopping => ErrorKind::Unavailable,
        }
    }
}

/// The service as the server takes it.
pub(crate) type Server = WorkerSessionServer<Service>;

/// The workers' service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    driver: Handle,
    blobs: Blobs,
    logs: LiveLogs,
}

impl Service {
    pub(crate) fn new(driver: Handle, blobs: Blobs, logs: LiveLogs) -> Self {
        Self { driver, blobs, logs }
    }
}

#[tonic::async_trait]
impl WorkerSession for Service {
    type SessionStream = BoxStream<'static, Result<v1::ToWorker, Status>>;
    type DownloadBlobStream = BoxStream<'static, Result<v1::Chunk, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::FromWorker>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let hello = hello(&mut incoming).await?;
        let worker = hello.worker;
        let (messages, outgoing) = mpsc::channel(OUTGOING);
        let (end, ended) = oneshot::channel();
        let gone = messages.clone();
        let session =
            self.driver.open_session(hello, Outgoing { messages, end }).await.map_err(
                |error| match &error {
                    // A worker is never refused for good because of a disk that is full now.
                    DriverError::Paused(cause) => {
                        keeps_leases(to_status(&SessionEnd::Paused(chain(cause.as_ref()))))
                    }
                    DriverError::Store(_) | DriverError::Stopping => keeps_leases(to_status(&error)),
                    DriverError::Rejected(_) => to_status(&error),
                },
            )?;
        info!(%worker, ?session, "session opened");
        let reader = Reader { driver: self.driver.clone(), logs: self.logs.clone(), worker, session };
        tokio::spawn(reader.run(incoming, gone.downgrade()));
        Ok(Response::new(outbox(outgoing, ended)))
    }

    async fn upload_blob(
        &self,
        request: Request<Streaming<v1::UploadChunk>>,
    ) -> Result<Response<v1::UploadBlobResponse>, Status> {
        blobs::upload(&self.blobs, request.into_inner()).await.map(Response::new)
    }

    async fn probe_blob(
        &self,
        request: Request<v1::ProbeBlobRequest>,
    ) -> Result<Response<v1::ProbeBlobResponse>, Status> {
        blobs::probe(&self.blobs, &request.into_inner()).await.map(Response::new)
    }

    async fn download_blob(
        &self,
        request: Request<v1::DownloadBlobRequest>,
    ) -> Result<Response<Self::DownloadBlobStream>, Status> {
        blobs::download(&self.blobs, &request.into_inner()).await.map(Response::new)
    }
}

/// Says that no lease is given away meanwhile, so that the worker's trainers need not stop.
fn keeps_leases(mut status: Status) -> Status {
    status.metadata_mut().insert(KEEPS_LEASES, MetadataValue::from_static("yes"));
    status
}

async fn hello(incoming: &mut Streaming<v1::FromWorker>) -> Result<Hello, Status> {
    let refused = |error: HelloError| to_status(&error);
    let first = tokio::time::timeout(HELLO, incoming.message()).await;
    let first = first.map_err(|_| refused(HelloError::Late))??.ok_or_else(|| refused(HelloError::Ended))?;
    // The version first: another one may say things that this build does not understand.
    if let Some(v1::from_worker::Message::Hello(hello)) = &first.message
        && hello.protocol != PROTOCOL
    {
        let worker = WorkerId(hello.worker_id);
        let build = hello.version.clone();
        return Err(refused(HelloError::Protocol { worker, theirs: hello.protocol, build }));
    }
    match FromWorker::try_from(first).map_err(|error| to_status(&error))? {
        FromWorker::Hello(hello) => Ok(*hello),
        FromWorker::Heartbeat { .. }
        | FromWorker::RendezvousOpened { .. }
        | FromWorker::AttemptEnded { .. }
        | FromWorker::CheckpointStored { .. }
        | FromWorker::CheckpointDamaged { .. }
        | FromWorker::Progress { .. }
        | FromWorker::Metrics { .. }
        | FromWorker::Warning { .. }
        | FromWorker::Incident { .. }
        | FromWorker::LogStored { .. }
        | FromWorker::LogData { .. }
        | FromWorker::Goodbye => Err(refused(HelloError::NotHello)),
    }
}

/// Messages to the worker until the coordinator's last word.
fn outbox(
    messages: mpsc::Receiver<ToWorker>,
    ended: oneshot::Receiver<SessionEnd>,
) -> BoxStream<'static, Result<v1::ToWorker, Status>> {
    stream::unfold(Some((messages, ended)), |open| async {
        let (mut messages, mut ended) = open?;
        tokio::select! {
            biased;
            end = &mut ended => match end.unwrap_or(SessionEnd::Stopping) {
                SessionEnd::Goodbye => None,
                end => Some((Err(to_status(&end)), None)),
            },
            Some(message) = messages.recv() => Some((Ok(message.into()), Some((messages, ended)))),
        }
    })
    .boxed()
}

/// Forwards what a worker says.
struct Reader {
    driver: Handle,
    logs: LiveLogs,
    worker: WorkerId,
    session: SessionId,
}

impl Reader {
    async fn run(self, mut incoming: Streaming<v1::FromWorker>, outgoing: mpsc::WeakSender<ToWorker>) {
        let Self { worker, session, .. } = self;
        while let Some(message) = self.next(&mut incoming, &outgoing).await {
            let forwarded = match message {
                FromWorker::LogData { request, part } => {
                    self.logs.deliver(worker, request, part);
                    Ok(())
                }
                message => self.driver.from_worker(worker, session, message).await,
            };
            if forwarded.is_err() {
                break;
            }
        }
        debug!(%worker, ?session, "session closed");
        // A driver that is gone needs no news.
        let _ = self.driver.session_closed(worker, session).await;
    }

    /// The next message; `None` when there will be none, or nobody hears it.
    async fn next(
        &self,
        incoming: &mut Streaming<v1::FromWorker>,
        outgoing: &mpsc::WeakSender<ToWorker>,
    ) -> Option<FromWorker> {
        let worker = self.worker;
        loop {
            // The driver holds the sender while the session is the newest.
            let open = outgoing.upgrade()?;
            let message = tokio::select! {
                message = incoming.message() => message,
                () = open.closed() => return None,
            };
            drop(open);
            match message {
                Ok(Some(message)) => match FromWorker::try_from(message) {
                    Ok(message) => return Some(message),
                    // A message that means nothing must not cost the session: heartbeats go on.
                    Err(error) => {
                        info!(%worker, error = &error as &dyn std::error::Error, "a message is not understood");
                    }
                },
                Ok(None) => return None,
                Err(status) => {
                    debug!(%worker, %status, "the session's stream broke");
                    return None;
                }
            }
        }
    }
}
