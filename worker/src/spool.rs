//! Files of metric rows that wait for the coordinator. Which rows, and when, is decided in `worker-core`.
//!
//! A page is a file: records, each of them a report of rows.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | [`MARK`] |
//! | 4 | length of the body |
//! | 4 | CRC-32 of length and body |
//! | 8 | sequence number |
//! | the rest | rows, as [`common::result::rows`] has them |
//!
//! Numbers are little-endian. Nothing is synced: who reads a page is the process that wrote it, or nobody.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use common::result::rows;
use worker_core::{RowReport, SpoolEvent, SpoolOrder};

/// Begins a record, so that what follows a damaged one is found again.
const MARK: [u8; 4] = [0xC5, b'r', b'o', b'w'];

/// Does what is asked of the spool in an attempt's folder. It may block for as long as the disk does.
pub fn perform(folder: &Path, order: SpoolOrder) -> Option<SpoolEvent> {
    let folder = folder.join("spool");
    match order {
        SpoolOrder::Write { page, reports } => {
            let path = file(&folder, page);
            Some(match write(&path, &reports) {
                Ok(bytes) => SpoolEvent::Written { bytes },
                Err(error) => {
                    tracing::warn!(%error, "cannot write metric rows to `{}`; they wait in memory", path.display());
                    // A part of it may be there, and takes space.
                    remove(&path);
                    SpoolEvent::NotWritten { reports, message: error.to_string() }
                }
            })
        }
        SpoolOrder::Read { page } => {
            let path = file(&folder, page);
            let reports = decode(&read(&path));
            remove(&path);
            Some(SpoolEvent::Read { reports })
        }
        SpoolOrder::Remove { page } => {
            remove(&file(&folder, page));
            None
        }
    }
}

fn file(folder: &Path, page: u64) -> PathBuf {
    folder.join(format!("{page}.rows"))
}

fn write(path: &Path, reports: &[RowReport]) -> io::Result<u64> {
    let bytes = encode(reports)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::File::create(path)?.write_all(&bytes)?;
    Ok(bytes.len() as u64)
}

/// What can be read of a file. The rest is missing, and will be noticed.
fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        tracing::warn!(%error, "cannot read metric rows from `{}`", path.display());
    }
    bytes
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "cannot remove `{}`", path.display());
    }
}

fn encode(reports: &[RowReport]) -> io::Result<Vec<u8>> {
    let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a report of more than 4 GiB");
    let mut bytes = Vec::new();
    for RowReport { sequence, rows } in reports {
        let body = [&sequence.to_le_bytes()[..], &rows::encode(rows)].concat();
        let length = u32::try_from(body.len()).map_err(too_long)?.to_le_bytes();
        bytes.extend(MARK);
        bytes.extend(length);
        bytes.extend(checksum(length, &body).to_le_bytes());
        bytes.extend(body);
    }
    Ok(bytes)
}

/// Every report that is whole.
fn decode(mut bytes: &[u8]) -> Vec<RowReport> {
    let mut reports = Vec::new();
    while let Some(at) = bytes.windows(MARK.len()).position(|window| window == MARK) {
        let mut rest = &bytes[at + MARK.len()..];
        // Of a damaged record even the length may be wrong: the next one begins at the next mark, wherever that is.
        bytes = rest;
        if let Some(report) = record(&mut rest) {
            reports.push(report);
            bytes = rest;
        }
    }
    reports
}

