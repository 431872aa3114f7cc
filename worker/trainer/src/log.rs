//! The log on standard error. Every line carries attempt, trial and rank, because an agent interleaves
//! the logs of its ranks.

use std::env;
use std::io;

use common::report::Launch;
use tracing::Span;
use tracing_subscriber::EnvFilter;

/// Environment variable with the filter of the log, in the syntax of `tracing_subscriber`. Default `info`.
pub const FILTER: &str = "CREDENCE_LOG";

/// Environment variable with the form of the log: `text` (default) or `json`.
pub const FORMAT: &str = "CREDENCE_LOG_FORMAT";

/// Starts the log of this process.
pub fn start() {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    if env::var(FORMAT).is_ok_and(|format| format == "json") {
        log.json().init();
    } else {
        log.init();
    }
}

/// The span that names the rank on every line logged within it. Threads enter it themselves.
pub fn rank_span(launch: &Launch) -> Span {
    let trial = launch.spec.key().0.short();
    tracing::info_span!("rank", attempt = %launch.attempt, trial, rank = launch.rank)
}
