//! `cargo xtask load`: the coordinator under load, with figures for people and for scripts.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use serde::Serialize;
use system_tests::Machine;
use system_tests::load::{self, Figures, Load};

/// Puts a coordinator under load, checks that nothing is lost or doubled, and prints what it took.
#[derive(Debug, Parser)]
struct Arguments {
    /// Worker sessions of one slot each.
    #[arg(long, default_value_t = Load::FULL.workers)]
    workers: u32,
    /// Trials.
    #[arg(long, default_value_t = Load::FULL.trials)]
    trials: u32,
    /// Grids that they are submitted with.
    #[arg(long, default_value_t = Load::FULL.experiments)]
    experiments: u32,
    /// Milliseconds that a trial takes.
    #[arg(long, default_value_t = 3_000)]
    duration_ms: u64,
    /// Metric reports of a train trial.
    #[arg(long, default_value_t = Load::FULL.reports)]
    reports: u32,
    /// Rows of each report.
    #[arg(long, default_value_t = Load::FULL.rows)]
    rows: u32,
    /// Copies the coordinator's data folder to this new one at the end.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Writes the figures to this file, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Written {
    machine: Machine,
    figures: Figures,
}

fn main() -> anyhow::Result<()> {
    let Arguments { workers, trials, experiments, duration_ms, reports, rows, keep, json } =
        Arguments::parse();
    let machine = Machine::describe();
    let duration = Duration::from_millis(duration_ms);
    let figures =
        load::run_and_keep(Load { workers, trials, experiments, duration, reports, rows }, keep.as_deref());
    writeln!(std::io::stdout(), "{machine}\n\n{figures}").context("cannot print")?;
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&Written { machine, figures })?;
        fs::write(&path, text + "\n").with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}
