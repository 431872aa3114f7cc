//! `cargo xtask race`: the same faults for us and for peers, on this machine.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use system_tests::race::{self, Fault, Field};

/// Races Credence with its peers on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    race: Race,
}

#[derive(Debug, Subcommand)]
enum Race {
    /// One rank of two gets SIGKILL or SIGSTOP: time to the next step, beside torchrun and Ray Train
    Recovery {
        /// Only this signal
        #[arg(long)]
        fault: Option<Signal>,
        #[command(flatten)]
        options: Options,
    },
    /// Processes of a grid are killed: cells that are missing or done twice, beside Optuna's grid sampler
    Grid(Options),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Signal {
    Sigkill,
    Sigstop,
}

#[derive(Debug, Args)]
struct Options {
    /// Runs of each contestant
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Leaves the peers out
    #[arg(long)]
    ours: bool,
    /// A Python that has torch, Ray and Optuna; otherwise one is made
    #[arg(long)]
    python: Option<PathBuf>,
    /// Writes every run to this file, too
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let field = |options: &Options| if options.ours { Field::Ours } else { Field::Everybody };
    match Arguments::parse().race {
        Race::Recovery { fault, options } => {
            let faults = match fault {
                None => &Fault::ALL[..],
                Some(Signal::Sigkill) => &[Fault::Kill],
                Some(Signal::Sigstop) => &[Fault::Freeze],
            };
            let report = race::recovery(field(&options), faults, options.runs as usize, options.python)?;
            finish(&race::recovery_table(&report), &report, options.json.as_deref())
        }
        Race::Grid(options) => {
            let report = race::grid(field(&options), u64::from(options.runs), options.python)?;
            finish(&race::grid_table(&report), &report, options.json.as_deref())
        }
    }
}

fn finish(table: &str, report: &impl Serialize, json: Option<&Path>) -> anyhow::Result<()> {
    write!(std::io::stdout(), "{table}").context("cannot print")?;
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(report)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}
