//! Files as bytes, and a cursor that knows where it stands.
//!
//! Nothing here allocates what a header declares: a file is refused by its size on disk before it is read, and
//! compressed data grows only as it is inflated, up to the size that the official data has.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::bufread::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

use crate::error::{DataError, Flaw, Position, Problem};

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, DataError> {
    let failed = |source| DataError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut bytes = Vec::new();
    // One byte more than allowed: a file that grows while it is read must not pass for a whole one.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    let found = size.max(bytes.len() as u64);
    if found > limit {
        return Err(Flaw::at(Position::File(limit), Problem::TooLarge { found, limit }).of(path));
    }
    Ok(bytes)
}

/// Inflates a whole gzip file to at most `limit` bytes, its checksum verified.
pub(crate) fn gunzip(bytes: &[u8], limit: u64) -> Result<Vec<u8>, Flaw> {
    let mut decoder = GzDecoder::new(bytes);
    let mut inflated = Vec::new();
    let outcome = (&mut decoder).take(limit + 1).read_to_end(&mut inflated);
    let rest = decoder.get_ref().len();
    let here = Position::File((bytes.len() - rest) as u64);
    match outcome {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(Flaw::at(here, Problem::CompressionTruncated))
        }
        Err(error) => Err(Flaw::at(here, Problem::Compression { detail: error.to_string().into() })),
        Ok(_) if inflated.len() as u64 > limit => {
            Err(Flaw::at(here, Problem::TooLarge { found: inflated.len() as u64, limit }))
        }
        Ok(_) if rest > 0 => Err(Flaw::at(here, Problem::Trailing { left: rest as u64 })),
        Ok(_) => Ok(inflated),
    }
}

/// Inflates zlib data that stands at byte `start` of its file, to at most `limit` bytes, its checksum verified.
///
/// The reader of `flate2` takes the end of its input for the end of the stream, so that data cut before its checksum
/// would pass; here only the end mark ends a stream.
pub(crate) fn inflate(data: &[u8], start: u64, limit: u64) -> Result<Vec<u8>, Flaw> {
    const STEP: usize = 1 << 16;
    let mut decoder = Decompress::new(true);
    let mut inflated = Vec::new();
    loop {
        #[expect(clippy::cast_possible_truncation, reason = "not more than the length of `data`")]
        let read = decoder.total_in() as usize;
        let here = Position::File(start + read as u64);
        if inflated.len() as u64 > limit {
            let found = inflated.len() as u64;
            return Err(Flaw::at(here, Problem::TooLarge { found, limit }));
        }
        inflated.reserve(STEP);
        let before = inflated.len();
        let status = decoder
            .decompress_vec(&data[read..], &mut inflated, FlushDecompress::None)
            .map_err(|error| Flaw::at(here, Problem::Compression { detail: error.to_string().into() }))?;
        if status == Status::StreamEnd {
            let left = data.len() as u64 - decoder.total_in();
            if left > 0 {
                let end = Position::File(start + decoder.total_in());
                return Err(Flaw::at(end, Problem::Trailing { left }));
            }
            return Ok(inflated);
        }
        if decoder.total_in() == read as u64 && inflated.len() == before {
            return Err(Flaw::at(here, Problem::CompressionTruncated));
        }
    }
}

/// Order of the bytes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    Little,
    Big,
}

