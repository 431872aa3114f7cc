//! The peers: scripts of `tests/bench/gpu`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use common::report::Device;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Ceiling, Method, Run, Setting};
use crate::programs::repository;

/// PyTorch of some environment.
pub(super) struct Peers<'a> {
    pub(super) python: &'a Path,
    pub(super) setting: Setting,
}

#[derive(Deserialize)]
struct Trained {
    #[serde(flatten)]
    run: Run,
    flops: u64,
}

impl Peers<'_> {
    /// Version of PyTorch.
    pub(super) fn version(&self) -> anyhow::Result<String> {
        let mut command = Command::new(self.python);
        command.args(["-c", "import json, torch; print(json.dumps(torch.__version__))"]);
        output(&mut command)
    }

    /// Compares the formula with what torch counts.
    pub(super) fn check_formula(&self) -> anyhow::Result<()> {
        raw_output(&mut self.script("flops.py")).map(|_| ())
    }

    pub(super) fn ceiling(&self) -> anyhow::Result<Ceiling> {
        let mut command = self.script("ceiling.py");
        self.measured(&mut command);
        output(&mut command)
    }

    /// Training steps, and the operations of one.
    pub(super) fn train(&self, method: Method, compiled: bool) -> anyhow::Result<(Run, u64)> {
        let Setting { batch, depth, widen, members, warm_up, .. } = self.setting;
        let mut command = self.script("peer.py");
        command.arg(method.name());
        self.measured(&mut command);
        let numbers = [
            ("--warm-up", warm_up),
            ("--batch", batch),
            ("--depth", depth),
            ("--widen", widen),
            ("--members", members),
        ];
        for (option, number) in numbers {
            command.arg(option).arg(number.to_string());
        }
        if let Some(clip) = method.clip() {
            command.arg("--clip").arg(clip.to_string());
        }
        if self.setting.channels_last() {
            command.arg("--channels-last");
        }
        if compiled {
            command.arg("--compile");
        }
        let Trained { run, flops } = output(&mut command)?;
        Ok((run, flops))
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(self.python);
        command.arg(repository().join("tests/bench/gpu").join(name));
        command.env("OMP_NUM_THREADS", self.setting.threads.to_string());
        command
    }

    fn measured(&self, command: &mut Command) {
        let Setting { device, precision, threads, windows, window_ms, .. } = self.setting;
        let device = match device {
            Device::Cpu => "cpu",
            Device::Cuda => "cuda:0",
        };
        command.args(["--device", device, "--precision", precision.name()]);
        command.arg("--threads").arg(threads.to_string());
        command.arg("--windows").arg(windows.to_string());
        command.arg("--window-ms").arg(window_ms.to_string());
    }
}

/// Runs a script, and reads the JSON that it prints.
fn output<T: DeserializeOwned>(command: &mut Command) -> anyhow::Result<T> {
    let stdout = raw_output(command)?;
    serde_json::from_slice(&stdout).with_context(|| format!("{command:?} printed something else"))
}

fn raw_output(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}):\n{}", output.status, log.trim());
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_fails_is_named_with_its_words_and_one_that_prints_no_json_too() {
        let run = |script: &str| output::<Ceiling>(Command::new("sh").args(["-c", script])).unwrap_err();
        let failed = run("echo no compiler here >&2; exit 3").to_string();
        assert!(failed.contains("exit status: 3") && failed.ends_with("no compiler here"), "{failed}");
        assert!(run("echo hello").to_string().ends_with("printed something else"));
    }
}
