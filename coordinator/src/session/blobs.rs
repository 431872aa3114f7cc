//! Blobs on their way between workers and the store.

use bytes::Bytes;
use common::Digest;
use futures::stream::{self, BoxStream, StreamExt};
use futures::{Stream, TryStreamExt};
use proto::status::{ErrorKind, Kind, to_status};
use proto::v1::{
    Chunk, DownloadBlobRequest, ProbeBlobRequest, ProbeBlobResponse, UploadBlobResponse, UploadChunk,
};
use tonic::{Status, Streaming};

use crate::blobs::{Announced, BlobError, Blobs};

/// What is wrong with a request.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("an upload begins with a chunk that names digest and size")]
    Empty,
    #[error(transparent)]
    Digest(#[from] common::digest::ParseDigestError),
}

impl Kind for RequestError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty | Self::Digest(_) => ErrorKind::InvalidArgument,
        }
    }
}

pub(super) async fn upload(
    blobs: &Blobs,
    mut chunks: Streaming<UploadChunk>,
) -> Result<UploadBlobResponse, Status> {
    let refused = |error: BlobError| to_status(&error);
    let first = chunks.message().await?.ok_or_else(|| to_status(&RequestError::Empty))?;
    let digest = digest(&first.digest)?;
    let mut upload = match blobs.resume(digest, first.bytes, first.offset).await.map_err(refused)? {
        // The rest of the stream is not read: the answer ends it.
        Announced::Known => return Ok(UploadBlobResponse { known: true }),
        Announced::Wanted(upload) => upload,
    };
    let mut data = first.data;
    loop {
        upload.write(Bytes::from(data)).await.map_err(refused)?;
        match chunks.message().await? {
            Some(next) => data = next.data,
            None => break,
        }
    }
    upload.finish().await.map_err(refused)?;
    Ok(UploadBlobResponse { known: false })
}

pub(super) async fn probe(blobs: &Blobs, request: &ProbeBlobRequest) -> Result<ProbeBlobResponse, Status> {
    let digest = digest(&request.digest)?;
    let refused = |error: BlobError| to_status(&error);
    if blobs.is_known(digest, request.bytes).await.map_err(refused)? {
        return Ok(ProbeBlobResponse { known: true, received: request.bytes });
    }
    let received = blobs.received(digest).await.map_err(refused)?;
    // More than there is to come was never part of it.
    let received = if received > request.bytes { 0 } else { received };
    Ok(ProbeBlobResponse { known: false, received })
}

pub(super) async fn download(
    blobs: &Blobs,
    request: &DownloadBlobRequest,
) -> Result<BoxStream<'static, Result<Chunk, Status>>, Status> {
    let digest = digest(&request.digest)?;
    let bytes = blobs.download_from(digest, request.offset).await.map_err(|error| to_status(&error))?;
    Ok(to_chunks(bytes).boxed())
}

/// Cuts what the store reads into messages. An error of the store is the last item.
pub(crate) fn to_chunks(
    bytes: impl Stream<Item = Result<Bytes, BlobError>> + Send + 'static,
) -> impl Stream<Item = Result<Chunk, Status>> + Send + 'static {
    let cut = |mut piece: Bytes| {
        stream::iter(std::iter::from_fn(move || {
            let next = piece.split_to(piece.len().min(proto::CHUNK_BYTES));
            (!next.is_empty()).then(|| Ok(Chunk { data: next.into() }))
        }))
    };
    bytes.map_err(|error| to_status(&error)).map_ok(cut).try_flatten()
}

fn digest(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|error| to_status(&RequestError::Digest(error)))
}
