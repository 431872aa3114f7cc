//! The form of a store in one portable file: framed records, each with its number and checksums, and a trailer.
//!
//! A record's head has a checksum of its own, so that its lengths can be trusted before its bytes are there:
//! what ends in the middle of a record was cut, and everything else that does not fit was changed. Without
//! that, one flipped bit of a length would pass for a cut, and the rest of the file would be given up for it.
//!
//! ```text
//! file   = "credence export\n" format:u32 sum:8  record* trailer
//! record = number:u64 tree:u8 key-bytes:u32 body-bytes:u32 sum:8  key body sum:16
//! ```
//!
//! Numbers are little-endian and count from 1. Bodies are the store's own sealed records.

use std::io::{self, Read, Write};

use super::frame;

const MAGIC: &[u8; 16] = b"credence export\n";
const FORMAT: u32 = 1;
const PREFACE_BYTES: usize = 16 + 4 + 8;
const HEAD_BYTES: usize = 8 + 1 + 4 + 4 + 8;
const SUM_BYTES: usize = 16;

/// Longer than any record of a store can be.
const LONGEST: u32 = 1 << 30;

/// Where a record belongs. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Meta,
    Snapshots,
    Events,
    Logs,
    Warnings,
    Metrics,
    /// The last record: how many came before it.
    Trailer,
}

const SECTIONS: [Section; 7] = [
    Section::Meta,
    Section::Snapshots,
    Section::Events,
    Section::Logs,
    Section::Warnings,
    Section::Metrics,
    Section::Trailer,
];

/// A whole record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) section: Section,
    pub(super) key: Vec<u8>,
    /// Sealed, as the store keeps it.
    pub(super) body: Vec<u8>,
}

/// Why there is no next record.
#[derive(Debug, thiserror::Error)]
pub enum PortableError {
    /// Another kind of file.
    #[error("it is no export of a store")]
    Foreign,
    /// Written by a newer build.
    #[error("it has format {0}, this build reads format {FORMAT}: use a newer build")]
    Format(u32),
    /// It was cut.
    #[error("it ends after {whole} whole records, before its trailer: its end was cut")]
    Torn {
        /// Whole records before the cut.
        whole: u64,
    },
    /// It was changed.
    #[error("record {record} is damaged: use another copy of the file")]
    Damaged {
        /// Number of the record; 0 for what comes before the first.
        record: u64,
    },
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
}

/// Writes records.
pub(super) struct Writer<W> {
    out: W,
    written: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(mut out: W) -> io::Result<Self> {
        let mut preface = [MAGIC, &FORMAT.to_le_bytes()[..]].concat();
        preface.extend(short_sum(&preface));
        out.write_all(&preface)?;
        Ok(Self { out, written: 0 })
    }

    pub(super) fn put(&mut self, section: Section, key: &[u8], body: &[u8]) -> io::Result<()> {
        self.written += 1;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend(self.written.to_le_bytes());
        head.push(section as u8);
        head.extend(length(key)?.to_le_bytes());
        head.extend(length(body)?.to_le_bytes());
        head.extend(short_sum(&head));
        self.out.write_all(&head)?;
        self.out.write_all(key)?;
        self.out.write_all(body)?;
        self.out.write_all(&sum(&head, key, body))
    }

    /// Writes the trailer. Returns how many records there are beside it.
    pub(super) fn end(mut self) -> io::Result<(W, u64)> {
        let records = self.written;
        let key = records.to_le_bytes();
        self.put(Section::Trailer, &key, &[])?;
        Ok((self.out, records))
    }
}

/// Reads records until the trailer.
pub(super) struct Scan<R> {
    input: R,
    whole: u64,
    begun: bool,
    ended: bool,
}

