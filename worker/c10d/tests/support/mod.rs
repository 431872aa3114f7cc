//! Runs each rank of a test as a process of its own: this test binary again, with one test selected.
//!
//! A rank tells its results as lines on standard output; waiting for them is bounded, and whatever still runs
//! when a test ends is killed.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use c10d::{C10dError, GlooOptions, NcclOptions, Network, ProcessGroup, Rank, Store, cuda};
use tch::Device;

/// Longer than any test may take, so that a hang fails instead of stopping the run.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts every line that a rank means for its test.
const MARK: &str = "rank says: ";

const SCENARIO: &str = "C10D_TEST_SCENARIO";
const RANK: &str = "C10D_TEST_RANK";
const WORLD_SIZE: &str = "C10D_TEST_WORLD_SIZE";
const TIMEOUT_MS: &str = "C10D_TEST_TIMEOUT_MS";
const PORT: &str = "C10D_TEST_PORT";

/// `cuda` for ranks that share the first GPU.
const TEST_DEVICE: &str = "CREDENCE_TEST_DEVICE";
/// Folder of libtorch's CUDA libraries.
const INSTALLED: &str = "CREDENCE_TEST_CUDA";
/// `libcredence_nccl.so`.
const NCCL: &str = "CREDENCE_NCCL";

/// The ranks of one test.
pub struct Ranks {
    processes: Vec<Process>,
}

struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Ranks {
    /// Starts ranks `0..started` of a group of `world_size` in the given scenario.
    pub fn start(scenario: &str, world_size: usize, started: usize, timeout: Duration) -> Self {
        let mut ranks = Self { processes: Vec::new() };
        let mut port = None;
        for rank in 0..started {
            ranks.processes.push(Process::start(scenario, rank, world_size, timeout, port.as_deref()));
            if rank == 0 {
                port = Some(ranks.line(0, "port"));
            }
        }
        ranks
    }

    /// The rest of the next line of `rank` that starts with `word`; other lines of its are passed over.
    pub fn line(&mut self, rank: usize, word: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.processes[rank].lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(word) {
                        return rest.trim().to_owned();
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("rank {rank} said no `{word}` in {PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("rank {rank} ended without `{word}`"),
            }
        }
    }

    /// Kills a rank as an out-of-memory killer would.
    pub fn kill(&mut self, rank: usize) {
        self.processes[rank].child.kill().unwrap();
        self.processes[rank].child.wait().unwrap();
    }

    /// Waits until every rank has ended well.
    pub fn all_succeed(mut self) {
        for rank in 0..self.processes.len() {
            let status = self.processes[rank].end();
            assert!(status.success(), "rank {rank}: {status}");
        }
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

impl Process {
    fn start(scenario: &str, rank: usize, world: usize, timeout: Duration, port: Option<&str>) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "one_rank", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(SCENARIO, scenario).env(RANK, rank.to_string()).env(WORLD_SIZE, world.to_string());
        command.env(TIMEOUT_MS, timeout.as_millis().to_string());
        // One thread for each rank: the ranks share the cores of the machine.
        command.env("OMP_NUM_THREADS", "1");
        if let Some(port) = port {
            command.env(PORT, port);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The test runner writes to the same stream, without an end of line.
                if let Some((_, said)) = line.split_once(MARK) {
                    let _ = sender.send(said.to_owned());
                }
            }
        });
        Self { child, lines }
    }

    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("a rank did not end in {PATIENCE:?}");
    }
}

/// What a rank's process knows of itself.
pub struct Me {
    pub scenario: String,
    pub rank: Rank,
    pub timeout: Duration,
}

impl Me {
    /// `None` in a process that no test started.
    pub fn from_environment() -> Option<Self> {
        let scenario = env::var(SCENARIO).ok()?;
        let read = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is set by the test"));
        let number = |name: &str| read(name).parse::<u64>().unwrap();
        let rank = usize::try_from(number(RANK)).unwrap();
        let world_size = usize::try_from(number(WORLD_SIZE)).unwrap();
        let rank = Rank::new(rank, world_size).unwrap();
        Some(Self { scenario, rank, timeout: Duration::from_millis(number(TIMEOUT_MS)) })
    }

    /// Hosts the store on rank 0, and tells the test its port; connects to it on the others.
    pub fn store(&self) -> Store {
        if self.rank.index() == 0 {
            let store = Store::host(self.rank, "127.0.0.1:0".parse().unwrap(), self.timeout).unwrap();
            say(format_args!("port {}", store.port()));
            return store;
        }
        let port = env::var(PORT).unwrap().parse().unwrap();
        Store::connect(self.rank, "127.0.0.1", port, self.timeout).unwrap()
    }

    pub fn join(&self, store: &Store, prefix: &str) -> Result<ProcessGroup, C10dError> {
        let network = Network::TowardsStore;
        let gloo = GlooOptions { store, prefix, rank: self.rank, timeout: self.timeout, network };
        match device() {
            Device::Cuda(device) => {
                let library = env::var_os(NCCL).expect("`cargo xtask test --gpu` names the library").into();
                // All ranks have one GPU, which NCCL refuses on one machine.
                let host_id = Some(format!("test-{}", std::process::id()));
                ProcessGroup::nccl(&gloo, &NcclOptions { library, device, high_priority: false, host_id })
            }
            _ => ProcessGroup::gloo(&gloo),
        }
    }
}

/// Where the tensors of the ranks live: on the CPU, unless `cargo xtask test --gpu` says otherwise.
pub fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    *DEVICE.get_or_init(|| {
        if !env::var(TEST_DEVICE).is_ok_and(|device| device == "cuda") {
            return Device::Cpu;
        }
        cuda::load(Path::new(&env::var_os(INSTALLED).expect("`cargo xtask test --gpu` names the folder")))
            .unwrap();
        cuda::initialise().unwrap();
        Device::Cuda(0)
    })
}

/// The end of what was asked of the device. With NCCL a collective that failed comes to light only then.
pub fn settled(group: &ProcessGroup) -> Result<(), C10dError> {
    if let Device::Cuda(index) = device() {
        tch::Cuda::synchronize(i64::try_from(index).unwrap());
    }
    group.check()
}

/// Tells the test something.
pub fn say(what: std::fmt::Arguments<'_>) {
    println!("\n{MARK}{what}");
}
