//! What is small and must survive: the event log, metric rows, warnings and the names of stored logs.
//!
//! The only file that knows sled. It decides how records are framed, checked and made durable together; what
//! they mean is decided elsewhere. Nothing here is durable before [`Store::commit`] returned.
//!
//! sled writes a batch on one tree whole or not at all, so a crash cannot tear a step of the log. What remains
//! to be checked is the disk: each record carries a format number and a checksum over its key and its bytes.
//!
//! On Linux sled's `flush` ends in `sync_file_range`, which hands the pages to the disk but neither empties the
//! disk's cache nor writes the file's metadata. That survives the death of this process, and not a loss of
//! power. So a commit syncs the database's file itself, too; and see `parts` for what sled would put elsewhere.

mod frame;
mod parts;
mod records;
mod rows;

use std::fs::{self, File};
use std::io::{self, ErrorKind as Io};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::result::MetricRow;
use common::{AttemptId, Digest, TrialId};
use coordinator_core::Event;
use proto::status::{ErrorKind, Kind};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use frame::FrameError;
use parts::Records;
pub use records::{Batch, MetricReport, StoredLog, Warning};

/// sled would take 1 GiB. The log is read once and metric rows are read by prefix, so little is gained by more.
const CACHE_BYTES: u64 = 64 << 20;

/// How long to wait for whoever had the folder before.
const HANDOVER: Duration = Duration::from_secs(1);

/// Trees of the database.
const EVENTS: &str = "events";
const METRICS: &str = "metrics";
const WARNINGS: &str = "warnings";
const LOGS: &str = "logs";

/// Folder of the database below the data folder.
const DATABASE: &str = "state";

/// The database's file within its folder.
const DATABASE_FILE: &str = "db";

/// File that names the process that holds the data folder. The lock itself is sled's.
const PID_FILE: &str = "coordinator.pid";

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
    #[error("no space is left for `{}`: free some, then start the coordinator again", path.display())]
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
    /// The database gave up in a way that it should not.
    #[error("the database ended abnormally while it wrote")]
    Abnormal,
}

impl Kind for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Full { .. } => ErrorKind::ResourceExhausted,
            Self::Locked { .. } | Self::Permission { .. } | Self::Database { .. } | Self::Folder { .. } => {
                ErrorKind::Unavailable
            }
            Self::DamagedEvent { .. } | Self::Gap { .. } | Self::ForeignKey { .. } | Self::Damaged { .. } => {
                ErrorKind::DataLoss
            }
            Self::Abnormal => ErrorKind::Internal,
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

/// The open database. There is one writer; see [`Store::reader`] for the others.
#[derive(Debug)]
pub struct Store {
    trees: Trees,
    /// The database's file, to sync it.
    file: File,
    next_event: u64,
}

/// Reads what is beside the log, while the store writes.
#[derive(Clone, Debug)]
pub struct Reader {
    trees: Trees,
}

#[derive(Clone, Debug)]
struct Trees {
    path: PathBuf,
    db: sled::Db,
    events: sled::Tree,
    metrics: sled::Tree,
    warnings: sled::Tree,
    logs: sled::Tree,
}

