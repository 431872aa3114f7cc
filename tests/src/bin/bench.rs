//! `cargo xtask bench`: training steps, predictions and collectives beside peers, on this machine.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use system_tests::speed::{self, Bench, Effort};
use system_tests::{Programs, repository};

/// Measures ours and the peers in turn, and writes BENCHMARKS.md and tests/bench/results/.
#[derive(Debug, Parser)]
struct Arguments {
    /// What is measured; everything, if nothing is named
    benches: Vec<Choice>,
    /// Runs of each contestant
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Steps that are counted in each run
    #[arg(long, default_value_t = 30)]
    steps: u32,
    /// Steps before them
    #[arg(long, default_value_t = 5)]
    warm_up: u32,
    /// Threads of each process; two ranks share them
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Lets threads that wait sleep at once: for a machine that others use, too
    #[arg(long)]
    passive: bool,
    /// A Python that has torch and torch-uncertainty; otherwise one is made
    #[arg(long)]
    python: Option<PathBuf>,
    /// Measures those alone whose names hold this; prints only
    #[arg(long, default_value = "")]
    only: String,
    /// Prints only, and writes no file
    #[arg(long)]
    print: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Choice {
    /// Training steps of one rank
    Step,
    /// Predictions of all members
    Inference,
    /// Training steps of two ranks, and an all-reduce of 25 MB
    Ddp,
}

impl Choice {
    fn bench(self) -> Bench {
        match self {
            Self::Step => Bench::Step,
            Self::Inference => Bench::Inference,
            Self::Ddp => Bench::Ddp,
        }
    }
}

fn main() -> anyhow::Result<()> {
    let Arguments { benches, rounds, steps, warm_up, threads, passive, python, only, print } =
        Arguments::parse();
    let benches: Vec<Bench> = if benches.is_empty() {
        Bench::ALL.to_vec()
    } else {
        benches.into_iter().map(Choice::bench).collect()
    };
    let effort = Effort { rounds, steps, warm_up, threads, passive };
    let trainer = Programs::trainer_alone();
    for bench in benches {
        let report = speed::run(bench, effort, python.clone(), &trainer, &only)?;
        let section = speed::markdown(&report);
        write!(std::io::stdout(), "{section}").context("cannot print")?;
        if print || !only.is_empty() {
            continue;
        }
        let folder = repository().join("tests/bench/results");
        fs::create_dir_all(&folder)?;
        let json = serde_json::to_string(&report)? + "\n";
        fs::write(folder.join(format!("{}.json", bench.name())), json)?;
        let page = repository().join("BENCHMARKS.md");
        let text = fs::read_to_string(&page).with_context(|| format!("cannot read `{}`", page.display()))?;
        fs::write(&page, speed::replace_section(&text, bench.name(), &section))?;
    }
    Ok(())
}
