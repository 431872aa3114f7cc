//! Finding what should not be there: staging files of interrupted uploads, and blobs that nothing refers to.

use std::fs;
use std::io;
use std::path::Path as FsPath;
use std::time::{Duration, SystemTime};

use common::Digest;
use futures::{Stream, TryStreamExt};

use super::{BlobError, Blobs, PIN, store_error};

/// A blob that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// Time since it was written.
    pub age: Duration,
}

impl Stored {
    /// Whether its upload was so long ago that whatever should refer to it does.
    pub fn is_settled(&self) -> bool {
        self.age >= PIN
    }
}

impl Blobs {
    /// Every blob.
    pub fn list(&self) -> impl Stream<Item = Result<Stored, BlobError>> + Send + use<> {
        // Only the age matters, and only roughly; no decision rests on the clock's value.
        let now = SystemTime::now();
        let stored = move |meta: object_store::ObjectMeta| {
            // Files that people put there are left alone.
            let digest = meta.location.filename().and_then(|name| name.parse().ok())?;
            let age = now.duration_since(meta.last_modified.into()).unwrap_or_default();
            Some(Stored { digest, bytes: meta.size, age })
        };
        self.store.list(None).map_err(store_error).try_filter_map(move |meta| async move { Ok(stored(meta)) })
    }
}

/// Removes the staging files (`<name>#<number>`) of uploads that a crash interrupted.
pub(super) fn remove_staged(folder: &FsPath) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_staged(&entry.path())?;
        } else if is_staged(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_staged(name: &str) -> bool {
    name.split_once('#').is_some_and(|(digest, number)| {
        digest.parse::<Digest>().is_ok() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}
