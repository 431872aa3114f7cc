//! MATLAB v5 files (`.mat`, "Level 5"), as far as arrays of unsigned bytes need it.
//!
//! Both byte orders, plain and compressed variables, small data elements. Variables that were not asked for are
//! checked for their extent and skipped. Deliberately absent: cells, structures, objects, sparse and complex arrays,
//! numbers other than unsigned bytes, and v7.3, which is HDF5.
//!
//! Source: MathWorks, *MAT-File Format*, R2019b, chapter 1.

use crate::error::{Flaw, Position, Problem};
use crate::source::{self, ByteOrder, Cursor};

const HEADER: u64 = 128;
/// Where version and byte-order mark stand in the header.
const VERSION_AT: usize = 124;
const MARK_AT: usize = 126;

const MI_INT8: u32 = 1;
const MI_UINT8: u32 = 2;
const MI_INT32: u32 = 5;
const MI_UINT32: u32 = 6;
const MI_MATRIX: u32 = 14;
const MI_COMPRESSED: u32 = 15;
const MX_UINT8: u32 = 9;
/// Bit of the array flags that says that an imaginary part follows.
const COMPLEX: u32 = 0x0800;

/// An array of unsigned bytes.
#[derive(Debug, PartialEq)]
pub(crate) struct Array {
    /// Lengths of the axes.
    pub(crate) axes: Vec<u64>,
    /// Elements, the first axis varying fastest.
    pub(crate) data: Vec<u8>,
    /// Where the axes stand.
    pub(crate) axes_at: Position,
    /// Where the first element stands.
    pub(crate) data_at: Position,
}

/// Reads the two variables `names`, in that order; no variable may be larger than `limit` bytes.
pub(crate) fn read_two(bytes: &[u8], names: [&'static str; 2], limit: u64) -> Result<[Array; 2], Flaw> {
    /// What a matrix element holds besides its data: flags, axes, name, each with a tag.
    const OVERHEAD: u64 = 1_024;
    let mut cursor = header(bytes)?;
    let mut found = [None, None];
    while cursor.left() > 0 {
        let at = cursor.position();
        let tag = Tag::read(&mut cursor)?;
        match tag.kind {
            // Compressed elements alone are not padded to 8 bytes.
            MI_COMPRESSED => {
                let start = cursor.position();
                let compressed = cursor.take(tag.len)?;
                let (Position::File(start) | Position::Inflated { part: start, .. }) = start;
                let inflated = source::inflate(compressed, start, limit + OVERHEAD)?;
                let origin = Position::Inflated { part: start, offset: 0 };
                let mut inner = Cursor::new(&inflated, cursor.order(), origin);
                let tag = Tag::read(&mut inner)?;
                if tag.kind != MI_MATRIX {
                    let problem = Problem::Element { found: tag.kind, expected: "miMATRIX (14)" };
                    return Err(Flaw::at(origin, problem));
                }
                let body = inner.split(tag.len)?;
                inner.end()?;
                matrix(body, names, limit, &mut found)?;
            }
            MI_MATRIX => {
                let body = cursor.split(tag.len)?;
                skip_padding(&mut cursor, tag.len)?;
                matrix(body, names, limit, &mut found)?;
            }
            other => return Err(Flaw::at(at, Problem::Element { found: other, expected: "a variable" })),
        }
    }
    let end = cursor.position();
    let [first, second] = found;
    let missing = |name| Flaw::at(end, Problem::NoVariable { name });
    Ok([first.ok_or_else(|| missing(names[0]))?, second.ok_or_else(|| missing(names[1]))?])
}

/// Checks the header; a cursor behind it in the file's byte order.
fn header(bytes: &[u8]) -> Result<Cursor<'_>, Flaw> {
    let origin = Position::File(0);
    let head = Cursor::new(bytes, ByteOrder::Little, origin).take(HEADER)?;
    // Written as the number 0x4D49, "MI": a file that reads "IM" has its lower byte first.
    let order = match [head[MARK_AT], head[MARK_AT + 1]] {
        [b'I', b'M'] => ByteOrder::Little,
        [b'M', b'I'] => ByteOrder::Big,
        found => return Err(Flaw::at(Position::File(MARK_AT as u64), Problem::ByteOrder { found })),
    };
    let version = [head[VERSION_AT], head[VERSION_AT + 1]];
    let version = match order {
        ByteOrder::Little => u16::from_le_bytes(version),
        ByteOrder::Big => u16::from_be_bytes(version),
    };
    if version != 0x0100 {
        return Err(Flaw::at(Position::File(VERSION_AT as u64), Problem::Version { found: version }));
    }
    let mut cursor = Cursor::new(bytes, order, origin);
    cursor.take(HEADER)?;
    Ok(cursor)
}

