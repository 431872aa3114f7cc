//! `cargo xtask load | soak | race | bench`: builds the programs as they are released, then lets the harness of `tests/` measure
//! or torment them.
//!
//! Programs that the environment names (`CREDENCE_BIN`, `CREDENCE_TRAINER_BIN`) are taken as they are.

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::process::{self, cargo};
use crate::setup;
use crate::test::{CREDENCE, TRAINER};

/// A program of the harness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bench {
    /// `load`: the coordinator alone.
    Load,
    /// `soak`: everything, and faults.
    Soak,
    /// `race`: everything, beside peers.
    Race,
    /// `bench`: steps and predictions of the trainer, beside peers.
    Steps,
}

impl Bench {
    fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Soak => "soak",
            Self::Race => "race",
            Self::Steps => "bench",
        }
    }

    /// Whether trainers run, which need libtorch.
    fn trains(self) -> bool {
        match self {
            Self::Load => false,
            Self::Soak | Self::Race | Self::Steps => true,
        }
    }

    /// What is built of the trainer.
    fn trainer(self) -> &'static [&'static str] {
        match self {
            Self::Load | Self::Soak | Self::Race => &["build", "--locked", "--release", "-p", "trainer"],
            // The program, and the all-reduce that is measured.
            Self::Steps => &["build", "--locked", "--release", "-p", "trainer", "--bins", "--examples"],
        }
    }

    /// Whether a coordinator and workers run.
    fn schedules(self) -> bool {
        match self {
            Self::Load | Self::Soak | Self::Race => true,
            Self::Steps => false,
        }
    }
}

/// Builds what is needed and runs it with these arguments; its exit status is ours.
pub fn run(workspace: &Path, bench: Bench, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let folder = process::release_folder()?;
    if bench.trains() && env::var_os(TRAINER).is_none() {
        setup::run(workspace)?;
        process::run(&mut cargo(workspace, bench.trainer()))?;
    }
    if bench.schedules() && env::var_os(CREDENCE).is_none() {
        process::run(&mut cargo(workspace, &["build", "--locked", "--release", "-p", "cli"]))?;
    }
    let name = bench.name();
    let harness = ["build", "--locked", "--release", "-p", "system-tests", "--bin", name];
    process::run(&mut cargo(workspace, &harness))?;
    let mut command = Command::new(folder.join(name));
    command.args(arguments);
    for (variable, program) in [(CREDENCE, "credence"), (TRAINER, "credence-trainer")] {
        if env::var_os(variable).is_none() {
            command.env(variable, folder.join(program));
        }
    }
    let line = process::line_of(&command);
    eprintln!("> {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
