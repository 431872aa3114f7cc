//! `cargo xtask bench --gpu`: training steps beside plain PyTorch, on one GPU.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use common::report::Device;
use common::spec::Precision;
use system_tests::Programs;
use system_tests::gpu::{self, Setting};

/// Measures ours and plain PyTorch in turn: WideResNet-28-10, deterministic, BatchEnsemble and LP-BNN.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where
    #[arg(long, value_enum, default_value = "cuda")]
    device: Place,
    /// Precision of products: fp32, tf32 or bf16
    #[arg(long, default_value = "bf16", value_parser = precision)]
    precision: Precision,
    /// Images of a batch
    #[arg(long, default_value_t = 128)]
    batch: u32,
    /// Depth of the network
    #[arg(long, default_value_t = 28)]
    depth: u32,
    /// Its width
    #[arg(long, default_value_t = 10)]
    widen: u32,
    /// Members of the ensembles
    #[arg(long, default_value_t = 4)]
    members: u32,
    /// Threads of each process on the host
    #[arg(long, default_value_t = 4)]
    threads: u32,
    /// Runs of each contestant
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Steps before anything is timed
    #[arg(long, default_value_t = 30)]
    warm_up: u32,
    /// Windows of each run
    #[arg(long, default_value_t = 15)]
    windows: usize,
    /// Least length of a window
    #[arg(long, default_value_t = 500)]
    window_ms: u32,
    /// A Python that has PyTorch 2.11.0
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Writes every window to this file, too
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Place {
    /// The processor, to try the bench itself
    Cpu,
    /// The first GPU
    Cuda,
}

fn precision(text: &str) -> Result<Precision, String> {
    let found = Precision::ALL.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, precision)| precision).ok_or_else(|| "expected fp32, tf32 or bf16".to_owned())
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let setting = Setting {
        device: match arguments.device {
            Place::Cpu => Device::Cpu,
            Place::Cuda => Device::Cuda,
        },
        precision: arguments.precision,
        batch: arguments.batch,
        depth: arguments.depth,
        widen: arguments.widen,
        members: arguments.members,
        threads: arguments.threads,
        rounds: arguments.rounds,
        warm_up: arguments.warm_up,
        windows: arguments.windows,
        window_ms: arguments.window_ms,
    };
    let report = gpu::run(setting, &Programs::trainer_alone(), &arguments.python)?;
    write!(std::io::stdout(), "{}", gpu::markdown(&report)).context("cannot print")?;
    if let Some(path) = arguments.json {
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(&path, text + "\n").with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}
