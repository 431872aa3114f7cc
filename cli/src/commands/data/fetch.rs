//! `credence data fetch`: published archives into the data folder.
//!
//! Nothing that is there is replaced. A file takes its place by a rename, after its digest was found right; what was
//! unpacked does so as a whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use datasets::{Archive, Place};

use super::download::{DownloadError, Downloader, md5_of, way_out};
use super::source::Source;
use super::unpack::{UnpackError, unpack};
use crate::args::FetchArguments;
use crate::error::Failure;
use crate::out;

/// Why a set was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The file did not come.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// What came is another file than the published one.
    #[error(
        "what came for `{file}` has MD5 {found}, published is {expected}: it is kept as `{}`, and nothing else was \
         touched. Look at it; run the command again to fetch it from the start",
        kept.display()
    )]
    Digest {
        /// The file.
        file: &'static str,
        /// Digest of what came.
        found: String,
        /// The published digest.
        expected: &'static str,
        /// Where what came is.
        kept: PathBuf,
    },
    /// A file of that name is there, and is not the published one.
    #[error("`{}` is there and is not the published file (its MD5 is {found}): move it away, then run this again", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
    },
    /// The archive cannot be unpacked.
    #[error("`{file}` is as published, but cannot be unpacked{}", hint(source))]
    Unpack {
        /// The archive.
        file: &'static str,
        /// Why.
        source: UnpackError,
    },
    /// The archive does not bring the folder that it should.
    #[error("`{file}` holds no folder `{folder}`")]
    NoFolder {
        /// The archive.
        file: &'static str,
        /// The folder.
        folder: &'static str,
    },
    /// A folder or file cannot be written or moved.
    #[error("cannot write `{}`{}", path.display(), way_out(source))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn hint(error: &UnpackError) -> &'static str {
    match error {
        UnpackError::Write { source, .. } => way_out(source),
        UnpackError::Format(_) | UnpackError::Escape(_) | UnpackError::Kind(_) | UnpackError::Damaged(_) => {
            ""
        }
    }
}

pub fn run(arguments: &FetchArguments) -> Result<ExitCode, Failure> {
    let source = Source::named(&arguments.name)?;
    let archives: Vec<&Archive> = match &arguments.only {
        None => source.archives().iter().collect(),
        Some(file) => source.archives().iter().filter(|archive| archive.file == file).collect(),
    };
    if archives.is_empty() {
        let what = match (&arguments.only, source.archives()) {
            (_, []) => "comes with the program, nothing is to be fetched".to_owned(),
            (file, _) => format!("has no published file `{}`", file.as_deref().unwrap_or_default()),
        };
        return Err(Failure::Usage(format!("`{}` {what}", source.name())));
    }
    let downloader = Downloader::new(Duration::from_secs(1));
    for archive in archives {
        let done = fetch(&downloader, archive, arguments.url.as_deref(), &arguments.to)
            .map_err(anyhow::Error::from)?;
        out::line(&match done {
            Done::There(path) => format!("`{}` is there already", path.display()),
            Done::Fetched(path) => format!("fetched `{}`", path.display()),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How a fetch ended well.
#[derive(Debug, PartialEq)]
pub enum Done {
    /// Its file or folder was there; of a folder, `credence data check` says whether it is whole.
    There(PathBuf),
    /// It is there now.
    Fetched(PathBuf),
}

/// Brings one archive into the data folder `to`, from its published place or from `base`.
pub fn fetch(
    downloader: &Downloader,
    archive: &Archive,
    base: Option<&str>,
    to: &Path,
) -> Result<Done, FetchError> {
    let target = match archive.place {
        Place::Kept(folder) => to.join(folder).join(archive.file),
        Place::Unpacked(folder) => to.join(folder),
    };
    if target.exists() {
        return there(archive, target);
    }
    make_folder(to)?;
    let part = to.join(format!("{}.part", archive.file));
    downloader.fetch(&address(base.unwrap_or(archive.base), archive.file), &part)?;
    verify(archive, &part, to)?;
    match archive.place {
        Place::Kept(folder) => {
            make_folder(&to.join(folder))?;
            rename(&part, &target)?;
        }
        Place::Unpacked(folder) => {
            unpack_beside(archive, folder, &part, to)?;
            fs::remove_file(&part).map_err(|source| FetchError::Write { path: part, source })?;
        }
    }
    Ok(Done::Fetched(target))
}

fn there(archive: &Archive, target: PathBuf) -> Result<Done, FetchError> {
    if let Place::Kept(_) = archive.place {
        let found = digest(&target)?;
        if found != archive.md5 {
            return Err(FetchError::Taken { path: target, found });
        }
    }
    Ok(Done::There(target))
}

fn address(base: &str, file: &str) -> String {
    format!("{}/{file}", base.trim_end_matches('/'))
}

/// Puts a part with a wrong digest aside, so that the next call starts anew.
fn verify(archive: &Archive, part: &Path, to: &Path) -> Result<(), FetchError> {
    let found = digest(part)?;
    if found == archive.md5 {
        return Ok(());
    }
    let name = |number: u32| to.join(format!("{}.bad-{number}", archive.file));
    let kept = (1..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0));
    rename(part, &kept)?;
    Err(FetchError::Digest { file: archive.file, found, expected: archive.md5, kept })
}

fn digest(path: &Path) -> Result<String, FetchError> {
    md5_of(path).map_err(|source| FetchError::Write { path: path.to_owned(), source })
}

/// Unpacks into a folder of its own below `to`; what it brings takes its place by a rename.
fn unpack_beside(archive: &Archive, folder: &'static str, part: &Path, to: &Path) -> Result<(), FetchError> {
    let written = |path: &Path, source| FetchError::Write { path: path.to_owned(), source };
    let beside = tempfile::Builder::new()
        .prefix(&format!(".{folder}-"))
        .tempdir_in(to)
        .map_err(|source| written(to, source))?;
    unpack(part, archive.file, beside.path())
        .map_err(|source| FetchError::Unpack { file: archive.file, source })?;
    let brought = beside.path().join(folder);
    if !brought.is_dir() {
        return Err(FetchError::NoFolder { file: archive.file, folder });
    }
    rename(&brought, &to.join(folder))
}

fn make_folder(path: &Path) -> Result<(), FetchError> {
    fs::create_dir_all(path).map_err(|source| FetchError::Write { path: path.to_owned(), source })
}

fn rename(from: &Path, to: &Path) -> Result<(), FetchError> {
    fs::rename(from, to).map_err(|source| FetchError::Write { path: to.to_owned(), source })
}

#[cfg(test)]
mod tests;
