//! Load: a coordinator under a thousand worker sessions, with trainers that only pretend.
//!
//! Real gRPC, real coordinator, real log; nothing is trained, because the coordinator's part is what is measured. A run
//! is only a figure if nothing was lost or doubled, so everything is read back and compared to the bit before anything
//! is reported.

mod clients;
mod figures;
mod record;
mod verify;
mod worker;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::Digest;
use proto::v1::worker_session_client::WorkerSessionClient;
use proto::v1::{Checkpoint, ExperimentState, ListExperimentsRequest, UploadChunk};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::{Cluster, Lease};
use crate::machine;
use clients::{Accepted, Client, Times};
use record::Record;
use worker::{FakeWorker, Script, Shared};

pub use figures::{Figures, Latency, Memory};

/// Methods of each grid: as many rows has its table. Each cell needs one network of its own.
const METHODS: [&str; 5] = [
    "kind = \"deterministic\"",
    "kind = \"mc-dropout\"\nrate = 0.1",
    "kind = \"batch-ensemble\"",
    "kind = \"lp-bnn\"\npreset = \"paper\"",
    "kind = \"lp-bnn\"\npreset = \"official\"",
];

/// A cell is a network and its evaluation.
const TRIALS_OF_A_CELL: u32 = 2;

/// Part of the experiments that is submitted before any worker comes.
const AHEAD: f64 = 0.3;

/// Time between two rounds of questions.
const PACE: Duration = Duration::from_millis(100);

/// Bytes of the checkpoint that all train trials leave.
const CHECKPOINT: &[u8] = b"a checkpoint of a network that nobody trained";

/// Size of a run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Worker sessions, of one slot each.
    pub workers: u32,
    /// Trials, at most: whole experiments of the same size are submitted.
    pub trials: u32,
    /// Grids that they are submitted with.
    pub experiments: u32,
    /// Time of a trial.
    pub duration: Duration,
    /// Metric reports of a train trial.
    pub reports: u32,
    /// Rows of each.
    pub rows: u32,
}

impl Load {
    /// What the issue asks for: 1,000 sessions, 100,000 trials, 20,000 rows a second.
    pub const FULL: Self = Self {
        workers: 1_000,
        trials: 100_000,
        experiments: 200,
        duration: Duration::from_secs(3),
        reports: 6,
        rows: 20,
    };

    /// Seeds of each grid.
    fn seeds(&self) -> u32 {
        let of_a_seed = TRIALS_OF_A_CELL * METHODS.len() as u32;
        (self.trials / self.experiments / of_a_seed).max(1)
    }

    /// Trials that are submitted.
    fn total(&self) -> u32 {
        self.seeds() * METHODS.len() as u32 * TRIALS_OF_A_CELL * self.experiments
    }

    fn grid(&self, experiment: u32) -> String {
        let seeds = self.seeds();
        let first = experiment * seeds;
        let mut text = format!(
            "name = \"load-{experiment}\"\nmodels = [\"mlp-1-16\"]\nseeds = {{ first = {first}, count = {seeds} }}\n\
             data = [\"digits\"]\n[recipe]\nepochs = 1\nbatch-size = 32\n"
        );
        for method in METHODS {
            // Writing into a string cannot fail.
            let _ = write!(text, "[[method]]\n{method}\n");
        }
        text
    }
}

/// Runs a load on a coordinator of its own.
///
/// # Panics
///
/// When something is lost, doubled or different, or the coordinator refuses or is not there.
pub fn run(load: Load) -> Figures {
    run_and_keep(load, None)
}

