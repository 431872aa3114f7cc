//! Bytes to and from the coordinator's blob store, in chunks, checked by digest on both ends.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::Digest;
use proto::CHUNK_BYTES;
use proto::v1::worker_session_client::WorkerSessionClient;
use proto::v1::{DownloadBlobRequest, UploadChunk};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::cache::{Cache, file_digest};

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
    /// The coordinator will not have it.
    #[error("the coordinator refused blob {digest}")]
    Refused {
        /// The blob.
        digest: Digest,
        /// What it said.
        source: Status,
    },
}

/// A client of the blob store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    client: WorkerSessionClient<Channel>,
    cache: Cache,
}

impl Blobs {
    /// A client that speaks over `channel` and keeps what it handles in `cache`.
    pub fn new(channel: Channel, cache: Cache) -> Self {
        Self { client: WorkerSessionClient::new(channel), cache }
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
        let part = self.cache.part(&digest, purpose);
        let mut pause = Pause::default();
        loop {
            match self.download(digest, &part).await? {
                Ok(()) => break,
                Err(status) => pause.after(&status, "fetch", digest).await?,
            }
        }
        let cache = self.cache.clone();
        let file = |source| BlobError::File { path: part.clone(), source };
        let adopted = part.clone();
        blocking(move || cache.adopt(&adopted, &digest)).await.map_err(file)?;
        if self.take(digest, target).await? {
            return Ok(());
        }
        Err(BlobError::Damaged { digest, message: "it vanished from the cache".to_owned() })
    }

    /// Stores the file at `path` and moves it into the cache. Goes on trying while the coordinator is away.
    /// Returns digest and size.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the coordinator will never take it.
    pub async fn store(&self, path: &Path) -> Result<(Digest, u64), BlobError> {
        let file = |source| BlobError::File { path: path.to_owned(), source };
        let owned = path.to_owned();
        let (digest, bytes) = blocking(move || file_digest(&owned)).await.map_err(file)?;
        let mut pause = Pause::default();
        loop {
            match self.upload(path, digest, bytes).await {
                Ok(()) => break,
                Err(status) => pause.after(&status, "store", digest).await?,
            }
        }
        let (cache, owned) = (self.cache.clone(), path.to_owned());
        blocking(move || cache.adopt(&owned, &digest)).await.map_err(file)?;
        Ok((digest, bytes))
    }

    async fn take(&self, digest: Digest, target: &Path) -> Result<bool, BlobError> {
        let (cache, owned) = (self.cache.clone(), target.to_owned());
        blocking(move || cache.take(&digest, &owned))
            .await
            .map_err(|source| BlobError::File { path: target.to_owned(), source })
    }

    /// One try. The outer error ends the matter, the inner one may be worth another try.
    async fn download(&self, digest: Digest, part: &Path) -> Result<Result<(), Status>, BlobError> {
        let request = DownloadBlobRequest { digest: digest.to_string() };
        let mut stream = match self.client.clone().download_blob(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        let file_error = |source| BlobError::File { path: part.to_owned(), source };
        let mut file = BufWriter::new(File::create(part).await.map_err(file_error)?);
        let mut hasher = blake3::Hasher::new();
        loop {
            match stream.message().await {
                Ok(Some(chunk)) => {
                    hasher.update(&chunk.data);
                    file.write_all(&chunk.data).await.map_err(file_error)?;
                }
                Ok(None) => break,
                Err(status) => return Ok(Err(status)),
            }
        }
        file.flush().await.map_err(file_error)?;
        let found = Digest(*hasher.finalize().as_bytes());
        if found != digest {
            return Err(BlobError::Damaged { digest, message: format!("received {found}") });
        }
        Ok(Ok(()))
    }

    async fn upload(&self, path: &Path, digest: Digest, bytes: u64) -> Result<(), Status> {
        let mut file = File::open(path).await.map_err(|error| Status::not_found(error.to_string()))?;
        let (chunks, stream) = mpsc::channel(4);
        let reader = async move {
            let mut first = Some((digest.to_string(), bytes));
            loop {
                let mut data = Vec::with_capacity(CHUNK_BYTES);
                let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut data).await?;
                if read == 0 && first.is_none() {
                    return io::Result::Ok(());
                }
                let (digest, bytes) = first.take().unwrap_or_default();
                if chunks.send(UploadChunk { digest, bytes, data }).await.is_err() {
                    return Ok(());
                }
            }
        };
        let mut client = self.client.clone();
        let upload = client.upload_blob(ReceiverStream::new(stream));
        let (read, response) = tokio::join!(reader, upload);
        read.map_err(|error| Status::data_loss(error.to_string()))?;
        response.map(drop)
    }
}

/// Growing pauses between tries.
#[derive(Debug)]
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_millis(100))
    }
}

impl Pause {
    /// Waits before the next try, or says that there is no point in one.
    async fn after(&mut self, status: &Status, doing: &str, digest: Digest) -> Result<(), BlobError> {
        if matches!(status.code(), Code::DataLoss | Code::NotFound) {
            return Err(BlobError::Damaged { digest, message: status.message().to_owned() });
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
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(5));
        Ok(())
    }
}

/// Runs file work where it does not hold up the agent.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