impl Store {
    /// Opens the database below `data_dir`, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] when another process has it; else what the folder or the database said.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let folder = |source| folder_error(data_dir, source);
        fs::create_dir_all(data_dir).map_err(folder)?;
        let failed = |source| database_error(data_dir, source);
        let db = open_database(data_dir)?;
        fs::write(data_dir.join(PID_FILE), std::process::id().to_string()).map_err(folder)?;
        let tree = |name| db.open_tree(name).map_err(failed);
        let trees = Trees {
            path: data_dir.to_owned(),
            events: tree(EVENTS)?,
            metrics: tree(METRICS)?,
            warnings: tree(WARNINGS)?,
            logs: tree(LOGS)?,
            db,
        };
        let next_event = match trees.events.last().map_err(failed)? {
            Some((part, _)) => sequence_of(parts::record_key(&part, EVENTS)?)? + 1,
            None => 1,
        };
        let database = data_dir.join(DATABASE);
        let file = File::open(database.join(DATABASE_FILE)).map_err(folder)?;
        // The names of what was just made.
        for made in [&database, data_dir] {
            File::open(made).and_then(|made| made.sync_all()).map_err(folder)?;
        }
        Ok(Self { trees, file, next_event })
    }

    /// Every event, oldest first.
    ///
    /// # Errors
    ///
    /// The first record that is missing or not what was written ends the replay: what follows rests on it.
    pub fn events(&self) -> impl Iterator<Item = Result<Event, StoreError>> + '_ {
        self.trees.records(EVENTS, self.trees.events.iter()).zip(1..).map(|(entry, expected)| {
            let (key, record) = entry?;
            let found = sequence_of(&key)?;
            if found != expected {
                return Err(StoreError::Gap { expected, found });
            }
            frame::open(&key, &record)
                .and_then(frame::json)
                .map_err(|source| StoreError::DamagedEvent { sequence: expected, source })
        })
    }

    /// Makes a batch durable. When this returns, it survives a loss of power.
    ///
    /// # Errors
    ///
    /// When this fails, the batch may be durable or not: the caller must stop and replay the log.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.append(&batch.events)?;
        for report in &batch.metrics {
            let key = key3(report.trial.0, report.attempt.0, report.sequence);
            self.trees.put_once(&self.trees.metrics, &key, || rows::encode(&report.rows))?;
        }
        for (trial, warning) in &batch.warnings {
            // One that is repeated, by a resend or by every step, is kept once.
            let [a, b, c, d, e, f, g, h, ..] = Digest::of(warning.message.as_bytes()).0;
            let message = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            let key = key3(trial.0, warning.attempt.0, message);
            self.trees.put_once(&self.trees.warnings, &key, || to_json(warning))?;
        }
        for (attempt, rank, log) in &batch.logs {
            self.trees.put_once(&self.trees.logs, &log_key(*attempt, *rank), || to_json(log))?;
        }
        self.trees.db.flush().map_err(|source| self.trees.error(source))?;
        self.file.sync_data().map_err(|source| folder_error(&self.trees.path, source))
    }

    /// A handle for everybody who only reads.
    pub fn reader(&self) -> Reader {
        Reader { trees: self.trees.clone() }
    }

    fn append(&mut self, events: &[Event]) -> Result<(), StoreError> {
        let mut entries = sled::Batch::default();
        for (event, sequence) in events.iter().zip(self.next_event..) {
            let key = sequence.to_be_bytes();
            let record = frame::seal(&key, &to_json(event));
            parts::cut(&key, &record).for_each(|(key, part)| entries.insert(key, part));
        }
        self.trees.events.apply_batch(entries).map_err(|source| self.trees.error(source))?;
        self.next_event += events.len() as u64;
        Ok(())
    }
}

impl Reader {
    /// Rows of a trial, by attempt and in the order in which each reported them.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or a record is not what was written.
    pub fn metrics(&self, trial: TrialId) -> Result<Vec<(AttemptId, Vec<MetricRow>)>, StoreError> {
        let entries = self.trees.metrics.scan_prefix(trial.0.to_be_bytes());
        let records = self.trees.records(METRICS, entries).map(|entry| {
            let (key, record) = entry?;
            let attempt = attempt_of(&key).ok_or(StoreError::ForeignKey { tree: METRICS })?;
            let rows = frame::open(&key, &record).and_then(rows::decode);
            Ok((attempt, rows.map_err(|source| StoreError::Damaged { tree: METRICS, source })?))
        });
        records.collect()
    }

    /// Warnings of a trial, oldest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or a record is not what was written.
    pub fn warnings(&self, trial: TrialId) -> Result<Vec<Warning>, StoreError> {
        let entries = self.trees.warnings.scan_prefix(trial.0.to_be_bytes());
        let mut warnings: Vec<Warning> = self.trees.json(WARNINGS, entries).collect::<Result<_, _>>()?;
        warnings.sort_by_key(|warning| warning.at);
        Ok(warnings)
    }

