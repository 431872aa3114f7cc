//! Training steps and predictions beside peers on this machine, in turn: what is measured, with everything that is needed
//! to judge it.
//!
//! Ours are those of the real program: the harness launches `credence-trainer` as an agent does, and reads from its log when
//! steps begin. Peers are scripts of `tests/bench/steps`.

mod ours;
mod peers;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::environment::{Environment, Purpose};
use crate::machine::Machine;
use ours::Ours;
use peers::Peers;

pub use table::{markdown, replace_section};

/// Members J of the ensembles.
const MEMBERS: u32 = 4;

/// Images of a batch; each member sees all of them.
const BATCH: u32 = 32;

/// WideResNet-16-2.
const DEPTH: u32 = 16;
const WIDEN: u32 = 2;

/// Limit of the gradient's norm of LP-BNN, on both sides.
const CLIP: f64 = 1.0;

/// Largest part by which loss and norm of the gradient of the same step may differ between ours and the peer's network.
pub const AGREEMENT: f64 = 2e-3;

/// Steps that are compared for [`AGREEMENT`].
const COMPARED: usize = 4;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bench {
    /// Training steps of one rank.
    Step,
    /// Predictions of all members.
    Inference,
    /// Training steps of two ranks, and an all-reduce of 25 MB.
    Ddp,
}

impl Bench {
    /// All.
    pub const ALL: [Self; 3] = [Self::Step, Self::Inference, Self::Ddp];

    /// Name for people and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Inference => "inference",
            Self::Ddp => "ddp",
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

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Effort {
    /// Runs of each contestant, in turn.
    pub rounds: usize,
    /// Steps that are counted in each.
    pub steps: u32,
    /// Steps before them.
    pub warm_up: u32,
    /// Threads of each process; of ranks, of all together.
    pub threads: u32,
    /// Whether threads that wait sleep at once, which keeps a machine that others use from standing still.
    pub passive: bool,
}

/// Times of the steps of one run, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// By the clock.
    pub wall: Vec<f64>,
    /// Processor time of all threads of the process.
    pub processor: Vec<f64>,
}

/// Two contestants beside each other.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Ours.
    pub ours: String,
    /// What it stands beside.
    pub beside: String,
    /// How many of that.
    pub times: f64,
    /// Largest ratio that is wanted.
    pub goal: f64,
}

/// What a bench came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Versions of the peers.
    pub versions: BTreeMap<&'static str, String>,
    /// How much was measured.
    pub effort: Effort,
    /// Largest relative difference of loss and norm of the gradient between ours and the peer's network, by method.
    pub differences: BTreeMap<&'static str, f64>,
    /// Every run, by contestant.
    pub runs: BTreeMap<String, Vec<Times>>,
    /// What stands beside what.
    pub comparisons: Vec<Comparison>,
}

/// Where programs and images are.
struct Field<'a> {
    ours: Ours<'a>,
    peers: Peers<'a>,
}

/// Measures the contestants whose names hold `only`.
///
/// # Errors
///
/// When a peer cannot be installed, a process does not do what it should, or the networks are not the same.
pub fn run(
    bench: Bench,
    effort: Effort,
    python: Option<PathBuf>,
    trainer: &Path,
    only: &str,
) -> anyhow::Result<Report> {
    ensure!(effort.rounds > 0 && effort.steps > 0, "nothing is measured in 0 rounds or steps");
    let machine = Machine::describe();
    let environment = Environment::provide(Purpose::Speed, python)?;
    let mut versions = BTreeMap::from([("torch", environment.version("torch")?)]);
    if bench == Bench::Step {
        versions.insert("torch-uncertainty", environment.version("torch-uncertainty")?);
    }
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let field = Field {
        ours: Ours { trainer, folder: folder.path(), effort },
        peers: Peers { environment: &environment, effort },
    };
    let differences = match bench {
        Bench::Step if only.is_empty() => agreement(&field)?,
        Bench::Step | Bench::Inference | Bench::Ddp => BTreeMap::new(),
    };
    let images = images(folder.path(), "measured", BATCH * (effort.warm_up + effort.steps + 1))?;
    let mut runs = BTreeMap::<String, Vec<Times>>::new();
    for round in 0..effort.rounds {
        let contestants = contestants(bench).into_iter().map(|contestant| (contestant, contestant.name()));
        for (contestant, name) in contestants.filter(|(_, name)| name.contains(only)) {
            eprintln!("> round {} of {}: {name}", round + 1, effort.rounds);
            let times = contestant.run(bench, &field, &images).with_context(|| name.clone())?;
            let found = (times.wall.len(), times.processor.len());
            ensure!(found == (effort.steps as usize, effort.steps as usize), "{name}: {found:?} steps");
            runs.entry(name).or_default().push(times);
        }
    }
    Ok(Report { machine, versions, effort, differences, runs, comparisons: comparisons(bench) })
}

/// Who runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contestant {
    Ours(Method),
    Plain(Method),
    /// LP-BNN's ResNet-18 with torch-uncertainty's settings.
    OursAsTorchUncertainty,
    TorchUncertainty,
    OurAllReduce,
    AllReduce,
}

impl Contestant {
    fn name(self) -> String {
        match self {
            Self::Ours(method) => format!("credence {}", method.name()),
            Self::Plain(method) => format!("pytorch {}", method.name()),
            Self::OursAsTorchUncertainty => "credence lp-bnn resnet-18".to_owned(),
            Self::TorchUncertainty => "torch-uncertainty lp-bnn resnet-18".to_owned(),
            Self::OurAllReduce => "credence all-reduce".to_owned(),
            Self::AllReduce => "pytorch all-reduce".to_owned(),
        }
    }