/// Takes a record behind its mark, if it is whole.
fn record(bytes: &mut &[u8]) -> Option<RowReport> {
    let length = take(bytes)?;
    let sum = u32::from_le_bytes(take(bytes)?);
    let (mut body, rest) = bytes.split_at_checked(usize::try_from(u32::from_le_bytes(length)).ok()?)?;
    if checksum(length, body) != sum {
        return None;
    }
    *bytes = rest;
    let sequence = u64::from_le_bytes(take(&mut body)?);
    Some(RowReport { sequence, rows: rows::decode(body)? })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

fn checksum(length: [u8; 4], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use common::result::MetricRow;

    use super::*;

    fn report(sequence: u64, names: &[&str]) -> RowReport {
        let row = |(step, name): (u64, &&str)| MetricRow { step, name: (*name).to_owned(), value: 0.1 };
        RowReport { sequence, rows: (sequence..).zip(names).map(row).collect() }
    }

    fn page() -> Vec<RowReport> {
        vec![report(7, &["loss", "lr"]), report(8, &[]), report(9, &["kl/λ"]), report(10, &["", "loss"])]
    }

    /// Where each record of a page ends.
    fn ends(reports: &[RowReport]) -> Vec<usize> {
        (1..=reports.len()).map(|count| encode(&reports[..count]).unwrap().len()).collect()
    }

    #[test]
    fn a_page_reads_back_to_the_bit_and_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let written = perform(folder.path(), SpoolOrder::Write { page: 3, reports: page() });
        let bytes = encode(&page()).unwrap().len() as u64;
        assert_eq!(written, Some(SpoolEvent::Written { bytes }));
        let read = perform(folder.path(), SpoolOrder::Read { page: 3 });
        assert_eq!(read, Some(SpoolEvent::Read { reports: page() }));
        assert_eq!(fs::read_dir(folder.path().join("spool")).unwrap().count(), 0);
        let gone = perform(folder.path(), SpoolOrder::Read { page: 3 });
        assert_eq!(gone, Some(SpoolEvent::Read { reports: Vec::new() }));
    }

    #[test]
    fn values_that_are_not_finite_keep_their_bits() {
        for bits in [f64::NAN.to_bits(), 0x7ff8_0000_dead_beef, (-0.0_f64).to_bits(), f64::INFINITY.to_bits()]
        {
            let row = MetricRow { step: u64::MAX, name: "loss".to_owned(), value: f64::from_bits(bits) };
            let reports = decode(&encode(&[RowReport { sequence: 1, rows: vec![row] }]).unwrap());
            assert_eq!(reports[0].rows[0].value.to_bits(), bits);
        }
    }

    #[test]
    fn of_a_page_that_was_cut_anywhere_the_whole_records_are_read() {
        let (reports, bytes) = (page(), encode(&page()).unwrap());
        let ends = ends(&reports);
        for length in 0..=bytes.len() {
            let whole = ends.iter().filter(|&&end| end <= length).count();
            assert_eq!(decode(&bytes[..length]), reports[..whole], "cut at {length}");
        }
    }

    #[test]
    fn a_flipped_bit_loses_the_record_that_it_is_in_and_no_other() {
        let (reports, bytes) = (page(), encode(&page()).unwrap());
        let ends = ends(&reports);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut expected = reports.clone();
            expected.remove(ends.iter().filter(|&&end| end <= bit / 8).count());
            assert_eq!(decode(&flipped), expected, "bit {bit}");
        }
    }

    #[test]
    fn bytes_that_are_lost_in_the_middle_lose_the_records_that_they_are_of() {
        let (reports, bytes) = (page(), encode(&page()).unwrap());
        let ends = ends(&reports);
        // From the middle of the first record to that of the third.
        let torn = [&bytes[..ends[0] - 3], &bytes[ends[1] + 5..]].concat();
        assert_eq!(decode(&torn), reports[3..]);
    }

    #[test]
    fn a_full_disk_gives_the_rows_back_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("spool");
        fs::create_dir(&spool).unwrap();
        // Opens, and takes no byte.
        std::os::unix::fs::symlink("/dev/full", spool.join("1.rows")).unwrap();
        match perform(folder.path(), SpoolOrder::Write { page: 1, reports: page() }) {
            Some(SpoolEvent::NotWritten { reports, message }) => {
                assert_eq!(reports, page());
                assert!(message.starts_with("No space left on device"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read_dir(&spool).unwrap().count(), 0);
    }

    #[test]
    fn a_page_that_is_not_wanted_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        perform(folder.path(), SpoolOrder::Write { page: 1, reports: page() });
        assert_eq!(perform(folder.path(), SpoolOrder::Remove { page: 1 }), None);
        assert_eq!(fs::read_dir(folder.path().join("spool")).unwrap().count(), 0);
        assert_eq!(perform(folder.path(), SpoolOrder::Remove { page: 1 }), None);
    }
}
