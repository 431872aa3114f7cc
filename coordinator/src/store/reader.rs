//! Reads what is beside the log, while the store writes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use common::result::MetricRow;
use common::{AttemptId, Digest, TrialId};

use super::error::StoreError;
use super::records::{StoredLog, Warning};
use super::trees::{LOGS, METRICS, Trees, WARNINGS};
use super::{attempt_of, frame, log_key};

/// Reads what is beside the log, while the store writes. Clones share the database.
#[derive(Clone, Debug)]
pub struct Reader {
    path: PathBuf,
    /// `None` while the database is closed.
    trees: Arc<RwLock<Option<Trees>>>,
}

impl Reader {
    /// A reader of a database that is not open yet.
    pub(super) fn closed(path: &Path) -> Self {
        Self { path: path.to_owned(), trees: Arc::default() }
    }

    pub(super) fn open(&self, trees: Trees) {
        *self.trees.write().unwrap_or_else(PoisonError::into_inner) = Some(trees);
    }

    /// Lets go of the database, so that it can be opened again.
    pub(super) fn close(&self) {
        *self.trees.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The data folder.
    pub fn folder(&self) -> &Path {
        &self.path
    }

    fn trees(&self) -> Result<Trees, StoreError> {
        let trees = self.trees.read().unwrap_or_else(PoisonError::into_inner);
        trees.clone().ok_or_else(|| StoreError::Closed { path: self.path.clone() })
    }

    /// Rows of a trial, by attempt and in the order in which each reported them.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or a record is not what was written.
    pub fn metrics(&self, trial: TrialId) -> Result<Vec<(AttemptId, Vec<MetricRow>)>, StoreError> {
        let trees = self.trees()?;
        let entries = trees.metrics.scan_prefix(trial.0.to_be_bytes());
        let records = trees.records(METRICS, entries).map(|entry| {
            let (key, record) = entry?;
            let attempt = attempt_of(&key).ok_or(StoreError::ForeignKey { tree: METRICS })?;
            let rows = frame::open(&key, &record).and_then(frame::rows);
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
        let trees = self.trees()?;
        let entries = trees.warnings.scan_prefix(trial.0.to_be_bytes());
        let mut warnings: Vec<Warning> = trees.json(WARNINGS, entries).collect::<Result<_, _>>()?;
        warnings.sort_by_key(|warning| warning.at);
        Ok(warnings)
    }

    /// The stored log of a rank, if it was stored.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or the record is not what was written.
    pub fn log(&self, attempt: AttemptId, rank: u32) -> Result<Option<StoredLog>, StoreError> {
        let trees = self.trees()?;
        let entries = trees.logs.scan_prefix(log_key(attempt, rank));
        trees.json(LOGS, entries).next().transpose()
    }

    /// Every stored log.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or a record is not what was written.
    pub fn logs(&self) -> Result<Vec<StoredLog>, StoreError> {
        let trees = self.trees()?;
        trees.json(LOGS, trees.logs.iter()).collect()
    }

    /// Blobs of every stored log.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or a record is not what was written.
    pub fn log_blobs(&self) -> Result<Vec<Digest>, StoreError> {
        Ok(self.logs()?.into_iter().map(|log| log.digest).collect())
    }
}