/// As [`run`], but copies the coordinator's data folder when all is done: the log of a large cluster, for other tools.
///
/// # Panics
///
/// As [`run`], or when the folder cannot be copied.
pub fn run_and_keep(load: Load, keep: Option<&Path>) -> Figures {
    let files = machine::raise_open_files();
    assert!(
        files > u64::from(load.workers) * 2,
        "{files} open files are too few for {} workers",
        load.workers
    );
    let mut cluster = Cluster::start(Lease::Shipped);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut figures = runtime.block_on(Running::start(load, &cluster));
    figures.memory.end_mib = machine::resident_mib(cluster.coordinator_pid()).map_or(0.0, |(now, _)| now);
    figures.disk_mib = machine::size_mib(&cluster.data_dir());
    // What is durable is what a coordinator that knows nothing else finds.
    cluster.kill_coordinator();
    let start = Instant::now();
    cluster.start_coordinator();
    figures.restart_seconds = start.elapsed().as_secs_f64();
    figures.memory.restarted_mib =
        machine::resident_mib(cluster.coordinator_pid()).map_or(0.0, |(now, _)| now);
    runtime.block_on(Running::confirm(load, &cluster));
    figures.events = replayed_events(&cluster.coordinator_log());
    figures.events_per_second = figures.events as f64 / figures.seconds;
    if let Some(keep) = keep {
        cluster.kill_coordinator();
        machine::copy_folder(&cluster.data_dir(), keep).expect("a copy of the data folder");
        cluster.start_coordinator();
    }
    cluster.stop();
    figures
}

/// The coordinator counts the events that it replays.
fn replayed_events(log: &str) -> u64 {
    let line = log.lines().rfind(|line| line.contains("log replayed")).expect("a log that was replayed");
    let count = line.split("events=").nth(1).and_then(|rest| rest.split_whitespace().next());
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count of events in: {line}"))
}

struct Running {
    load: Load,
    client: Client,
    times: Arc<Times>,
    accepted: Arc<Accepted>,
    shared: Arc<Shared>,
}

impl Running {
    async fn start(load: Load, cluster: &Cluster) -> Figures {
        let channel = connect(&cluster.url()).await;
        let checkpoint = upload(channel.clone()).await;
        let Load { duration, reports, rows, .. } = load;
        let shared = Shared {
            script: Script { duration, reports, rows },
            record: Record::default(),
            checkpoint,
            backlog: u64::from(load.total().saturating_sub(2 * load.workers)),
            rows_told: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
        };
        let running = Self {
            load,
            client: clients::client(channel),
            times: Arc::default(),
            accepted: Arc::default(),
            shared: Arc::new(shared),
        };
        running.run(cluster).await
    }

    async fn run(mut self, cluster: &Cluster) -> Figures {
        let pid = cluster.coordinator_pid();
        let (stop, stopped) = watch::channel(false);
        let ahead = ((f64::from(self.load.experiments) * AHEAD).ceil() as u32).min(self.load.experiments);
        self.submit(0..ahead).await;
        let mut tasks = self.serve(&cluster.url(), &stopped).await;
        let asked = clients::ask_meanwhile(
            self.client.clone(),
            self.accepted.clone(),
            self.times.clone(),
            PACE,
            stopped.clone(),
        );
        tasks.spawn(asked);
        let (start, before) = (Instant::now(), machine::processor_time(pid));
        self.submit_the_rest(ahead).await;
        self.wait_for_the_end().await;
        let seconds = start.elapsed().as_secs_f64();
        let used = machine::processor_time(pid)
            .zip(before)
            .map_or(0.0, |(now, before)| (now - before).as_secs_f64());
        let peak_mib = machine::resident_mib(pid).map_or(0.0, |(_, most)| most);
        // The workers stay, so that the last acknowledgements arrive.
        let (trials, rows) = self.verify().await;
        stop.send_replace(true);
        while let Some(ended) = tasks.join_next().await {
            ended.expect("a client that did not fail");
        }
        self.times.add("dispatch", self.shared.record.dispatch());
        Figures {
            workers: self.load.workers,
            trials,
            rows,
            seconds,
            trials_per_second: trials as f64 / seconds,
            rows_per_second: rows as f64 / seconds,
            events: 0,
            events_per_second: 0.0,
            sessions: self.shared.sessions.load(Ordering::Relaxed),
            coordinator_cpu_seconds: used,
            restart_seconds: 0.0,
            disk_mib: 0.0,
            memory: Memory { peak_mib, ..Memory::default() },
            latencies: self.times.latencies(),
        }
    }

