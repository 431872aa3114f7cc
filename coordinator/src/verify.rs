//! Whether a data folder holds what it says it holds: every record of the store, every blob, and what refers to it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use common::Digest;
use coordinator_core::{Cluster, Millis, Policy};
use serde::Serialize;

use crate::driver::{recover, recover_from};
use crate::store::{Counts, Store, StoreError, TransferError, is_store};

/// What a data folder holds, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Records of the store.
    pub records: Counts,
    /// Number of the newest event.
    pub newest_event: u64,
    /// Experiments of the state.
    pub experiments: usize,
    /// Trials of the state.
    pub trials: usize,
    /// Blobs, and their size.
    pub blobs: Files,
    /// Blobs that nothing refers to, and what uploads left: the coordinator removes them in time.
    pub garbage: Files,
    /// What is wrong, each with the way out.
    pub damage: Vec<String>,
}

/// How many files there are, and how large they are together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    /// Number.
    pub count: u64,
    /// Size.
    pub bytes: u64,
}

impl Files {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// Why a folder was not looked at.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is no store, or it cannot be opened.
    #[error(transparent)]
    Store(#[from] TransferError),
    /// The blobs cannot be read.
    #[error("cannot read `{}`", path.display())]
    Blobs {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads everything below `data_dir`. Nothing is mended.
///
/// # Errors
///
/// [`VerifyError`] when a coordinator has the folder, or it cannot be read. Damage is no error: it is what is
/// looked for.
pub fn verify(data_dir: &Path) -> Result<Verified, VerifyError> {
    if !is_store(data_dir) {
        return Err(TransferError::NoStore(data_dir.to_owned()).into());
    }
    let mut found = Verified::default();
    let store = match Store::open(data_dir) {
        Ok(store) => store,
        Err(
            error @ (StoreError::Locked { .. } | StoreError::Permission { .. } | StoreError::Full { .. }),
        ) => {
            return Err(TransferError::from(error).into());
        }
        Err(error) => {
            found.damage.push(proto::status::chain(&error));
            return Ok(found);
        }
    };
    found.newest_event = store.newest_event();
    let (records, damage) = store.check();
    found.records = records;
    found.damage.extend(damage);
    let blobs = blobs(&data_dir.join("blobs"), &mut found)?;
    if let Some(cluster) = state(&store, &mut found) {
        references(&cluster, &store, &blobs, &mut found);
    }
    Ok(found)
}

/// The state, if it can be read; also whether each snapshot is what the one before it and the events come to.
fn state(store: &Store, found: &mut Verified) -> Option<Cluster> {
    let (policy, now) = (Policy::default(), Millis(0));
    let recovered = match recover(store, &policy, now) {
        Ok(recovered) => recovered,
        Err(error) => {
            found.damage.push(proto::status::chain(&error));
            return None;
        }
    };
    found.damage.extend(recovered.damaged.iter().map(|error| {
        format!("{}; an older one and the events since take its place", proto::status::chain(error))
    }));
    let cluster = recovered.cluster;
    if let Err(violation) = cluster.check() {
        found
            .damage
            .push(format!("the log leads to a state that should not exist, please report it: {violation}"));
    }
    for older in store.snapshots().into_iter().flatten().filter(|older| older.covers() < recovered.covered) {
        // One that is damaged, or whose events are gone, was said above or is not needed.
        let Ok(other) = recover_from(store, &older, &policy, now) else { continue };
        if !other.cluster.same_durable_state(&cluster) {
            found.damage.push(format!(
                "the snapshot of the first {} events is not what the events since {} lead to, please report it",
                recovered.covered,
                older.covers()
            ));
        }
    }
    found.experiments = cluster.experiments().count();
    found.trials = cluster.trials().count();
    Some(cluster)
}

/// Sizes of the blobs that are whole. Damaged ones are said.
fn blobs(folder: &Path, found: &mut Verified) -> Result<BTreeMap<Digest, u64>, VerifyError> {
    let mut whole = BTreeMap::new();
    let mut folders = if folder.is_dir() { vec![folder.to_owned()] } else { Vec::new() };
    while let Some(folder) = folders.pop() {
        let failed = |source| VerifyError::Blobs { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let failed = |source| VerifyError::Blobs { path: path.clone(), source };
            let bytes = path.metadata().map_err(failed)?.len();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Ok(digest) = name.parse::<Digest>() else {
                found.garbage.add(bytes);
                continue;
            };
            found.blobs.add(bytes);
            let mut hasher = blake3::Hasher::new();
            File::open(&path).and_then(|mut file| io::copy(&mut file, &mut hasher)).map_err(failed)?;
            if hasher.finalize().as_bytes() == &digest.0 {
                whole.insert(digest, bytes);
            } else {
                found.damage.push(format!(
                    "`{}` does not hash to its name: put a whole copy there, or remove it",
                    path.display()
                ));
            }
        }
    }
    Ok(whole)
}

/// Whether every blob that a record names is there, and what no record names.
fn references(cluster: &Cluster, store: &Store, blobs: &BTreeMap<Digest, u64>, found: &mut Verified) {
    let mut garbage = blobs.clone();
    let mut look = |what: String, digest: Digest, bytes: u64, way_out: &str, damage: &mut Vec<String>| {
        garbage.remove(&digest);
        match blobs.get(&digest) {
            Some(&size) if size == bytes => {}
            Some(size) => damage.push(format!("{what} has {size} bytes and not {bytes}: {way_out}")),
            None => damage.push(format!("{what}, blob {digest}, is missing or damaged: {way_out}")),
        }
    };
    for (id, trial) in cluster.trials() {
        for held in &trial.checkpoints {
            let what = format!("the checkpoint of step {} of {id} ({})", held.step, trial.label);
            let way_out = "restore it from a copy, or do nothing: its trial goes on from an older one, or trains again \
                           when somebody needs it";
            look(what, held.digest, held.bytes, way_out, &mut found.damage);
        }
        for artifact in trial.result().into_iter().flat_map(|result| &result.artifacts) {
            let what = format!("`{}` of {id} ({})", artifact.name, trial.label);
            look(what, artifact.digest, artifact.bytes, "restore it from a copy", &mut found.damage);
        }
    }
    match store.reader().logs() {
        Ok(logs) => {
            for log in logs {
                let way_out = "restore it from a copy, or do without it";
                look("a log".to_owned(), log.digest, log.bytes, way_out, &mut found.damage);
            }
        }
        // Said by the store's own check.
        Err(_) => return,
    }
    garbage.values().for_each(|&bytes| found.garbage.add(bytes));
}
