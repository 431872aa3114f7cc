//! Why a request is refused. Each message names the thing and the way out.

use common::grid::GridErrors;
use common::table::ChoiceError;
use common::{AttemptId, TrialId, WorkerId};
use proto::status::{ErrorKind, Kind};

use crate::blobs::BlobError;
use crate::driver::DriverError;
use crate::session::LogError;
use crate::store::StoreError;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("{}", within_headers(.0))]
    Grid(Box<GridErrors>),
    #[error("there is no experiment `{name}`: {hint}")]
    UnknownExperiment { name: String, hint: String },
    #[error("there is no trial `{0}`: give an id like `t7`, a key, or the beginning of a key")]
    UnknownTrial(String),
    #[error("`{prefix}` is the beginning of {count} keys: give more digits")]
    AmbiguousKey { prefix: String, count: usize },
    #[error("name an experiment or a trial to {0}")]
    NoTarget(&'static str),
    #[error("there is no worker `{name}`: {hint}")]
    UnknownWorker { name: String, hint: String },
    #[error("{count} workers are named `{name}`: give an id, as `credence workers` lists them")]
    AmbiguousWorker { name: String, count: usize },
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    #[error("there is no table format {0}: ask for TEXT, TERMINAL, MARKDOWN, CSV, JSON or LATEX")]
    UnknownFormat(i32),
    #[error("trial {trial} has no artifact `{name}`: {hint}")]
    UnknownArtifact { trial: TrialId, name: String, hint: String },
    #[error("trial {0} has not been started yet, so it has no log")]
    NoAttempt(TrialId),
    #[error("trial {trial} has no attempt `{attempt}`: it has {known}")]
    UnknownAttempt { trial: TrialId, attempt: String, known: String },
    #[error("attempt {attempt} has no rank {rank}: its ranks are 0 to {last}")]
    UnknownRank { attempt: AttemptId, rank: u32, last: u32 },
    #[error(
        "the log of rank {rank} of attempt {attempt} was not stored: worker {worker} went away before it could"
    )]
    LogLost { attempt: AttemptId, rank: u32, worker: WorkerId },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Kind for RequestError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Grid(_)
            | Self::AmbiguousKey { .. }
            | Self::NoTarget(_)
            | Self::AmbiguousWorker { .. }
            | Self::Choice(_)
            | Self::UnknownFormat(_) => ErrorKind::InvalidArgument,
            Self::UnknownExperiment { .. }
            | Self::UnknownWorker { .. }
            | Self::UnknownTrial(_)
            | Self::UnknownArtifact { .. }
            | Self::UnknownAttempt { .. }
            | Self::UnknownRank { .. }
            | Self::LogLost { .. } => ErrorKind::NotFound,
            Self::NoAttempt(_) => ErrorKind::FailedPrecondition,
            Self::Log(error) => error.kind(),
            Self::Blob(error) => error.kind(),
            Self::Driver(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}

/// Bytes of a grid's errors that are sent. A status travels in a header, three bytes for a byte that is not plain,
/// and common clients refuse headers above 16 KiB altogether.
const GRID_BYTES: usize = 4 << 10;

/// The errors, or as many of the first ones as fit.
fn within_headers(errors: &GridErrors) -> String {
    let total = errors.problems.len();
    let mut shown = errors.clone();
    loop {
        let text = match total - shown.problems.len() {
            0 => shown.to_string(),
            more => format!("{shown}, and of {more} more"),
        };
        if text.len() <= GRID_BYTES || shown.problems.len() <= 1 {
            return text;
        }
        shown.problems.pop();
    }
}
