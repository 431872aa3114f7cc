//! Checkpoints, artifacts and logs, stored under the digest of their content.
//!
//! A blob becomes visible whole or not at all. Its bytes come into a file beside the others (see `upload`);
//! nothing is renamed before size and digest were found right, and the file is synced before the rename and
//! its folder after it. So [`Upload::finish`] returns when the blob is durable,
//! and a manifest that is written after it names whole bytes. Whether bytes stay whole is checked on every
//! way out: a download that does not hash to its name ends in an error, never in a quiet end.
//!
//! What is referenced, and when a blob may go, is not decided here; but a blob that was just stored is *pinned*
//! until somebody says what refers to it, so that it is not deleted between its upload and its manifest.

mod sweep;
mod upload;

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
use object_store::{ObjectStore, ObjectStoreExt};
use proto::status::{ErrorKind, Kind};
use tokio::sync::Mutex;
use tokio::time::Instant;

pub use sweep::Stored;
use upload::Parts;
pub use upload::Upload;

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
    /// The bytes that came do not begin where those that are here end.
    #[error("blob {} goes on at byte {received}, not {offset}: ask again", digest.short())]
    Offset {
        /// The blob.
        digest: Digest,
        /// Where the sender began.
        offset: u64,
        /// Where it should have.
        received: u64,
    },
    /// Somebody else sends the same blob.
    #[error("somebody else goes on with blob {}: ask again", .0.short())]
    Superseded(Digest),
    /// The disk is full.
    #[error("no space is left in `{}`: free some", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
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
            Self::Full { .. } => ErrorKind::ResourceExhausted,
            Self::Offset { .. } | Self::Superseded(_) | Self::Store(_) | Self::Folder { .. } => {
                ErrorKind::Unavailable
            }
        }
    }
}

/// The blob store. Clones share it.
#[derive(Clone, Debug)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    folder: PathBuf,
    limit: u64,
    parts: Parts,
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
        let folder = folder.to_owned();
        Ok(Self { store: Arc::new(store), folder, limit, parts: Arc::default(), pins: Arc::default() })
    }

    /// Begins an upload at its first byte.
    ///
    /// # Errors
    ///
    /// As [`Self::resume`].
    pub async fn announce(&self, digest: Digest, bytes: u64) -> Result<Announced, BlobError> {
        self.resume(digest, bytes, 0).await
    }

    /// Whether a blob of this size is stored and whole. If so, it stays for a while.
    ///
    /// # Errors
    ///
    /// [`BlobError::TooLarge`], or what the store said.
    pub async fn is_known(&self, digest: Digest, bytes: u64) -> Result<bool, BlobError> {
        if bytes > self.limit {
            return Err(BlobError::TooLarge { bytes, limit: self.limit });
        }
        // Before the look, so that it is not deleted between the look and the answer.
        self.pin(digest).await;
        Ok(self.size(digest).await? == Some(bytes) && self.is_whole(digest).await?)
    }

    /// Goes on with an upload behind its first `offset` bytes; see [`Self::received`].
    ///
    /// A blob that is stored is read once before it is called known: taking a damaged copy for whole would
    /// make the damage last for ever.
    ///
    /// # Errors
    ///
    /// [`BlobError::TooLarge`], [`BlobError::Offset`], or what the store said.
    pub async fn resume(&self, digest: Digest, bytes: u64, offset: u64) -> Result<Announced, BlobError> {
        // Who goes on was told that it is not stored.
        if (offset == 0 || bytes > self.limit) && self.is_known(digest, bytes).await? {
            return Ok(Announced::Known);
        }
        self.pin(digest).await;
        Ok(Announced::Wanted(Box::new(self.go_on(digest, bytes, offset).await?)))
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
        self.download_from(digest, 0).await
    }

    /// The bytes of a blob behind its first `offset` ones. Whether the whole is what was stored is for whoever has
    /// the first ones to say.
    ///
    /// # Errors
    ///
    /// [`BlobError::Missing`], or what the store said.
    pub async fn download_from(
        &self,
        digest: Digest,
        offset: u64,
    ) -> Result<impl Stream<Item = Result<Bytes, BlobError>> + Send + use<>, BlobError> {
        let size = self.size(digest).await?.ok_or(BlobError::Missing(digest))?;
        let (offset, hasher) = (offset.min(size), (offset == 0).then(Hasher::new));
        let start = Download { store: self.store.clone(), digest, size, offset, hasher };
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

struct Download {
    store: Arc<dyn ObjectStore>,
    digest: Digest,
    size: u64,
    offset: u64,
    /// `None` when the first bytes were not read.
    hasher: Option<Hasher>,
}

impl Download {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, BlobError> {
        if self.offset == self.size {
            let whole = self.hasher.is_none_or(|hasher| hasher.finalize().as_bytes() == &self.digest.0);
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
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece);
        }
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
    BlobError::Store(error)
}

fn file_error(path: &FsPath, source: io::Error) -> BlobError {
    let path = path.to_owned();
    match source.kind() {
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => BlobError::Full { path, source },
        _ => BlobError::Folder { path, source },
    }
}

#[cfg(test)]
mod tests;
