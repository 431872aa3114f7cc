//! Checkpoints by digest, kept so that the next attempt on this worker need not fetch them again.
//!
//! What is taken out of the cache is a hard link, so pruning never takes a file from a running trainer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::Digest;

/// What was used within this time is not pushed out for what may never be used.
const RECENT: Duration = Duration::from_secs(60 * 60);

/// This part of the disk is left to others: one in so many blocks.
const LEFT: u64 = 20;

/// A folder of files named by their digests.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    limit_bytes: u64,
}

impl Cache {
    /// Opens the cache, making its folder and removing what an earlier agent left half-written.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made or read.
    pub fn open(folder: PathBuf, limit_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { folder, limit_bytes })
    }

    /// Where a download of `digest` for `purpose` is written before it is [adopted](Self::adopt).
    pub fn part(&self, digest: &Digest, purpose: &str) -> PathBuf {
        self.folder.join(format!("{digest}-{purpose}.part"))
    }

    /// Links the file of `digest` to `target` if it is here and whole. A damaged one is removed.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, linked or removed.
    pub fn take(&self, digest: &Digest, target: &Path) -> io::Result<bool> {
        let path = self.path(digest);
        match file_digest(&path) {
            Ok((found, _)) if found == *digest => {
                link(&path, target)?;
                Ok(true)
            }
            Ok(_) => {
                tracing::warn!(%digest, "a cached checkpoint is damaged and is removed");
                fs::remove_file(&path)?;
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the file of `digest` is here, whole or not; then it counts as used now.
    ///
    /// # Errors
    ///
    /// When it cannot be touched.
    pub fn refresh(&self, digest: &Digest) -> io::Result<bool> {
        match touch(&self.path(digest)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether `bytes` more have a place without pushing out anything that was used of late, and without filling the disk.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn can_spare(&self, bytes: u64) -> io::Result<bool> {
        let since = SystemTime::now() - RECENT;
        let files = self.files()?;
        let used: u64 = files.iter().filter(|(used, ..)| *used >= since).map(|&(_, bytes, _)| bytes).sum();
        if used.saturating_add(bytes) > self.limit_bytes {
            return Ok(false);
        }
        let disk = nix::sys::statvfs::statvfs(&self.folder)?;
        let after = disk.blocks_available().saturating_sub(bytes.div_ceil(disk.fragment_size().max(1)));
        Ok(after > disk.blocks() / LEFT)
    }

    /// Moves a file whose digest is known to be `digest` into the cache, then prunes.
    ///
    /// # Errors
    ///
    /// When the file cannot be moved, which leaves it where it was.
    pub fn adopt(&self, file: &Path, digest: &Digest) -> io::Result<()> {
        fs::rename(file, self.path(digest))?;
        self.prune()
    }

    /// Links a file whose digest is known to be `digest` to `target`, then [adopts](Self::adopt) it.
    ///
    /// # Errors
    ///
    /// When the file cannot be linked.
    pub fn adopt_for(&self, file: &Path, digest: &Digest, target: &Path) -> io::Result<()> {
        link(file, target)?;
        self.adopt(file, digest)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    /// Removes the files that were used least recently until the rest fits.
    fn prune(&self) -> io::Result<()> {
        let mut files = self.files()?;
        files.sort();
        let mut total: u64 = files.iter().map(|&(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if total <= self.limit_bytes {
                break;
            }
            fs::remove_file(path)?;
            total -= bytes;
        }
        Ok(())
    }

    /// When each file was last used, its size, and its path.
    fn files(&self) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            if entry.path().extension().is_none() {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        Ok(files)
    }
}

/// Links `path` to `target`, or copies where the file system cannot link.
fn link(path: &Path, target: &Path) -> io::Result<()> {
    fs::hard_link(path, target).or_else(|_| fs::copy(path, target).map(drop))?;
    touch(path)
}

/// Notes the time of the last use, for pruning.
fn touch(path: &Path) -> io::Result<()> {
    fs::File::options().write(true).open(path)?.set_modified(SystemTime::now())
}

/// Digest and size of a file.
///
/// # Errors
///
/// When the file cannot be read.
pub fn file_digest(path: &Path) -> io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok((Digest(*hasher.finalize().as_bytes()), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &Cache, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let part = cache.part(&digest, "test");
        fs::write(&part, content).unwrap();
        cache.adopt(&part, &digest).unwrap();
        digest
    }

    #[test]
    fn a_file_comes_out_as_it_went_in() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache"), 1_000).unwrap();
        let digest = put(&cache, b"content");
        let target = folder.path().join("taken");
        assert!(cache.take(&digest, &target).unwrap());
        assert_eq!(fs::read(target).unwrap(), b"content");
    }

    #[test]
    fn a_damaged_file_is_not_handed_out() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache"), 1_000).unwrap();
        let digest = put(&cache, b"content");
        fs::write(cache.path(&digest), b"c0ntent").unwrap();
        assert!(!cache.take(&digest, &folder.path().join("taken")).unwrap());
        assert!(!cache.path(&digest).exists());
    }

    #[test]
    fn pruning_removes_the_oldest_and_leaves_what_was_taken() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache"), 10).unwrap();
        let old = put(&cache, b"12345678");
        let taken = folder.path().join("taken");
        assert!(cache.take(&old, &taken).unwrap());
        let past = SystemTime::now() - std::time::Duration::from_secs(60);
        fs::File::options().write(true).open(cache.path(&old)).unwrap().set_modified(past).unwrap();
        let new = put(&cache, b"abcdefgh");
        assert!(!cache.path(&old).exists());
        assert!(cache.path(&new).exists());
        assert_eq!(fs::read(taken).unwrap(), b"12345678");
    }

    #[test]
    fn only_what_was_not_used_of_late_makes_way_for_what_may_not_be_needed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache"), 10).unwrap();
        let held = put(&cache, b"12345678");
        assert!(cache.can_spare(2).unwrap() && !cache.can_spare(3).unwrap());
        let past = SystemTime::now() - 2 * RECENT;
        fs::File::options().write(true).open(cache.path(&held)).unwrap().set_modified(past).unwrap();
        assert!(cache.can_spare(10).unwrap() && !cache.can_spare(11).unwrap());
        assert!(cache.refresh(&held).unwrap() && !cache.refresh(&Digest::of(b"other")).unwrap());
        assert!(!cache.can_spare(3).unwrap());
    }

    #[test]
    fn a_disk_is_not_filled_with_what_may_not_be_needed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().to_owned(), u64::MAX).unwrap();
        let disk = nix::sys::statvfs::statvfs(folder.path()).unwrap();
        let free = disk.blocks_available() * disk.fragment_size();
        assert!(cache.can_spare(1).unwrap() && !cache.can_spare(free).unwrap());
    }

    #[test]
    fn a_half_written_download_is_removed_at_start() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().to_owned(), 10).unwrap();
        let part = cache.part(&Digest::of(b"x"), "a1");
        fs::write(&part, b"x").unwrap();
        Cache::open(folder.path().to_owned(), 10).unwrap();
        assert!(!part.exists());
    }
}
