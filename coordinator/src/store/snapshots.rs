//! Snapshots of the state, and compaction of the log.
//!
//! A snapshot covers the first so many events. It is stored in chunks of compressed lines, each line one part in
//! JSON, and a head that says how many chunks there are. It exists when its head does, and the head is written
//! when the chunks are durable. The two newest are kept, with every event after the older one: so a damaged
//! newest snapshot costs time, and nothing else.
//!
//! A crash between any two steps leaves one of three things, and the next compaction clears them away: chunks
//! without a head, chunks of a snapshot that was given up, events that a kept snapshot covers.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::trees::{META, SNAPSHOTS, Trees};
use super::{FrameError, frame, sequence_of, to_json};

/// Bytes of lines of one chunk, before they are compressed.
const CHUNK_BYTES: usize = 1 << 20;

/// Snapshots that are kept.
const KEPT: usize = 2;

/// Entries that are removed at once. sled keeps every version of a page that one batch replaces until the batch is done,
/// and an entry is small beside its page.
const BATCH: usize = 128;

/// Entries that are removed between two flushes.
const FLUSHED: usize = 4096;

/// Prefix of the keys of heads.
const HEAD: &[u8] = b"snapshot-";

/// What a snapshot consists of.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Head {
    chunks: u32,
    parts: u64,
}

/// A snapshot that is stored.
#[derive(Clone, Debug)]
pub struct StoredSnapshot {
    trees: Trees,
    covers: u64,
    head: Head,
}

/// A step of a compaction that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Leftovers are gone.
    Cleared,
    /// A chunk is written, and durable.
    Chunk,
    /// The head is written.
    Head,
    /// The head is durable: the snapshot exists.
    Stored,
    /// The head of an older snapshot is gone.
    Unheaded,
    /// Some chunks or events are gone.
    Removed,
}

/// Writes snapshots and removes what they cover, while the store writes.
#[derive(Clone, Debug)]
pub struct Compactor {
    trees: Trees,
    file: Arc<File>,
}

impl StoredSnapshot {
    /// Every snapshot, the newest first.
    pub(super) fn all(trees: &Trees) -> Result<Vec<Self>, StoreError> {
        let mut found = heads(trees)?
            .into_iter()
            .map(|(covers, head)| Self { trees: trees.clone(), covers, head })
            .collect::<Vec<_>>();
        found.reverse();
        Ok(found)
    }

    /// How many events it stands for.
    pub fn covers(&self) -> u64 {
        self.covers
    }

    /// How many parts it has.
    pub fn parts(&self) -> u64 {
        self.head.parts
    }

    /// Hands every part, in order, to `take`.
    ///
    /// # Errors
    ///
    /// [`StoreError::DamagedSnapshot`] when it is not what was written; some parts may have been handed over.
    pub fn read<T: DeserializeOwned>(&self, mut take: impl FnMut(T)) -> Result<(), StoreError> {
        let damaged = |source| StoreError::DamagedSnapshot { covers: self.covers, source };
        let mut parts = 0;
        for chunk in 0..self.head.chunks {
            let key = chunk_key(self.covers, chunk);
            let record = self.trees.records(SNAPSHOTS, self.trees.snapshots.scan_prefix(key)).next();
            let (_, record) = record.transpose()?.ok_or_else(|| damaged(FrameError::Missing))?;
            let body = frame::open(&key, &record).map_err(damaged)?;
            let mut lines = Vec::new();
            DeflateDecoder::new(body).read_to_end(&mut lines).map_err(|_| damaged(FrameError::Inflate))?;
            for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                take(frame::json(line).map_err(damaged)?);
                parts += 1;
            }
        }
        if parts == self.head.parts { Ok(()) } else { Err(damaged(FrameError::Missing)) }
    }
}

impl Compactor {
    pub(super) fn new(trees: &Trees, file: &File) -> Result<Self, StoreError> {
        let file = file.try_clone().map_err(|source| super::folder_error(&trees.path, source))?;
        Ok(Self { trees: trees.clone(), file: Arc::new(file) })
    }

    /// Stores a snapshot of the state after the first `covers` events, then removes what it makes superfluous.
    ///
    /// # Errors
    ///
    /// What the database said. What was stored before is whole.
    pub fn compact<T: Serialize>(
        &self,
        covers: u64,
        parts: impl Iterator<Item = T>,
    ) -> Result<(), StoreError> {
        self.compact_while(covers, parts, |_| true)
    }

    /// The same, as long as `go_on` says so after each step.
    ///
    /// # Errors
    ///
    /// What the database said. What was stored before is whole.
    pub fn compact_while<T: Serialize>(
        &self,
        covers: u64,
        parts: impl Iterator<Item = T>,
        mut go_on: impl FnMut(Stage) -> bool,
    ) -> Result<(), StoreError> {
        let known = heads(&self.trees)?.iter().any(|&(known, _)| known == covers);
        let done = self.clear(&mut go_on)?
            && (known || self.store(covers, parts, &mut go_on)?)
            && self.prune(&mut go_on)?;
        tracing::debug!(covers, done, "log compacted");
        Ok(())
    }

