//! MNIST and Fashion-MNIST: idx files, big-endian, plain or gzip.
//!
//! Source: Y. LeCun, C. Cortes, C. Burges, *The MNIST database of handwritten digits*, section "file formats".

use std::path::{Path, PathBuf};

use crate::error::{DataError, Flaw, Position, Problem};
use crate::images::Images;
use crate::load::{Request, consecutive_ids};
use crate::name::Split;
use crate::source::{self, ByteOrder, Cursor};

/// Two zero bytes, the element type (8, unsigned bytes) and the number of axes.
const IMAGES_MAGIC: u32 = 0x0000_0803;
const LABELS_MAGIC: u32 = 0x0000_0801;

pub(crate) fn load(request: Request<'_>) -> Result<Images, DataError> {
    let prefix = match request.split {
        Split::Train => "train",
        Split::Test => "t10k",
    };
    let shape = request.name.shape();
    let official = request.name.official_len(request.split) as u64;
    let images_path = find(request, &format!("{prefix}-images-idx3-ubyte"))?;
    let labels_path = find(request, &format!("{prefix}-labels-idx1-ubyte"))?;

    // Twice the official size still lets a wrong count be reported as such.
    let images = read(&images_path, 2 * official * shape.pixels() as u64)?;
    let (count, pixels) =
        parse_images(images.cursor(), shape.height, shape.width).map_err(|flaw| flaw.of(&images_path))?;
    request.check_count(&images_path, count, official)?;

    let labels = read(&labels_path, 2 * official)?;
    let labels =
        parse_labels(labels.cursor(), count, request.name.classes()).map_err(|flaw| flaw.of(&labels_path))?;
    Ok(request.images(pixels.to_vec(), labels.to_vec(), consecutive_ids(labels.len())))
}

fn find(request: Request<'_>, file: &str) -> Result<PathBuf, DataError> {
    let folder = request.name.as_str();
    request.find(&[format!("{folder}/{file}"), format!("{folder}/{file}.gz")])
}

/// An idx file, inflated if need be.
struct Content {
    bytes: Vec<u8>,
    origin: Position,
}

impl Content {
    fn cursor(&self) -> Cursor<'_> {
        Cursor::new(&self.bytes, ByteOrder::Big, self.origin)
    }
}

/// Reads an idx file with at most `limit` elements.
fn read(path: &Path, limit: u64) -> Result<Content, DataError> {
    const HEADER: u64 = 16;
    let bytes = source::read(path, limit + HEADER)?;
    if path.extension().is_some_and(|extension| extension == "gz") {
        let bytes = source::gunzip(&bytes, limit + HEADER).map_err(|flaw| flaw.of(path))?;
        Ok(Content { bytes, origin: Position::Inflated { part: 0, offset: 0 } })
    } else {
        Ok(Content { bytes, origin: Position::File(0) })
    }
}

fn expect_magic(cursor: &mut Cursor<'_>, expected: u32) -> Result<(), Flaw> {
    let position = cursor.position();
    let found = cursor.u32()?;
    if found == expected { Ok(()) } else { Err(Flaw::at(position, Problem::Magic { found, expected })) }
}

/// Number of images, and their pixels.
fn parse_images(mut cursor: Cursor<'_>, height: usize, width: usize) -> Result<(u64, &[u8]), Flaw> {
    expect_magic(&mut cursor, IMAGES_MAGIC)?;
    let count = u64::from(cursor.u32()?);
    let position = cursor.position();
    let (rows, columns) = (u64::from(cursor.u32()?), u64::from(cursor.u32()?));
    if (rows, columns) != (height as u64, width as u64) {
        let problem = Problem::Shape { found: vec![count, rows, columns], expected: "N×28×28" };
        return Err(Flaw::at(position, problem));
    }
    let pixels = cursor.take(count * rows * columns)?;
    cursor.end()?;
    Ok((count, pixels))
}

fn parse_labels(mut cursor: Cursor<'_>, images: u64, classes: usize) -> Result<&[u8], Flaw> {
    expect_magic(&mut cursor, LABELS_MAGIC)?;
    let position = cursor.position();
    let count = u64::from(cursor.u32()?);
    if count != images {
        return Err(Flaw::at(position, Problem::Labels { images, labels: count }));
    }
    let mut start = cursor.clone();
    let labels = cursor.take(count)?;
    cursor.end()?;
    for &label in labels {
        if usize::from(label) >= classes {
            let last = u32::try_from(classes).expect("classes are few") - 1;
            let problem = Problem::Label { found: u32::from(label), first: 0, last };
            return Err(Flaw::at(start.position(), problem));
        }
        start.take(1)?;
    }
    Ok(labels)
}
