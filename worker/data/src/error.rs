//! Why a data set could not be read, with the place in the file.
//!
//! Three decisions are left to a caller: fetch the data ([`DataError::Missing`]), fetch it again
//! ([`DataError::Corrupt`]), or say that a subset is meant ([`DataError::Count`]).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::archive::Place;
use crate::images::Shape;
use crate::name::{DatasetName, Split};

/// Why a data set could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// No file of the official layout was found.
    #[error("{name} ({split} images) is not in the data folder: looked for {}. {}", list(looked), how_to_get(*name, root))]
    Missing {
        /// The data set that was asked for.
        name: DatasetName,
        /// The part that was asked for.
        split: Split,
        /// The data folder.
        root: PathBuf,
        /// Every path that was tried, in order.
        looked: Vec<PathBuf>,
    },
    /// The operating system could not read a file that exists.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file does not hold what its format promises.
    #[error("`{}` is corrupt at {position}: {problem}. Delete it and unpack the official archive again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        position: Position,
        /// What is wrong there.
        problem: Problem,
    },
    /// A well-formed file has another number of images than the official one.
    #[error("`{}` holds {found} images, the official {name} file holds {expected}{}", path.display(), subset_hint(*found, *expected))]
    Count {
        /// The data set that was asked for.
        name: DatasetName,
        /// The file.
        path: PathBuf,
        /// Images in the file.
        found: u64,
        /// Images in the official file.
        expected: u64,
    },
    /// Points with real features are no images.
    #[error("{name} has real features, no images that could be resized")]
    NotImages {
        /// The data set.
        name: DatasetName,
    },
    /// Images can be resized to squares of one or three channels.
    #[error("images of {name} cannot be resized to {shape}, only to a square in grey or RGB")]
    NoSuchShape {
        /// The data set.
        name: DatasetName,
        /// The shape asked for.
        shape: Shape,
    },
    /// Corrupted images are published for CIFAR only.
    #[error("no corrupted images of {name} are published: generate them")]
    NoCorruptedFiles {
        /// The data set.
        name: DatasetName,
    },
    /// A file of CIFAR-10-C or CIFAR-100-C is not there.
    #[error("`{}` is missing: unpack the official CIFAR-10-C.tar or CIFAR-100-C.tar in the data folder (`credence data fetch`)", path.display())]
    NoCorruption {
        /// The file.
        path: PathBuf,
    },
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// A byte of the file itself.
    File(u64),
    /// A byte of what a compressed part of the file inflates to.
    Inflated {
        /// Where the compressed part starts in the file.
        part: u64,
        /// Which byte of the inflated content.
        offset: u64,
    },
}

impl Position {
    /// The place `count` bytes further.
    pub(crate) fn plus(self, count: u64) -> Self {
        match self {
            Self::File(offset) => Self::File(offset + count),
            Self::Inflated { part, offset } => Self::Inflated { part, offset: offset + count },
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(offset) => write!(f, "byte {offset}"),
            Self::Inflated { part, offset } => {
                write!(f, "inflated byte {offset} of the part that starts at byte {part}")
            }
        }
    }
}

