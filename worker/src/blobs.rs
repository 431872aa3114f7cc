//! Bytes to and from the coordinator's blob store, in chunks, checked by digest on both ends.

mod ahead;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{Digest, FailureCause};
use proto::CHUNK_BYTES;
use proto::status::chain;
use proto::v1::worker_session_client::WorkerSessionClient;
use proto::v1::{DownloadBlobRequest, ProbeBlobRequest, UploadChunk};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, BufWriter};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::cache::{Cache, file_digest};
use ahead::{Haste, Traffic};

pub(crate) use ahead::Leash;

/// How long the coordinator's disk may be full before what waits for it is given up. The slots are free meanwhile.
const FULL_PATIENCE: Duration = Duration::from_secs(60 * 60);

/// Time before the second try.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Why a blob cannot be had or stored, however often it is tried.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The stored bytes are not those that the digest names, or are gone.
    #[error("blob {digest} is damaged or missing: {message}")]
    Damaged {
        /// The blob.
        digest: Digest,
        /// What the coordinator said, or what was received.
        message: String,
    },
    /// A file of this worker cannot be read or written.
    #[error("cannot use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The coordinator had no space for it for long.
    #[error("the coordinator had no space for blob {digest} for {FULL_PATIENCE:?}: {message}")]
    Full {
        /// The blob.
        digest: Digest,
        /// What it said.
        message: String,
    },
    /// The coordinator will not have it.
    #[error("the coordinator refused blob {digest}")]
    Refused {
        /// The blob.
        digest: Digest,
        /// What it said.
        source: Status,
    },
}

impl BlobError {
    /// What an attempt that needs the blob fails with.
    pub fn cause(&self) -> FailureCause {
        let message = chain(self);
        match self {
            Self::Full { .. } => FailureCause::StorageFull { message },
            Self::File { source, .. } if is_full(source) => FailureCause::StorageFull { message },
            Self::Damaged { .. } | Self::File { .. } | Self::Refused { .. } => {
                FailureCause::LaunchFailed { message }
            }
        }
    }
}

/// Whether a disk has no space, or not for us.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind as Io;
    matches!(error.kind(), Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge | Io::ReadOnlyFilesystem)
}

/// A client of the blob store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    client: WorkerSessionClient<Channel>,
    cache: Cache,
    traffic: Arc<Traffic>,
}

impl Blobs {
    /// A client that speaks over `channel` and keeps what it handles in `cache`.
    pub fn new(channel: Channel, cache: Cache) -> Self {
        Self { client: WorkerSessionClient::new(channel), cache, traffic: Arc::default() }
    }

