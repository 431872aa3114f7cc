//! `cargo xtask test`: every test of the workspace, with what they need.

use std::env;
use std::path::Path;

use anyhow::Context;

use crate::process::{self, cargo};
use crate::{nccl, setup};

/// Tells the system tests where `credence` is.
pub const CREDENCE: &str = "CREDENCE_BIN";
/// Tells them where `credence-trainer` is.
pub const TRAINER: &str = "CREDENCE_TRAINER_BIN";

/// Sets up, builds the programs that the system tests start, and runs all tests.
pub fn run(workspace: &Path) -> anyhow::Result<()> {
    setup::run(workspace)?;
    // It has no tests that run without CUDA, so what can rot is that it compiles.
    nccl::provide(workspace)?;
    // The whole workspace, so that the programs are built with the same features as the tests.
    process::run(&mut cargo(workspace, &["build", "--locked", "--workspace"]))?;
    let own = env::current_exe().context("cannot tell where this program lies")?;
    let programs = own.parent().context("this program lies at the root of the file system")?;
    let mut tests = cargo(workspace, &["test", "--locked", "--workspace"]);
    tests.env(CREDENCE, programs.join("credence")).env(TRAINER, programs.join("credence-trainer"));
    process::run(&mut tests)
}