/// What is wrong at a [`Position`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The data stops inside something.
    #[error("the data ends early: {needed} bytes are needed, {left} are left")]
    Truncated {
        /// Bytes that the format calls for.
        needed: u64,
        /// Bytes that are there.
        left: u64,
    },
    /// Compressed data stops before its end mark.
    #[error("the compressed data ends before its end mark")]
    CompressionTruncated,
    /// Compressed data cannot be inflated, or its checksum does not match.
    #[error("the compressed data is damaged ({detail})")]
    Compression {
        /// What the decoder said.
        detail: Box<str>,
    },
    /// Data is left where the format ends.
    #[error("{left} bytes follow the end of the data")]
    Trailing {
        /// How many.
        left: u64,
    },
    /// A file or an array is larger than the official one could be.
    #[error("{found} bytes are declared or present, the official data needs at most {limit}")]
    TooLarge {
        /// The size found.
        found: u64,
        /// The largest size accepted.
        limit: u64,
    },
    /// The magic number of an idx file is wrong.
    #[error("magic number {found:#010x} instead of {expected:#010x}")]
    Magic {
        /// The number found.
        found: u32,
        /// The number of this format.
        expected: u32,
    },
    /// The byte-order mark of a MATLAB file is neither `IM` nor `MI`.
    #[error("byte-order mark {found:02x?} instead of `IM` or `MI`: not a MATLAB v5 file")]
    ByteOrder {
        /// The two bytes found.
        found: [u8; 2],
    },
    /// The MATLAB file has another version than 5.
    #[error("MATLAB format version {found:#06x} instead of 0x0100 (v7.3 files are HDF5: save with `-v7`)")]
    Version {
        /// The version found.
        found: u16,
    },
    /// An element of a MATLAB file has another type than it must have there.
    #[error("element type {found} where {expected} must stand")]
    Element {
        /// The type number found.
        found: u32,
        /// The type that must stand there.
        expected: &'static str,
    },
    /// A MATLAB file lacks a variable.
    #[error("there is no variable `{name}`")]
    NoVariable {
        /// The variable.
        name: &'static str,
    },
    /// A MATLAB file holds a variable twice.
    #[error("variable `{name}` occurs twice")]
    RepeatedVariable {
        /// The variable.
        name: &'static str,
    },
    /// An array has another shape than it must have.
    #[error("an array of shape {found:?} where {expected} must stand")]
    Shape {
        /// The axes found.
        found: Vec<u64>,
        /// The axes that must stand there.
        expected: &'static str,
    },
    /// Images and labels differ in number.
    #[error("{labels} labels for {images} images")]
    Labels {
        /// Number of images.
        images: u64,
        /// Number of labels.
        labels: u64,
    },
    /// A label is not a class of the data set.
    #[error("label {found} is not in {first}..={last}")]
    Label {
        /// The label found.
        found: u32,
        /// The smallest label of the format.
        first: u32,
        /// The largest label of the format.
        last: u32,
    },
    /// A line of a text file is not a list of the right numbers.
    #[error("line {line} is not {fields} numbers, 64 pixels from 0 to 16 and a class from 0 to 9")]
    Line {
        /// The line, counted from 1.
        line: u64,
        /// Numbers that a line must hold.
        fields: u64,
    },
    /// The header of a `.npy` file is damaged or of an unknown version.
    #[error("not a readable .npy file: {detail}")]
    NpyHeader {
        /// What is wrong.
        detail: Box<str>,
    },
    /// A `.npy` file has elements of another type.
    #[error("elements of type `{found}` where {expected} must stand")]
    ElementType {
        /// The type as numpy writes it.
        found: Box<str>,
        /// The types that are read.
        expected: &'static str,
    },
    /// A `.npy` file has its first axis running fastest.
    #[error("the array is in Fortran order: save it with `numpy.ascontiguousarray`")]
    FortranOrder,
    /// A label of corrupted images is not that of the test image.
    #[error(
        "row {row} has label {found}, which is not that of the test image: these are corruptions of other images"
    )]
    OtherLabel {
        /// The row.
        row: u64,
        /// The label found.
        found: i64,
    },
    /// A picture cannot be decoded.
    #[error("the picture cannot be decoded ({detail})")]
    Picture {
        /// What the decoder said.
        detail: Box<str>,
    },
    /// A line of a list of files has another form.
    #[error("line {line} is not {expected}")]
    List {
        /// The line, counted from 1.
        line: u64,
        /// What a line must be.
        expected: &'static str,
    },
}

/// A [`Problem`] and its [`Position`], before the file is known.
#[derive(Debug, PartialEq)]
pub(crate) struct Flaw {
    pub(crate) position: Position,
    pub(crate) problem: Problem,
}

impl Flaw {
    pub(crate) fn at(position: Position, problem: Problem) -> Self {
        Self { position, problem }
    }

    pub(crate) fn of(self, path: &Path) -> DataError {
        DataError::Corrupt { path: path.to_owned(), position: self.position, problem: self.problem }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let quoted: Vec<_> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    quoted.join(", ")
}

fn how_to_get(name: DatasetName, root: &Path) -> String {
    let archives = name.archives();
    let named: Vec<_> =
        archives.iter().map(|archive| format!("{} (MD5 {})", archive.file, archive.md5)).collect();
    let what_then = match archives.first().map(|archive| archive.place) {
        Some(Place::Kept(folder)) => format!("put it in `{}`", root.join(folder).display()),
        Some(Place::Unpacked(_)) | None => format!("unpack it in `{}`", root.display()),
    };
    format!(
        "Get {} from {} and {what_then}, or run `credence data fetch {name}`",
        named.join(", "),
        name.homepage()
    )
}

fn subset_hint(found: u64, expected: u64) -> &'static str {
    if 0 < found && found < expected { "; if a subset is meant, set `allow-subset` for it" } else { "" }
}
