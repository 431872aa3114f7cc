//! A coordinator and workers on this machine, in a folder of their own.
//!
//! A test that fails prints the logs of every process of its cluster.

mod cores;
mod disks;
mod logs;
mod trainers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::client::{self, Finished};
use crate::disk::SmallDisk;
use crate::grid::Grid;
use crate::process::{Service, ServiceCommand, processes_naming, send};
use crate::programs::Programs;
use crate::proxy::Proxy;
use crate::view::{Experiment, MetricRow, Submitted, Trial, Worker};
use crate::wait::{PATIENCE, until, within};

use cores::Cores;

pub use trainers::TrainerProcess;

/// How long a process may take to end when it is asked to.
const ENDING: Duration = Duration::from_secs(30);

/// How long the coordinator believes in a silent worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Long enough that no pause of a busy machine ends it.
    Long,
    /// For tests in which a worker is lost.
    Short,
    /// As the program comes.
    Shipped,
    /// For tests in which everything fails: as [`Lease::Short`], steps must follow each other within 6 s, and a trial may lose
    /// workers as often as its luck wants.
    ShortWithStallLimit,
}

impl Lease {
    fn settings(self) -> &'static str {
        match self {
            Self::Long => "lease = \"60s\"\nheartbeat = \"500ms\"\nresize-after = \"2s\"\n",
            Self::Short => "lease = \"4s\"\nheartbeat = \"500ms\"\n",
            Self::Shipped => "",
            Self::ShortWithStallLimit => {
                "lease = \"4s\"\nheartbeat = \"500ms\"\nstall-limit = \"6s\"\nmax-workers-lost = 1000000\n"
            }
        }
    }
}

/// A coordinator and its workers.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    programs: Programs,
    address: Option<String>,
    coordinator: Option<Service>,
    workers: BTreeMap<String, Service>,
    /// Small disks by the folder that they are mounted at. After the services, which use them.
    disks: BTreeMap<PathBuf, SmallDisk>,
    _cores: Cores,
}

impl Cluster {
    /// Starts a coordinator on a free port, as soon as a core is free.
    ///
    /// # Panics
    ///
    /// When it does not listen in time.
    pub fn start(lease: Lease) -> Self {
        Self::start_on(Cores::take(1), lease)
    }

    /// Starts a coordinator as soon as there are so many cores, or all that there are.
    pub fn with_cores(lease: Lease, cores: usize) -> Self {
        Self::start_on(Cores::take(cores), lease)
    }

    fn start_on(cores: Cores, lease: Lease) -> Self {
        let mut cluster = Self::prepare(cores, lease);
        cluster.start_coordinator();
        cluster
    }

    fn prepare(cores: Cores, lease: Lease) -> Self {
        let folder = tempfile::Builder::new().prefix("credence-test-").tempdir().expect("a temporary folder");
        fs::write(folder.path().join("coordinator.toml"), lease.settings()).expect("a configuration file");
        fs::write(folder.path().join("worker.toml"), "grace = \"5s\"\nreconnect-limit = \"500ms\"\n")
            .expect("a configuration file");
        Self {
            folder,
            programs: Programs::find(),
            address: None,
            coordinator: None,
            workers: BTreeMap::new(),
            disks: BTreeMap::new(),
            _cores: cores,
        }
    }

    /// Starts a coordinator with one-slot workers of these names, as soon as there is a core for each, and waits until
    /// all offer their slots.
    pub fn with_workers(lease: Lease, names: &[&str]) -> Self {
        let mut cluster = Self::start_on(Cores::take(names.len()), lease);
        names.iter().for_each(|name| cluster.add_worker(name, 1));
        names.iter().for_each(|name| cluster.wait_connected(name));
        cluster
    }

    // ---- processes ----

    /// Starts the coordinator again, on the same folder and port.
    ///
    /// # Panics
    ///
    /// When it does not listen in time.
    pub fn start_coordinator(&mut self) {
        let file = self.path("address");
        // Renaming is how the file comes to be, so an old one would be taken for the new.
        drop(fs::remove_file(&file));
        let listen = self.address.clone().unwrap_or_else(|| "127.0.0.1:0".to_owned());
        let mut arguments = self.coordinator_arguments(&listen);
        arguments.extend(["--address-file".to_owned(), text(&file)]);
        let log = self.path("coordinator.log");
        let mut service = self.service(&self.data_dir(), arguments, log);
        let address = until("the coordinator listens", PATIENCE, || {
            assert!(service.is_running(), "the coordinator ended at its start:\n{}", service.log());
            fs::read_to_string(&file).ok()
        });
        self.address = Some(address.trim().to_owned());
        self.coordinator = Some(service);
    }

