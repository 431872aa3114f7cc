//! A whole store to one file and back.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::portable::{PortableError, Record, Scan, Section, Writer};
use super::trees::{EVENTS, LOGS, META, METRICS, SNAPSHOTS, Trees, WARNINGS};
use super::{
    COMMITS, DATABASE, END_OF_COMMIT, MARK_FILE, Store, StoreError, StoredSnapshot, frame, snapshots, to_json,
};

/// Folder of an import that is not complete.
const PART: &str = "import.part";

/// Bytes that are written between two flushes of an import.
const FLUSH_BYTES: usize = 8 << 20;

/// Why a store was not exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Nothing is stored there.
    #[error("`{}` holds no coordinator's data", .0.display())]
    NoStore(PathBuf),
    /// Something is stored there.
    #[error("`{}` is not empty: import into a folder that is empty or not there yet", .0.display())]
    NotEmpty(PathBuf),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be written, or the folder not be used.
    #[error("cannot use `{}`", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what was exported.
    #[error("`{}` is not imported", path.display())]
    Portable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PortableError,
    },
}

impl TransferError {
    /// Whether the file was cut, so that its whole records could be taken.
    pub fn is_torn(&self) -> bool {
        matches!(self, Self::Portable { source: PortableError::Torn { whole: 1.. }, .. })
    }
}

/// What to do with a file whose end was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TornTail {
    /// Refuse it.
    Refuse,
    /// Take it up to the last commit that is whole.
    Accept,
}

/// What was exported or imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Transferred {
    /// Records of every kind.
    pub records: u64,
    /// The newest event.
    pub newest_event: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Whether the end of the file was cut.
    pub torn: bool,
}

/// Whether `data_dir` holds a store.
pub(crate) fn is_store(data_dir: &Path) -> bool {
    data_dir.join(DATABASE).is_dir()
}

