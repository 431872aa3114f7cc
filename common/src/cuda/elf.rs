//! What a shared library says it needs, read from its dynamic section without loading it.
//!
//! Only what the search asks: 64-bit little-endian ELF, the names in `DT_NEEDED`, and the folders in `DT_RPATH` and
//! `DT_RUNPATH`. A file that is cut short or is no such library is an error, never a panic: a download that broke off is what
//! is being looked for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Most segments and dynamic entries that a library of good faith has.
const MOST_SEGMENTS: u16 = 256;
const MOST_ENTRIES: u64 = 4096;

/// Longest name or list of folders.
const LONGEST: usize = 4096;

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;

const NEEDED: u64 = 1;
const STRINGS: u64 = 5;
const RPATH: u64 = 15;
const RUNPATH: u64 = 29;

/// A part of the file that is mapped.
struct Segment {
    address: u64,
    offset: u64,
    bytes: u64,
}

/// The dynamic section of a library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// Libraries that it needs, by name.
    pub needed: Vec<String>,
    /// Folders in which it looks for them, as they are written.
    pub folders: Vec<String>,
}

impl Dynamic {
    /// Reads the dynamic section of a library.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no 64-bit little-endian ELF file, or ends before what it promises.
    pub fn read(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut head = [0; 64];
        file.read_exact_at(&mut head, 0)?;
        // Magic number, 64 bits, little-endian.
        if head[..6] != *b"\x7fELF\x02\x01" {
            return Err(malformed("no 64-bit little-endian ELF file"));
        }
        let (table, size, count) = (u64_at(&head, 32), u16_at(&head, 54), u16_at(&head, 56));
        if size < 56 || count > MOST_SEGMENTS {
            return Err(malformed("its program headers are malformed"));
        }
        let (mut loads, mut dynamic) = (Vec::new(), None);
        for index in 0..u64::from(count) {
            let mut header = [0; 56];
            file.read_exact_at(&mut header, offset(table, index * u64::from(size))?)?;
            let segment = Segment {
                offset: u64_at(&header, 8),
                address: u64_at(&header, 16),
                bytes: u64_at(&header, 32),
            };
            match u32_at(&header, 0) {
                LOAD => loads.push(segment),
                DYNAMIC => dynamic = Some(segment),
                _ => {}
            }
        }
        let length = file.metadata()?.len();
        if loads.iter().any(|load| load.offset.checked_add(load.bytes).is_none_or(|end| end > length)) {
            return Err(malformed("it ends before its last segment"));
        }
        match dynamic {
            Some(dynamic) => entries(&file, &dynamic, &loads),
            // A program without shared libraries.
            None => Ok(Self::default()),
        }
    }
}

fn entries(file: &File, dynamic: &Segment, loads: &[Segment]) -> io::Result<Dynamic> {
    let (mut needed, mut folders, mut strings) = (Vec::new(), Vec::new(), None);
    for index in 0..(dynamic.bytes / 16).min(MOST_ENTRIES) {
        let mut entry = [0; 16];
        file.read_exact_at(&mut entry, offset(dynamic.offset, index * 16)?)?;
        let value = u64_at(&entry, 8);
        match u64_at(&entry, 0) {
            0 => break,
            NEEDED => needed.push(value),
            RPATH | RUNPATH => folders.push(value),
            STRINGS => strings = Some(value),
            _ => {}
        }
    }
    let place = strings.and_then(|address| {
        let within =
            |load: &&Segment| (load.address..load.address.saturating_add(load.bytes)).contains(&address);
        loads.iter().find(within).map(|load| load.offset + (address - load.address))
    });
    let Some(place) = place else { return Err(malformed("its dynamic section has no strings")) };
    let text = |at: &u64| string(file, offset(place, *at)?);
    let needed = needed.iter().map(text).collect::<io::Result<_>>()?;
    let lists = folders.iter().map(text).collect::<io::Result<Vec<_>>>()?;
    let folders = lists.iter().flat_map(|list| list.split(':')).filter(|folder| !folder.is_empty());
    Ok(Dynamic { needed, folders: folders.map(str::to_owned).collect() })
}

/// The text at a place, up to its terminating zero.
fn string(file: &File, at: u64) -> io::Result<String> {
    let mut bytes = vec![0; LONGEST];
    let read = file.read_at(&mut bytes, at)?;
    let end = bytes[..read].iter().position(|&byte| byte == 0);
    let end = end.ok_or_else(|| malformed("a name in its dynamic section does not end"))?;
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

fn offset(from: u64, by: u64) -> io::Result<u64> {
    from.checked_add(by).ok_or_else(|| malformed("an offset in it is too large"))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A library that needs others and looks for them in some folders, and does nothing.
    pub fn library(needed: &[&str], rpath: &str) -> Vec<u8> {
        let mut strings = vec![0];
        let mut add = |text: &str| {
            let at = strings.len() as u64;
            strings.extend(text.bytes().chain([0]));
            at
        };
        let mut entries: Vec<(u64, u64)> = needed.iter().map(|name| (NEEDED, add(name))).collect();
        entries.push((RPATH, add(rpath)));
        let dynamic = 64 + 2 * 56;
        let size = (entries.len() as u64 + 2) * 16;
        // Mapped at another address than its place in the file, as in real libraries.
        let address = 0x1000;
        entries.extend([(STRINGS, address + dynamic + size), (0, 0)]);
        let length = dynamic + size + strings.len() as u64;
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&2_u16.to_le_bytes());
        for (kind, offset, address, size) in
            [(LOAD, 0, address, length), (DYNAMIC, dynamic, address + dynamic, size)]
        {
            let flags = u64::from(kind) | 4 << 32;
            for field in [flags, offset, address, address, size, size, 8] {
                bytes.extend(field.to_le_bytes());
            }
        }
        for (tag, value) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(strings);
        bytes
    }

    fn read(bytes: &[u8]) -> io::Result<Dynamic> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        std::fs::write(&path, bytes).unwrap();
        Dynamic::read(&path)
    }

    #[test]
    fn names_and_folders_are_read() {
        let found = read(&library(&["liba.so.1", "libb.so"], "$ORIGIN:/opt/lib")).unwrap();
        assert_eq!(found.needed, ["liba.so.1", "libb.so"]);
        assert_eq!(found.folders, ["$ORIGIN", "/opt/lib"]);
    }

    #[test]
    fn this_very_program_is_read() {
        let found = Dynamic::read(&std::env::current_exe().unwrap()).unwrap();
        assert!(found.needed.iter().any(|name| name.starts_with("libc.so")), "{found:?}");
    }

    #[test]
    fn a_library_that_is_cut_short_anywhere_is_refused() {
        let whole = library(&["liba.so.1"], "$ORIGIN");
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
        }
    }

    #[test]
    fn no_damaged_byte_is_a_panic() {
        let whole = library(&["liba.so.1"], "$ORIGIN");
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                drop(read(&damaged));
            }
        }
    }

    #[test]
    fn what_is_no_library_is_refused() {
        assert!(read(b"INPUT(libtorch_cpu.so)\n").is_err());
        assert!(read(&[0; 4096]).is_err());
    }
}
