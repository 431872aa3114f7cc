//! `cargo xtask`: what the README's two commands call, and the set-up that both need.
//!
//! Decides what is built, with which libtorch, and which processes run meanwhile. It knows the
//! programs of this workspace by their command lines only and links none of their crates, so that
//! it builds in seconds on a machine that has nothing yet.

mod fetch;
mod prerequisites;
mod setup;
mod wheels;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Tasks of the Credence workspace.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Provide libtorch in `.libtorch/` of the checkout, unless LIBTORCH names another one.
    Setup,
}

fn main() -> anyhow::Result<()> {
    let workspace = workspace()?;
    match Arguments::parse().task {
        Task::Setup => setup::run(&workspace),
    }
}

/// Root of the checkout that this program was built from.
fn workspace() -> anyhow::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.parent().context("xtask lies at the root of the file system")?;
    Ok(root.to_path_buf())
}
