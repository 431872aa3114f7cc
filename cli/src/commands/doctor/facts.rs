//! What there is on this machine.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use common::cuda::{self, CudaInstall, NotFound};
use proto::status::chain;
use worker::devices::{self, Inventory, Smi, SmiError};
use worker::{Config, DeviceKind};

use crate::commands::data::source::Source;
use crate::error::Failure;

/// How long the driver may take for an answer.
const DRIVER: Duration = Duration::from_secs(60);

/// How long a trainer may take to say its version; it loads libtorch for that.
const TRAINER: Duration = Duration::from_secs(60);

/// How long the coordinator may take to accept a connection.
const COORDINATOR: Duration = Duration::from_secs(3);

/// NCCL's library, as trainers look for it: beside their program, or where this variable says.
const NCCL: (&str, &str) = ("libcredence_nccl.so", "CREDENCE_NCCL");

/// Everything that the report is made of.
#[derive(Debug)]
pub struct Facts {
    /// What the configuration asks for.
    pub wanted: DeviceKind,
    /// What the trainer says of its version, or why it does not start.
    pub trainer: Result<Trainer, String>,
    /// The driver.
    pub driver: Driver,
    /// CUDA's half of libtorch.
    pub cuda: Result<CudaInstall, NotFound>,
    /// NCCL's library, or where it should be.
    pub nccl: Result<PathBuf, PathBuf>,
    /// What the worker would offer, or why it would not start.
    pub offer: Result<Inventory, String>,
    /// The worker's folder.
    pub folder: Folder,
    /// Data sets by name that have their folder, and where that was looked for.
    pub data: (PathBuf, Vec<&'static str>),
    /// The coordinator's URL, and why it does not answer.
    pub coordinator: (String, Option<String>),
}

/// A trainer that starts.
#[derive(Debug)]
pub struct Trainer {
    /// The program.
    pub path: PathBuf,
    /// What it says.
    pub version: String,
}

/// The NVIDIA driver.
#[derive(Debug)]
pub enum Driver {
    /// Its program is not there.
    Absent(String),
    /// It gives no answer.
    Silent(String),
    /// It lists GPUs.
    Answers {
        /// Its version.
        version: String,
        /// GPUs, in words.
        gpus: Vec<String>,
        /// What is wrong with them.
        faults: Vec<String>,
    },
}

/// A folder that is written to.
#[derive(Debug)]
pub struct Folder {
    /// The folder, which need not be there yet.
    pub path: PathBuf,
    /// Why it cannot be written.
    pub refused: Option<String>,
    /// Space that is free there, in MiB.
    pub free_mib: Option<u64>,
    /// Space that the configuration lets the worker use, in MiB.
    pub wanted_mib: u64,
}

/// Looks at everything.
///
/// # Errors
///
/// When this process is itself about to end.
pub async fn gather(config: Config) -> Result<Facts, Failure> {
    let trainer = trainer(&config).await;
    let coordinator = (config.coordinator.clone(), coordinator(&config.coordinator).await);
    let look = move || {
        let smi = || Smi::new(&config.nvidia_smi, DRIVER);
        let explicit = Some(config.cuda_libtorch.as_path()).filter(|path| !path.as_os_str().is_empty());
        let cuda = cuda::find(explicit, cuda::environment);
        let driver = driver(&smi, config.foreign_gpu_memory_mib);
        let mut own = config.clone();
        let offer = own.find_devices().map_err(|error| chain(&error));
        Facts {
            wanted: config.device,
            nccl: nccl(trainer.as_ref().ok()),
            trainer,
            driver,
            cuda,
            offer,
            folder: folder(&config.data_dir, config.cache_mib + config.spool_mib),
            data: (config.datasets_dir.clone(), data(&config.datasets_dir)),
            coordinator,
        }
    };
    Ok(tokio::task::spawn_blocking(look).await.context("the command was aborted")?)
}

async fn trainer(config: &Config) -> Result<Trainer, String> {
    let path = if config.trainer.as_os_str().is_empty() {
        worker::find_trainer().map_err(|error| chain(&error))?
    } else {
        config.trainer.clone()
    };
    let mut command = tokio::process::Command::new(&path);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(TRAINER, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("`{}`: {error}", path.display())),
        Err(_) => return Err(format!("`{}` did not say its version within {TRAINER:?}", path.display())),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{}` does not start ({}): {}", path.display(), output.status, said.trim()));
    }
    let version = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
    Ok(Trainer { path, version })
}

fn driver(smi: &impl Fn() -> Smi, most_foreign_mib: u64) -> Driver {
    let found = devices::devices(&smi()).and_then(|gpus| Ok((devices::driver_version(&smi())?, gpus)));
    let (version, gpus) = match found {
        Ok(found) => found,
        Err(error @ SmiError::Start { .. }) => return Driver::Absent(chain(&error)),
        Err(error) => return Driver::Silent(chain(&error)),
    };
    let words = gpus.iter().map(|gpu| format!("{gpu}: {}, {} MiB, at {}", gpu.name, gpu.memory_mib, gpu.bus));
    let words = words.collect();
    match devices::look_once(smi(), gpus, most_foreign_mib) {
        Ok(faults) => {
            let faults = faults.into_iter().map(|fault| fault.message).collect();
            Driver::Answers { version: version.unwrap_or_else(|| "unknown".to_owned()), gpus: words, faults }
        }
        Err(error) => Driver::Silent(chain(&error)),
    }
}

fn nccl(trainer: Option<&Trainer>) -> Result<PathBuf, PathBuf> {
    let (name, variable) = NCCL;
    let named = cuda::environment(variable).map(PathBuf::from);
    let beside = || Some(trainer?.path.parent()?.join(name));
    let path = named.or_else(beside).unwrap_or_else(|| name.into());
    if path.is_file() { Ok(path) } else { Err(path) }
}

/// Looks at the folder, or at the one in which it would be made.
fn folder(path: &Path, wanted_mib: u64) -> Folder {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    // Permissions, a read-only file system and a quota all show when something is written.
    let refused = tempfile::tempfile_in(there).err().map(|error| format!("`{}`: {error}", there.display()));
    let free_mib = worker::free_mib(there).ok();
    Folder { path: path.to_owned(), refused, free_mib, wanted_mib }
}

fn data(folder: &Path) -> Vec<&'static str> {
    let is_there = |source: &Source| source.folder().is_some_and(|name| folder.join(name).is_dir());
    Source::ALL.into_iter().filter(is_there).map(|source| source.name()).collect()
}

/// Why nobody answers at a URL.
async fn coordinator(url: &str) -> Option<String> {
    let address = url.split("://").nth(1).unwrap_or(url).trim_end_matches('/').to_owned();
    match tokio::time::timeout(COORDINATOR, tokio::net::TcpStream::connect(address)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(io::Error::from(io::ErrorKind::TimedOut).to_string()),
    }
}
