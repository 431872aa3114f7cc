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

mod check;
mod error;
mod frame;
mod mark;
mod parts;
mod portable;
mod reader;
mod records;
mod snapshots;
mod transfer;
mod trees;

use std::fs::File;
use std::path::Path;

use common::result::rows;
use common::{AttemptId, Digest};
use coordinator_core::Event;
use serde::Serialize;

pub use check::Counts;
use error::folder_error;
pub use error::{Holder, StoreError};
pub use frame::FrameError;
use mark::{Acknowledged, Mark};
pub use portable::PortableError;
pub use reader::Reader;
pub use records::{Batch, MetricReport, StoredLog, Warning};
pub use snapshots::{Compactor, Stage, StoredSnapshot};
pub(crate) use transfer::is_store;
pub use transfer::{TornTail, TransferError, Transferred, export, import};
use trees::{EVENTS, META, Trees};

/// Folder of the database below the data folder.
const DATABASE: &str = "state";

/// The database's file within its folder.
const DATABASE_FILE: &str = "db";

/// File beside the database that says what was acknowledged.
const MARK_FILE: &str = "acknowledged";

/// Last byte of the last event of a commit. JSON does not mind it, and a file that was cut can be cut back to it:
/// between two events of a step the state is none that ever was.
const END_OF_COMMIT: u8 = b'\n';

/// Key of the number of commits.
const COMMITS: &[u8] = b"commits";

/// File that names the process that holds the data folder. The lock itself is sled's.
const PID_FILE: &str = "coordinator.pid";

/// The open database. There is one writer; see [`Store::reader`] for the others.
#[derive(Debug)]
pub struct Store {
    trees: Trees,
    /// The database's file, to sync it.
    file: File,
    next_event: u64,
    commits: u64,
    mark: Mark,
    reader: Reader,
}

impl Store {
    /// Opens the database below `data_dir`, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] when another process has it; [`StoreError::Lost`] when it holds less than was
    /// acknowledged; else what the folder or the database said.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_for(Reader::closed(data_dir), data_dir)
    }

    /// Opens the database again after it was closed. Readers of the earlier one read this one.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_for(reader: Reader, data_dir: &Path) -> Result<Self, StoreError> {
        let (trees, file) = Trees::open(data_dir)?;
        let (mark, acknowledged) = Mark::open(data_dir)?;
        let next_event = 1 + newest_event(&trees)?.max(snapshots::newest_covered(&trees)?);
        let commits = commits(&trees)?;
        let mut store = Self { trees, file, next_event, commits, mark, reader };
        match acknowledged {
            Some(acknowledged) => store.compare(acknowledged)?,
            // Made by a build that kept no mark, or just now.
            None => store.acknowledge()?,
        }
        store.reader.open(store.trees.clone());
        Ok(store)
    }

    /// Refuses a database that is older than what was acknowledged.
    fn compare(&self, acknowledged: Acknowledged) -> Result<(), StoreError> {
        let (commits, events) = (self.commits, self.newest_event());
        if commits >= acknowledged.commits && events >= acknowledged.events {
            return Ok(());
        }
        Err(StoreError::Lost {
            path: self.trees.path.clone(),
            commits,
            events,
            acknowledged_commits: acknowledged.commits,
            acknowledged_events: acknowledged.events,
        })
    }

    fn acknowledge(&mut self) -> Result<(), StoreError> {
        let what = Acknowledged { commits: self.commits, events: self.newest_event() };
        self.mark.note(what).map_err(|source| folder_error(&self.trees.path, source))
    }

    /// Number of the newest event; 0 when there is none.
    pub fn newest_event(&self) -> u64 {
        self.next_event - 1
    }

    /// Every event after the first `covered`, oldest first.
    ///
    /// # Errors
    ///
    /// The first record that is missing or not what was written ends the replay: what follows rests on it.
    pub fn events_after(&self, covered: u64) -> impl Iterator<Item = Result<Event, StoreError>> + '_ {
        let first = covered + 1;
        let entries = self.trees.events.range(first.to_be_bytes()..);
        // A database without its newest events is not whole either.
        let last = self.newest_event();
        let mut records = self.trees.records(EVENTS, entries);
        (first..=last).map(move |expected| {
            let entry = records.next().unwrap_or(Err(StoreError::Gap { expected, found: last + 1 }));
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
        // Last, so that where it is, all before it is.
        self.commits += 1;
        self.trees.put(&self.trees.meta, COMMITS, &frame::seal(COMMITS, &to_json(&self.commits)))?;
        self.trees.flush(&self.file)?;
        self.acknowledge()
    }

    /// Snapshots of the state, the newest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn snapshots(&self) -> Result<Vec<StoredSnapshot>, StoreError> {
        StoredSnapshot::all(&self.trees)
    }

    /// A handle to write snapshots with, while this one writes events.
    ///
    /// # Errors
    ///
    /// When the database's file cannot be opened once more.
    pub fn compactor(&self) -> Result<Compactor, StoreError> {
        Compactor::new(&self.trees, &self.file)
    }

    /// Number of the oldest event that is there; `None` when there is none.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn oldest_event(&self) -> Result<Option<u64>, StoreError> {
        let oldest = self.trees.events.first().map_err(|source| self.trees.error(source))?;
        oldest.map(|(part, _)| sequence_of(parts::record_key(&part, EVENTS)?)).transpose()
    }

    /// A handle for everybody who only reads.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    fn append(&mut self, events: &[Event]) -> Result<(), StoreError> {
        let mut entries = sled::Batch::default();
        for (event, sequence) in events.iter().zip(self.next_event..) {
            let key = sequence.to_be_bytes();
            let mut body = to_json(event);
            if sequence + 1 == self.next_event + events.len() as u64 {
                body.push(END_OF_COMMIT);
            }
            let record = frame::seal(&key, &body);
            parts::cut(&key, &record).for_each(|(key, part)| entries.insert(key, part));
        }
        self.trees.events.apply_batch(entries).map_err(|source| self.trees.error(source))?;
        self.next_event += events.len() as u64;
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Whoever holds the database open keeps it from being opened again.
        self.reader.close();
    }
}

/// Number of the newest event in the log; 0 when there is none.
fn newest_event(trees: &Trees) -> Result<u64, StoreError> {
    match trees.events.last().map_err(|source| trees.error(source))? {
        Some((part, _)) => sequence_of(parts::record_key(&part, EVENTS)?),
        None => Ok(0),
    }
}

/// How many commits the database holds; 0 in one of a build that did not count them.
fn commits(trees: &Trees) -> Result<u64, StoreError> {
    let count = trees.json(META, trees.meta.scan_prefix(COMMITS)).next();
    Ok(count.transpose()?.unwrap_or(0))
}

fn log_key(attempt: AttemptId, rank: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&attempt.0.to_be_bytes());
    key[8..].copy_from_slice(&rank.to_be_bytes());
    key
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

#[cfg(test)]
mod tests;
