//! One session with the coordinator: dialled, opened with a hello, and lost sooner or later.

use common::session::{FromWorker, Hello, ToWorker};
use common::timeouts::Timeouts;
use proto::convert::ConvertError;
use proto::status::KEEPS_LEASES;
use proto::v1;
use proto::v1::worker_session_client::WorkerSessionClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// Messages that wait to be written before the rest is held back.
const OUTBOX: usize = 1024;

/// Why a session did not begin, or is over.
#[derive(Debug, thiserror::Error)]
pub enum SessionLost {
    /// The coordinator is away, or the connection broke. Worth another try.
    #[error("the coordinator cannot be reached: {0}")]
    Unreachable(String),
    /// There is no coordinator: nobody listens, or it says that it stops or has no disk space. It gives nothing away.
    #[error("the coordinator is down: {0}")]
    Down(String),
    /// The coordinator does not want this worker. Another try would end the same way.
    #[error("the coordinator refused this worker: {}", .0.message())]
    Refused(Status),
    /// The coordinator said something that this build does not understand.
    #[error("the coordinator's message is not understood")]
    NotUnderstood(#[from] ConvertError),
}

impl From<Status> for SessionLost {
    fn from(status: Status) -> Self {
        // `ABORTED`, a newer session took over, is worth another try: the newer one may be a hello of a process of this worker
        // that died, held up by the network until now.
        let refused = matches!(
            status.code(),
            Code::FailedPrecondition
                | Code::InvalidArgument
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::Unimplemented
        );
        let message = status.message().to_owned();
        if refused {
            Self::Refused(status)
        } else if status.metadata().contains_key(KEEPS_LEASES) || nobody_listens(&status) {
            Self::Down(message)
        } else {
            Self::Unreachable(message)
        }
    }
}

/// Whether the host answered that nothing listens there.
fn nobody_listens(status: &Status) -> bool {
    let mut error = std::error::Error::source(status);
    while let Some(source) = error {
        let io = source.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        error = source.source();
    }
    false
}

/// A channel to the coordinator that connects when it is first used, and again when it breaks.
///
/// # Errors
///
/// When `url` is not one.
pub fn channel(url: &str) -> Result<Channel, tonic::transport::Error> {
    // Of the usual lease: how long this coordinator's is it says only later, and where it is shorter the agent gives up sooner.
    let timeouts = Timeouts::default();
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .connect_timeout(timeouts.dial())
        .http2_keep_alive_interval(timeouts.dial() / 2)
        .keep_alive_timeout(timeouts.dial() / 2)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}

/// An open session.
#[derive(Debug)]
pub struct Session {
    outbound: mpsc::Sender<v1::FromWorker>,
    inbound: Streaming<v1::ToWorker>,
}

impl Session {
    /// Opens a session. The coordinator's first message is its welcome.
    ///
    /// # Errors
    ///
    /// [`SessionLost`].
    pub async fn open(channel: Channel, hello: Hello) -> Result<Self, SessionLost> {
        let (outbound, messages) = mpsc::channel(OUTBOX);
        let first = v1::FromWorker::from(FromWorker::Hello(Box::new(hello)));
        outbound.try_send(first).expect("a fresh channel has room");
        let response = WorkerSessionClient::new(channel).session(ReceiverStream::new(messages)).await?;
        Ok(Self { outbound, inbound: response.into_inner() })
    }

    /// Queues a message. False if there is no room now.
    pub fn tell(&self, message: FromWorker) -> bool {
        self.outbound.try_send(message.into()).is_ok()
    }

    /// A way to send that waits for room, for answers of many parts.
    pub fn sender(&self) -> mpsc::Sender<v1::FromWorker> {
        self.outbound.clone()
    }

    /// The next message. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`SessionLost`] when there will be none.
    pub async fn next(&mut self) -> Result<ToWorker, SessionLost> {
        match self.inbound.message().await? {
            Some(message) => Ok(message.try_into()?),
            None => Err(SessionLost::Unreachable("it closed the session".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_was_overtaken_is_worth_another_try_and_one_that_is_refused_is_not() {
        let overtaken = SessionLost::from(Status::aborted("a newer session took over"));
        assert!(matches!(overtaken, SessionLost::Unreachable(_)), "{overtaken}");
        let refused = SessionLost::from(Status::failed_precondition("protocol 1"));
        assert!(matches!(refused, SessionLost::Refused(_)), "{refused}");
    }
}