    /// Starts `credence` with the disk that is mounted at its data folder, if there is one.
    fn service(&self, data: &Path, arguments: Vec<String>, log: PathBuf) -> Service {
        let credence = &self.programs.credence;
        let (program, arguments) = match self.disks.get(data) {
            Some(disk) => disk.enter(credence, arguments),
            None => (credence.clone(), arguments),
        };
        Service::start(ServiceCommand { program: &program, arguments, log })
    }

    /// Arguments of a coordinator on this cluster's data folder.
    pub fn coordinator_arguments(&self, listen: &str) -> Vec<String> {
        let (config, data) = (text(&self.path("coordinator.toml")), text(&self.data_dir()));
        ["coordinator", "--config", &config, "--listen", listen, "--data-dir", &data]
            .map(str::to_owned)
            .to_vec()
    }

    /// Kills the coordinator at once.
    pub fn kill_coordinator(&mut self) {
        self.take_coordinator().kill();
    }

    /// Signals the coordinator.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn signal_coordinator(&self, signal: Signal) {
        self.coordinator.as_ref().expect("a running coordinator").signal(signal);
    }

    /// Starts the coordinator again if it has ended by itself; says whether it had.
    pub fn revive_coordinator(&mut self) -> bool {
        let ended = self.coordinator.as_mut().is_none_or(|service| !service.is_running());
        if ended {
            self.coordinator = None;
            self.start_coordinator();
        }
        ended
    }

    /// The coordinator, to end it in another way.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn take_coordinator(&mut self) -> Service {
        self.coordinator.take().expect("a running coordinator")
    }

    /// Process id of the coordinator.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn coordinator_pid(&self) -> u32 {
        self.coordinator.as_ref().expect("a running coordinator").pid()
    }

    /// What the coordinator logged, over all its restarts.
    pub fn coordinator_log(&self) -> String {
        fs::read_to_string(self.path("coordinator.log")).unwrap_or_default()
    }

    /// Starts a worker in a folder of its own. A worker that had the name before is the same worker.
    pub fn add_worker(&mut self, name: &str, slots: u32) {
        let url = self.url();
        self.add_worker_at(name, slots, &url);
    }

    /// As [`Cluster::add_worker`], but what it says passes a proxy.
    pub fn add_worker_through(&mut self, name: &str, slots: u32, proxy: &Proxy) {
        self.add_worker_at(name, slots, &proxy.url());
    }

    /// As [`Cluster::add_worker`], with slots that are parts of this machine's first GPU. `CREDENCE_CUDA_LIBTORCH` says where CUDA's
    /// half of libtorch is.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn add_worker_on_a_gpu(&mut self, name: &str, slots: u32) {
        let libtorch = std::env::var("CREDENCE_CUDA_LIBTORCH");
        let libtorch = libtorch.expect("`cargo xtask test --gpu` says where CUDA's half of libtorch is");
        self.configure_workers(&format!(
            "devices = [0]\nslots-per-device = {slots}\ncuda-libtorch = {libtorch:?}\nnccl-debug = \"INFO\""
        ));
        let arguments = self.worker_arguments_at(name, slots, &self.url(), "cuda");
        self.start_worker(name, arguments);
    }

    fn add_worker_at(&mut self, name: &str, slots: u32, url: &str) {
        // What is compared to the bit is computed on processors, also where there is a GPU.
        let arguments = self.worker_arguments_at(name, slots, url, "cpu");
        self.start_worker(name, arguments);
    }

    fn start_worker(&mut self, name: &str, arguments: Vec<String>) {
        let log = self.path(&format!("worker-{name}.log"));
        let service = self.service(&self.worker_dir(name), arguments, log);
        assert!(self.workers.insert(name.to_owned(), service).is_none(), "worker {name} runs already");
    }

    /// Further configuration of the workers that are started from now on.
    pub fn configure_workers(&self, text: &str) {
        let path = self.path("worker.toml");
        let before = fs::read_to_string(&path).expect("a configuration file");
        fs::write(path, format!("{before}{text}\n")).expect("a configuration file");
    }

    /// Arguments of the worker of this name.
    pub fn worker_arguments(&self, name: &str, slots: u32) -> Vec<String> {
        self.worker_arguments_at(name, slots, &self.url(), "cpu")
    }

    fn worker_arguments_at(&self, name: &str, slots: u32, url: &str, device: &str) -> Vec<String> {
        let data = text(&self.worker_dir(name));
        let datasets = text(&self.path("datasets"));
        let (config, trainer) = (text(&self.path("worker.toml")), text(&self.programs.trainer()));
        let slots = slots.to_string();
        // One thread a rank on every worker: another number may change the last bits of a sum.
        let arguments = [
            "worker",
            "--coordinator",
            url,
            "--config",
            &config,
            "--data-dir",
            &data,
            "--datasets-dir",
            &datasets,
            "--trainer",
            &trainer,
            "--name",
            name,
            "--slots",
            &slots,
            "--device",
            device,
            "--threads-per-slot",
            "1",
            "--host",
            "127.0.0.1",
        ];
        arguments.map(str::to_owned).to_vec()
    }

    /// Waits until a worker has a session.
    pub fn wait_connected(&self, name: &str) {
        until(&format!("worker {name} is connected"), PATIENCE, || {
            self.workers().into_iter().find(|worker| worker.name == name && worker.connected)
        });
    }

    /// Kills a worker's agent at once, but not its trainers.
    pub fn kill_worker(&mut self, name: &str) {
        self.take_worker(name).kill();
    }

    /// Stops an agent in its tracks, but not its trainers: for the coordinator, it is silent.
    pub fn freeze_worker(&self, name: &str) {
        self.worker(name).signal(Signal::SIGSTOP);
    }

    /// Lets a frozen agent go on.
    pub fn thaw_worker(&self, name: &str) {
        self.worker(name).signal(Signal::SIGCONT);
    }

    /// Forgets a worker that has ended by itself; says whether it had.
    ///
    /// # Panics
    ///
    /// When there was none of that name.
    pub fn bury_worker(&mut self, name: &str) -> bool {
        let worker = self.workers.get_mut(name).unwrap_or_else(|| panic!("no worker {name} runs"));
        let ended = !worker.is_running();
        if ended {
            self.workers.remove(name);
        }
        ended
    }

    fn worker(&self, name: &str) -> &Service {
        self.workers.get(name).unwrap_or_else(|| panic!("no worker {name} runs"))
    }

    /// A worker, to end it in another way.
    ///
    /// # Panics
    ///
    /// When there is none of that name.
    pub fn take_worker(&mut self, name: &str) -> Service {
        self.workers.remove(name).unwrap_or_else(|| panic!("no worker {name} runs"))
    }

    /// Trainers that run, by worker, attempt and rank.
    pub fn trainers(&self) -> Vec<TrainerProcess> {
        TrainerProcess::all(&self.path("workers"), |folder| self.seen(folder))
    }

    /// Kills one rank of a trial's newest attempt at once.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn kill_trainer(&self, attempt: &str, rank: u32) {
        let trainers = self.trainers();
        let trainer = trainers.iter().find(|trainer| trainer.attempt == attempt && trainer.rank == rank);
        let trainer = trainer.unwrap_or_else(|| panic!("no rank {rank} of {attempt} runs: {trainers:?}"));
        self.kill_process_of(trainer);
    }

    /// Kills a trainer at once, if it still runs.
    pub fn kill_process_of(&self, trainer: &TrainerProcess) {
        send(trainer.pid, Signal::SIGKILL);
    }

    /// Stops a trainer in its tracks: it neither computes nor hears a signal but SIGKILL and SIGCONT.
    pub fn freeze_trainer(&self, trainer: &TrainerProcess) {
        send(trainer.pid, Signal::SIGSTOP);
    }

    /// Lets a frozen trainer go on.
    pub fn thaw_trainer(&self, trainer: &TrainerProcess) {
        send(trainer.pid, Signal::SIGCONT);
    }

    /// Ends every process in good order and checks that none is left.
    ///
    /// # Panics
    ///
    /// When one does not end with status 0, or is left.
    pub fn stop(mut self) {
        let workers = std::mem::take(&mut self.workers);
        let services: Vec<Service> = workers.into_values().chain(self.coordinator.take()).collect();
        services.iter().for_each(|service| service.signal(Signal::SIGTERM));
        for service in services {
            let log = service.log();
            let status = service.wait(ENDING);
            assert!(status.success(), "ended with {status}; its log:\n{log}");
        }
        self.disks.clear();
        self.assert_nothing_left();
    }

    /// Checks that no process of the cluster is left.
    pub fn assert_nothing_left(&self) {
        let left =
            within(Duration::from_secs(5), || processes_naming(self.folder.path()).is_empty().then_some(()));
        assert!(left.is_some(), "processes are left: {:?}", processes_naming(self.folder.path()));
    }

    // ---- places ----

    /// A path in the cluster's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The coordinator's data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.path("coordinator")
    }

    /// Data folder of a worker.
    pub fn worker_dir(&self, name: &str) -> PathBuf {
        self.path("workers").join(name)
    }

    /// A proxy in front of the coordinator, which it outlives and finds again.
    ///
    /// # Panics
    ///
    /// When the coordinator never listened.
    pub fn proxy(&self) -> Proxy {
        let address = self.address.as_ref().expect("the coordinator listens");
        Proxy::start(address.parse().expect("an address"))
    }

    /// URL of the coordinator.
    ///
    /// # Panics
    ///
    /// When it never listened.
    pub fn url(&self) -> String {
        format!("http://{}", self.address.as_ref().expect("the coordinator listens"))
    }

    // ---- commands ----

    /// Starts a client command that goes on while the test does other things.
    pub fn start_command(&self, arguments: &[&str], log: &str) -> Service {
        let url = self.url();
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--coordinator", &url]).collect();
        self.start_command_alone(&arguments, log)
    }

    /// Starts a command that is not told where the coordinator is.
    pub fn start_command_alone(&self, arguments: &[&str], log: &str) -> Service {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Service::start(ServiceCommand { program: &self.programs.credence, arguments, log: self.path(log) })
    }

    /// Runs a client command.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        let url = self.url();
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--coordinator", &url]).collect();
        client::run(&self.programs.credence, &arguments, PATIENCE)
    }

    /// Runs a client command and reads its JSON.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> T {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        self.run(&arguments).json()
    }

    /// Writes a grid's file.
    pub fn write(&self, grid: &Grid) -> String {
        let path = self.path(&format!("{}.toml", grid.name()));
        fs::write(&path, grid.text()).expect("a grid file");
        text(&path)
    }

    /// Submits a grid.
    pub fn submit(&self, grid: &Grid) -> Submitted {
        self.json(&["submit", &self.write(grid)])
    }

    /// An experiment with its trials.
    pub fn experiment(&self, name: &str) -> Experiment {
        self.json(&["status", name])
    }

    /// Everything of one trial.
    pub fn trial(&self, id: &str) -> Trial {
        self.json(&["status", id])
    }

    /// Workers that the coordinator knows.
    pub fn workers(&self) -> Vec<Worker> {
        self.json(&["workers"])
    }

    /// Every metric row of a trial.
    pub fn metric_rows(&self, trial: &str) -> Vec<MetricRow> {
        let lines = self.run(&["metrics", trial, "--json"]).ok();
        lines.lines().map(|line| serde_json::from_str(line).expect("a metric row")).collect()
    }

    /// Fetches a file of a trial.
    pub fn artifact(&self, trial: &str, name: &str) -> Vec<u8> {
        let path = self.path(&format!("fetched-{trial}-{name}"));
        self.run(&["artifacts", trial, name, "--output", &text(&path)]).ok();
        fs::read(path).expect("the fetched file")
    }

    /// Waits until an experiment has succeeded.
    ///
    /// # Panics
    ///
    /// When it ends otherwise.
    pub fn finish(&self, name: &str) -> Experiment {
        let ended = until(&format!("{name} ends"), PATIENCE, || {
            Some(self.experiment(name)).filter(|experiment| experiment.state != "active")
        });
        assert_eq!(ended.state, "succeeded", "{ended:#?}");
        ended
    }

    /// Waits until a trial has ended, and returns everything of it.
    pub fn ended(&self, trial: &str) -> Trial {
        self.wait_trial(trial, "it ends", Trial::has_ended)
    }

    /// Waits until `holds` is true of a trial. One that ended meanwhile will never get there.
    pub fn wait_trial(&self, trial: &str, what: &str, holds: impl Fn(&Trial) -> bool) -> Trial {
        until(&format!("{what}: trial {trial}"), PATIENCE, || {
            let found = self.trial(trial);
            let there = holds(&found);
            assert!(there || !found.has_ended(), "{what}, but it ended before: {found:#?}");
            there.then_some(found)
        })
    }

    /// Waits until a trial runs and holds a checkpoint of at least `step` steps that its current attempt made.
    pub fn wait_checkpoint(&self, trial: &str, step: u64) -> Trial {
        self.wait_trial(trial, &format!("a checkpoint of step {step} is committed while it runs"), |trial| {
            trial.state == "running" && trial.checkpoint_steps.iter().any(|&kept| kept >= step)
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = thread::panicking();
        if failed {
            eprintln!("{}", logs::of(self.folder.path()));
        }
        self.workers.clear();
        self.coordinator = None;
        self.disks.clear();
        let orphans = processes_naming(self.folder.path());
        orphans.iter().for_each(|(pid, _)| send(*pid, Signal::SIGKILL));
        assert!(failed || orphans.is_empty(), "processes were left: {orphans:?}");
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of plain text").to_owned()
}
