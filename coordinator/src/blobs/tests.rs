use tempfile::TempDir;

use super::*;

const LIMIT: u64 = 64 << 20;

struct Folder {
    dir: TempDir,
    blobs: Blobs,
}

impl Folder {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let blobs = Blobs::open_local(dir.path(), LIMIT).unwrap();
        Self { dir, blobs }
    }

    fn file(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.dir.path().join(&name[..2]).join(name)
    }

    /// Every file below the folder.
    fn files(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.dir.path().to_owned()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }
}

/// Not periodic, so that a piece in the wrong place is noticed.
fn bytes(count: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(count).unwrap()];
    Hasher::new().update(&count.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

async fn upload(blobs: &Blobs, digest: Digest, announced: u64, bytes: &[u8]) -> Result<(), BlobError> {
    match blobs.announce(digest, announced).await? {
        Announced::Known => Ok(()),
        Announced::Wanted(mut upload) => {
            for chunk in bytes.chunks(proto::CHUNK_BYTES) {
                upload.write(Bytes::copy_from_slice(chunk)).await?;
            }
            upload.finish().await
        }
    }
}

async fn store(blobs: &Blobs, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    upload(blobs, digest, bytes.len() as u64, bytes).await.unwrap();
    digest
}

async fn read(blobs: &Blobs, digest: Digest) -> Result<Vec<u8>, BlobError> {
    let pieces: Vec<Bytes> = blobs.download(digest).await?.try_collect().await?;
    Ok(pieces.concat())
}

#[tokio::test]
async fn what_is_stored_reads_back_whatever_its_size() {
    let Folder { dir: _dir, blobs } = &Folder::new();
    for count in [0, 1, READ_BYTES - 1, READ_BYTES, 8 << 20, (16 << 20) + 12_345] {
        let bytes = bytes(count);
        let digest = store(blobs, &bytes).await;
        assert_eq!(blobs.size(digest).await.unwrap(), Some(count));
        assert!(read(blobs, digest).await.unwrap() == bytes, "{count} bytes");
    }
}

#[tokio::test]
async fn a_tail_holds_the_last_bytes() {
    let Folder { dir: _dir, blobs } = &Folder::new();
    let bytes = bytes(READ_BYTES + 10);
    let digest = store(blobs, &bytes).await;
    for tail in [0, 3, 10, 11, READ_BYTES, READ_BYTES + 10, u64::MAX] {
        let pieces: Vec<Bytes> =
            blobs.download_tail(digest, tail).await.unwrap().try_collect().await.unwrap();
        let start = bytes.len().saturating_sub(usize::try_from(tail).unwrap());
        assert!(pieces.concat() == bytes[start..], "tail {tail}");
    }
}

#[tokio::test]
async fn bytes_with_another_digest_leave_nothing_behind() {
    let folder = Folder::new();
    let error = upload(&folder.blobs, Digest::of(b"other"), 5, b"bytes").await.unwrap_err();
    assert!(matches!(error, BlobError::Mismatch { .. }), "{error}");
    tokio::task::yield_now().await;
    assert_eq!(folder.blobs.size(Digest::of(b"other")).await.unwrap(), None);
    assert_eq!(folder.blobs.size(Digest::of(b"bytes")).await.unwrap(), None);
}

#[tokio::test]
async fn an_upload_that_is_cut_or_too_long_is_refused() {
    let folder = Folder::new();
    let digest = Digest::of(b"bytes");
    for sent in [&b"byte"[..], b"bytes!", b""] {
        let error = upload(&folder.blobs, digest, 5, sent).await.unwrap_err();
        assert!(matches!(error, BlobError::Size { .. }), "{error}");
        assert_eq!(folder.blobs.size(digest).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_blob_above_the_limit_is_refused_before_its_bytes() {
    let folder = Folder::new();
    let error = folder.blobs.announce(Digest::of(b"x"), LIMIT + 1).await.unwrap_err();
    assert!(matches!(error, BlobError::TooLarge { .. }), "{error}");
    assert!(folder.files().is_empty());
}

#[tokio::test]
async fn a_flipped_byte_ends_the_download_with_an_error() {
    let folder = Folder::new();
    let bytes = bytes(READ_BYTES + 100);
    let digest = store(&folder.blobs, &bytes).await;
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(folder.file(digest), damaged).unwrap();
        let error = read(&folder.blobs, digest).await.unwrap_err();
        assert!(matches!(error, BlobError::Damaged(found) if found == digest), "{error}");
        assert_eq!(error.kind(), ErrorKind::DataLoss);
    }
}

#[tokio::test]
async fn a_file_that_was_cut_is_damaged() {
    let folder = Folder::new();
    let digest = store(&folder.blobs, b"bytes").await;
    fs::write(folder.file(digest), b"byt").unwrap();
    assert!(matches!(read(&folder.blobs, digest).await, Err(BlobError::Damaged(_))));
}

#[tokio::test]
async fn a_stored_blob_is_known_and_a_damaged_one_is_stored_again() {
    let folder = Folder::new();
    let digest = store(&folder.blobs, b"bytes").await;
    assert!(matches!(folder.blobs.announce(digest, 5).await, Ok(Announced::Known)));
    fs::write(folder.file(digest), b"bytez").unwrap();
    store(&folder.blobs, b"bytes").await;
    assert_eq!(read(&folder.blobs, digest).await.unwrap(), b"bytes");
}

#[tokio::test]
async fn what_interrupted_uploads_left_is_removed_and_nothing_else() {
    let folder = Folder::new();
    let digest = store(&folder.blobs, b"bytes").await;
    let staged = folder.file(digest).with_file_name(format!("{digest}#7"));
    fs::write(&staged, b"by").unwrap();
    let foreign = folder.dir.path().join("notes#1");
    fs::write(&foreign, b"kept").unwrap();

    let blobs = Blobs::open_local(folder.dir.path(), LIMIT).unwrap();
    assert!(!staged.exists());
    assert!(foreign.exists());
    assert_eq!(read(&blobs, digest).await.unwrap(), b"bytes");
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_was_just_stored_is_not_deleted_before_something_refers_to_it() {
    let Folder { dir: _dir, blobs } = &Folder::new();
    let digest = store(blobs, b"bytes").await;
    blobs.delete(digest).await.unwrap();
    assert_eq!(blobs.size(digest).await.unwrap(), Some(5));

    blobs.unpin(digest).await;
    blobs.delete(digest).await.unwrap();
    assert_eq!(blobs.size(digest).await.unwrap(), None);
    blobs.delete(digest).await.unwrap();

    let forgotten = store(blobs, b"more bytes").await;
    tokio::time::advance(PIN).await;
    blobs.delete(forgotten).await.unwrap();
    assert_eq!(blobs.size(forgotten).await.unwrap(), None);
}

#[tokio::test]
async fn the_list_names_every_blob_and_no_other_file() {
    let folder = Folder::new();
    let mut stored = vec![store(&folder.blobs, b"a").await, store(&folder.blobs, b"b").await];
    fs::write(folder.dir.path().join("readme"), b"x").unwrap();
    let listed: Vec<Stored> = folder.blobs.list().try_collect().await.unwrap();
    let mut names: Vec<Digest> = listed.iter().map(|blob| blob.digest).collect();
    names.sort();
    stored.sort();
    assert_eq!(names, stored);
    assert!(listed.iter().all(|blob| blob.bytes == 1 && !blob.is_settled()));
}

#[tokio::test]
async fn an_upload_that_was_cut_goes_on_behind_what_came() {
    let folder = Folder::new();
    let bytes = bytes(3 * READ_BYTES + 77);
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    let mut blobs = folder.blobs.clone();
    let mut sent = 0;
    for cut in [0, 1, 4096, 1_000_000, bytes.len()] {
        let received = blobs.received(digest).await.unwrap();
        assert!(received <= sent as u64, "{received} of {sent}");
        let offset = usize::try_from(received).unwrap();
        let Announced::Wanted(mut upload) = blobs.resume(digest, size, received).await.unwrap() else {
            panic!("it is not stored")
        };
        for chunk in bytes[offset..cut].chunks(10_000) {
            upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        sent = cut;
        if cut == bytes.len() {
            upload.finish().await.unwrap();
        } else if cut > 4096 {
            // Also after a restart, as far as the bytes came to the disk.
            drop(upload);
            blobs = Blobs::open_local(folder.dir.path(), LIMIT).unwrap();
        }
    }
    assert!(read(&blobs, digest).await.unwrap() == bytes);
    assert_eq!(folder.files(), [folder.file(digest)], "nothing else is left");
}

#[tokio::test]
async fn an_upload_that_goes_on_elsewhere_is_told_where() {
    let folder = Folder::new();
    let digest = Digest::of(b"bytes");
    let Announced::Wanted(mut first) = folder.blobs.announce(digest, 5).await.unwrap() else { panic!() };
    first.write(Bytes::from_static(b"byt")).await.unwrap();
    let wrong = folder.blobs.resume(digest, 5, 2).await.unwrap_err();
    assert!(matches!(wrong, BlobError::Offset { received: 3, .. }), "{wrong}");
    assert_eq!(wrong.kind(), ErrorKind::Unavailable);

    let Announced::Wanted(mut second) = folder.blobs.resume(digest, 5, 3).await.unwrap() else { panic!() };
    let superseded = first.write(Bytes::from_static(b"es")).await.unwrap_err();
    assert!(matches!(superseded, BlobError::Superseded(_)), "{superseded}");
    second.write(Bytes::from_static(b"es")).await.unwrap();
    second.finish().await.unwrap();
    assert_eq!(read(&folder.blobs, digest).await.unwrap(), b"bytes");
}

#[tokio::test]
async fn what_nobody_goes_on_with_is_removed_in_time() {
    let folder = Folder::new();
    let digest = Digest::of(b"bytes");
    let Announced::Wanted(mut upload) = folder.blobs.announce(digest, 5).await.unwrap() else { panic!() };
    upload.write(Bytes::from_static(b"byt")).await.unwrap();
    drop(upload);
    folder.blobs.expire_uploads().await;
    assert_eq!(folder.blobs.received(digest).await.unwrap(), 3);
    let old = std::time::SystemTime::now() - Duration::from_secs(25 * 60 * 60);
    let file = folder.blobs.part_file(digest);
    fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
    folder.blobs.expire_uploads().await;
    assert_eq!(folder.blobs.received(digest).await.unwrap(), 0);
    assert!(!file.exists());
}
