//! Checkpoints, artifacts and logs, stored under the digest of their content.
//!
//! A blob becomes visible whole or not at all. object_store's local store writes to a staging file beside the
//! final name; nothing is renamed before size and digest were found right, and with `with_fsync` the file is
//! synced before the rename and its folder after it. So [`Upload::finish`] returns when the blob is durable,
//! and a manifest that is written after it names whole bytes. Whether bytes stay whole is checked on every
//! way out: a download that does not hash to its name ends in an error, never in a quiet end.
//!
//! What is referenced, and when a blob may go, is not decided here; but a blob that was just stored is *pinned*
//! until somebody says what refers to it, so that it is not deleted between its upload and its manifest.

mod sweep;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind as Io};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blake3::Hasher;
use bytes::Bytes;
use common::Digest;
use futures::{Stream, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use proto::status::{ErrorKind, Kind};
use tokio::sync::Mutex;
use tokio::time::Instant;

pub use sweep::Stored;

/// Bytes of one part of an upload: above the least that S3 accepts (5 MiB).
const PART_BYTES: usize = 8 << 20;

/// Bytes of one read of a download. Each is a call to the blocking pool, or to a remote store.
const READ_BYTES: u64 = 1 << 20;

/// How long a stored blob waits for what refers to it.
const PIN: Duration = Duration::from_secs(60 * 60);

/// Why a blob was not stored or not read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Larger than the configuration allows.
    #[error("a blob of {bytes} bytes is larger than the limit of {limit}: raise `max-blob-bytes`")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Fewer or more bytes came than were announced.
    #[error("blob {} was announced with {announced} bytes, but {received} came", digest.short())]
    Size {
        /// The blob.
        digest: Digest,
        /// What its first message said.
        announced: u64,
        /// What came, at least.
        received: u64,
    },
    /// The bytes that came have another digest.
    #[error("the bytes sent as blob {} hash to {}", expected.short(), found.short())]
    Mismatch {
        /// The digest that was announced.
        expected: Digest,
        /// The digest that they have.
        found: Digest,
    },
    /// The stored bytes are not those that were stored.
    #[error("the stored copy of blob {} is damaged", .0.short())]
    Damaged(Digest),
    /// Not stored.
    #[error("blob {0} is not stored")]
    Missing(Digest),
    /// The disk is full.
    #[error("no space is left for blobs: free some below the data-dir")]
    Full(#[source] object_store::Error),
    /// The store failed.
    #[error("cannot use the blob store")]
    Store(#[source] object_store::Error),
    /// The folder cannot be used.
    #[error("cannot use the folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Kind for BlobError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } => ErrorKind::InvalidArgument,
            Self::Size { .. } | Self::Mismatch { .. } | Self::Damaged(_) => ErrorKind::DataLoss,
            Self::Missing(_) => ErrorKind::NotFound,
            Self::Full(_) => ErrorKind::ResourceExhausted,
            Self::Store(_) | Self::Folder { .. } => ErrorKind::Unavailable,
        }
    }
}

/// The blob store. Clones share it.
#[derive(Clone, Debug)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    limit: u64,
    /// Held while a blob is deleted, so that none is called known at the same time.
    pins: Arc<Mutex<BTreeMap<Digest, Instant>>>,
}

/// What becomes of an upload's announcement.
#[derive(Debug)]
pub enum Announced {
    /// The bytes are stored already, and were checked.
    Known,
    /// Send them.
    Wanted(Box<Upload>),
}

/// An upload under way. Dropped before [`Upload::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    blobs: Blobs,
    digest: Digest,
    announced: u64,
    received: u64,
    hasher: Hasher,
    part: Vec<Bytes>,
    part_bytes: usize,
    parts: Box<dyn MultipartUpload>,
}