/// Writes the store below `data_dir` to `file`, which appears when it is whole.
///
/// # Errors
///
/// [`TransferError`]. A damaged record is refused, and then there is no file.
pub fn export(data_dir: &Path, file: &Path) -> Result<Transferred, TransferError> {
    if !is_store(data_dir) {
        return Err(TransferError::NoStore(data_dir.to_owned()));
    }
    let store = Store::open(data_dir)?;
    let failed = |source| TransferError::File { path: file.to_owned(), source };
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = file.with_file_name(name);
    let written = File::create(&part).map_err(failed).and_then(|out| {
        let (out, transferred) = write(&store, BufWriter::new(out), failed)?;
        let out = out.into_inner().map_err(|error| failed(error.into_error()))?;
        out.sync_all().and_then(|()| fs::rename(&part, file)).map_err(failed)?;
        Ok(transferred)
    });
    if written.is_err() {
        // It may not be there at all.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Snapshots come first, each before its head, then events, then the rest: whatever the file is cut to is a
/// state that once was.
fn write<W: io::Write>(
    store: &Store,
    out: W,
    failed: impl Fn(io::Error) -> TransferError + Copy,
) -> Result<(W, Transferred), TransferError> {
    let trees = &store.trees;
    let mut writer = Writer::begin(out).map_err(failed)?;
    let mut put = |section, tree: &'static str, entries: sled::Iter| -> Result<(), TransferError> {
        for entry in trees.records(tree, entries) {
            let (key, record) = entry?;
            frame::open(&key, &record).map_err(|source| StoreError::Damaged { tree, source })?;
            writer.put(section, &key, &record).map_err(failed)?;
        }
        Ok(())
    };
    let kept = StoredSnapshot::all(trees)?;
    for snapshot in kept.iter().rev() {
        let covers = snapshot.covers();
        put(Section::Snapshots, SNAPSHOTS, trees.snapshots.scan_prefix(covers.to_be_bytes()))?;
        put(Section::Meta, META, trees.meta.scan_prefix(snapshots::head_key(covers)))?;
    }
    put(Section::Events, EVENTS, trees.events.iter())?;
    put(Section::Logs, LOGS, trees.logs.iter())?;
    put(Section::Warnings, WARNINGS, trees.warnings.iter())?;
    put(Section::Metrics, METRICS, trees.metrics.iter())?;
    put(Section::Meta, META, trees.meta.scan_prefix(COMMITS))?;
    let (mut out, records) = writer.end().map_err(failed)?;
    out.flush().map_err(failed)?;
    let (newest_event, snapshots) = (store.newest_event(), kept.len() as u64);
    Ok((out, Transferred { records, newest_event, snapshots, torn: false }))
}

/// Makes a store of an exported file, in a folder that is empty or not there yet.
///
/// The file is read to its end before anything is written, and the store appears when it is whole.
///
/// # Errors
///
/// [`TransferError`], and then nothing is left.
pub fn import(file: &Path, data_dir: &Path, torn: TornTail) -> Result<Transferred, TransferError> {
    let folder = |source| TransferError::File { path: data_dir.to_owned(), source };
    fs::create_dir_all(data_dir).map_err(folder)?;
    let part = data_dir.join(PART);
    for entry in fs::read_dir(data_dir).map_err(folder)? {
        if entry.map_err(folder)?.file_name() != PART {
            return Err(TransferError::NotEmpty(data_dir.to_owned()));
        }
    }
    let (whole, cut) = survey(file, torn)?;
    if part.exists() {
        // Of an import that was interrupted.
        fs::remove_dir_all(&part).map_err(folder)?;
    }
    let transferred = fill(file, &part, whole).map(|transferred| Transferred { torn: cut, ..transferred });
    let placed = transferred.and_then(|transferred| {
        // The mark first: alone, it says that something is missing.
        for name in [MARK_FILE, DATABASE] {
            fs::rename(part.join(name), data_dir.join(name)).map_err(folder)?;
        }
        File::open(data_dir).and_then(|made| made.sync_all()).map_err(folder)?;
        Ok(transferred)
    });
    fs::remove_dir_all(&part).map_err(folder)?;
    placed
}

/// Reads the file to its end. Returns how many records of it are taken, and whether its end was cut: then those
/// are given up, too, that became durable only together with what is lost.
fn survey(file: &Path, torn: TornTail) -> Result<(u64, bool), TransferError> {
    let (mut whole, mut complete, mut has_ends) = (0, 0, false);
    for record in scan(file)? {
        match record {
            Ok(Record { section, body, .. }) => {
                whole += 1;
                let ends = section == Section::Events && body.last() == Some(&END_OF_COMMIT);
                has_ends |= ends;
                if ends || section != Section::Events {
                    complete = whole;
                }
            }
            Err(source @ PortableError::Torn { .. }) => {
                // Builds that marked no ends wrote all of these events.
                let taken = if has_ends || complete > 0 { complete } else { whole };
                if torn == TornTail::Accept && taken > 0 {
                    return Ok((taken, true));
                }
                return Err(TransferError::Portable { path: file.to_owned(), source });
            }
            Err(source) => return Err(TransferError::Portable { path: file.to_owned(), source }),
        }
    }
    Ok((whole, false))
}

fn scan(file: &Path) -> Result<Scan<BufReader<File>>, TransferError> {
    let opened = File::open(file).map_err(|source| TransferError::File { path: file.to_owned(), source })?;
    Ok(Scan::new(BufReader::new(opened)))
}

fn fill(file: &Path, folder: &Path, whole: u64) -> Result<Transferred, TransferError> {
    let (trees, database) = Trees::open(folder)?;
    let mut bytes = 0;
    for record in scan(file)?.take(usize::try_from(whole).unwrap_or(usize::MAX)) {
        let Record { section, key, body } =
            record.map_err(|source| TransferError::Portable { path: file.to_owned(), source })?;
        let tree = match section {
            Section::Meta => &trees.meta,
            Section::Snapshots => &trees.snapshots,
            Section::Events => &trees.events,
            Section::Logs => &trees.logs,
            Section::Warnings => &trees.warnings,
            Section::Metrics => &trees.metrics,
            Section::Trailer => continue,
        };
        trees.put(tree, &key, &body)?;
        bytes += body.len();
        if bytes >= FLUSH_BYTES {
            trees.flush(&database)?;
            bytes = 0;
        }
    }
    if super::commits(&trees)? == 0 {
        // The count was in the part that was cut. One more is written, so it cannot be lower than what it was.
        trees.put(&trees.meta, COMMITS, &frame::seal(COMMITS, &to_json(&whole)))?;
    }
    trees.flush(&database)?;
    drop((trees, database));
    // Opened as what it is now, which writes the mark.
    let store = Store::open(folder)?;
    let snapshots = store.snapshots()?.len() as u64;
    Ok(Transferred { records: whole, newest_event: store.newest_event(), snapshots, torn: false })
}