    fn run(self, bench: Bench, field: &Field<'_>, images: &Images) -> anyhow::Result<Times> {
        match (self, bench) {
            (Self::Ours(method), Bench::Step) => field.ours.train(method, images, 1),
            (Self::Ours(method), Bench::Inference) => field.ours.predict(method, images),
            (Self::Ours(method), Bench::Ddp) => field.ours.train(method, images, 2),
            (Self::Plain(method), Bench::Step) => field.peers.step(method, images),
            (Self::Plain(method), Bench::Inference) => field.peers.predict(method, images),
            (Self::Plain(method), Bench::Ddp) => field.peers.ddp(method.name(), method.clip(), images),
            (Self::OursAsTorchUncertainty, _) => field.ours.train_as_torch_uncertainty(images),
            (Self::TorchUncertainty, _) => field.peers.torch_uncertainty(images),
            (Self::OurAllReduce, _) => field.ours.all_reduce(),
            (Self::AllReduce, _) => field.peers.ddp("all-reduce", None, images),
        }
    }
}

fn contestants(bench: Bench) -> Vec<Contestant> {
    use Contestant::{AllReduce, OurAllReduce, Ours, OursAsTorchUncertainty, Plain, TorchUncertainty};
    let both = || Method::ALL.into_iter().flat_map(|method| [Ours(method), Plain(method)]);
    match bench {
        Bench::Step => both().chain([OursAsTorchUncertainty, TorchUncertainty]).collect(),
        Bench::Inference => both().collect(),
        Bench::Ddp => both().chain([OurAllReduce, AllReduce]).collect(),
    }
}

fn comparisons(bench: Bench) -> Vec<Comparison> {
    use Contestant::{AllReduce, OurAllReduce, Ours, OursAsTorchUncertainty, Plain, TorchUncertainty};
    let compare = |ours: Contestant, beside: Contestant, times: f64, goal: f64| Comparison {
        ours: ours.name(),
        beside: beside.name(),
        times,
        goal,
    };
    let plain = |goals: [f64; 3]| {
        let pairs = Method::ALL.into_iter().zip(goals);
        pairs.map(move |(method, goal)| compare(Ours(method), Plain(method), 1.0, goal))
    };
    match bench {
        Bench::Step => plain([1.0, 1.0, 0.85])
            .chain([
                compare(OursAsTorchUncertainty, TorchUncertainty, 1.0, 0.85),
                compare(Ours(Method::LpBnn), Ours(Method::BatchEnsemble), 1.0, 1.03),
                compare(Ours(Method::BatchEnsemble), Ours(Method::Deterministic), f64::from(MEMBERS), 1.1),
            ])
            .collect(),
        Bench::Inference => plain([1.0, 0.85, 0.85]).collect(),
        Bench::Ddp => plain([1.0; 3]).chain([compare(OurAllReduce, AllReduce, 1.0, 1.0)]).collect(),
    }
}

/// Trains each network of ours on one batch, and lets the peer's go on from its checkpoint.
fn agreement(field: &Field<'_>) -> anyhow::Result<BTreeMap<&'static str, f64>> {
    let images = images(field.ours.folder, "agreement", BATCH)?;
    let mut differences = BTreeMap::new();
    for method in Method::ALL {
        eprintln!("> are the networks of {} the same?", method.name());
        let (checkpoint, ours) = field.ours.first_steps(method, &images, COMPARED)?;
        let peers = field.peers.agree(method, &images, &checkpoint, COMPARED)?;
        let values = |steps: &[Compared]| -> Vec<f64> {
            steps.iter().flat_map(|step| [step.loss, step.grad_norm]).collect()
        };
        ensure!(ours.len() == COMPARED && peers.len() == COMPARED, "{COMPARED} steps: {ours:?}, {peers:?}");
        let difference = |(ours, peer): (f64, f64)| (ours - peer).abs() / peer.abs().max(f64::MIN_POSITIVE);
        let largest = values(&ours).into_iter().zip(values(&peers)).map(difference).fold(0.0, f64::max);
        // Written so that NaN is a difference, too.
        ensure!(
            largest.is_finite() && largest <= AGREEMENT,
            "{} is another network than the peer's: {ours:?} and {peers:?} differ by {largest:.1e} of themselves",
            method.name()
        );
        differences.insert(method.name(), largest);
    }
    Ok(differences)
}

/// Loss and norm of the gradient of one step.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Compared {
    loss: f64,
    grad_norm: f64,
}

/// A folder with random images in CIFAR-10's format: the same ones to train and to predict.
struct Images {
    folder: PathBuf,
    count: u32,
}

impl Images {
    fn file(&self) -> PathBuf {
        self.folder.join("cifar-10-batches-bin/data_batch_1.bin")
    }
}

fn images(folder: &Path, name: &str, count: u32) -> anyhow::Result<Images> {
    ensure!(count <= 10_000, "{count} images do not fit CIFAR-10's file: choose fewer steps");
    let images = Images { folder: folder.join(name), count };
    let mut draws = crate::draws::Draws::new(7);
    let mut bytes = Vec::with_capacity(count as usize * 3073);
    for _ in 0..count {
        bytes.push(u8::try_from(draws.below(10)).unwrap_or(0));
        bytes.extend((0..3072).map(|_| u8::try_from(draws.below(256)).unwrap_or(0)));
    }
    let file = images.file();
    let parent = file.parent().context("the file lies in a folder")?;
    std::fs::create_dir_all(parent)?;
    std::fs::write(&file, &bytes)?;
    std::fs::write(parent.join("test_batch.bin"), &bytes)?;
    Ok(images)
}