    async fn submit(&mut self, experiments: std::ops::Range<u32>) {
        for experiment in experiments {
            let (id, new) = clients::submit(&mut self.client, self.load.grid(experiment), &self.times).await;
            assert_eq!(new, self.load.total() / self.load.experiments, "new trials of {id}");
            self.accepted.add(id);
        }
    }

    /// Spread over the first half of the time that the trials take, so that slots always find something.
    async fn submit_the_rest(&mut self, first: u32) {
        let rounds = f64::from(self.load.total()) / f64::from(self.load.workers);
        let half = self.load.duration.mul_f64(rounds / 2.0);
        let mut pace = tokio::time::interval(half / self.load.experiments.max(1));
        for experiment in first..self.load.experiments {
            pace.tick().await;
            self.submit(experiment..experiment + 1).await;
        }
    }

    /// A connection of its own for each worker, as agents have.
    async fn serve(&self, url: &str, stop: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for id in 1..=u64::from(self.load.workers) {
            let worker = FakeWorker::new(id, connect(url).await, self.shared.clone());
            tasks.spawn(worker.run(stop.clone()));
        }
        tasks
    }

    /// Until every experiment has ended. It gives up when nothing was launched or ended for two minutes.
    async fn wait_for_the_end(&mut self) {
        let mut seen = (0, 0);
        let mut since = Instant::now();
        loop {
            let succeeded = succeeded(&mut self.client, ExperimentState::Active).await;
            if succeeded == self.load.total() {
                return;
            }
            let now = (self.shared.record.launches(), succeeded);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            assert!(
                since.elapsed() < crate::PATIENCE,
                "nothing happens any more: {seen:?} launched, succeeded"
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn verify(&self) -> (u64, u64) {
        let expected = verify::Expected {
            executions: self.shared.record.trials(),
            experiments: self.accepted.all(),
            rows: u64::from(self.load.reports) * u64::from(self.load.rows),
        };
        let (trials, rows) = verify::everything(self.client.clone(), Arc::new(expected)).await;
        assert_eq!(trials, u64::from(self.load.total()), "trials");
        assert_eq!(
            rows,
            self.shared.rows_told.load(Ordering::Relaxed),
            "rows that were told, and rows that are kept"
        );
        (trials, rows)
    }

    async fn confirm(load: Load, cluster: &Cluster) {
        let mut client = clients::client(connect(&cluster.url()).await);
        let succeeded = succeeded(&mut client, ExperimentState::Succeeded).await;
        assert_eq!(succeeded, load.total(), "trials that succeeded, after a restart");
    }
}

/// Trials that succeeded. An experiment must be in the `allowed` state or have succeeded.
async fn succeeded(client: &mut Client, allowed: ExperimentState) -> u32 {
    let listed = client.list_experiments(ListExperimentsRequest {}).await.expect("a list of experiments");
    let experiments = listed.into_inner().experiments;
    let counted = experiments.iter().map(|experiment| {
        let state = experiment.state();
        assert!(state == allowed || state == ExperimentState::Succeeded, "{experiment:?}");
        experiment.counts.map_or(0, |counts| counts.succeeded)
    });
    counted.sum()
}

async fn connect(url: &str) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL").tcp_nodelay(true);
    endpoint.connect().await.unwrap_or_else(|error| panic!("cannot connect to {url}: {error:?}"))
}

async fn upload(channel: Channel) -> Checkpoint {
    let (digest, bytes) = (Digest::of(CHECKPOINT).to_string(), CHECKPOINT.len() as u64);
    let chunk = UploadChunk { digest: digest.clone(), bytes, data: CHECKPOINT.to_vec(), offset: 0 };
    WorkerSessionClient::new(channel).upload_blob(tokio_stream::once(chunk)).await.expect("an upload");
    Checkpoint { step: 1, digest, bytes, score: None }
}
