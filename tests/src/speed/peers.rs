//! The peers: scripts of `tests/bench/steps`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::de::DeserializeOwned;

use super::{BATCH, Compared, DEPTH, Effort, Images, MEMBERS, Method, Times, WIDEN, ours};
use crate::environment::Environment;

/// The peers' Python.
pub(super) struct Peers<'a> {
    pub(super) environment: &'a Environment,
    pub(super) effort: Effort,
}

impl Peers<'_> {
    /// Training steps of the plain network.
    pub(super) fn step(&self, method: Method, images: &Images) -> anyhow::Result<Times> {
        let mut command = self.script("step.py", self.effort.threads);
        self.measured(&mut command, method.name(), method.clip(), images);
        output(&mut command)
    }

    /// Training steps of torch-uncertainty's LP-BNN.
    pub(super) fn torch_uncertainty(&self, images: &Images) -> anyhow::Result<Times> {
        let mut command = self.script("step.py", self.effort.threads);
        self.measured(&mut command, "torch-uncertainty", None, images);
        output(&mut command)
    }

    /// Predictions of the plain network.
    pub(super) fn predict(&self, method: Method, images: &Images) -> anyhow::Result<Times> {
        let mut command = self.script("predict.py", self.effort.threads);
        self.measured(&mut command, method.name(), None, images);
        output(&mut command)
    }

    /// Steps of two ranks under torchrun, or their all-reduces.
    pub(super) fn ddp(&self, what: &str, clip: Option<f64>, images: &Images) -> anyhow::Result<Times> {
        let threads = (self.effort.threads / 2).max(1);
        let mut command = self.python(threads);
        command.args(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]);
        command.arg(self.environment.script("ddp.py"));
        self.measured_with(&mut command, what, clip, images, threads);
        output(&mut command)
    }

    /// What the steps after `checkpoint` of ours come to.
    pub(super) fn agree(
        &self,
        method: Method,
        images: &Images,
        checkpoint: &Path,
        steps: usize,
    ) -> anyhow::Result<Vec<Compared>> {
        let mut command = self.script("agree.py", self.effort.threads);
        command.arg(method.name()).arg("--steps").arg(steps.to_string());
        command.arg("--threads").arg(self.effort.threads.to_string());
        shape(&mut command, method.clip(), images);
        command.arg("--checkpoint").arg(checkpoint);
        output(&mut command)
    }

    fn python(&self, threads: u32) -> Command {
        let mut command = Command::new(self.environment.python());
        ours::environment_of(&mut command, threads, self.effort);
        command
    }

    fn script(&self, name: &str, threads: u32) -> Command {
        let mut command = self.python(threads);
        command.arg(self.environment.script(name));
        command
    }

    fn measured(&self, command: &mut Command, what: &str, clip: Option<f64>, images: &Images) {
        self.measured_with(command, what, clip, images, self.effort.threads);
    }

    fn measured_with(
        &self,
        command: &mut Command,
        what: &str,
        clip: Option<f64>,
        images: &Images,
        threads: u32,
    ) {
        let Effort { steps, warm_up, .. } = self.effort;
        command.arg(what);
        let numbers =
            [("--steps", steps), ("--warm-up", warm_up), ("--threads", threads), ("--batch", BATCH)];
        for (option, number) in numbers {
            command.arg(option).arg(number.to_string());
        }
        shape(command, clip, images);
    }
}

fn shape(command: &mut Command, clip: Option<f64>, images: &Images) {
    for (option, number) in [("--members", MEMBERS), ("--depth", DEPTH), ("--widen", WIDEN)] {
        command.arg(option).arg(number.to_string());
    }
    if let Some(clip) = clip {
        command.arg("--clip").arg(clip.to_string());
    }
    command.arg("--images").arg(images.file());
}

/// Runs a script, and reads the JSON that it prints.
fn output<T: DeserializeOwned>(command: &mut Command) -> anyhow::Result<T> {
    let line = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot start {line}"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line} failed ({}):\n{log}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("{line} printed no times"))
}
