//! Who this worker is: an id made once and kept in the data folder, which one agent at a time may use.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use common::WorkerId;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another agent uses it.
    #[error("`{}` is used by another agent; give each its own `data-dir`", .0.display())]
    InUse(PathBuf),
    /// The file of the id holds something else.
    #[error("`{}` does not hold a worker id; remove it to get a new one", .0.display())]
    Damaged(PathBuf),
    /// The folder cannot be read or written.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The id of this worker, and the sole right to its data folder while this lives.
#[derive(Debug)]
pub struct Identity {
    /// The id.
    pub worker: WorkerId,
    /// Larger for each agent that claimed the folder.
    pub start: u64,
    _lock: Flock<File>,
}

impl Identity {
    /// Takes the data folder, making folder and id if they are new.
    ///
    /// # Errors
    ///
    /// [`IdentityError::InUse`] while another agent holds the folder.
    pub fn claim(data_dir: &Path) -> Result<Self, IdentityError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { path, source }
        };
        std::fs::create_dir_all(data_dir).map_err(io(data_dir))?;
        let lock_path = data_dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io(&lock_path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => IdentityError::InUse(data_dir.to_owned()),
            errno => IdentityError::Io { path: lock_path, source: errno.into() },
        })?;
        let worker = read_or_make(&data_dir.join("worker-id"))?;
        let start = count_start(&data_dir.join("start"))?;
        Ok(Self { worker, start, _lock: lock })
    }
}

fn read_or_make(path: &Path) -> Result<WorkerId, IdentityError> {
    let io = |source| IdentityError::Io { path: path.to_owned(), source };
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| IdentityError::Damaged(path.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let worker = fresh_id();
            write(path, &worker.to_string()).map_err(io)?;
            Ok(worker)
        }
        Err(error) => Err(io(error)),
    }
}

/// The time in milliseconds, which also holds where the file was lost; but more than the last one, wherever the clock was set.
fn count_start(path: &Path) -> Result<u64, IdentityError> {
    let last = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let start = u64::try_from(now).unwrap_or(u64::MAX).max(last.map_or(1, |last| last.saturating_add(1)));
    write(path, &start.to_string()).map_err(|source| IdentityError::Io { path: path.to_owned(), source })?;
    Ok(start)
}

/// Puts a line into a file, whole or not at all.
fn write(path: &Path, line: &str) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{line}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// 48 bits of a hash of host, process and time: short to read, and unique enough for a cluster.
fn fresh_id() -> WorkerId {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let host = nix::unistd::gethostname().unwrap_or_default();
    let hash = blake3::hash(format!("{host:?} {} {now}", std::process::id()).as_bytes());
    WorkerId(hash.as_bytes()[..6].iter().fold(0, |id, &byte| id << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_keeps_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::claim(folder.path()).unwrap().worker;
        assert_eq!(Identity::claim(folder.path()).unwrap().worker, first);
    }

    #[test]
    fn each_start_has_a_larger_number_than_those_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::claim(folder.path()).unwrap().start;
        let ahead = first + 1_000_000_000;
        std::fs::write(folder.path().join("start"), format!("{ahead}\n")).unwrap();
        assert_eq!(Identity::claim(folder.path()).unwrap().start, ahead + 1, "the clock was set back");
        std::fs::write(folder.path().join("start"), "x").unwrap();
        assert!(Identity::claim(folder.path()).unwrap().start >= first, "what is damaged is counted anew");
    }

    #[test]
    fn a_folder_in_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _held = Identity::claim(folder.path()).unwrap();
        assert!(matches!(Identity::claim(folder.path()), Err(IdentityError::InUse(_))));
    }

    #[test]
    fn a_damaged_id_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("worker-id"), "seven").unwrap();
        let error = Identity::claim(folder.path()).unwrap_err();
        assert!(error.to_string().contains("worker-id"), "{error}");
    }
}
