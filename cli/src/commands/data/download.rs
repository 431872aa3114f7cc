//! One file over HTTP into a `.part` beside its place, going on where an earlier download stopped.
//!
//! Decides when to try again, and whether what came is the published file. It never writes to any other file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use md5::{Digest as _, Md5};
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

/// Tries in a row that bring no byte before the download is given up.
const TRIES: u32 = 5;

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server does not answer, or breaks off again and again.
    #[error(
        "`{url}` cannot be fetched after {TRIES} tries; what came is kept, and the next call goes on from there"
    )]
    Connection {
        /// The address.
        url: String,
        /// What happened last.
        source: io::Error,
    },
    /// The server refuses.
    #[error("`{url}` is answered with {status}: get the file elsewhere, or name another place with --url")]
    Refused {
        /// The address.
        url: String,
        /// The server's answer.
        status: StatusCode,
    },
    /// The part cannot be written.
    #[error("cannot write `{}`{}", path.display(), way_out(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What to do about a file that cannot be written.
pub fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": free some space and run it again, it goes on where it stopped"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ": name a folder that you may write to with --to"
        }
        _ => "",
    }
}

/// Fetches files, one after the other.
pub struct Downloader {
    agent: Agent,
    /// Time before the second try; it doubles with each.
    pause: Duration,
}

impl Downloader {
    /// A downloader that waits `pause` before it tries again, and longer each time.
    pub fn new(pause: Duration) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .user_agent(concat!("credence/", env!("CARGO_PKG_VERSION")));
        Self { agent: config.build().into(), pause }
    }

    /// Fetches `url` into `part`, after what is there.
    pub fn fetch(&self, url: &str, part: &Path) -> Result<(), DownloadError> {
        let mut tries = 0;
        loop {
            let before = size(part)?;
            match self.go_on(url, part, before)? {
                Outcome::Whole => return Ok(()),
                Outcome::Cut(source) => {
                    // Each try that brings something starts the count again.
                    tries = if size(part)? > before { 0 } else { tries + 1 };
                    if tries >= TRIES {
                        return Err(DownloadError::Connection { url: url.to_owned(), source });
                    }
                    std::thread::sleep(self.pause * 2_u32.pow(tries));
                }
            }
        }
    }

    fn go_on(&self, url: &str, part: &Path, have: u64) -> Result<Outcome, DownloadError> {
        let request = self.agent.get(url);
        let request = if have > 0 { request.header(RANGE, format!("bytes={have}-")) } else { request };
        let response = match request.call() {
            Ok(response) => response,
            Err(error) => return Ok(Outcome::Cut(io::Error::other(error))),
        };
        let refused = |status| DownloadError::Refused { url: url.to_owned(), status };
        let start = match response.status() {
            // The server sends everything, asked or not: begin again.
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if starts_at(&response, have) => have,
            // Nothing is left to send; the digest says whether that is so.
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return Ok(Outcome::Whole),
            status if status.is_server_error() => {
                return Ok(Outcome::Cut(io::Error::other(format!("the server answered {status}"))));
            }
            status => return Err(refused(status)),
        };
        let length =
            response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        copy(&mut response.into_body().into_reader(), part, start, length)
    }
}

enum Outcome {
    Whole,
    Cut(io::Error),
}

/// Whether the answer starts at the byte that was asked for.
fn starts_at(response: &Response<Body>, have: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()) == Some(have)
}

/// Writes what comes to `part` from byte `start` on.
fn copy(
    content: &mut impl Read,
    part: &Path,
    start: u64,
    length: Option<u64>,
) -> Result<Outcome, DownloadError> {
    let failed = |source| DownloadError::Write { path: part.to_owned(), source };
    let mut options = OpenOptions::new();
    options.create(true);
    if start > 0 {
        options.append(true)
    } else {
        options.write(true).truncate(true)
    };
    let mut file = options.open(part).map_err(failed)?;
    let mut buffer = vec![0; 1 << 16];
    let mut received = 0;
    let end = loop {
        match content.read(&mut buffer) {
            Ok(0) => break None,
            Ok(count) => {
                file.write_all(&buffer[..count]).map_err(failed)?;
                received += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Some(error),
        }
    };
    file.sync_all().map_err(failed)?;
    Ok(match end {
        Some(error) => Outcome::Cut(error),
        None if length.is_some_and(|length| received < length) => {
            Outcome::Cut(io::ErrorKind::UnexpectedEof.into())
        }
        None => Outcome::Whole,
    })
}

fn size(part: &Path) -> Result<u64, DownloadError> {
    match part.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
        // What is no plain file, such as /dev/full behind a link, has no beginning to go on from.
        Ok(_) => Ok(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(DownloadError::Write { path: part.to_owned(), source }),
    }
}

/// MD5 of a file, in hexadecimal digits.
pub fn md5_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Md5::new();
    io::copy(&mut file, &mut hash)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
