//! The peers' Python, made by pip and kept between runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::programs::repository;

/// What the races need. torch has the version of our libtorch.
const PACKAGES: [&str; 3] = ["torch==2.11.0", "ray[train]", "optuna>=5"];

/// A Python that has the peers.
#[derive(Clone, Debug)]
pub(super) struct Environment {
    python: PathBuf,
}

impl Environment {
    /// The one that `python` names, or one that is made now, unless it was made before.
    pub(super) fn provide(python: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(python) = python {
            return Ok(Self { python });
        }
        let folder = repository().join("target/race-environment");
        let environment = Self { python: folder.join("bin/python") };
        if !environment.python.is_file() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        }
        run(Command::new(&environment.python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
        Ok(environment)
    }

    /// The interpreter.
    pub(super) fn python(&self) -> &Path {
        &self.python
    }

    /// A script of this repository.
    pub(super) fn script(name: &str) -> PathBuf {
        repository().join("tests/bench/races").join(name)
    }

    /// Version of a package, for the record.
    pub(super) fn version(&self, package: &str) -> anyhow::Result<String> {
        let code = format!("import importlib.metadata as m; print(m.version('{package}'))");
        let output =
            Command::new(&self.python).args(["-c", &code]).output().context("cannot start Python")?;
        ensure!(
            output.status.success(),
            "{package} is not installed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot start {line}"))?;
    ensure!(status.success(), "{line} failed ({status})");
    Ok(())
}
