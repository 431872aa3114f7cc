//! A rank of two is killed or frozen: how long until training goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use proto::v1::credence_client::CredenceClient;
use proto::v1::{GetTrialRequest, QueryMetricsRequest};
use serde::Serialize;
use std::os::unix::process::CommandExt as _;

use crate::cluster::{Cluster, Lease};
use crate::environment::Environment;
use crate::grid::Grid;
use crate::process::send;
use crate::wait::within;

/// Steps before the fault: past two checkpoints.
const BEFORE: u64 = 120;

/// How long a peer may take to come so far.
const START: Duration = Duration::from_secs(120);

/// Longest time that is waited for the next step.
const LIMIT: Duration = Duration::from_secs(90);

/// Time-out of collectives of a peer that is tuned.
const TUNED: f64 = 10.0;

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(5);

/// What happens to the rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Freeze,
}

impl Fault {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Kill, Self::Freeze];

    /// The signal's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Freeze => "SIGSTOP",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::SIGKILL,
            Self::Freeze => Signal::SIGSTOP,
        }
    }
}

/// Who runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contestant {
    /// Credence, as it comes.
    Ours,
    /// torchrun, as it comes.
    Torchrun,
    /// torchrun with what helps it most.
    TunedTorchrun,
    /// Ray Train, as it comes.
    RayTrain,
    /// Ray Train with a short time-out of collectives.
    TunedRayTrain,
}

impl Contestant {
    /// All.
    pub const ALL: [Self; 5] =
        [Self::Ours, Self::Torchrun, Self::TunedTorchrun, Self::RayTrain, Self::TunedRayTrain];

    /// Name for people and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "credence",
            Self::Torchrun => "torchrun",
            Self::TunedTorchrun => "torchrun, tuned",
            Self::RayTrain => "Ray Train",
            Self::TunedRayTrain => "Ray Train, tuned",
        }
    }
}

/// One fault.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// From the signal to the next step, in seconds; `None` when there was none within the limit.
    pub seconds: Option<f64>,
    /// What was said about the cause, and after how many seconds, where the contestant says it.
    pub noticed: Option<(f64, String)>,
}

/// All runs of one contestant under one fault.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Result {
    /// Every run.
    pub runs: Vec<Run>,
    /// Runs that went on within the limit.
    pub successes: usize,
    /// Median over those, in seconds.
    pub median_seconds: Option<f64>,
}

impl Result {
    pub(super) fn of(runs: Vec<Run>) -> Self {
        let mut times: Vec<f64> = runs.iter().filter_map(|run| run.seconds).collect();
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        let median_seconds = match times.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(times[middle]),
            _ => Some(f64::midpoint(times[middle - 1], times[middle])),
        };
        Self { successes: times.len(), median_seconds, runs }
    }
}

/// One run of a contestant.
pub(super) fn once(
    contestant: Contestant,
    fault: Fault,
    environment: Option<&Environment>,
) -> anyhow::Result<Run> {
    let peer = |tuned: bool, ray: bool| {
        let environment = environment.context("peers need Python")?;
        let folder = tempfile::Builder::new().prefix("credence-race-").tempdir()?;
        let mut command = if ray { ray_train(environment) } else { torchrun(environment, tuned) };
        command.arg(folder.path()).arg(if tuned { TUNED } else { 0.0 }.to_string());
        let seconds = race(command, folder.path(), fault)?;
        Ok(Run { seconds, noticed: None })
    };
    match contestant {
        Contestant::Ours => Ok(ours(fault)),
        Contestant::Torchrun => peer(false, false),
        Contestant::TunedTorchrun => peer(true, false),
        Contestant::RayTrain => peer(false, true),
        Contestant::TunedRayTrain => peer(true, true),
    }
}

fn torchrun(environment: &Environment, tuned: bool) -> Command {
    let mut command = Command::new(environment.python());
    command.args(["-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=3"]);
    if tuned {
        command.arg("--monitor-interval=0.1").env("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1");
    }
    // A port that is free, and no other run's.
    command.args(["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]);
    command.arg(environment.script("ddp_train.py"));
    command
}

fn ray_train(environment: &Environment) -> Command {
    let mut command = Command::new(environment.python());
    command.arg(environment.script("ray_train.py"));
    command
}

/// Ends a peer and everything that it started, whose command lines name its folder or whose group is its own.
struct Running<'a> {
    child: std::process::Child,
    folder: &'a Path,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // It may have ended.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.child.wait();
        for rank in 0..2 {
            if let Some(pid) = pid_of(self.folder, rank) {
                send(pid, Signal::SIGKILL);
            }
        }
        for (pid, _) in crate::process::processes_naming(self.folder) {
            send(pid, Signal::SIGKILL);
        }
    }
}