    /// Puts the blob at `target`, from the cache or from the coordinator. Goes on trying while the coordinator is away.
    ///
    /// # Errors
    ///
    /// [`BlobError::Damaged`] when another source is needed.
    pub async fn fetch(&self, digest: Digest, purpose: &str, target: &Path) -> Result<(), BlobError> {
        if self.take(digest, target).await? {
            return Ok(());
        }
        let _urgent = self.traffic.urgent();
        let part = self.cache.part(&digest, purpose);
        if self.take_over(digest, &part).await && self.take(digest, target).await? {
            return Ok(());
        }
        let mut pause = Pause::default();
        let fetched = loop {
            match self.download(digest, &part, &mut pause, &mut Haste::Urgent).await {
                Ok(Ok(())) => break Ok(()),
                Ok(Err(status)) => match pause.after(&status, "fetch", digest).await {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = fetched {
            // What was half written takes space that others need.
            let _ = tokio::fs::remove_file(&part).await;
            return Err(error);
        }
        let (cache, adopted, owned) = (self.cache.clone(), part.clone(), target.to_owned());
        let file = |source| BlobError::File { path: part.clone(), source };
        // Taken before it is adopted: one that is larger than the whole cache is pruned at once.
        blocking(move || cache.adopt_for(&adopted, &digest, &owned)).await.map_err(file)
    }

    /// Stores the file at `path` and moves it into the cache. Goes on trying while the coordinator is away or has
    /// no space. Returns digest and size.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the coordinator will never take it.
    pub async fn store(&self, path: &Path) -> Result<(Digest, u64), BlobError> {
        self.store_watched(path, |_| {}).await
    }

    /// The same; `trouble` hears each time why it was not stored yet.
    ///
    /// # Errors
    ///
    /// As [`Self::store`].
    pub async fn store_watched(
        &self,
        path: &Path,
        trouble: impl Fn(&Status),
    ) -> Result<(Digest, u64), BlobError> {
        let file = |source| BlobError::File { path: path.to_owned(), source };
        let owned = path.to_owned();
        let (digest, bytes) = blocking(move || file_digest(&owned)).await.map_err(file)?;
        let mut pause = Pause::default();
        loop {
            match self.upload(path, digest, bytes, &mut pause).await {
                Ok(()) => break,
                Err(status) => {
                    trouble(&status);
                    pause.after(&status, "store", digest).await?;
                }
            }
        }
        let (cache, owned) = (self.cache.clone(), path.to_owned());
        if let Err(error) = blocking(move || cache.adopt(&owned, &digest)).await {
            // It is stored; the next attempt here fetches it.
            tracing::warn!(%digest, %error, "what was stored is not kept in the cache");
        }
        Ok((digest, bytes))
    }

    async fn take(&self, digest: Digest, target: &Path) -> Result<bool, BlobError> {
        let (cache, owned) = (self.cache.clone(), target.to_owned());
        blocking(move || cache.take(&digest, &owned))
            .await
            .map_err(|source| BlobError::File { path: target.to_owned(), source })
    }

    /// One try, behind what is there already. The outer error ends the matter, the inner one may be worth another
    /// try.
    async fn download(
        &self,
        digest: Digest,
        part: &Path,
        pause: &mut Pause,
        haste: &mut Haste,
    ) -> Result<Result<(), Status>, BlobError> {
        let file_error = |source| BlobError::File { path: part.to_owned(), source };
        let owned = part.to_owned();
        let (file, offset, mut hasher) = blocking(move || open_part(&owned)).await.map_err(file_error)?;
        pause.begin(offset);
        let request = DownloadBlobRequest { digest: digest.to_string(), offset };
        let mut client = self.client.clone();
        let mut stream = match haste.next(client.download_blob(request)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        let mut file = BufWriter::new(File::from_std(file));
        let ended = loop {
            match haste.next(stream.message()).await {
                Ok(Some(chunk)) => {
                    hasher.update(&chunk.data);
                    file.write_all(&chunk.data).await.map_err(file_error)?;
                }
                Ok(None) => break Ok(()),
                Err(status) => break Err(status),
            }
        };
        // Also of a stream that broke: the next try goes on behind it.
        file.flush().await.map_err(file_error)?;
        if let Err(status) = ended {
            return Ok(Err(status));
        }
        let found = Digest(*hasher.finalize().as_bytes());
        if found == digest {
            return Ok(Ok(()));
        }
        if offset > 0 {
            // What was there may be the damaged part: once more from the beginning.
            tokio::fs::remove_file(part).await.map_err(file_error)?;
            return Ok(Err(Status::unavailable("the parts of the download do not fit together")));
        }
        Err(BlobError::Damaged { digest, message: format!("received {found}") })
    }

    async fn upload(&self, path: &Path, digest: Digest, bytes: u64, pause: &mut Pause) -> Result<(), Status> {
        let mut client = self.client.clone();
        let probe = ProbeBlobRequest { digest: digest.to_string(), bytes };
        let probed = client.probe_blob(probe).await?.into_inner();
        if probed.known {
            return Ok(());
        }
        let offset = probed.received;
        pause.begin(offset);
        let unreadable = |error: io::Error| Status::not_found(error.to_string());
        let mut file = File::open(path).await.map_err(unreadable)?;
        file.seek(io::SeekFrom::Start(offset)).await.map_err(unreadable)?;
        let (chunks, stream) = mpsc::channel(4);
        let reader = async move {
            let mut first = Some((digest.to_string(), bytes, offset));
            loop {
                let mut data = Vec::with_capacity(CHUNK_BYTES);
                let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut data).await?;
                if read == 0 && first.is_none() {
                    return io::Result::Ok(());
                }
                let (digest, bytes, offset) = first.take().unwrap_or_default();
                if chunks.send(UploadChunk { digest, bytes, data, offset }).await.is_err() {
                    return Ok(());
                }
            }
        };
        let upload = client.upload_blob(ReceiverStream::new(stream));
        let (read, response) = tokio::join!(reader, upload);
        read.map_err(|error| Status::data_loss(error.to_string()))?;
        response.map(drop)
    }
}

/// Growing pauses between tries.
#[derive(Debug)]
struct Pause {
    next: Duration,
    /// Since when the coordinator has no space.
    full: Option<Instant>,
    /// Bytes that earlier tries brought.
    brought: u64,
}

impl Default for Pause {
    fn default() -> Self {
        Self { next: FIRST_PAUSE, full: None, brought: 0 }
    }
}

impl Pause {
    /// Takes note of where a try begins. One that brought something was not in vain.
    fn begin(&mut self, offset: u64) {
        if offset > self.brought {
            self.next = FIRST_PAUSE;
        }
        self.brought = offset;
    }

    /// Waits before the next try, or says that there is no point in one.
    async fn after(&mut self, status: &Status, doing: &str, digest: Digest) -> Result<(), BlobError> {
        if matches!(status.code(), Code::DataLoss | Code::NotFound) {
            return Err(BlobError::Damaged { digest, message: status.message().to_owned() });
        }
        if status.code() == Code::ResourceExhausted {
            let since = *self.full.get_or_insert_with(Instant::now);
            if since.elapsed() >= FULL_PATIENCE {
                return Err(BlobError::Full { digest, message: status.message().to_owned() });
            }
        } else {
            self.full = None;
        }
        // A full disk at the coordinator may get space; a broken connection may mend.
        let transient = matches!(
            status.code(),
            Code::Unavailable
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unknown
                | Code::ResourceExhausted
        );
        if !transient {
            return Err(BlobError::Refused { digest, source: status.clone() });
        }
        tracing::warn!(%digest, code = ?status.code(), message = status.message(), "cannot {doing} a blob yet");
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Duration::from_secs(5));
        Ok(())
    }
}

/// Opens what a download left, and hashes it again.
fn open_part(path: &Path) -> io::Result<(std::fs::File, u64, blake3::Hasher)> {
    let mut options = std::fs::File::options();
    let mut file = options.read(true).append(true).create(true).open(path)?;
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut file, &mut hasher)?;
    Ok((file, bytes, hasher))
}

/// Runs file work where it does not hold up the agent.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
