//! Training of WideResNets beside the same networks in plain PyTorch, on one GPU and in one session, with the rate at which the GPU
//! multiplies matrices at most. On a processor the same runs with small sizes.
//!
//! Ours are steps of the real program, launched as an agent does; peers and the count of operations are scripts of `tests/bench/gpu`.
//! Both sides are timed in windows at whose end everything that was queued is done; within one, nobody waits.

mod ours;
mod peers;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use common::report::Device;
use common::spec::Precision;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use ours::Ours;
use peers::Peers;

pub use table::markdown;

/// Limit of the gradient's norm of LP-BNN, on both sides.
const CLIP: f64 = 1.0;

/// What is trained, and how much is measured of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Setting {
    /// Where.
    pub device: Device,
    /// Precision of products, on both sides.
    pub precision: Precision,
    /// Images of a batch; each member sees all of them.
    pub batch: u32,
    /// Depth of the WideResNet.
    pub depth: u32,
    /// Its width.
    pub widen: u32,
    /// Members J of the ensembles.
    pub members: u32,
    /// Threads of each process on the host.
    pub threads: u32,
    /// Runs of each contestant, in turn.
    pub rounds: usize,
    /// Steps before anything is timed.
    pub warm_up: u32,
    /// Windows of each run.
    pub windows: usize,
    /// Least length of a window, in milliseconds.
    pub window_ms: u32,
}

impl Setting {
    /// Whether weights and activations lie pixel by pixel, on both sides: what half precision gains by and others do not.
    fn channels_last(&self) -> bool {
        match self.precision {
            Precision::Bf16 | Precision::Fp16 => true,
            Precision::Fp32 | Precision::Tf32 => false,
        }
    }
}

/// Which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Deterministic,
    BatchEnsemble,
    LpBnn,
}

impl Method {
    const ALL: [Self; 3] = [Self::Deterministic, Self::BatchEnsemble, Self::LpBnn];

    fn name(self) -> &'static str {
        match self {
            Self::Deterministic => "deterministic",
            Self::BatchEnsemble => "batch-ensemble",
            Self::LpBnn => "lp-bnn",
        }
    }

    fn clip(self) -> Option<f64> {
        match self {
            Self::Deterministic | Self::BatchEnsemble => None,
            Self::LpBnn => Some(CLIP),
        }
    }
}

/// Who trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contestant {
    Credence,
    Eager,
    Compiled,
}

impl Contestant {
    const ALL: [Self; 3] = [Self::Credence, Self::Eager, Self::Compiled];

    fn name(self) -> &'static str {
        match self {
            Self::Credence => "credence",
            Self::Eager => "pytorch",
            Self::Compiled => "torch.compile",
        }
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Seconds of a step, the mean of each window.
    pub seconds: Vec<f64>,
    /// Most memory that tensors had on the GPU, in bytes.
    pub peak_bytes: Option<u64>,
    /// Parameters, with the vectors that LP-BNN encodes and does not train.
    pub parameters: u64,
}

/// The most that the device does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Its name.
    pub device: String,
    /// Rows of the square matrices that were multiplied fastest.
    pub size: u64,
    /// Operations a second then.
    pub flops_per_second: f64,
}

/// Runs of one network.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    /// Model operations of a step.
    pub flops: u64,
    /// Every run, by contestant.
    pub runs: BTreeMap<&'static str, Vec<Run>>,
    /// Why there is none of a contestant.
    pub refused: BTreeMap<&'static str, String>,
}

/// What it came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Version of PyTorch.
    pub torch: String,
    /// What was measured.
    pub setting: Setting,
    /// Products of matrices in the same precision, before everything else and after it.
    pub ceilings: [Ceiling; 2],
    /// By method.
    pub methods: BTreeMap<&'static str, Measured>,
}

/// Measures everybody in turn.
///
/// # Errors
///
/// When a process does not do what it should, or the networks are not of one size.
pub fn run(setting: Setting, trainer: &Path, python: &Path) -> anyhow::Result<Report> {
    ensure!(setting.rounds > 0 && setting.windows > 0, "nothing is measured in 0 rounds or windows");
    ensure!(
        setting.precision != Precision::Fp16,
        "`fp16` scales its loss, which the peers' scripts do not: choose `bf16`"
    );
    let machine = Machine::describe();
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let (ours, peers) = (Ours { trainer, folder: folder.path(), setting }, Peers { python, setting });
    let torch = peers.version()?;
    eprintln!("> does the formula count the operations that torch counts?");
    peers.check_formula()?;
    eprintln!("> products of matrices");
    let before = peers.ceiling()?;
    let mut methods: BTreeMap<&'static str, Measured> = BTreeMap::new();
    for round in 1..=setting.rounds {
        for method in Method::ALL {
            for contestant in Contestant::ALL {
                let name = contestant.name();
                eprintln!("> round {round} of {}: {name} {}", setting.rounds, method.name());
                let measured = methods.entry(method.name()).or_default();
                let run = match contestant {
                    Contestant::Credence => ours.train(method).context(name)?,
                    Contestant::Eager | Contestant::Compiled => {
                        match peers.train(method, contestant == Contestant::Compiled) {
                            Ok((run, flops)) => {
                                measured.flops = flops;
                                run
                            }
                            // Compilers are not everywhere, and do not take every network.
                            Err(error) if contestant == Contestant::Compiled => {
                                measured.refused.insert(name, format!("{error:#}"));
                                continue;
                            }
                            Err(error) => return Err(error.context(name)),
                        }
                    }
                };
                measured.runs.entry(name).or_default().push(run);
            }
        }
    }
    for (method, measured) in &methods {
        one_size(measured).with_context(|| format!("{method} is not the same network on both sides"))?;
    }
    let ceilings = [before, peers.ceiling()?];
    Ok(Report { machine, torch, setting, ceilings, methods })
}

/// Networks of different sizes stand beside each other by mistake.
fn one_size(measured: &Measured) -> anyhow::Result<()> {
    let mut sizes =
        measured.runs.iter().flat_map(|(name, runs)| runs.iter().map(move |run| (run.parameters, *name)));
    let Some((first, who)) = sizes.next() else { return Ok(()) };
    match sizes.find(|(size, _)| *size != first) {
        None => Ok(()),
        Some((other, whose)) => {
            anyhow::bail!("{who} has {first} parameters, {whose} {other}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_different_sizes_do_not_stand_beside_each_other() {
        let run = |parameters| vec![Run { seconds: vec![1.0], peak_bytes: None, parameters }];
        let mut measured = Measured { flops: 1, ..Measured::default() };
        measured.runs = [("credence", run(7)), ("pytorch", run(7))].into();
        one_size(&measured).unwrap();
        measured.runs.insert("torch.compile", run(8));
        let error = one_size(&measured).unwrap_err().to_string();
        assert_eq!(error, "credence has 7 parameters, torch.compile 8");
    }
}
