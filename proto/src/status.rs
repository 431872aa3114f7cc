//! From an error's kind to a gRPC status, in one place.

use tonic::{Code, Status};

/// Metadata key of an answer by which a coordinator says that it gives no lease away: it stops, or has no disk space, and
/// will give every worker that it knows a full lease when it comes back.
pub const KEEPS_LEASES: &str = "credence-keeps-leases";

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request cannot be right: mend it.
    InvalidArgument,
    /// Nothing has this name.
    NotFound,
    /// Right in itself, but not in the present state: change the state first.
    FailedPrecondition,
    /// What the request carried was cut or changed on the way: send it again.
    DataLoss,
    /// The request was overtaken, for example by a newer session: do not repeat it.
    Aborted,
    /// Try again later.
    Unavailable,
    /// A limit of the machine was met, for example a full disk.
    ResourceExhausted,
    /// A bug.
    Internal,
}

impl From<ErrorKind> for Code {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument => Self::InvalidArgument,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::FailedPrecondition => Self::FailedPrecondition,
            ErrorKind::DataLoss => Self::DataLoss,
            ErrorKind::Aborted => Self::Aborted,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::ResourceExhausted => Self::ResourceExhausted,
            ErrorKind::Internal => Self::Internal,
        }
    }
}

/// An error that knows its kind.
pub trait Kind: std::error::Error {
    /// What the caller can do about it.
    fn kind(&self) -> ErrorKind;
}

/// The status of an error, with the whole chain of its sources as the message.
pub fn to_status(error: &dyn Kind) -> Status {
    Status::new(error.kind().into(), chain(error))
}

/// An error and all that led to it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
