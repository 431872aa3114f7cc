//! Archives of data sets into a new folder, and nowhere else.
//!
//! Decides what an archive may hold: folders and plain files below its own root. Anything else ends the unpacking.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive's format is not known by its name.
    #[error("`{0}` is no .tar, .tar.gz or .zip")]
    Format(String),
    /// A name leads out of the folder.
    #[error("`{0}` leads out of the folder; such an archive is not unpacked")]
    Escape(String),
    /// A link or a device.
    #[error("`{0}` is neither a folder nor a plain file; such an archive is not unpacked")]
    Kind(String),
    /// The archive is damaged.
    #[error("the archive is damaged")]
    Damaged(#[source] io::Error),
    /// A file could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Unpacks `archive`, which is named `name` where it is published, into the empty folder `into`.
pub fn unpack(archive: &Path, name: &str, into: &Path) -> Result<(), UnpackError> {
    let file = BufReader::new(File::open(archive).map_err(UnpackError::Damaged)?);
    if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
        tar(MultiGzDecoder::new(file), into)
    } else if name.ends_with(".tar") {
        tar(file, into)
    } else if name.ends_with(".zip") {
        zip(file, into)
    } else {
        Err(UnpackError::Format(name.to_owned()))
    }
}

fn tar(content: impl Read, into: &Path) -> Result<(), UnpackError> {
    let mut archive = tar::Archive::new(content);
    for entry in archive.entries().map_err(UnpackError::Damaged)? {
        let mut entry = entry.map_err(UnpackError::Damaged)?;
        let name = entry.path().map_err(UnpackError::Damaged)?.into_owned();
        let place = below(into, &name)?;
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            make_folder(&place)?;
        } else if kind.is_file() {
            write(&mut entry, &place)?;
        } else if !kind.is_pax_global_extensions() {
            return Err(UnpackError::Kind(name.display().to_string()));
        }
    }
    Ok(())
}

fn zip(content: BufReader<File>, into: &Path) -> Result<(), UnpackError> {
    const LINK: u32 = 0o120_000;
    const KIND: u32 = 0o170_000;
    let damaged = |error: zip::result::ZipError| UnpackError::Damaged(error.into());
    let mut archive = zip::ZipArchive::new(content).map_err(damaged)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(damaged)?;
        let place = below(into, Path::new(entry.name()))?;
        if entry.unix_mode().is_some_and(|mode| mode & KIND == LINK) {
            return Err(UnpackError::Kind(entry.name().to_owned()));
        }
        if entry.is_dir() {
            make_folder(&place)?;
        } else {
            write(&mut entry, &place)?;
        }
    }
    Ok(())
}

/// The place of an entry, if its name stays within the folder.
fn below(into: &Path, name: &Path) -> Result<PathBuf, UnpackError> {
    let mut place = into.to_owned();
    for component in name.components() {
        match component {
            Component::Normal(part) => place.push(part),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => {
                return Err(UnpackError::Escape(name.display().to_string()));
            }
        }
    }
    Ok(place)
}

fn make_folder(path: &Path) -> Result<(), UnpackError> {
    fs::create_dir_all(path).map_err(|source| UnpackError::Write { path: path.to_owned(), source })
}

fn write(content: &mut impl Read, path: &Path) -> Result<(), UnpackError> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let failed = |source| UnpackError::Write { path: path.to_owned(), source };
    let mut file = File::create_new(path).map_err(failed)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        // Read and write apart, so that a damaged archive is not taken for a full disk.
        let count = content.read(&mut buffer).map_err(UnpackError::Damaged)?;
        if count == 0 {
            return Ok(());
        }
        io::Write::write_all(&mut file, &buffer[..count]).map_err(failed)?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn tar_of(entries: &[(&str, tar::EntryType)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(if kind.is_file() { 4 } else { 0 });
            header.set_mode(0o644);
            // Written into the header itself: `set_path` refuses what this test is about.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, if kind.is_file() { &b"data"[..] } else { &[] }).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn zip_of(name: &str) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        writer.start_file(name, zip::write::FileOptions::default()).unwrap();
        writer.write_all(b"data").unwrap();
        writer.finish().unwrap().into_inner()
    }

    fn unpacked(bytes: &[u8], name: &str) -> (tempfile::TempDir, Result<(), UnpackError>) {
        let folder = tempfile::tempdir().unwrap();
        let (archive, into) = (folder.path().join("archive"), folder.path().join("into"));
        fs::write(&archive, bytes).unwrap();
        fs::create_dir(&into).unwrap();
        let result = unpack(&archive, name, &into);
        (folder, result)
    }

    #[test]
    fn files_of_every_format_come_out() {
        let tar = tar_of(&[("set/", tar::EntryType::Directory), ("./set/a.bin", tar::EntryType::Regular)]);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&tar).unwrap();
        let gz = gz.finish().unwrap();
        for (bytes, name) in [(tar, "x.tar"), (gz, "x.tar.gz"), (zip_of("set/a.bin"), "x.zip")] {
            let (folder, result) = unpacked(&bytes, name);
            result.unwrap();
            assert_eq!(fs::read(folder.path().join("into/set/a.bin")).unwrap(), b"data", "{name}");
        }
    }

    #[test]
    fn names_that_lead_out_of_the_folder_end_the_unpacking() {
        for name in ["../out", "set/../../out", "/tmp/out-of-the-folder"] {
            let archives = [(tar_of(&[(name, tar::EntryType::Regular)]), "x.tar"), (zip_of(name), "x.zip")];
            for (bytes, format) in archives {
                let (folder, result) = unpacked(&bytes, format);
                assert!(matches!(result, Err(UnpackError::Escape(_))), "{format}: {name}");
                assert!(!folder.path().join("out").exists());
            }
        }
        for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo] {
            let (_folder, result) = unpacked(&tar_of(&[("link", kind)]), "x.tar");
            assert!(matches!(result, Err(UnpackError::Kind(_))), "{kind:?}");
        }
    }

    #[test]
    fn a_cut_archive_is_damaged_and_an_unknown_one_refused() {
        let tar = tar_of(&[("a", tar::EntryType::Regular)]);
        assert!(matches!(unpacked(&tar[..514], "x.tar").1, Err(UnpackError::Damaged(_))));
        assert!(matches!(unpacked(b"PK", "x.zip").1, Err(UnpackError::Damaged(_))));
        assert!(matches!(unpacked(b"", "x.rar").1, Err(UnpackError::Format(_))));
    }
}