    /// Removes chunks without a head. False when it was told to stop, like every step.
    fn clear(&self, go_on: &mut impl FnMut(Stage) -> bool) -> Result<bool, StoreError> {
        let heads = heads(&self.trees)?;
        let stray = |key: &[u8]| {
            let covers = key.first_chunk().map(|covers| u64::from_be_bytes(*covers));
            !heads.iter().any(|&(head, _)| Some(head) == covers)
        };
        Ok(self.remove(&self.trees.snapshots, stray, go_on)? && go_on(Stage::Cleared))
    }

    fn store<T: Serialize>(
        &self,
        covers: u64,
        mut parts: impl Iterator<Item = T>,
        go_on: &mut impl FnMut(Stage) -> bool,
    ) -> Result<bool, StoreError> {
        let mut head = Head { chunks: 0, parts: 0 };
        loop {
            let mut lines = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
            for part in parts.by_ref() {
                lines.extend(to_json(&part));
                lines.push(b'\n');
                head.parts += 1;
                if lines.len() >= CHUNK_BYTES {
                    break;
                }
            }
            if lines.is_empty() {
                break;
            }
            let key = chunk_key(covers, head.chunks);
            self.trees.put(&self.trees.snapshots, &key, &frame::seal(&key, &deflate(&lines)))?;
            // Each by itself, so that no commit finds many megabytes before it in the queue to the disk.
            self.trees.flush(&self.file)?;
            head.chunks += 1;
            if !go_on(Stage::Chunk) {
                return Ok(false);
            }
        }
        let key = head_key(covers);
        self.trees.put(&self.trees.meta, &key, &frame::seal(&key, &to_json(&head)))?;
        if !go_on(Stage::Head) {
            return Ok(false);
        }
        self.trees.flush(&self.file)?;
        Ok(go_on(Stage::Stored))
    }

    /// Gives up all snapshots but the newest, and the events that the oldest of those covers.
    fn prune(&self, go_on: &mut impl FnMut(Stage) -> bool) -> Result<bool, StoreError> {
        let heads = heads(&self.trees)?;
        let superfluous = heads.len().saturating_sub(KEPT);
        for &(covers, _) in &heads[..superfluous] {
            let prefix = head_key(covers);
            if !self.remove(&self.trees.meta, |key| key.starts_with(&prefix), &mut |_| true)? {
                return Ok(false);
            }
            if !go_on(Stage::Unheaded) {
                return Ok(false);
            }
        }
        if superfluous > 0 {
            // No chunk before its head.
            self.trees.flush(&self.file)?;
        }
        if !self.clear(go_on)? {
            return Ok(false);
        }
        let [(oldest, _), ..] = heads[superfluous..] else { return Ok(true) };
        if heads.len() < KEPT {
            return Ok(true); // The events are what there is beside the only snapshot.
        }
        let covered = |key: &[u8]| key.first_chunk().is_some_and(|key| u64::from_be_bytes(*key) <= oldest);
        self.remove(&self.trees.events, covered, go_on)
    }

    /// Removes entries from the first on, while `which` holds.
    fn remove(
        &self,
        tree: &sled::Tree,
        which: impl Fn(&[u8]) -> bool,
        go_on: &mut impl FnMut(Stage) -> bool,
    ) -> Result<bool, StoreError> {
        let failed = |source| self.trees.error(source);
        // Only in the log are all those that go before all those that stay.
        let ordered = *tree.name() == *super::EVENTS.as_bytes();
        let stays = |key: &sled::Result<sled::IVec>| key.as_ref().is_ok_and(|key| !which(key));
        let entries = tree.iter().keys().take_while(|key| !(ordered && stays(key)));
        let mut doomed = entries.filter(|key| !stays(key)).fuse();
        loop {
            let mut removed = 0;
            while removed < FLUSHED {
                let mut batch = sled::Batch::default();
                let mut found = 0;
                for key in doomed.by_ref().take(BATCH) {
                    batch.remove(key.map_err(failed)?);
                    found += 1;
                }
                if found == 0 {
                    break;
                }
                tree.apply_batch(batch).map_err(failed)?;
                removed += found;
            }
            if removed == 0 {
                return Ok(true);
            }
            self.trees.flush(&self.file)?;
            if !go_on(Stage::Removed) {
                return Ok(false);
            }
        }
    }
}

/// The last event that a snapshot covers; 0 without one.
pub(super) fn newest_covered(trees: &Trees) -> Result<u64, StoreError> {
    Ok(heads(trees)?.last().map_or(0, |&(covers, _)| covers))
}

/// Heads of the snapshots, oldest first.
fn heads(trees: &Trees) -> Result<Vec<(u64, Head)>, StoreError> {
    let heads = trees.records(META, trees.meta.scan_prefix(HEAD)).map(|entry| {
        let (key, record) = entry?;
        let covers = sequence_of(&key[HEAD.len()..])?;
        let head = frame::open(&key, &record).and_then(frame::json);
        Ok((covers, head.map_err(|source| StoreError::DamagedSnapshot { covers, source })?))
    });
    heads.collect()
}

pub(super) fn head_key(covers: u64) -> Vec<u8> {
    [HEAD, &covers.to_be_bytes()].concat()
}

fn chunk_key(covers: u64, chunk: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&covers.to_be_bytes());
    key[8..].copy_from_slice(&chunk.to_be_bytes());
    key
}

fn deflate(lines: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(lines).and_then(|()| encoder.finish()).expect("writing into memory does not fail")
}
