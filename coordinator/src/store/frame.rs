//! The frame of every record: format number, checksum, bytes.
//!
//! The checksum covers the key, so that a record cannot stand in the place of another.

use common::result::{MetricRow, rows};
use serde::de::DeserializeOwned;

/// Format that this build writes. A change of meaning raises it; a new field with a default does not.
const FORMAT: u16 = 1;

const FORMAT_BYTES: usize = 2;
const SUM_BYTES: usize = 16;
const HEADER_BYTES: usize = FORMAT_BYTES + SUM_BYTES;

/// Why a record is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Shorter than any record.
    #[error("it has {bytes} bytes, fewer than a record's header")]
    Short {
        /// Its length.
        bytes: usize,
    },
    /// Bytes changed after they were written.
    #[error("its checksum does not match")]
    Checksum,
    /// Written by a newer build.
    #[error("it has format {found}, this build reads format {FORMAT}: use a newer build")]
    Format {
        /// Its format.
        found: u16,
    },
    /// Whole, but not understood.
    #[error("its content is not understood")]
    Json(#[from] serde_json::Error),
    /// A part of it is not there.
    #[error("a part of it is missing")]
    Missing,
    /// Whole, but it does not decompress.
    #[error("it does not decompress")]
    Inflate,
    /// Whole, but not metric rows.
    #[error("its content ends in the middle of a row")]
    Rows,
}

/// The metric rows within a record.
pub(super) fn rows(body: &[u8]) -> Result<Vec<MetricRow>, FrameError> {
    rows::decode(body).ok_or(FrameError::Rows)
}

pub(super) fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    let format = FORMAT.to_le_bytes();
    let mut record = Vec::with_capacity(HEADER_BYTES + body.len());
    record.extend(format);
    record.extend(checksum(format, key, body));
    record.extend(body);
    record
}

/// The bytes within a record.
pub(super) fn open<'a>(key: &[u8], record: &'a [u8]) -> Result<&'a [u8], FrameError> {
    let short = FrameError::Short { bytes: record.len() };
    let Some((format, rest)) = record.split_first_chunk::<FORMAT_BYTES>() else { return Err(short) };
    let Some((sum, body)) = rest.split_first_chunk::<SUM_BYTES>() else { return Err(short) };
    if *sum != checksum(*format, key, body) {
        return Err(FrameError::Checksum);
    }
    match u16::from_le_bytes(*format) {
        FORMAT => Ok(body),
        found => Err(FrameError::Format { found }),
    }
}

pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

fn checksum(format: [u8; FORMAT_BYTES], key: &[u8], body: &[u8]) -> [u8; SUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&format).update(&(key.len() as u64).to_le_bytes()).update(key).update(body);
    let mut sum = [0; SUM_BYTES];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_newer_format_is_refused_by_its_number() {
        let format = (FORMAT + 1).to_le_bytes();
        let record = [&format[..], &checksum(format, b"k", b"body"), b"body"].concat();
        assert!(matches!(open(b"k", &record), Err(FrameError::Format { found: 2 })));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let record = seal(b"k", b"body");
        assert_eq!(open(b"k", &record).unwrap(), b"body");
        for at in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(open(b"k", &flipped).is_err(), "bit {at}");
        }
        for length in 0..record.len() {
            assert!(open(b"k", &record[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_record_is_not_accepted_under_another_key() {
        assert!(matches!(open(b"l", &seal(b"k", b"body")), Err(FrameError::Checksum)));
    }
}
