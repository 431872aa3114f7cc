//! Uploads that go on where they were cut.
//!
//! The bytes of an upload are in a file named by the digest that they are to have, so whoever comes again, also
//! after a restart, goes on behind them. They are nobody's until all of them were hashed: only then are they
//! synced and moved to where blobs are. Of two who send the same blob the later one goes on, and the other hears
//! that it should ask again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use blake3::Hasher;
use bytes::Bytes;
use common::Digest;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::{BlobError, Blobs, file_error, location};

/// Folder of what was not uploaded to its end.
const FOLDER: &str = "uploads";

/// How long it waits for the rest.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// Uploads that were begun.
pub(super) type Parts = Arc<std::sync::Mutex<BTreeMap<Digest, Arc<Mutex<Part>>>>>;

/// What came of a blob so far.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    received: u64,
    hasher: Hasher,
    /// Counts those who sent it. The newest may go on.
    owner: u64,
}

/// An upload under way. Dropped before [`Upload::finish`], it can be gone on with.
#[derive(Debug)]
pub struct Upload {
    blobs: Blobs,
    digest: Digest,
    announced: u64,
    owner: u64,
    part: Arc<Mutex<Part>>,
}

impl Blobs {
    /// How many bytes of a blob came before.
    ///
    /// # Errors
    ///
    /// What the operating system said.
    pub async fn received(&self, digest: Digest) -> Result<u64, BlobError> {
        let begun = self.parts.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        if let Some(part) = begun {
            return Ok(part.lock().await.received);
        }
        let path = self.part_file(digest);
        match tokio::fs::metadata(&path).await {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(source) => Err(file_error(&path, source)),
        }
    }

    /// Goes on with an upload behind its first `offset` bytes.
    pub(super) async fn go_on(
        &self,
        digest: Digest,
        announced: u64,
        offset: u64,
    ) -> Result<Upload, BlobError> {
        let mut part = self.part(digest).await?;
        let owner = {
            let mut begun = part.lock().await;
            if offset == 0 && begun.received > 0 {
                // From the beginning, whatever there was.
                drop(begun);
                self.forget(digest).await;
                part = self.part(digest).await?;
                begun = part.lock().await;
            }
            if begun.received != offset {
                return Err(BlobError::Offset { digest, offset, received: begun.received });
            }
            begun.owner += 1;
            begun.owner
        };
        Ok(Upload { blobs: self.clone(), digest, announced, owner, part })
    }

    async fn part(&self, digest: Digest) -> Result<Arc<Mutex<Part>>, BlobError> {
        let begun =
            |parts: &Parts| parts.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        if let Some(part) = begun(&self.parts) {
            return Ok(part);
        }
        let path = self.part_file(digest);
        let opened = path.clone();
        let open = move || open(&opened);
        let (file, received, hasher) = spawn_blocking(open)
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|source| file_error(&path, source))?;
        let part = Part { file: File::from_std(file), received, hasher, owner: 0 };
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have been faster.
        Ok(parts.entry(digest).or_insert_with(|| Arc::new(Mutex::new(part))).clone())
    }

    /// Gives up what came of a blob.
    async fn forget(&self, digest: Digest) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        // One that cannot be removed is removed when it is old.
        let _ = tokio::fs::remove_file(self.part_file(digest)).await;
    }

    /// Removes what nobody went on with for long.
    pub async fn expire_uploads(&self) {
        let folder = self.folder.join(FOLDER);
        let expired = spawn_blocking(move || remove_old(&folder)).await.unwrap_or_default();
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in expired {
            parts.remove(&digest);
        }
    }

    pub(super) fn part_file(&self, digest: Digest) -> PathBuf {
        self.folder.join(FOLDER).join(format!("{digest}.part"))
    }
}

impl Upload {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// [`BlobError::Size`] when more come than were announced, [`BlobError::Superseded`] when somebody else goes
    /// on with it; else what the operating system said, and then what came is given up, because it takes space.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        let mut part = self.part.lock().await;
        if part.owner != self.owner {
            return Err(BlobError::Superseded(self.digest));
        }
        let received = part.received + bytes.len() as u64;
        if received > self.announced {
            drop(part);
            self.blobs.forget(self.digest).await;
            return Err(BlobError::Size { digest: self.digest, announced: self.announced, received });
        }
        part.hasher.update(&bytes);
        part.received = received;
        let written = part.file.write_all(&bytes).await;
        drop(part);
        self.or_forget(written).await
    }

    /// Checks size and digest, and makes the blob durable and visible.
    ///
    /// # Errors
    ///
    /// [`BlobError::Size`] or [`BlobError::Mismatch`], and then nothing is stored; else what the operating system said.
    pub async fn finish(self) -> Result<(), BlobError> {
        let mut part = self.part.lock().await;
        if part.owner != self.owner {
            return Err(BlobError::Superseded(self.digest));
        }
        let (digest, announced, received) = (self.digest, self.announced, part.received);
        if received != announced {
            return Err(BlobError::Size { digest, announced, received });
        }
        let found = Digest(*part.hasher.finalize().as_bytes());
        if found != digest {
            drop(part);
            self.blobs.forget(digest).await;
            return Err(BlobError::Mismatch { expected: digest, found });
        }
        let synced = match part.file.flush().await {
            Ok(()) => part.file.sync_all().await,
            Err(error) => Err(error),
        };
        self.or_forget(synced).await?;
        let (from, to) = (self.blobs.part_file(digest), self.blobs.folder.join(location(digest).as_ref()));
        // Held until it is in its place, so that nobody begins again with the same file.
        let moved = spawn_blocking(move || place(&from, &to)).await;
        self.or_forget(moved.unwrap_or_else(|error| Err(io::Error::other(error)))).await?;
        self.blobs.parts.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        drop(part);
        // The time of an upload does not count.
        self.blobs.pin(digest).await;
        Ok(())
    }

    async fn or_forget<T>(&self, result: io::Result<T>) -> Result<T, BlobError> {
        match result {
            Ok(done) => Ok(done),
            Err(source) => {
                self.blobs.forget(self.digest).await;
                Err(file_error(&self.blobs.part_file(self.digest), source))
            }
        }
    }
}

/// Opens what came before, and hashes it again.
fn open(path: &FsPath) -> io::Result<(fs::File, u64, Hasher)> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = fs::File::options();
    let mut file = options.read(true).append(true).create(true).open(path)?;
    let mut hasher = Hasher::new();
    let received = io::copy(&mut file, &mut hasher)?;
    Ok((file, received, hasher))
}

/// Moves a synced file to its name, durably.
fn place(from: &FsPath, to: &FsPath) -> io::Result<()> {
    let folder = to.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if !folder.is_dir() {
        fs::create_dir_all(folder)?;
        if let Some(parent) = folder.parent() {
            fs::File::open(parent)?.sync_all()?;
        }
    }
    fs::rename(from, to)?;
    fs::File::open(folder)?.sync_all()
}

/// What cannot be looked at or removed now is there the next time.
fn remove_old(folder: &FsPath) -> Vec<Digest> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let digest = name.to_string_lossy().strip_suffix(".part").and_then(|name| name.parse().ok());
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
        if let Some(digest) = digest
            && age.is_some_and(|age| age >= PATIENCE)
            && fs::remove_file(entry.path()).is_ok()
        {
            removed.push(digest);
        }
    }
    removed
}
