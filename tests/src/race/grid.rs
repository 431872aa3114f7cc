//! Processes of a grid are killed: which cells are missing at the end, and which are done twice.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::draws::Draws;
use crate::environment::Environment;
use crate::soak::{self, Axes, Rounds, Soak};

/// Cells of a side of Optuna's grid.
const SIDE: u32 = 10;

/// Processes that work on it.
const PROCESSES: usize = 4;

/// Kills of one run: about as many as a run of ours has faults.
const KILLS: usize = 12;

/// Mean time between two.
const GAP: Duration = Duration::from_millis(1_200);

/// How long a run may take after the last kill.
const LIMIT: Duration = Duration::from_secs(180);

/// What a faulted grid came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cells {
    /// Cells of the grid.
    pub cells: u64,
    /// Cells without a result.
    pub lost: u64,
    /// Cells with more than one.
    pub double: u64,
    /// Executions that it took.
    pub executions: u64,
}

/// Each contestant's runs.
pub(super) fn all(
    runs: u64,
    environment: Option<&Environment>,
) -> anyhow::Result<BTreeMap<&'static str, Vec<Cells>>> {
    ensure!(runs > 0, "no runs");
    let mut results: BTreeMap<&'static str, Vec<Cells>> = BTreeMap::new();
    for seed in 1..=runs {
        results.entry("credence").or_default().push(ours(seed));
        if let Some(environment) = environment {
            for (name, heartbeat) in [("Optuna", "0"), ("Optuna, tuned", "1")] {
                let cells = optuna(environment, heartbeat, seed)?;
                eprintln!("{name}, seed {seed}: {cells:?}");
                results.entry(name).or_default().push(cells);
            }
        }
    }
    Ok(results)
}

/// A run of the soak: it ends only when no cell is lost and none is doubled.
fn ours(seed: u64) -> Cells {
    // As many cells as the peer's grid has, nearly: one round.
    let axes = Axes { settings: 11, seeds: 3 };
    let survived = soak::run(Soak { seed, axes, rounds: Rounds::One, faults: KILLS });
    Cells { cells: survived.cells, lost: 0, double: 0, executions: survived.attempts }
}

fn optuna(environment: &Environment, heartbeat: &str, seed: u64) -> anyhow::Result<Cells> {
    let folder = tempfile::Builder::new().prefix("credence-race-").tempdir()?;
    let made = command(environment, "make", folder.path()).status().context("cannot start Python")?;
    ensure!(made.success(), "cannot make the study ({made})");
    let work = || {
        let mut command = command(environment, "work", folder.path());
        command.arg(heartbeat).spawn().context("cannot start Python")
    };
    let mut workers = Workers(Vec::new());
    for _ in 0..PROCESSES {
        workers.0.push(work()?);
    }
    let mut draws = Draws::new(seed);
    for _ in 0..KILLS {
        thread::sleep(Duration::from_millis(draws.below(GAP.as_millis() as u64 * 2)));
        let index = draws.below(PROCESSES as u64) as usize;
        let worker = &mut workers.0[index];
        // One that has ended found nothing left to do.
        if worker.try_wait()?.is_none() {
            worker.kill()?;
            worker.wait()?;
            *worker = work()?;
        }
    }
    let start = Instant::now();
    while workers.0.iter_mut().any(|worker| matches!(worker.try_wait(), Ok(None))) && start.elapsed() < LIMIT
    {
        thread::sleep(Duration::from_millis(200));
    }
    drop(workers);
    let counted = command(environment, "count", folder.path()).stdout(Stdio::piped()).output()?;
    ensure!(counted.status.success(), "cannot count: {}", String::from_utf8_lossy(&counted.stderr));
    Ok(serde_json::from_slice(&counted.stdout)?)
}

fn command(environment: &Environment, task: &str, folder: &Path) -> Command {
    let mut command = Command::new(environment.python());
    command.arg(environment.script("optuna_grid.py")).arg(task).arg(folder).arg(SIDE.to_string());
    command.stdin(Stdio::null()).process_group(0);
    command
}

struct Workers(Vec<Child>);

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.0 {
            // It may have ended.
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}
