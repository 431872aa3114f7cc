//! numpy's `.npy` files: arrays of bytes in C order, of which only the rows that are needed are read.
//!
//! Source: NEP 1, *A Simple File Format for NumPy Arrays*, versions 1, 2 and 3 of the format. Refused: pickled
//! objects, Fortran order, other element types than asked for, files longer or shorter than their header says.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{DataError, Flaw, Position, Problem};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Headers that numpy writes are below 200 bytes.
const LONGEST_HEADER: u64 = 1 << 16;

/// An array on disk, whose header has been read and agrees with the file's size.
#[derive(Debug)]
pub(crate) struct Array {
    path: PathBuf,
    file: File,
    start: u64,
    element: Element,
    /// Length of each axis.
    pub(crate) axes: Vec<u64>,
}

/// Types of elements that are read; all are whole numbers, least significant byte first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    /// One byte without sign.
    U8,
    /// Four bytes with sign.
    I32,
    /// Eight bytes with sign.
    I64,
}

impl Element {
    fn size(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    fn parse(descr: &str) -> Option<Self> {
        match descr {
            "|u1" => Some(Self::U8),
            "<i4" => Some(Self::I32),
            "<i8" => Some(Self::I64),
            _ => None,
        }
    }
}

impl Array {
    /// Opens a file whose elements are one of `elements`.
    pub(crate) fn open(path: &Path, elements: &[Element], expected: &'static str) -> Result<Self, DataError> {
        let failed = |source| DataError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut head = Vec::new();
        (&mut file).take(12 + LONGEST_HEADER).read_to_end(&mut head).map_err(failed)?;
        let (header, start) = header(&head).map_err(|flaw| flaw.of(path))?;
        let flaw = |problem| Flaw::at(Position::File(0), problem).of(path);
        let element = Element::parse(&header.descr).filter(|element| elements.contains(element));
        let Some(element) = element else {
            return Err(flaw(Problem::ElementType { found: header.descr, expected }));
        };
        if header.fortran_order {
            return Err(flaw(Problem::FortranOrder));
        }
        let count = header.shape.iter().try_fold(element.size(), |size, axis| size.checked_mul(*axis));
        let expected = count.and_then(|count| count.checked_add(start)).unwrap_or(u64::MAX);
        if size < expected {
            return Err(flaw(Problem::Truncated { needed: expected, left: size }));
        }
        if size > expected {
            return Err(flaw(Problem::Trailing { left: size - expected }));
        }
        Ok(Self { path: path.to_owned(), file, start, element, axes: header.shape })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the rows `first..first + count` along the first axis.
    pub(crate) fn rows(&mut self, first: u64, count: u64) -> Result<Vec<u8>, DataError> {
        let row = self.axes.iter().skip(1).product::<u64>() * self.element.size();
        let failed = |source| DataError::Read { path: self.path.clone(), source };
        self.file.seek(SeekFrom::Start(self.start + first * row)).map_err(failed)?;
        let mut bytes = Vec::new();
        (&mut self.file).take(count * row).read_to_end(&mut bytes).map_err(failed)?;
        let left = bytes.len() as u64;
        if left < count * row {
            let problem = Problem::Truncated { needed: count * row, left };
            return Err(Flaw::at(Position::File(self.start + first * row), problem).of(&self.path));
        }
        Ok(bytes)
    }

    /// All elements.
    pub(crate) fn numbers(&mut self) -> Result<Vec<i64>, DataError> {
        let bytes = self.rows(0, self.axes.first().copied().unwrap_or(1))?;
        let size = usize::try_from(self.element.size()).expect("at most 8");
        Ok(bytes
            .chunks_exact(size)
            .map(|chunk| match self.element {
                Element::U8 => i64::from(chunk[0]),
                Element::I32 => i64::from(i32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]])),
                Element::I64 => {
                    let mut word = [0; 8];
                    word.copy_from_slice(chunk);
                    i64::from_le_bytes(word)
                }
            })
            .collect())
    }
}

#[derive(Debug, PartialEq)]
struct Header {
    descr: Box<str>,
    fortran_order: bool,
    shape: Vec<u64>,
}

/// The header, and where the elements start.
fn header(head: &[u8]) -> Result<(Header, u64), Flaw> {
    let damaged = |at: usize, detail: &str| {
        Flaw::at(Position::File(at as u64), Problem::NpyHeader { detail: detail.into() })
    };
    let Some(rest) = head.strip_prefix(MAGIC) else {
        return Err(damaged(0, "it does not start with `\\x93NUMPY`"));
    };
    let (version, length, start) = match *rest {
        [version @ 1, 0, a, b, ..] => (version, u32::from(u16::from_le_bytes([a, b])), 10),
        [version @ (2 | 3), 0, a, b, c, d, ..] => (version, u32::from_le_bytes([a, b, c, d]), 12),
        [major, minor, ..] => {
            return Err(damaged(6, &format!("format version {major}.{minor}, known are 1.0, 2.0 and 3.0")));
        }
        _ => return Err(damaged(6, "it ends within the magic string")),
    };
    let end = start + length as usize;
    let Some(text) = head.get(start..end) else {
        return Err(damaged(start, &format!("{length} bytes of header are declared, fewer are there")));
    };
    let text = std::str::from_utf8(text).ok().filter(|text| version == 3 || text.is_ascii());
    let text = text.ok_or_else(|| damaged(start, "the header is not text"))?;
    let header = dictionary(text).ok_or_else(|| {
        damaged(
            start,
            &format!("`{}` is not a header with `descr`, `fortran_order` and `shape`", text.trim()),
        )
    })?;
    Ok((header, end as u64))
}

