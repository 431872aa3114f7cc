//! The peers' Python, made by pip and kept between runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::programs::repository;

/// What peers are needed for. torch has the version of our libtorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Races under faults.
    Race,
    /// Steps and predictions beside each other.
    Speed,
}

impl Purpose {
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Race => &["torch==2.11.0", "ray[train]", "optuna>=5"],
            Self::Speed => &["torch==2.11.0", "torch-uncertainty==0.13.0"],
        }
    }

    /// Folder below `target/` that the environment lies in.
    fn folder(self) -> &'static str {
        match self {
            Self::Race => "race-environment",
            Self::Speed => "speed-environment",
        }
    }

    /// Folder below `tests/bench/` that the scripts lie in.
    fn scripts(self) -> &'static str {
        match self {
            Self::Race => "races",
            Self::Speed => "steps",
        }
    }
}

/// A Python that has the peers.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    python: PathBuf,
    purpose: Purpose,
}

impl Environment {
    /// The one that `python` names, or one that is made now, unless it was made before.
    pub(crate) fn provide(purpose: Purpose, python: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(python) = python {
            return Ok(Self { python, purpose });
        }
        let folder = repository().join("target").join(purpose.folder());
        let environment = Self { python: folder.join("bin/python"), purpose };
        if !environment.python.is_file() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        }
        let packages = purpose.packages();
        run(Command::new(&environment.python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
        Ok(environment)
    }

    /// The interpreter.
    pub(crate) fn python(&self) -> &Path {
        &self.python
    }

    /// A script of this repository.
    pub(crate) fn script(&self, name: &str) -> PathBuf {
        repository().join("tests/bench").join(self.purpose.scripts()).join(name)
    }

    /// Version of a package, for the record.
    pub(crate) fn version(&self, package: &str) -> anyhow::Result<String> {
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