fn race(mut command: Command, folder: &Path, fault: Fault) -> anyhow::Result<Option<f64>> {
    let log = fs::File::create(folder.join("log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    // What Ray starts in sessions of its own has this in its command line.
    command.env("RAY_TMPDIR", folder).env("OMP_NUM_THREADS", "1");
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let running = Running { child, folder };
    let before = within(START, || last(folder).filter(|(_, step, _)| *step >= BEFORE));
    let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
    let Some((_, _, first)) = before else {
        anyhow::bail!("it did not come to step {BEFORE} within {START:?}; its log:\n{}", log());
    };
    let victim = pid_of(folder, 1).context("rank 1 has not said which process it is")?;
    let at = now();
    send(victim, fault.signal());
    let next = within(LIMIT, || {
        // The next step of the next execution, not one that rank 0 had begun.
        steps(folder).into_iter().find(|(time, _, pid)| *time > at && *pid != first)
    });
    drop(running);
    Ok(next.map(|(time, ..)| time - at))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn pid_of(folder: &Path, rank: u32) -> Option<u32> {
    fs::read_to_string(folder.join(format!("pid-{rank}"))).ok()?.trim().parse().ok()
}

/// Time, step and process of each step of rank 0. The last line may be half written.
fn steps(folder: &Path) -> Vec<(f64, u64, u32)> {
    let text = fs::read_to_string(folder.join("steps")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    whole.lines().filter_map(parse).collect()
}

fn last(folder: &Path) -> Option<(f64, u64, u32)> {
    steps(folder).pop()
}

/// The trial of ours: as large as those of the peers, with a metric row for each step.
fn grid() -> Grid {
    Grid::new("race")
        .model("mlp-2-600")
        .method("kind = \"deterministic\"\nslots = 2")
        .data("[data.digits]")
        .recipe("epochs = 10000\nlr = 0.01")
        .run("checkpoint-steps = 50\ncheckpoint-interval = \"none\"\nmetrics-steps = 1\nmax-failures = 100")
}

fn ours(fault: Fault) -> Run {
    let cluster = Cluster::with_workers(Lease::Shipped, &["alpha", "beta"]);
    cluster.submit(&grid());
    let train = cluster.experiment("race").trial(&["train"]).id.clone();
    let first = cluster.wait_checkpoint(&train, 100).history[0].id.clone();
    let rank = cluster.trainers().into_iter().find(|trainer| trainer.rank == 1).expect("a rank 1 that runs");
    let at = Instant::now();
    match fault {
        Fault::Kill => cluster.kill_process_of(&rank),
        Fault::Freeze => cluster.freeze_trainer(&rank),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let run = runtime.block_on(watch(&cluster.url(), &train, &first, at));
    cluster.run(&["cancel", "race"]).ok();
    // The race is over, and a rank that is still frozen would not hear that it should end.
    cluster.trainers().iter().for_each(|trainer| cluster.kill_process_of(trainer));
    cluster.stop();
    run
}

/// Until a step of another attempt than `first` is reported.
async fn watch(url: &str, train: &str, first: &str, at: Instant) -> Run {
    let mut client = CredenceClient::connect(url.to_owned()).await.expect("a coordinator");
    let mut noticed = None;
    while at.elapsed() < LIMIT {
        tokio::time::sleep(POLL).await;
        let request = GetTrialRequest { trial: train.to_owned() };
        let trial = client.get_trial(request).await.expect("a trial").into_inner();
        let failed = trial.attempts.first().filter(|attempt| !attempt.failure.is_empty());
        if let (None, Some(failed)) = (&noticed, failed) {
            noticed = Some((at.elapsed().as_secs_f64(), failed.failure.clone()));
        }
        if noticed.is_none() {
            continue;
        }
        let request = QueryMetricsRequest { trial: train.to_owned(), ..QueryMetricsRequest::default() };
        let mut rows = client.query_metrics(request).await.expect("metric rows").into_inner();
        while let Some(batch) = rows.message().await.expect("metric rows") {
            if batch.rows.iter().any(|row| row.attempt_id != first) {
                return Run { seconds: Some(at.elapsed().as_secs_f64()), noticed };
            }
        }
    }
    Run { seconds: None, noticed }
}

/// All contestants under `faults`, in turn. A peer that did not come so far that it could be harmed is said, and not counted.
pub(super) fn all(
    contestants: &[Contestant],
    faults: &[Fault],
    runs: usize,
    environment: Option<&Environment>,
) -> anyhow::Result<BTreeMap<String, BTreeMap<&'static str, Result>>> {
    ensure!(runs > 0, "no runs");
    let mut results: BTreeMap<String, BTreeMap<&'static str, Result>> = BTreeMap::new();
    for &fault in faults {
        let mut done: BTreeMap<&'static str, Vec<Run>> = BTreeMap::new();
        for number in 1..=runs {
            for &contestant in contestants {
                let name = contestant.name();
                let runs = done.entry(name).or_default();
                match once(contestant, fault, environment) {
                    Ok(run) => {
                        eprintln!("{} {name:<18} run {number:>2}: {:?}", fault.name(), run.seconds);
                        runs.push(run);
                    }
                    Err(error) => eprintln!("{} {name:<18} run {number:>2} is void: {error:#}", fault.name()),
                }
                // What ends now must not slow the next one down.
                thread::sleep(Duration::from_secs(1));
            }
        }
        let of_runs = done.into_iter().map(|(name, runs)| (name, Result::of(runs)));
        results.insert(fault.name().to_owned(), of_runs.collect());
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds: Option<f64>) -> Run {
        Run { seconds, noticed: None }
    }

    #[test]
    fn the_median_is_over_runs_that_went_on_and_the_others_are_counted() {
        let result = Result::of(vec![run(Some(3.0)), run(None), run(Some(1.0)), run(Some(2.0))]);
        assert_eq!((result.successes, result.median_seconds), (3, Some(2.0)));
        assert_eq!(Result::of(vec![run(Some(3.0)), run(Some(1.0))]).median_seconds, Some(2.0));
        assert_eq!(Result::of(vec![run(None)]).median_seconds, None);
    }

    #[test]
    fn a_step_that_is_half_written_is_no_step_yet() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("steps"), "1.5 1 77\n2.5 2 77\n3.5 3").unwrap();
        assert_eq!(last(folder.path()), Some((2.5, 2, 77)));
    }
}
