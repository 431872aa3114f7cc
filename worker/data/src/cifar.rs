//! CIFAR-10 and CIFAR-100, binary version: records of one or two label bytes and 3,072 pixels, channel by channel.
//!
//! Source: A. Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009, and the format's
//! description on the data set's page. The Python version is left out: it needs a reader of pickles.

use std::path::Path;

use crate::error::{DataError, Flaw, Position, Problem};
use crate::images::Images;
use crate::load::{Completeness, DataFolder, Request};
use crate::name::{DatasetName, Split};
use crate::source;

const PIXELS: usize = 3 * 32 * 32;

/// Which of the two labels of a CIFAR-100 image is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cifar100Labels {
    /// 100 classes.
    Fine,
    /// 20 superclasses.
    Coarse,
}

/// Reads CIFAR-100 with fine or coarse labels; [`load`](crate::load) gives the fine ones.
///
/// # Errors
///
/// [`DataError`], with the file and the place in it.
pub fn load_cifar_100(
    split: Split,
    folder: &DataFolder,
    completeness: Completeness,
    labels: Cifar100Labels,
) -> Result<Images, DataError> {
    load_100(Request { name: DatasetName::Cifar100, split, folder, completeness }, labels)
}

/// How many values each label byte of a record may take, and which byte is the label.
struct Record {
    label_limits: &'static [u8],
    label: usize,
}

const RECORD_10: Record = Record { label_limits: &[10], label: 0 };
const RECORD_100_FINE: Record = Record { label_limits: &[20, 100], label: 1 };
const RECORD_100_COARSE: Record = Record { label_limits: &[20, 100], label: 0 };

#[derive(Default)]
struct Parts {
    pixels: Vec<u8>,
    labels: Vec<u8>,
    ids: Vec<u32>,
}

pub(crate) fn load_10(request: Request<'_>) -> Result<Images, DataError> {
    const BATCH: u32 = 10_000;
    let files: &[&str] = match request.split {
        Split::Train => &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        Split::Test => &["test_batch.bin"],
    };
    let folder = request.folder.root().join("cifar-10-batches-bin");
    let paths: Vec<_> = files.iter().map(|file| folder.join(file)).collect();
    let absent: Vec<_> = paths.iter().filter(|path| !path.is_file()).cloned().collect();
    // A subset may lack whole batches, but not all of them.
    let missing = match request.completeness {
        Completeness::Official => !absent.is_empty(),
        Completeness::Subset => absent.len() == paths.len(),
    };
    if missing {
        return Err(request.missing(absent));
    }
    let mut parts = Parts::default();
    for (path, first_id) in paths.iter().zip((0..).step_by(BATCH as usize)) {
        if path.is_file() {
            read_records(request, path, &RECORD_10, u64::from(BATCH), first_id, &mut parts)?;
        }
    }
    Ok(request.images(parts.pixels, parts.labels, parts.ids))
}

pub(crate) fn load_100(request: Request<'_>, labels: Cifar100Labels) -> Result<Images, DataError> {
    let path = request.find(&[format!("cifar-100-binary/{}.bin", request.split)])?;
    let official = request.name.official_len(request.split) as u64;
    let (record, classes) = match labels {
        Cifar100Labels::Fine => (RECORD_100_FINE, 100),
        Cifar100Labels::Coarse => (RECORD_100_COARSE, 20),
    };
    let mut parts = Parts::default();
    read_records(request, &path, &record, official, 0, &mut parts)?;
    Ok(request.images(parts.pixels, parts.labels, parts.ids).relabelled(classes, |label| label))
}

/// Appends the records of one file; `official` is their official number.
fn read_records(
    request: Request<'_>,
    path: &Path,
    record: &Record,
    official: u64,
    first_id: u32,
    parts: &mut Parts,
) -> Result<(), DataError> {
    let size = record.label_limits.len() + PIXELS;
    // Twice the official size still lets a wrong count be reported as such.
    let bytes = source::read(path, 2 * official * size as u64)?;
    let records = bytes.chunks_exact(size);
    let cut = records.remainder().len();
    if cut > 0 {
        let position = Position::File((bytes.len() - cut) as u64);
        let problem = Problem::Truncated { needed: size as u64, left: cut as u64 };
        return Err(Flaw::at(position, problem).of(path));
    }
    request.check_count(path, records.len() as u64, official)?;
    parts.pixels.reserve(records.len() * PIXELS);
    for ((index, bytes), id) in records.enumerate().zip(first_id..) {
        let (labels, pixels) = bytes.split_at(record.label_limits.len());
        for (at, (&label, &limit)) in labels.iter().zip(record.label_limits).enumerate() {
            if label >= limit {
                let position = Position::File((index * size + at) as u64);
                let problem =
                    Problem::Label { found: u32::from(label), first: 0, last: u32::from(limit) - 1 };
                return Err(Flaw::at(position, problem).of(path));
            }
        }
        parts.pixels.extend_from_slice(pixels);
        parts.labels.push(labels[record.label]);
        parts.ids.push(id);
    }
    Ok(())
}