/// Reads `{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }`; each key once, in any order.
fn dictionary(text: &str) -> Option<Header> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, value) = quoted(rest)?;
        let value = value.trim_start().strip_prefix(':')?.trim_start();
        rest = match key {
            "descr" if descr.is_none() => {
                let (text, left) = quoted(value)?;
                descr = Some(text.into());
                left
            }
            "fortran_order" if fortran_order.is_none() => {
                let (value, left) = [("True", true), ("False", false)]
                    .into_iter()
                    .find_map(|(word, flag)| value.strip_prefix(word).map(|left| (flag, left)))?;
                fortran_order = Some(value);
                left
            }
            "shape" if shape.is_none() => {
                let (inside, left) = value.strip_prefix('(')?.split_once(')')?;
                let axes = inside.trim().trim_end_matches(',');
                let axes = axes.split(',').filter(|_| !axes.is_empty()).map(|axis| axis.trim().parse().ok());
                shape = Some(axes.collect::<Option<Vec<u64>>>()?);
                left
            }
            _ => return None,
        };
        rest = rest.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(left) => left.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(Header { descr: descr?, fortran_order: fortran_order?, shape: shape? })
}

/// A text in single or double quotes without escapes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    text[1..].split_once(quote).filter(|(inside, _)| !inside.contains('\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, dictionary: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend(u16::try_from(dictionary.len()).unwrap().to_le_bytes()),
            _ => bytes.extend(u32::try_from(dictionary.len()).unwrap().to_le_bytes()),
        }
        bytes.extend(dictionary.as_bytes());
        bytes.extend(data);
        bytes
    }

    const GOOD: &str = "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 2), }  \n";

    fn open(bytes: &[u8]) -> Result<Array, DataError> {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&path, bytes).unwrap();
        Array::open(&path, &[Element::U8], "bytes (|u1)")
    }

    fn problem(bytes: &[u8]) -> Problem {
        let DataError::Corrupt { problem, .. } = open(bytes).unwrap_err() else { panic!("expected a flaw") };
        problem
    }

    #[test]
    fn rows_are_read_from_every_version_of_the_format() {
        for version in [1, 2, 3] {
            let mut array = open(&file(version, GOOD, &[1, 2, 3, 4, 5, 6])).unwrap();
            assert_eq!(array.axes, [3, 2]);
            assert_eq!(array.rows(1, 2).unwrap(), [3, 4, 5, 6]);
            assert_eq!(array.numbers().unwrap(), [1, 2, 3, 4, 5, 6]);
        }
    }

    #[test]
    fn numpy_writes_labels_as_words_of_eight_bytes_by_default() {
        let header = "{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }";
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let data: Vec<u8> = [7_i64, -1].iter().flat_map(|number| number.to_le_bytes()).collect();
        std::fs::write(&path, file(1, header, &data)).unwrap();
        let mut array = Array::open(&path, &[Element::U8, Element::I64], "labels").unwrap();
        assert_eq!(array.numbers().unwrap(), [7, -1]);
    }

    #[test]
    fn other_orders_types_and_sizes_are_refused() {
        let with = |from: &str, to: &str| problem(&file(1, &GOOD.replace(from, to), &[0; 6]));
        assert_eq!(with("False", "True"), Problem::FortranOrder);
        for descr in ["<f4", "|i1", ">u2", "|O"] {
            assert!(matches!(with("|u1", descr), Problem::ElementType { .. }), "{descr}");
        }
        assert!(matches!(with("(3, 2)", "(4, 2)"), Problem::Truncated { .. }));
        assert!(matches!(with("(3, 2)", "(18446744073709551615, 9)"), Problem::Truncated { .. }));
        assert_eq!(with("(3, 2)", "(2, 2)"), Problem::Trailing { left: 2 });
    }

    #[test]
    fn damaged_headers_are_refused_and_never_believed() {
        let whole = file(1, GOOD, &[0; 6]);
        for cut in 0..whole.len() {
            problem(&whole[..cut]);
        }
        for bad in [
            "{'descr': '|u1', 'fortran_order': False}",
            "{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (6,)}",
            "{'descr': '|u1', 'fortran_order': 0, 'shape': (6,)}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (-6,)}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (6,), 'more': 1}",
            "{'descr': '|u1' 'fortran_order': False, 'shape': (6,)}",
            "",
        ] {
            assert!(matches!(problem(&file(1, bad, &[0; 6])), Problem::NpyHeader { .. }), "{bad}");
        }
        let mut other = whole;
        other[6] = 4;
        assert!(matches!(problem(&other), Problem::NpyHeader { .. }));
    }
}