impl<R: Read> Scan<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, whole: 0, begun: false, ended: false }
    }

    /// The next record; `None` after the trailer.
    fn read(&mut self) -> Result<Option<Record>, PortableError> {
        if !self.begun {
            self.preface()?;
            self.begun = true;
        }
        let number = self.whole + 1;
        let damaged = PortableError::Damaged { record: number };
        let head: [u8; HEAD_BYTES] = self.exactly(HEAD_BYTES)?.try_into().map_err(|_| self.torn())?;
        let (fields, head_sum) = head.split_at(HEAD_BYTES - 8);
        if short_sum(fields) != head_sum {
            return Err(damaged);
        }
        let field = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let section = SECTIONS.get(usize::from(head[8]));
        let (key_bytes, body_bytes) = (field(9), field(13));
        let (Some(&section), true) = (section, head[..8] == number.to_le_bytes()) else {
            return Err(damaged);
        };
        if key_bytes.max(body_bytes) > LONGEST {
            return Err(damaged);
        }
        let key = self.exactly(key_bytes as usize)?;
        let body = self.exactly(body_bytes as usize)?;
        let found = self.exactly(SUM_BYTES)?;
        if found != sum(&head, &key, &body) {
            return Err(damaged);
        }
        if section == Section::Trailer {
            let complete = key == self.whole.to_le_bytes() && self.some(1)?.is_empty();
            return if complete { Ok(None) } else { Err(damaged) };
        }
        // The store's own checksum: a file made of damaged records is refused, too.
        frame::open(&key, &body).map_err(|_| damaged)?;
        self.whole = number;
        Ok(Some(Record { section, key, body }))
    }

    fn preface(&mut self) -> Result<(), PortableError> {
        let preface = self.some(PREFACE_BYTES)?;
        let shared = preface.len().min(MAGIC.len());
        if preface[..shared] != MAGIC[..shared] {
            return Err(PortableError::Foreign);
        }
        let Some((fields, found)) = preface.split_at_checked(PREFACE_BYTES - 8) else {
            return Err(self.torn());
        };
        if found.len() < 8 {
            return Err(self.torn());
        }
        if short_sum(fields) != found {
            return Err(PortableError::Damaged { record: 0 });
        }
        match fields[16..] {
            [a, b, c, d] if u32::from_le_bytes([a, b, c, d]) == FORMAT => Ok(()),
            [a, b, c, d] => Err(PortableError::Format(u32::from_le_bytes([a, b, c, d]))),
            _ => Err(PortableError::Damaged { record: 0 }),
        }
    }

    fn torn(&self) -> PortableError {
        PortableError::Torn { whole: self.whole }
    }

    fn exactly(&mut self, bytes: usize) -> Result<Vec<u8>, PortableError> {
        let found = self.some(bytes)?;
        if found.len() == bytes { Ok(found) } else { Err(self.torn()) }
    }

    /// So many bytes, or all that are left.
    fn some(&mut self, bytes: usize) -> Result<Vec<u8>, PortableError> {
        let mut found = Vec::new();
        (&mut self.input).take(bytes as u64).read_to_end(&mut found)?;
        Ok(found)
    }
}

impl<R: Read> Iterator for Scan<R> {
    type Item = Result<Record, PortableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

fn short_sum(bytes: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut sum);
    sum
}

fn sum(head: &[u8], key: &[u8], body: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = [0; SUM_BYTES];
    blake3::Hasher::new().update(head).update(key).update(body).finalize_xof().fill(&mut sum);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new()).unwrap();
        for (number, section) in (0_u8..).zip([Section::Events, Section::Events, Section::Metrics]) {
            let key = [number; 8];
            writer.put(section, &key, &frame::seal(&key, &vec![number; 20 * usize::from(number)])).unwrap();
        }
        let (bytes, records) = writer.end().unwrap();
        assert_eq!(records, 3);
        bytes
    }

    fn scan(bytes: &[u8]) -> (u64, Option<PortableError>) {
        let mut whole = 0;
        for record in Scan::new(bytes) {
            match record {
                Ok(_) => whole += 1,
                Err(error) => return (whole, Some(error)),
            }
        }
        (whole, None)
    }

    #[test]
    fn a_file_cut_at_any_byte_gives_its_whole_records_and_says_that_it_was_cut() {
        let bytes = file();
        assert!(matches!(scan(&bytes), (3, None)));
        let mut last = 0;
        for length in 0..bytes.len() {
            let (found, error) = scan(&bytes[..length]);
            assert!(
                matches!(error, Some(PortableError::Torn { whole }) if whole == found),
                "{length}: {error:?}"
            );
            assert!(found >= last, "{length}");
            last = found;
        }
        assert_eq!(last, 3, "a file without its trailer was cut");
    }

    #[test]
    fn a_file_with_any_bit_flipped_is_damaged_and_never_cut() {
        let bytes = file();
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let (whole, error) = scan(&flipped);
            match error {
                Some(PortableError::Damaged { record }) => assert!(record <= whole + 1, "bit {at}"),
                Some(PortableError::Foreign) => assert!(at / 8 < MAGIC.len(), "bit {at}"),
                other => panic!("bit {at}: {other:?}"),
            }
        }
    }

    #[test]
    fn bytes_after_the_trailer_are_damage() {
        let mut bytes = file();
        bytes.push(0);
        assert!(matches!(scan(&bytes), (3, Some(PortableError::Damaged { record: 4 }))));
    }
}
