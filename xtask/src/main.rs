//! `cargo xtask`: what the README's two commands call, and the set-up that both need.
//!
//! Decides what is built, with which libtorch, and which processes run meanwhile. It knows the
//! programs of this workspace by their command lines only and links none of their crates, so that
//! it builds in seconds on a machine that has nothing yet.

mod bench;
mod demo;
mod fetch;
mod gpu;
mod mutants;
mod nccl;
mod prerequisites;
mod process;
mod setup;
mod test;
mod wheels;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::bench::Bench;
use crate::demo::Earlier;

/// Tasks of the Credence workspace.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Provide libtorch in `.libtorch/` of the checkout, unless LIBTORCH names another one
    Setup {
        /// Also compile `libcredence_nccl.so`, which ranks on GPUs reach each other by; needs no GPU and no CUDA
        #[arg(long)]
        cuda: bool,
    },
    /// Run a coordinator and two workers on this machine, from examples/quickstart.toml to its table
    Demo {
        /// Go on with the demo/ folder of the last time instead of starting anew
        #[arg(long)]
        keep: bool,
    },
    /// Run every test of the workspace
    Test {
        /// Run those that need a GPU instead: ranks that share the first one of this machine
        #[arg(long)]
        gpu: bool,
    },
    /// Measure training steps, predictions and collectives beside peers, and write BENCHMARKS.md
    Bench {
        /// Instead, training beside plain PyTorch, and in each precision, on the first GPU of this machine
        #[arg(long)]
        gpu: bool,
        /// Arguments of the bench, like `step --rounds 10`; with `--gpu`, like `--rounds 5 --json FILE`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Put a coordinator under the load of 1,000 worker sessions and 100,000 trials; `-- --help` says what can be chosen
    Load {
        /// Arguments of the load run
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a grid again and again while everything fails, for an hour or `--minutes N`
    Soak {
        /// Arguments of the soak, like `--minutes 5 --seed 7`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Race with peers on this machine: `recovery` of a rank, or a faulted `grid`
    Race {
        /// Arguments of the race, like `recovery --runs 10`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Break the coordinator's core and the agent's logic in known ways, and show which test notices each
    Mutants {
        /// Only those whose name holds this
        only: Option<String>,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> anyhow::Result<ExitCode> {
    let workspace = workspace()?;
    match task {
        Task::Setup { cuda: false } => setup::run(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Setup { cuda: true } => nccl::provide(&workspace).map(|_| ExitCode::SUCCESS),
        Task::Demo { keep } => demo::run(&workspace, if keep { Earlier::Kept } else { Earlier::Removed }),
        Task::Test { gpu: false } => test::run(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Test { gpu: true } => gpu::test(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Bench { gpu: true, arguments } => {
            gpu::bench(&workspace, &arguments).map(|()| ExitCode::SUCCESS)
        }
        Task::Load { arguments } => bench::run(&workspace, Bench::Load, &arguments),
        Task::Soak { arguments } => bench::run(&workspace, Bench::Soak, &arguments),
        Task::Race { arguments } => bench::run(&workspace, Bench::Race, &arguments),
        Task::Bench { gpu: false, arguments } => bench::run(&workspace, Bench::Steps, &arguments),
        Task::Mutants { only } => mutants::run(&workspace, only.as_deref()).map(|()| ExitCode::SUCCESS),
    }
}

/// Root of the checkout that this program was built from.
fn workspace() -> anyhow::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.parent().context("xtask lies at the root of the file system")?;
    Ok(root.to_path_buf())
}
