//! What was acknowledged, kept outside of the database.
//!
//! A database whose file lost its end opens as if that end had never been written. So after each commit the
//! number of commits and the newest event are noted in a small file beside it; one that is ahead of the
//! database says that something is missing. The note is written after the database is durable, so it is never
//! ahead of it otherwise, and into two places in turn, so that a torn write leaves the one before.
//!
//! It is handed to the operating system at each commit and synced once a second: a killed process loses
//! nothing of it, and a loss of power at most the notes of a second, never the commits that they are about.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::MARK_FILE;
use super::error::{StoreError, folder_error};

/// Bytes of one note: format, commits, events, checksum.
const NOTE_BYTES: usize = 8 + 8 + 8 + 16;

/// Distance of the two places: they share no sector.
const PLACE_BYTES: u64 = 4096;

const FORMAT: u64 = 1;

/// Time between two syncs.
const SYNC: Duration = Duration::from_secs(1);

/// What was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Acknowledged {
    /// Commits since the store was made.
    pub(super) commits: u64,
    /// The newest event.
    pub(super) events: u64,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    synced: Option<Instant>,
}

impl Mark {
    /// Opens the file below `data_dir`, and makes it if it is not there. What it holds is `None` in a new one.
    pub(super) fn open(data_dir: &Path) -> Result<(Self, Option<Acknowledged>), StoreError> {
        let folder = |source| folder_error(data_dir, source);
        let path = data_dir.join(MARK_FILE);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(folder)?;
        let bytes = file.metadata().map_err(folder)?.len();
        let noted = if bytes == 0 { None } else { Some(read(&file).map_err(folder)?) };
        let Some(noted) = noted else {
            return Ok((Self { file, synced: None }, None));
        };
        let noted = noted.ok_or_else(|| StoreError::DamagedMark { path: data_dir.to_owned() })?;
        Ok((Self { file, synced: None }, Some(noted)))
    }

    /// Notes what is durable.
    pub(super) fn note(&mut self, what: Acknowledged) -> io::Result<()> {
        let place = what.commits % 2 * PLACE_BYTES;
        self.file.write_all_at(&encode(what), place)?;
        if self.synced.is_none_or(|synced| synced.elapsed() >= SYNC) {
            self.file.sync_data()?;
            self.synced = Some(Instant::now());
        }
        Ok(())
    }
}

/// The newest note that is whole; `None` when there is none.
fn read(file: &File) -> io::Result<Option<Acknowledged>> {
    let mut newest = None;
    for place in [0, PLACE_BYTES] {
        let mut note = [0; NOTE_BYTES];
        match file.read_exact_at(&mut note, place) {
            Ok(()) => newest = newest.max(decode(&note)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
    }
    Ok(newest)
}

fn encode(Acknowledged { commits, events }: Acknowledged) -> [u8; NOTE_BYTES] {
    let mut note = [0; NOTE_BYTES];
    for (part, number) in note.chunks_exact_mut(8).zip([FORMAT, commits, events]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    let sum = checksum(&note);
    note[24..].copy_from_slice(&sum);
    note
}

fn decode(note: &[u8; NOTE_BYTES]) -> Option<Acknowledged> {
    if note[24..] != checksum(note) {
        return None;
    }
    let number = |at: usize| Some(u64::from_le_bytes(note[at..at + 8].try_into().ok()?));
    let (format, commits, events) = (number(0)?, number(8)?, number(16)?);
    (format == FORMAT).then_some(Acknowledged { commits, events })
}

fn checksum(note: &[u8; NOTE_BYTES]) -> [u8; 16] {
    let mut sum = [0; 16];
    blake3::Hasher::new().update(&note[..24]).finalize_xof().fill(&mut sum);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_note_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let (mut mark, noted) = Mark::open(dir.path()).unwrap();
        assert_eq!(noted, None);
        let what = |commits| Acknowledged { commits, events: 10 * commits };
        for commits in 1..=5 {
            mark.note(what(commits)).unwrap();
        }
        let reopened = || Mark::open(dir.path()).map(|(_, noted)| noted.unwrap());
        assert_eq!(reopened().unwrap(), what(5));
        let path = dir.path().join(MARK_FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        let newest = usize::try_from(PLACE_BYTES).unwrap();
        bytes[newest + 9] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(reopened().unwrap(), what(4));
        bytes[9] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(reopened(), Err(StoreError::DamagedMark { .. })));
    }
}
