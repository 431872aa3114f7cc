//! Log lines of the long-running commands.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::{LogArguments, LogFormat};
use crate::error::Failure;

/// Starts logging to standard error.
///
/// # Errors
///
/// [`Failure::Usage`] when the filter is not understood.
pub fn start(arguments: &LogArguments) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&arguments.log)
        .map_err(|error| Failure::Usage(format!("`--log {}` is not understood: {error}", arguments.log)))?;
    // Escape codes are noise in a file.
    let colours = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match arguments.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
