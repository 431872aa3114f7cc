//! Why the store refuses, or can no longer go on; each with the way out.

use std::fs;
use std::io::{self, ErrorKind as Io};
use std::path::{Path, PathBuf};

use proto::status::{ErrorKind, Kind};

use super::frame::FrameError;
use super::{DATABASE, MARK_FILE, PID_FILE};

/// Why the store refuses, or can no longer go on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the folder.
    #[error("`{}` is in use by {holder}: stop it, or give this coordinator another data-dir", path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
        /// Who has it, as far as is known.
        holder: Holder,
    },
    /// Not allowed to read or write.
    #[error("no permission for `{}`: let the coordinator's user own the folder", path.display())]
    Permission {
        /// The data folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// No space is left.
    #[error("no space is left for `{}`: free some", path.display())]
    Full {
        /// The data folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Reading or writing failed.
    #[error("cannot use the database in `{}`", path.display())]
    Database {
        /// The data folder.
        path: PathBuf,
        /// What the database said.
        source: sled::Error,
    },
    /// The folder cannot be made or read.
    #[error("cannot use the folder `{}`", path.display())]
    Folder {
        /// The data folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A record is not what was written.
    #[error("record {sequence} of the event log is damaged: restore `{DATABASE}` from a copy")]
    DamagedEvent {
        /// Its sequence number.
        sequence: u64,
        /// What is wrong with it.
        source: FrameError,
    },
    /// Records are missing in the middle of the log.
    #[error(
        "record {expected} of the event log is missing, {found} follows: restore `{DATABASE}` from a copy"
    )]
    Gap {
        /// The first number that is missing.
        expected: u64,
        /// The number that was found.
        found: u64,
    },
    /// A key that this program never writes.
    #[error("`{tree}` holds a key that no coordinator writes")]
    ForeignKey {
        /// The tree.
        tree: &'static str,
    },
    /// A record beside the log is not what was written.
    #[error("a record of `{tree}` is damaged")]
    Damaged {
        /// The tree.
        tree: &'static str,
        /// What is wrong with it.
        source: FrameError,
    },
    /// A snapshot is not what was written, and neither an older one nor the events that it covers are there.
    #[error(
        "the snapshot of the first {covers} events is damaged, and they are gone: restore `{DATABASE}` from a copy or an export"
    )]
    DamagedSnapshot {
        /// The last event that it covers.
        covers: u64,
        /// What is wrong with it.
        source: FrameError,
    },
    /// The database is older than what was acknowledged.
    #[error(
        "the database holds {commits} commits and {events} events, but {acknowledged_commits} commits and \
         {acknowledged_events} events were acknowledged: its end is lost. Restore `{DATABASE}` from a copy or an export; \
         to go on with what is left, remove `{}`",
        path.join(MARK_FILE).display()
    )]
    Lost {
        /// The data folder.
        path: PathBuf,
        /// Commits that are there.
        commits: u64,
        /// Newest event that is there.
        events: u64,
        /// Commits that were acknowledged.
        acknowledged_commits: u64,
        /// Newest event that was acknowledged.
        acknowledged_events: u64,
    },
    /// Nobody can say any more what was acknowledged.
    #[error(
        "`{}` is damaged, so nobody can say whether the database is whole: check it with `credence store verify`, then \
         remove the file",
        path.join(MARK_FILE).display()
    )]
    DamagedMark {
        /// The data folder.
        path: PathBuf,
    },
    /// The database is closed until the disk takes writes again.
    #[error("the database in `{}` is closed until the disk takes writes again", path.display())]
    Closed {
        /// The data folder.
        path: PathBuf,
    },
    /// The database gave up in a way that it should not.
    #[error("the database ended abnormally while it wrote")]
    Abnormal,
}

impl Kind for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Full { .. } => ErrorKind::ResourceExhausted,
            Self::Permission { .. } => ErrorKind::FailedPrecondition,
            Self::Locked { .. } | Self::Database { .. } | Self::Folder { .. } => ErrorKind::Unavailable,
            Self::Closed { .. } => ErrorKind::Unavailable,
            Self::DamagedEvent { .. }
            | Self::DamagedSnapshot { .. }
            | Self::DamagedMark { .. }
            | Self::Lost { .. }
            | Self::Gap { .. }
            | Self::ForeignKey { .. }
            | Self::Damaged { .. } => ErrorKind::DataLoss,
            Self::Abnormal => ErrorKind::Internal,
        }
    }
}

impl StoreError {
    /// What the operating system said about a data folder.
    pub(crate) fn of_folder(path: &Path, source: io::Error) -> Self {
        folder_error(path, source)
    }

    /// Whether the disk may take writes again, without anybody having to mend what is stored.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Full { .. } | Self::Permission { .. } | Self::Folder { .. } | Self::Closed { .. } => true,
            Self::Locked { .. }
            | Self::Database { .. }
            | Self::DamagedEvent { .. }
            | Self::DamagedSnapshot { .. }
            | Self::DamagedMark { .. }
            | Self::Lost { .. }
            | Self::Gap { .. }
            | Self::ForeignKey { .. }
            | Self::Damaged { .. }
            | Self::Abnormal => false,
        }
    }
}

/// Who holds a data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The process of this id.
    Process(u32),
    /// A process that left no id.
    Unknown,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "the coordinator with process id {pid}"),
            Self::Unknown => f.write_str("another coordinator"),
        }
    }
}

pub(super) fn folder_error(path: &Path, source: io::Error) -> StoreError {
    let path = path.to_owned();
    match source.kind() {
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => StoreError::Full { path, source },
        Io::PermissionDenied | Io::ReadOnlyFilesystem => StoreError::Permission { path, source },
        _ => StoreError::Folder { path, source },
    }
}

pub(super) fn database_error(path: &Path, source: sled::Error) -> StoreError {
    match source {
        // sled 0.34 has no variant for it.
        sled::Error::Io(source) if source.to_string().starts_with("could not acquire lock") => {
            StoreError::Locked { path: path.to_owned(), holder: holder(path) }
        }
        sled::Error::Io(source) => folder_error(path, source),
        source => StoreError::Database { path: path.to_owned(), source },
    }
}

fn holder(data_dir: &Path) -> Holder {
    let pid = fs::read_to_string(data_dir.join(PID_FILE)).ok().and_then(|text| text.trim().parse().ok());
    pid.map_or(Holder::Unknown, Holder::Process)
}
