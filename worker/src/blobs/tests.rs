//! The way of blobs over connections that break, from a store that lies or is full.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::Stream;
use proto::v1;
use proto::v1::worker_session_server::{WorkerSession, WorkerSessionServer};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Streaming};

use super::*;

/// A blob store with faults.
#[derive(Clone, Default)]
struct Faulty(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What it holds under each name, whole or not.
    blobs: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<String, Vec<u8>>,
    /// After how many bytes the next streams break.
    cuts: VecDeque<usize>,
    /// How many uploads find no space.
    full: u32,
    /// Bytes that came or went.
    moved: usize,
}

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl WorkerSession for Faulty {
    type SessionStream = Outgoing<v1::ToWorker>;
    type DownloadBlobStream = Outgoing<v1::Chunk>;

    async fn session(
        &self,
        _: Request<Streaming<v1::FromWorker>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("blobs only"))
    }

    async fn upload_blob(
        &self,
        request: Request<Streaming<v1::UploadChunk>>,
    ) -> Result<Response<v1::UploadBlobResponse>, Status> {
        let mut chunks = request.into_inner();
        let mut name = None;
        let mut left = {
            let mut state = self.0.lock().unwrap();
            if state.full > 0 {
                state.full -= 1;
                return Err(Status::resource_exhausted("no space is left in `/data`"));
            }
            state.cuts.pop_front().unwrap_or(usize::MAX)
        };
        while let Some(chunk) = chunks.next().await {
            let mut chunk = chunk?;
            let mut state = self.0.lock().unwrap();
            let name = name.get_or_insert_with(|| std::mem::take(&mut chunk.digest)).clone();
            let part = state.parts.entry(name).or_default();
            if chunk.offset > 0 {
                assert_eq!(chunk.offset, part.len() as u64);
            }
            let taken = chunk.data.len().min(left);
            part.extend(&chunk.data[..taken]);
            state.moved += taken;
            left -= taken;
            if left == 0 {
                return Err(Status::unavailable("cut"));
            }
        }
        let (mut state, name) = (self.0.lock().unwrap(), name.unwrap());
        let content = state.parts.remove(&name).unwrap();
        assert_eq!(Digest::of(&content).to_string(), name);
        state.blobs.insert(name, content);
        Ok(Response::new(v1::UploadBlobResponse { known: false }))
    }

    async fn probe_blob(
        &self,
        request: Request<v1::ProbeBlobRequest>,
    ) -> Result<Response<v1::ProbeBlobResponse>, Status> {
        let (state, name) = (self.0.lock().unwrap(), request.into_inner().digest);
        let received = state.parts.get(&name).map_or(0, |part| part.len() as u64);
        Ok(Response::new(v1::ProbeBlobResponse { known: state.blobs.contains_key(&name), received }))
    }

    async fn download_blob(
        &self,
        request: Request<v1::DownloadBlobRequest>,
    ) -> Result<Response<Self::DownloadBlobStream>, Status> {
        let v1::DownloadBlobRequest { digest, offset } = request.into_inner();
        let mut state = self.0.lock().unwrap();
        let content = state.blobs.get(&digest).cloned().ok_or_else(|| Status::not_found("no such blob"))?;
        let rest = &content[usize::try_from(offset).unwrap().min(content.len())..];
        let left = state.cuts.pop_front().unwrap_or(usize::MAX);
        let sent = &rest[..rest.len().min(left)];
        state.moved += sent.len();
        let mut chunks: Vec<Result<v1::Chunk, Status>> =
            sent.chunks(CHUNK_BYTES).map(|data| Ok(v1::Chunk { data: data.to_vec() })).collect();
        if left < rest.len() {
            chunks.push(Err(Status::unavailable("cut")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}

struct Case {
    folder: TempDir,
    faulty: Faulty,
    blobs: Blobs,
}

impl Case {
    async fn new() -> Self {
        let faulty = Faulty::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server =
            tonic::transport::Server::builder().add_service(WorkerSessionServer::new(faulty.clone()));
        // Or every answer would wait for an acknowledgement.
        let incoming = TcpListenerStream::new(listener)
            .map(|stream| stream.inspect(|stream| stream.set_nodelay(true).unwrap()));
        tokio::spawn(server.serve_with_incoming(incoming));
        let channel = Channel::from_shared(url).unwrap().connect_lazy();
        let folder = TempDir::new().unwrap();
        let cache = Cache::open(folder.path().join("cache"), 1 << 20).unwrap();
        Self { folder, faulty, blobs: Blobs::new(channel, cache) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn hold(&self, name: Digest, content: Vec<u8>) {
        self.faulty.0.lock().unwrap().blobs.insert(name.to_string(), content);
    }

    fn cut_at(&self, cuts: impl IntoIterator<Item = usize>) {
        self.faulty.0.lock().unwrap().cuts.extend(cuts);
    }

    fn moved(&self) -> usize {
        self.faulty.0.lock().unwrap().moved
    }
}

/// Bytes and numbers that look random and are the same each time.
fn draw(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn number(seed: u64, below: usize) -> usize {
    usize::from_le_bytes(draw(seed, 8).try_into().unwrap()) % below
}

const SIZE: usize = 3_000_000;

#[tokio::test]
async fn an_upload_that_is_cut_again_and_again_sends_nothing_twice() {
    let case = Case::new().await;
    let content = draw(1, SIZE);
    let file = case.file("checkpoint");
    std::fs::write(&file, &content).unwrap();
    case.cut_at((0..12).map(|seed| 1 + number(seed, SIZE / 8)));
    let (digest, bytes) = case.blobs.store(&file).await.unwrap();
    assert_eq!((digest, bytes), (Digest::of(&content), SIZE as u64));
    assert!(case.faulty.0.lock().unwrap().blobs[&digest.to_string()] == content);
    assert_eq!(case.moved(), SIZE);
}

#[tokio::test]
async fn a_download_that_is_cut_again_and_again_fetches_nothing_twice() {
    let case = Case::new().await;
    let content = draw(2, SIZE);
    let digest = Digest::of(&content);
    case.hold(digest, content.clone());
    case.cut_at((0..12).map(|seed| number(seed, SIZE / 8)));
    let target = case.file("restore");
    case.blobs.fetch(digest, "a1", &target).await.unwrap();
    assert!(std::fs::read(target).unwrap() == content);
    assert_eq!(case.moved(), SIZE);
}

#[tokio::test]
async fn a_download_that_goes_on_behind_damage_begins_again() {
    let case = Case::new().await;
    let content = draw(3, 100_000);
    let digest = Digest::of(&content);
    case.hold(digest, content.clone());
    std::fs::write(case.blobs.cache.part(&digest, "a1"), vec![7; 50_000]).unwrap();
    let target = case.file("restore");
    case.blobs.fetch(digest, "a1", &target).await.unwrap();
    assert!(std::fs::read(target).unwrap() == content);
}

#[tokio::test]
async fn a_full_store_is_tried_again_and_somebody_hears_of_it() {
    let case = Case::new().await;
    let file = case.file("checkpoint");
    std::fs::write(&file, b"checkpoint").unwrap();
    case.faulty.0.lock().unwrap().full = 2;
    let heard = Mutex::new(Vec::new());
    let hear = |status: &Status| heard.lock().unwrap().push(status.message().to_owned());
    case.blobs.store_watched(&file, hear).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), ["no space is left in `/data`"; 2]);
}

/// The digest is of the whole file, so there is nothing in it that could change unnoticed.
#[tokio::test]
async fn ten_thousand_cut_or_flipped_checkpoints_are_refused_every_one() {
    let case = Case::new().await;
    let content = draw(4, 2_000);
    let digest = Digest::of(&content);
    let target = case.file("restore");
    for seed in 0..10_000 {
        let mut damaged = content.clone();
        if seed % 2 == 0 {
            damaged.truncate(number(seed, content.len()));
        } else {
            damaged[number(seed, content.len())] ^= 1 << (seed / 2 % 8);
        }
        // Some come from the coordinator, the others are in the cache already, and the coordinator has none.
        let fetched = if seed % 10 < 2 {
            case.hold(digest, damaged);
            case.blobs.fetch(digest, "a1", &target).await
        } else {
            case.faulty.0.lock().unwrap().blobs.clear();
            std::fs::write(case.folder.path().join("cache").join(digest.to_string()), damaged).unwrap();
            case.blobs.fetch(digest, "a1", &target).await
        };
        assert!(matches!(fetched, Err(BlobError::Damaged { .. })), "case {seed}: {fetched:?}");
        assert!(!target.exists(), "case {seed}");
    }
    assert_eq!(std::fs::read_dir(case.folder.path().join("cache")).unwrap().count(), 0, "nothing is left");
    case.hold(digest, content.clone());
    case.blobs.fetch(digest, "a1", &target).await.unwrap();
    assert!(std::fs::read(target).unwrap() == content);
}

#[test]
fn a_full_disk_of_the_worker_is_said_to_be_one() {
    let error = |kind: io::ErrorKind| BlobError::File { path: "/data/x".into(), source: kind.into() };
    let cause = error(io::ErrorKind::StorageFull).cause();
    assert!(
        matches!(&cause, FailureCause::StorageFull { message } if message.contains("/data/x")),
        "{cause}"
    );
    assert!(matches!(error(io::ErrorKind::NotFound).cause(), FailureCause::LaunchFailed { .. }));
}
