//! `cargo xtask soak`: faults of every kind at random moments, for as long as one likes.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use system_tests::Machine;
use system_tests::soak::{self, Axes, Rounds, Soak};

/// Runs a grid again and again while processes, networks, files and disks fail, and compares it with a run without faults.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long to begin new rounds.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Repeats the faults of a run; otherwise another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Settings of each of the three methods.
    #[arg(long, default_value_t = Axes::FULL.settings)]
    settings: u32,
    /// Seeds of each cell.
    #[arg(long, default_value_t = Axes::FULL.seeds)]
    seeds: u32,
}

fn main() -> anyhow::Result<()> {
    let Arguments { minutes, seed, settings, seeds } = Arguments::parse();
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    let mut out = std::io::stdout();
    writeln!(out, "{}\nseed {seed}", Machine::describe()).context("cannot print")?;
    let rounds = Rounds::For(Duration::from_secs(minutes * 60));
    let survived = soak::run(Soak { seed, axes: Axes { settings, seeds }, rounds, faults: usize::MAX });
    writeln!(out, "\n{survived}").context("cannot print")
}
