//! The open database: its trees, and records in them.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::error::{StoreError, database_error, folder_error};
use super::parts::{self, Records};
use super::{DATABASE, DATABASE_FILE, PID_FILE, frame};

/// sled would take 1 GiB. The log is read once and metric rows are read by prefix, so little is gained by more than the
/// pages that are being written: some MiB for a thousand trials. In memory a page takes twice its bytes.
const CACHE_BYTES: u64 = 8 << 20;

/// How long to wait for whoever had the folder before.
const HANDOVER: Duration = Duration::from_secs(1);

/// Trees of the database.
pub(super) const EVENTS: &str = "events";
pub(super) const METRICS: &str = "metrics";
pub(super) const WARNINGS: &str = "warnings";
pub(super) const LOGS: &str = "logs";
pub(super) const SNAPSHOTS: &str = "snapshots";
pub(super) const META: &str = "meta";

#[derive(Clone, Debug)]
pub(super) struct Trees {
    pub(super) path: PathBuf,
    pub(super) db: sled::Db,
    pub(super) events: sled::Tree,
    pub(super) metrics: sled::Tree,
    pub(super) warnings: sled::Tree,
    pub(super) logs: sled::Tree,
    /// Snapshots of the state; see `snapshots`.
    pub(super) snapshots: sled::Tree,
    /// How many commits there were; see `mark`.
    pub(super) meta: sled::Tree,
}

impl Trees {
    /// Opens the database below `data_dir`, and makes it if it is not there. Also its file, to sync it.
    pub(super) fn open(data_dir: &Path) -> Result<(Self, File), StoreError> {
        let folder = |source| folder_error(data_dir, source);
        fs::create_dir_all(data_dir).map_err(folder)?;
        let db = open_database(data_dir)?;
        fs::write(data_dir.join(PID_FILE), std::process::id().to_string()).map_err(folder)?;
        let tree = |name| guarded(data_dir, || db.open_tree(name));
        let trees = Self {
            path: data_dir.to_owned(),
            events: tree(EVENTS)?,
            metrics: tree(METRICS)?,
            warnings: tree(WARNINGS)?,
            logs: tree(LOGS)?,
            snapshots: tree(SNAPSHOTS)?,
            meta: tree(META)?,
            db,
        };
        let database = data_dir.join(DATABASE);
        let file = File::open(database.join(DATABASE_FILE)).map_err(folder)?;
        // The names of what was just made.
        for made in [&database, data_dir] {
            File::open(made).and_then(|made| made.sync_all()).map_err(folder)?;
        }
        Ok((trees, file))
    }

    pub(super) fn error(&self, source: sled::Error) -> StoreError {
        database_error(&self.path, source)
    }

    /// Makes everything that was written before durable.
    pub(super) fn flush(&self, file: &File) -> Result<(), StoreError> {
        self.db.flush().map_err(|source| self.error(source))?;
        file.sync_data().map_err(|source| folder_error(&self.path, source))
    }

    /// Writes a record, unless one with its key is there.
    pub(super) fn put_once(
        &self,
        tree: &sled::Tree,
        key: &[u8],
        body: impl FnOnce() -> Vec<u8>,
    ) -> Result<(), StoreError> {
        if tree.contains_key(parts::part_key(key, 0)).map_err(|source| self.error(source))? {
            return Ok(());
        }
        self.put(tree, key, &frame::seal(key, &body()))
    }

    /// Writes a sealed record.
    pub(super) fn put(&self, tree: &sled::Tree, key: &[u8], record: &[u8]) -> Result<(), StoreError> {
        let mut entries = sled::Batch::default();
        parts::cut(key, record).for_each(|(key, part)| entries.insert(key, part));
        tree.apply_batch(entries).map_err(|source| self.error(source))
    }

    pub(super) fn records(
        &self,
        tree: &'static str,
        entries: sled::Iter,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), StoreError>> + use<> {
        let path = self.path.clone();
        let mut entries = entries;
        // sled panics on pages that it does not understand.
        let entries = std::iter::from_fn(move || {
            let next = catch_unwind(AssertUnwindSafe(|| entries.next()));
            match next {
                Ok(entry) => entry.map(|entry| entry.map_err(|source| database_error(&path, source))),
                Err(_) => Some(Err(StoreError::Abnormal)),
            }
        });
        Records::new(entries, tree)
    }

    pub(super) fn json<T: DeserializeOwned>(
        &self,
        tree: &'static str,
        entries: sled::Iter,
    ) -> impl Iterator<Item = Result<T, StoreError>> + use<T> {
        self.records(tree, entries).map(move |entry| {
            let (key, record) = entry?;
            frame::open(&key, &record)
                .and_then(frame::json)
                .map_err(|source| StoreError::Damaged { tree, source })
        })
    }
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
        match guarded(data_dir, || config.open()) {
            Err(StoreError::Locked { .. }) if start.elapsed() < HANDOVER => thread::sleep(HANDOVER / 50),
            opened => return opened,
        }
    }
}

/// sled panics on a file that it does not understand.
fn guarded<T>(data_dir: &Path, work: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|source| database_error(data_dir, source)),
        Err(_) => {
            let source = io::Error::new(io::ErrorKind::InvalidData, "its file is not understood");
            Err(StoreError::Database { path: data_dir.to_owned(), source: sled::Error::Io(source) })
        }
    }
}