/// Type and length of a data element.
struct Tag {
    kind: u32,
    len: u64,
    /// A small element: tag and data share 8 bytes.
    small: bool,
}

impl Tag {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Flaw> {
        let at = cursor.position();
        let word = cursor.u32()?;
        // A type number needs 16 bits; a small element has its length in the other 16.
        let (kind, len) = (word & 0xFFFF, u64::from(word >> 16));
        if len == 0 {
            return Ok(Self { kind, len: u64::from(cursor.u32()?), small: false });
        }
        if len > 4 {
            let problem = Problem::Element { found: word, expected: "a small element of at most 4 bytes" };
            return Err(Flaw::at(at, problem));
        }
        Ok(Self { kind, len, small: true })
    }
}

fn skip_padding(cursor: &mut Cursor<'_>, len: u64) -> Result<(), Flaw> {
    cursor.take(len.next_multiple_of(8) - len).map(drop)
}

/// A cursor over the data of the next element, which must have type `kind`.
fn element<'a>(cursor: &mut Cursor<'a>, kind: u32, expected: &'static str) -> Result<Cursor<'a>, Flaw> {
    let at = cursor.position();
    let tag = Tag::read(cursor)?;
    if tag.kind != kind {
        return Err(Flaw::at(at, Problem::Element { found: tag.kind, expected }));
    }
    let data = cursor.split(tag.len)?;
    if tag.small {
        cursor.take(4 - tag.len)?;
    } else {
        skip_padding(cursor, tag.len)?;
    }
    Ok(data)
}

/// Reads the content of a matrix element into its place in `found`, if it was asked for.
fn matrix(
    mut body: Cursor<'_>,
    names: [&'static str; 2],
    limit: u64,
    found: &mut [Option<Array>; 2],
) -> Result<(), Flaw> {
    let mut flags = element(&mut body, MI_UINT32, "array flags of type miUINT32 (6)")?;
    let flags_at = flags.position();
    let flags = flags.u32()?;
    let mut dimensions = element(&mut body, MI_INT32, "dimensions of type miINT32 (5)")?;
    let axes_at = dimensions.position();
    let name = element(&mut body, MI_INT8, "a name of type miINT8 (1)")?.rest();
    let Some(place) = names.iter().position(|wanted| wanted.as_bytes() == name) else {
        return Ok(());
    };
    if found[place].is_some() {
        return Err(Flaw::at(flags_at, Problem::RepeatedVariable { name: names[place] }));
    }
    if flags & (0xFF | COMPLEX) != MX_UINT8 {
        let problem = Problem::Element { found: flags & 0xFF, expected: "a real array of class mxUINT8 (9)" };
        return Err(Flaw::at(flags_at, problem));
    }
    let axes = read_axes(&mut dimensions)?;
    let elements = axes.iter().try_fold(1_u64, |product, &axis| product.checked_mul(axis));
    let Some(elements) = elements.filter(|&elements| elements <= limit) else {
        return Err(Flaw::at(axes_at, Problem::TooLarge { found: elements.unwrap_or(u64::MAX), limit }));
    };
    let data_tag_at = body.position();
    let data = element(&mut body, MI_UINT8, "data of type miUINT8 (2)")?;
    body.end()?;
    if data.left() != elements {
        let problem = Problem::Truncated { needed: elements, left: data.left() };
        return Err(Flaw::at(data_tag_at, problem));
    }
    let data_at = data.position();
    found[place] = Some(Array { axes, data: data.rest().to_vec(), axes_at, data_at });
    Ok(())
}

fn read_axes(dimensions: &mut Cursor<'_>) -> Result<Vec<u64>, Flaw> {
    let start = dimensions.position();
    let mut axes = Vec::new();
    while dimensions.left() > 0 {
        axes.push(u64::from(dimensions.u32()?));
    }
    if axes.len() < 2 {
        return Err(Flaw::at(start, Problem::Shape { found: axes, expected: "at least two axes" }));
    }
    Ok(axes)
}