    /// The stored log of a rank, if it was stored.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or the record is not what was written.
    pub fn log(&self, attempt: AttemptId, rank: u32) -> Result<Option<StoredLog>, StoreError> {
        let entries = self.trees.logs.scan_prefix(log_key(attempt, rank));
        self.trees.json(LOGS, entries).next().transpose()
    }

    /// Blobs of every stored log.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or a record is not what was written.
    pub fn log_blobs(&self) -> Result<Vec<Digest>, StoreError> {
        let logs = self.trees.json(LOGS, self.trees.logs.iter());
        logs.map(|log| log.map(|log: StoredLog| log.digest)).collect()
    }
}

impl Trees {
    fn error(&self, source: sled::Error) -> StoreError {
        database_error(&self.path, source)
    }

    /// Writes a record, unless one with its key is there.
    fn put_once(
        &self,
        tree: &sled::Tree,
        key: &[u8],
        body: impl FnOnce() -> Vec<u8>,
    ) -> Result<(), StoreError> {
        let failed = |source| self.error(source);
        if tree.contains_key(parts::part_key(key, 0)).map_err(failed)? {
            return Ok(());
        }
        let record = frame::seal(key, &body());
        let mut entries = sled::Batch::default();
        parts::cut(key, &record).for_each(|(key, part)| entries.insert(key, part));
        tree.apply_batch(entries).map_err(failed)
    }

    fn records(
        &self,
        tree: &'static str,
        entries: sled::Iter,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), StoreError>> {
        Records::new(entries.map(|entry| entry.map_err(|source| self.error(source))), tree)
    }

    fn json<T: DeserializeOwned>(
        &self,
        tree: &'static str,
        entries: sled::Iter,
    ) -> impl Iterator<Item = Result<T, StoreError>> {
        self.records(tree, entries).map(move |entry| {
            let (key, record) = entry?;
            frame::open(&key, &record)
                .and_then(frame::json)
                .map_err(|source| StoreError::Damaged { tree, source })
        })
    }
}

fn log_key(attempt: AttemptId, rank: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&attempt.0.to_be_bytes());
    key[8..].copy_from_slice(&rank.to_be_bytes());
    key
}

/// A database that was closed lets go of its lock a moment later, from a thread of its own.
fn open_database(data_dir: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(data_dir.join(DATABASE))
        .cache_capacity(CACHE_BYTES)
        // Durability is decided by `commit` alone.
        .flush_every_ms(None);
    let start = Instant::now();
    loop {
        match config.open().map_err(|source| database_error(data_dir, source)) {
            Err(StoreError::Locked { .. }) if start.elapsed() < HANDOVER => thread::sleep(HANDOVER / 50),
            opened => return opened,
        }
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have string keys only, so they have a JSON form")
}

fn key3(first: u64, second: u64, third: u64) -> [u8; 24] {
    let mut key = [0; 24];
    // Big-endian, so that the order of keys is the order of numbers.
    for (part, number) in key.chunks_exact_mut(8).zip([first, second, third]) {
        part.copy_from_slice(&number.to_be_bytes());
    }
    key
}

fn sequence_of(key: &[u8]) -> Result<u64, StoreError> {
    let key = key.try_into().map_err(|_| StoreError::ForeignKey { tree: EVENTS })?;
    Ok(u64::from_be_bytes(key))
}

fn attempt_of(key: &[u8]) -> Option<AttemptId> {
    let bytes = key.get(8..16)?.try_into().ok()?;
    Some(AttemptId(u64::from_be_bytes(bytes)))
}

fn folder_error(path: &Path, source: io::Error) -> StoreError {
    let path = path.to_owned();
    match source.kind() {
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => StoreError::Full { path, source },
        Io::PermissionDenied | Io::ReadOnlyFilesystem => StoreError::Permission { path, source },
        _ => StoreError::Folder { path, source },
    }
}

fn database_error(path: &Path, source: sled::Error) -> StoreError {
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

#[cfg(test)]
mod tests;
