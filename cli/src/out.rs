//! Standard output that may be closed at any time, as by `| head`.

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use crate::error::Failure;

/// Writes to standard output. A reader that has seen enough is no failure.
///
/// # Errors
///
/// When the output cannot be written, as on a full disk.
pub fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result.context("cannot write to standard output")?),
    }
}

/// Writes text and a line's end.
///
/// # Errors
///
/// As [`write()`].
pub fn line(text: &str) -> Result<(), Failure> {
    write(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
}

/// Writes a value as indented JSON.
///
/// # Errors
///
/// As [`write()`].
pub fn json(value: &impl Serialize) -> Result<ExitCode, Failure> {
    line(&serde_json::to_string_pretty(value).context("cannot write JSON")?)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a value as one line of JSON.
///
/// # Errors
///
/// As [`write()`].
pub fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string(value).context("cannot write JSON")?)
}
