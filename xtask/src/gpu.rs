//! `cargo xtask test --gpu` and `cargo xtask bench --gpu`: what can only be seen on a machine with a GPU.
//!
//! The tests are those of the CPU, told to compute on the first GPU, which all their ranks share; and a few of their own. One at a
//! time: each takes memory of that GPU.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::process::{self, cargo};
use crate::test::{CREDENCE, TRAINER};
use crate::{nccl, setup};

/// Names the folder of PyTorch's CUDA libraries, as for trainers.
const LIBTORCH: &str = "CREDENCE_CUDA_LIBTORCH";

/// Tests of whole trials that hold on a GPU too: those left out are about the CPU, or its memory.
const RANK_TESTS: [&str; 8] =
    ["resume::", "gang::", "yielding::", "best::", "evaluation::", "elastic::", "posteriors::", "state::"];

/// What every command is told.
struct Node {
    libtorch: PathBuf,
    nccl: PathBuf,
}

impl Node {
    fn find(workspace: &Path) -> anyhow::Result<Self> {
        setup::run(workspace)?;
        let nccl = nccl::provide(workspace)?;
        Ok(Self { libtorch: libtorch()?, nccl })
    }

    fn cargo(&self, workspace: &Path, arguments: &[&str]) -> Command {
        let mut command = cargo(workspace, arguments);
        self.tell(&mut command);
        command
    }

    fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env(LIBTORCH, &self.libtorch).env("CREDENCE_TEST_CUDA", &self.libtorch);
        command.env("CREDENCE_NCCL", &self.nccl)
    }
}

/// Runs the tests.
pub fn test(workspace: &Path) -> anyhow::Result<()> {
    let node = Node::find(workspace)?;
    let run = |arguments: &[&str]| process::run(&mut node.cargo(workspace, arguments));
    // Loading, and what libtorch says of the device.
    run(&["test", "--locked", "-p", "c10d", "--test", "cuda", "--", "--ignored", "--test-threads=1"])?;
    let on_the_gpu = |arguments: &[&str]| {
        process::run(node.cargo(workspace, arguments).env("CREDENCE_TEST_DEVICE", "cuda"))
    };
    // Collectives, Reducer and the loss of a peer, of two to four processes.
    on_the_gpu(&["test", "--locked", "-p", "c10d", "--test", "ranks", "--", "--test-threads=1"])?;
    on_the_gpu(&["test", "--locked", "-p", "trainer", "--lib", "golden", "--", "--test-threads=1"])?;
    let mut trials = vec!["test", "--locked", "-p", "trainer", "--test", "rank", "--", "--test-threads=1"];
    trials.extend(RANK_TESTS);
    on_the_gpu(&trials)?;
    // Whole grids, by a coordinator and a worker: the programs have to be there.
    run(&["build", "--locked", "-p", "cli", "-p", "trainer"])?;
    let programs = env::current_exe().context("cannot tell where this program lies")?;
    let programs = programs.parent().context("this program lies at the root of the file system")?;
    let filter = ["test", "--locked", "-p", "system-tests", "--test", "system", "--", "--ignored", "gpu::"];
    let mut grids = node.cargo(workspace, &filter);
    grids.env(CREDENCE, programs.join("credence")).env(TRAINER, programs.join("credence-trainer"));
    process::run(&mut grids)
}

/// Measures training beside plain PyTorch, with these arguments, and then in each precision.
pub fn bench(workspace: &Path, arguments: &[String]) -> anyhow::Result<()> {
    let node = Node::find(workspace)?;
    process::run(&mut cargo(workspace, &["build", "--locked", "--release", "-p", "trainer"]))?;
    let harness = ["build", "--locked", "--release", "-p", "system-tests", "--bin", "gpu"];
    process::run(&mut cargo(workspace, &harness))?;
    let folder = process::release_folder()?;
    let mut beside = Command::new(folder.join("gpu"));
    node.tell(&mut beside).env(TRAINER, folder.join("credence-trainer")).args(arguments);
    process::run(&mut beside)?;
    let arguments = [
        "test",
        "--locked",
        "--release",
        "-p",
        "trainer",
        "--test",
        "rank",
        "--",
        "--ignored",
        "--nocapture",
        "--exact",
        "throughput::images_a_second_in_each_precision",
    ];
    process::run(node.cargo(workspace, &arguments).env("CREDENCE_TEST_DEVICE", "cuda"))
}

/// The folder of `libtorch_cuda.so`: of the one that the environment names, else of the active Python's PyTorch.
fn libtorch() -> anyhow::Result<PathBuf> {
    if let Some(named) = env::var_os(LIBTORCH).filter(|value| !value.is_empty()) {
        return within(Path::new(&named));
    }
    const SCRIPT: &str =
        "import importlib.util; print(importlib.util.find_spec('torch').submodule_search_locations[0])";
    let output = Command::new("python3").args(["-c", SCRIPT]).output().context("cannot run `python3`")?;
    ensure!(
        output.status.success(),
        "the active Python has no PyTorch: `pip install torch==2.11.0`, or name the folder of one in {LIBTORCH}"
    );
    within(Path::new(String::from_utf8_lossy(&output.stdout).trim()))
}

fn within(folder: &Path) -> anyhow::Result<PathBuf> {
    let places = [folder.to_owned(), folder.join("lib"), folder.join("torch/lib")];
    let found = places.into_iter().find(|place| place.join("libtorch_cuda.so").is_file());
    found.with_context(|| {
        format!(
            "`{}` holds no libtorch_cuda.so: name a PyTorch 2.11.0 for CUDA 13.0 in {LIBTORCH}",
            folder.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_are_found_in_the_folder_or_below_it_and_a_folder_without_them_is_named() {
        let root = tempfile::tempdir().unwrap();
        let lib = root.path().join("torch/lib");
        std::fs::create_dir_all(&lib).unwrap();
        let refusal = within(root.path()).unwrap_err().to_string();
        assert!(refusal.contains("holds no libtorch_cuda.so"), "{refusal}");
        std::fs::write(lib.join("libtorch_cuda.so"), "").unwrap();
        for folder in [root.path(), &root.path().join("torch"), &lib] {
            assert_eq!(within(folder).unwrap(), lib);
        }
    }
}
