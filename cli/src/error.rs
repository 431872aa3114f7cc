//! Why a command failed, in words for its user, and the exit status that goes with it.

use std::path::PathBuf;
use std::process::ExitCode;

use tonic::{Code, Status};

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage: mend the command, the configuration or the grid file.
    Usage(String),
    /// Nothing has that name.
    NotFound(String),
    /// The coordinator is not there.
    Unreachable {
        /// Its URL.
        url: String,
        /// What the connection said.
        message: String,
    },
    /// The coordinator refused.
    Refused(String),
    /// A file of this machine.
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A service that this process ran, or its output, failed.
    Other(anyhow::Error),
}

impl Failure {
    /// What the coordinator at `url` answered.
    pub fn from_status(url: &str, status: &Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::NotFound => Self::NotFound(message),
            Code::InvalidArgument => Self::Usage(message),
            Code::Unavailable => Self::Unreachable { url: url.to_owned(), message },
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss
            | Code::Unauthenticated => Self::Refused(format!("{message} ({:?})", status.code())),
        }
    }

    /// The documented exit status.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::NotFound(_) => ExitCode::from(3),
            Self::Unreachable { .. } => ExitCode::from(4),
            Self::Refused(_) | Self::File { .. } | Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(message) | Self::NotFound(message) | Self::Refused(message) => f.write_str(message),
            Self::Unreachable { url, message } => write!(
                f,
                "no coordinator answers at {url}: {message}\n  start one with `credence coordinator`, or name it with \
                 --coordinator or CREDENCE_COORDINATOR"
            ),
            Self::File { path, source } => write!(f, "`{}`: {source}", path.display()),
            Self::Other(error) => write!(f, "{error:#}"),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_documented_exit_status() {
        let code = |code| Failure::from_status("u", &Status::new(code, "m")).exit_code();
        assert_eq!(code(Code::InvalidArgument), ExitCode::from(2));
        assert_eq!(code(Code::NotFound), ExitCode::from(3));
        assert_eq!(code(Code::Unavailable), ExitCode::from(4));
        assert_eq!(code(Code::Internal), ExitCode::FAILURE);
    }
}
