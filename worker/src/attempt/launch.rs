//! Starting the ranks of an attempt.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::report;
use common::session::Launch;
use tokio::sync::mpsc;

use super::{Context, Files, log_file, work_dir};
use crate::leftovers;
use crate::process::{self, RankEvent, RankProgram, Started};

/// Starts every rank of the attempt on this worker, in a trainer that waits for it where there is one. Until `lease` they
/// compute without hearing more. If one cannot be started, those before it are stopped when the senders of their orders are
/// dropped.
///
/// # Errors
///
/// What the operating system said, with the file or program that it said it of.
pub async fn start_ranks(
    context: &Arc<Context>,
    launch: &Launch,
    files: &Files,
    lease: Option<Duration>,
    events: mpsc::Sender<RankEvent>,
) -> io::Result<Vec<(u32, Started)>> {
    let folder = context.folder(launch.attempt);
    let mut ranks = Vec::new();
    for local_rank in 0..launch.ranks {
        let rank = launch.first_rank + local_rank;
        let launch_file = write_launch(context, launch, files, lease, &folder, rank)?;
        let config = &context.config;
        let program = || RankProgram {
            trainer: &config.trainer,
            launch_file: &launch_file,
            log: log_file(&folder, rank),
            rank,
            local_rank,
            world_size: launch.world_size,
            threads: config.threads_per_slot,
            lease,
        };
        let warm = match context.trainers.take().await {
            Some(idle) => process::give(program(), idle, config.grace, events.clone()).await,
            None => None,
        };
        let is_warm = warm.is_some();
        let started = match warm {
            Some(started) => started,
            None => process::start(program(), config.grace, events.clone())
                .map_err(|e| at(&config.trainer, &e))?,
        };
        tracing::info!(rank, pid = started.pid, warm = is_warm, label = launch.label, "started a trainer");
        leftovers::record(&folder, rank, started.pid).map_err(|e| at(&folder, &e))?;
        ranks.push((rank, started));
    }
    Ok(ranks)
}

fn write_launch(
    context: &Context,
    launch: &Launch,
    files: &Files,
    lease: Option<Duration>,
    folder: &Path,
    rank: u32,
) -> io::Result<std::path::PathBuf> {
    let work_dir = work_dir(folder, rank);
    fs::create_dir_all(&work_dir).map_err(|e| at(&work_dir, &e))?;
    let networks = launch.networks.iter().zip(&files.networks);
    let content = report::Launch {
        attempt: launch.attempt,
        spec: launch.spec.clone(),
        policy: launch.policy.clone(),
        rank,
        world_size: launch.world_size,
        host: context.config.host.clone(),
        work_dir,
        data_dir: context.config.datasets_dir.clone(),
        threads: context.config.threads_per_slot,
        restore: files.restore.iter().map(|(_, path)| path.clone()).collect(),
        networks: networks
            .map(|(&(trial, _), path)| report::NetworkFile { trial, path: path.clone() })
            .collect(),
        lease_until_ns: lease.map(process::nanoseconds),
        device: report::Device::Cpu,
        device_memory_fraction: None,
        shares_device: false,
    };
    let path = folder.join(format!("rank-{rank}.json"));
    fs::write(&path, serde_json::to_vec_pretty(&content)?).map_err(|e| at(&path, &e))?;
    Ok(path)
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}