impl Blobs {
    /// Opens the store in a local folder, makes it if it is not there, and removes what interrupted uploads left.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made, read or written.
    pub fn open_local(folder: &FsPath, limit: u64) -> Result<Self, BlobError> {
        let failed = |source| BlobError::Folder { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        sweep::remove_staged(folder).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(BlobError::Store)?.with_fsync(true);
        Ok(Self { store: Arc::new(store), limit, pins: Arc::default() })
    }

    /// Begins an upload.
    ///
    /// A blob that is stored is read once before it is called known: taking a damaged copy for whole would
    /// make the damage last for ever.
    ///
    /// # Errors
    ///
    /// [`BlobError::TooLarge`], or what the store said.
    pub async fn announce(&self, digest: Digest, bytes: u64) -> Result<Announced, BlobError> {
        if bytes > self.limit {
            return Err(BlobError::TooLarge { bytes, limit: self.limit });
        }
        // Before the look, so that it is not deleted between the look and the answer.
        self.pin(digest).await;
        if self.size(digest).await? == Some(bytes) && self.is_whole(digest).await? {
            return Ok(Announced::Known);
        }
        let parts = self.store.put_multipart(&location(digest)).await.map_err(store_error)?;
        Ok(Announced::Wanted(Box::new(Upload {
            blobs: self.clone(),
            digest,
            announced: bytes,
            received: 0,
            hasher: Hasher::new(),
            part: Vec::new(),
            part_bytes: 0,
            parts,
        })))
    }

    /// Size of a blob, if it is stored.
    ///
    /// # Errors
    ///
    /// What the store said.
    pub async fn size(&self, digest: Digest) -> Result<Option<u64>, BlobError> {
        match self.store.head(&location(digest)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(store_error(error)),
        }
    }

    /// The bytes of a blob, in order. The stream ends with [`BlobError::Damaged`] if they are not what was stored.
    ///
    /// # Errors
    ///
    /// [`BlobError::Missing`], or what the store said.
    pub async fn download(
        &self,
        digest: Digest,
    ) -> Result<impl Stream<Item = Result<Bytes, BlobError>> + Send + use<>, BlobError> {
        let size = self.size(digest).await?.ok_or(BlobError::Missing(digest))?;
        let start = Download { store: self.store.clone(), digest, size, offset: 0, hasher: Hasher::new() };
        Ok(stream::try_unfold(start, Download::next))
    }

    /// The last `tail` bytes of a blob. All of it is read, because only the whole has a digest.
    ///
    /// # Errors
    ///
    /// [`BlobError::Missing`], or what the store said.
    pub async fn download_tail(
        &self,
        digest: Digest,
        tail: u64,
    ) -> Result<impl Stream<Item = Result<Bytes, BlobError>> + Send + use<>, BlobError> {
        let size = self.size(digest).await?.ok_or(BlobError::Missing(digest))?;
        let mut skip = size.saturating_sub(tail);
        let bytes = self.download(digest).await?;
        Ok(bytes.map_ok(move |mut piece| {
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= skipped as u64;
            piece.split_off(skipped)
        }))
    }

    /// Deletes a blob, unless it is pinned: then a later sweep takes it. One that is not there is deleted.
    ///
    /// # Errors
    ///
    /// What the store said.
    pub async fn delete(&self, digest: Digest) -> Result<(), BlobError> {
        let pins = self.pins.lock().await;
        if pins.get(&digest).is_some_and(|since| since.elapsed() < PIN) {
            return Ok(());
        }
        match self.store.delete(&location(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error(error)),
        }
    }

    /// Something durable refers to the blob now.
    pub async fn unpin(&self, digest: Digest) {
        self.pins.lock().await.remove(&digest);
    }

    async fn pin(&self, digest: Digest) {
        let mut pins = self.pins.lock().await;
        pins.retain(|_, since| since.elapsed() < PIN);
        pins.insert(digest, Instant::now());
    }

    async fn is_whole(&self, digest: Digest) -> Result<bool, BlobError> {
        let bytes = self.download(digest).await?;
        match bytes.try_for_each(|_| async { Ok(()) }).await {
            Ok(()) => Ok(true),
            Err(BlobError::Damaged(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Upload {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// [`BlobError::Size`] when more come than were announced; else what the store said.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.received += bytes.len() as u64;
        if self.received > self.announced {
            return Err(self.wrong_size());
        }
        self.hasher.update(&bytes);
        self.part_bytes += bytes.len();
        self.part.push(bytes);
        if self.part_bytes >= PART_BYTES {
            self.send_part().await?;
        }
        Ok(())
    }

    /// Checks size and digest, and makes the blob durable and visible.
    ///
    /// # Errors
    ///
    /// [`BlobError::Size`] or [`BlobError::Mismatch`], and then nothing is stored; else what the store said.
    pub async fn finish(mut self) -> Result<(), BlobError> {
        if self.received != self.announced {
            return Err(self.wrong_size());
        }
        let found = Digest(*self.hasher.finalize().as_bytes());
        if found != self.digest {
            return Err(BlobError::Mismatch { expected: self.digest, found });
        }
        // A store may refuse an upload without parts, and an empty blob has none yet.
        if !self.part.is_empty() || self.announced == 0 {
            self.send_part().await?;
        }
        self.parts.complete().await.map_err(store_error)?;
        // The time of an upload does not count.
        self.blobs.pin(self.digest).await;
        Ok(())
    }

    async fn send_part(&mut self) -> Result<(), BlobError> {
        let part = PutPayload::from_iter(self.part.drain(..));
        self.part_bytes = 0;
        self.parts.put_part(part).await.map_err(store_error)
    }

    fn wrong_size(&self) -> BlobError {
        BlobError::Size { digest: self.digest, announced: self.announced, received: self.received }
    }
}

struct Download {
    store: Arc<dyn ObjectStore>,
    digest: Digest,
    size: u64,
    offset: u64,
    hasher: Hasher,
}

impl Download {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, BlobError> {
        if self.offset == self.size {
            let whole = self.hasher.finalize().as_bytes() == &self.digest.0;
            return if whole { Ok(None) } else { Err(BlobError::Damaged(self.digest)) };
        }
        let end = self.size.min(self.offset + READ_BYTES);
        let piece = match self.store.get_range(&location(self.digest), self.offset..end).await {
            Ok(piece) => piece,
            Err(object_store::Error::NotFound { .. }) => return Err(BlobError::Missing(self.digest)),
            Err(error) => return Err(store_error(error)),
        };
        // Shorter than it was a moment ago: it was cut.
        if piece.len() as u64 != end - self.offset {
            return Err(BlobError::Damaged(self.digest));
        }
        self.hasher.update(&piece);
        self.offset = end;
        Ok(Some((piece, self)))
    }
}

/// Two digits of the digest, then all of it: no folder grows beyond what file systems like.
fn location(digest: Digest) -> Path {
    let name = digest.to_string();
    Path::from_iter([&name[..2], &name])
}

fn store_error(error: object_store::Error) -> BlobError {
    if is_full(&error) { BlobError::Full(error) } else { BlobError::Store(error) }
}

fn is_full(error: &object_store::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        if let Some(Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge) = kind {
            return true;
        }
        source = cause.source();
    }
    false
}

#[cfg(test)]
mod tests;