/// Reads forward through bytes, and says where an error is.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    order: ByteOrder,
    origin: Position,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`, which stand at `origin`.
    pub(crate) fn new(bytes: &'a [u8], order: ByteOrder, origin: Position) -> Self {
        Self { bytes, at: 0, order, origin }
    }

    pub(crate) fn position(&self) -> Position {
        self.origin.plus(self.at as u64)
    }

    pub(crate) fn order(&self) -> ByteOrder {
        self.order
    }

    pub(crate) fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: u64) -> Result<&'a [u8], Flaw> {
        let left = self.left();
        if count > left {
            return Err(Flaw::at(self.position(), Problem::Truncated { needed: count, left }));
        }
        #[expect(clippy::cast_possible_truncation, reason = "not more than is left of a slice")]
        let end = self.at + count as usize;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// All bytes that are left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// A cursor over the next `count` bytes, which this one steps over.
    pub(crate) fn split(&mut self, count: u64) -> Result<Self, Flaw> {
        let origin = self.position();
        Ok(Self::new(self.take(count)?, self.order, origin))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Flaw> {
        let order = self.order;
        let bytes = self.take(4)?;
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        Ok(match order {
            ByteOrder::Little => u32::from_le_bytes(bytes),
            ByteOrder::Big => u32::from_be_bytes(bytes),
        })
    }

    /// Fails when bytes are left.
    pub(crate) fn end(&self) -> Result<(), Flaw> {
        match self.left() {
            0 => Ok(()),
            left => Err(Flaw::at(self.position(), Problem::Trailing { left })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn content() -> Vec<u8> {
        (0..100_000_u64).map(|at| ((at * at) >> 7).to_le_bytes()[0]).collect()
    }

    fn zlib(content: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_compressed_is_inflated() {
        assert_eq!(inflate(&zlib(&content()), 0, 100_000), Ok(content()));
        assert_eq!(gunzip(&gzip(&content()), 100_000), Ok(content()));
    }

    #[test]
    fn zlib_data_cut_anywhere_is_refused() {
        let whole = zlib(&content());
        // All cuts near the end, where only the checksum is missing; a sample before.
        for cut in (0..whole.len()).filter(|cut| cut % 97 == 0 || cut + 12 > whole.len()) {
            let flaw = inflate(&whole[..cut], 1_000, 100_000).unwrap_err();
            assert_eq!(flaw.problem, Problem::CompressionTruncated, "cut at {cut}");
        }
    }

    #[test]
    fn a_gzip_file_cut_anywhere_is_refused() {
        let whole = gzip(&content());
        for cut in (0..whole.len()).filter(|cut| cut % 97 == 0 || cut + 12 > whole.len()) {
            let flaw = gunzip(&whole[..cut], 100_000).unwrap_err();
            assert_eq!(flaw.problem, Problem::CompressionTruncated, "cut at {cut}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_refused() {
        let mut bytes = zlib(&content());
        *bytes.last_mut().unwrap() ^= 1;
        assert!(matches!(inflate(&bytes, 0, 100_000).unwrap_err().problem, Problem::Compression { .. }));
        let mut bytes = gzip(&content());
        let crc = bytes.len() - 8;
        bytes[crc] ^= 1;
        assert!(matches!(gunzip(&bytes, 100_000).unwrap_err().problem, Problem::Compression { .. }));
    }

    #[test]
    fn inflation_stops_at_the_limit() {
        let bomb = vec![0; 10_000_000];
        for flaw in [inflate(&zlib(&bomb), 0, 1_000).unwrap_err(), gunzip(&gzip(&bomb), 1_000).unwrap_err()] {
            let Problem::TooLarge { found, limit: 1_000 } = flaw.problem else { panic!("{flaw:?}") };
            assert!(found <= 1_000 + (1 << 17), "inflated {found} bytes before it stopped");
        }
    }

    #[test]
    fn data_after_the_end_mark_is_refused() {
        for (bytes, outcome) in [(zlib(&content()), true), (gzip(&content()), false)] {
            let longer: Vec<u8> = bytes.iter().copied().chain([1, 2, 3]).collect();
            let result = if outcome { inflate(&longer, 0, 100_000) } else { gunzip(&longer, 100_000) };
            let end = Position::File(bytes.len() as u64);
            assert_eq!(result, Err(Flaw::at(end, Problem::Trailing { left: 3 })));
        }
    }

    #[test]
    fn a_file_above_the_limit_is_refused_by_its_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        let error = read(file.path(), 100).unwrap_err();
        let DataError::Corrupt { problem: Problem::TooLarge { found, limit: 100 }, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(found, 1 << 40);
    }
}
