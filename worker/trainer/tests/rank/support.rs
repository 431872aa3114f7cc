//! Starts the real program on small trials, and reads what it reports.
//!
//! Trials train WideResNet-10-1 on the bundled digits, so that no test needs a network or a data folder.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use common::report::{Command as AgentCommand, Launch, NetworkFile, Report};
use common::result::MetricRow;
use common::spec::{
    BatchEnsembleSettings, DataSpec, DatasetName, LpBnnPreset, LpBnnSettings, ModelSpec, NUMERICS, Precision,
    Recipe, RunPolicy, Schedule, SngpSettings, TrainMethod, TrainSpec, TrialSpec, WideResNetVariant,
};
use common::{AttemptId, FailureCause};

/// No test waits longer for a report. Generous: tests of several crates share the machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// 6 epochs of 3 steps: small enough for seconds, and every epoch has a beginning, a middle and an end.
pub fn train_spec(method: TrainMethod) -> TrainSpec {
    TrainSpec {
        method,
        data: DataSpec {
            set: DatasetName::Digits,
            held_out: vec![8, 9],
            train_limit: Some(100),
            test_limit: Some(120),
            allow_subset: false,
            validation: 0,
        },
        model: ModelSpec::WideResNet { depth: 10, widen: 1, variant: WideResNetVariant::Authors },
        recipe: Recipe {
            epochs: 6,
            batch_size: 32,
            lr: 0.05,
            schedule: Schedule::Cosine,
            warmup_epochs: 1.0,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 5e-4,
            clip_norm: Some(1.0),
            reset_momentum_each_epoch: false,
            precision: Precision::Fp32,
            augmentation: vec![common::spec::Augmentation::Crop { padding: 1 }],
        },
        pretrained: None,
        seed: 1,
        world_size: 1,
        min_world_size: None,
        numerics: NUMERICS,
    }
}

pub fn lp_bnn() -> TrainMethod {
    TrainMethod::LpBnn(LpBnnSettings { members: 2, latent: 4, ..LpBnnPreset::Paper.settings() })
}

pub fn batch_ensemble() -> TrainMethod {
    TrainMethod::BatchEnsemble(BatchEnsembleSettings { members: 2, ..BatchEnsembleSettings::default() })
}

/// With so few features that its checkpoints are small, and a bound that is met.
pub fn sngp() -> TrainMethod {
    TrainMethod::Sngp(SngpSettings {
        spectral_bound: 1.0,
        features: 96,
        length_scale: 5.0,
        ..SngpSettings::default()
    })
}

/// A launch of rank 0 that writes below `folder`, without checkpoints before the last.
pub fn launch(spec: TrialSpec, folder: &Path) -> Launch {
    // `cargo xtask test --gpu`: all ranks share the first GPU.
    let on_a_gpu = std::env::var("CREDENCE_TEST_DEVICE").is_ok_and(|device| device == "cuda");
    let policy = RunPolicy {
        deterministic: on_a_gpu,
        checkpoint_steps: None,
        checkpoint_interval: None,
        metrics_steps: 1,
        max_failures: 0,
        ..RunPolicy::default()
    };
    let world_size = spec.slots();
    Launch {
        attempt: AttemptId(1),
        spec,
        policy,
        rank: 0,
        world_size,
        host: "127.0.0.1".to_owned(),
        work_dir: folder.to_owned(),
        data_dir: folder.join("no data"),
        threads: 1,
        restore: Vec::new(),
        networks: Vec::new(),
        lease_until_ns: None,
        device: if on_a_gpu { common::report::Device::Cuda } else { common::report::Device::Cpu },
        device_memory_fraction: None,
        shares_device: on_a_gpu && world_size > 1,
    }
}

/// A rank that runs.
pub struct Rank {
    child: Child,
    stdin: Option<ChildStdin>,
    reports: Receiver<Report>,
    seen: Vec<Report>,
    stderr: thread::JoinHandle<String>,
}

/// A rank that has ended.
pub struct Ended {
    pub status: std::process::ExitStatus,
    pub reports: Vec<Report>,
    pub stderr: String,
}

impl Rank {
    pub fn start(launch: &Launch) -> Self {
        Self::start_with(launch, &[])
    }

    pub fn start_with(launch: &Launch, environment: &[(&str, &str)]) -> Self {
        let mut program = Command::new(env!("CARGO_BIN_EXE_credence-trainer"));
        program.envs(environment.iter().copied());
        Self::spawn(program, launch)
    }

    /// A rank whose address space is limited to so many bytes.
    pub fn start_within(launch: &Launch, bytes: u64) -> Self {
        let mut program = Command::new("sh");
        program.args(["-c", &format!("ulimit -v {} && exec \"$0\" \"$1\"", bytes / 1024)]);
        program.arg(env!("CARGO_BIN_EXE_credence-trainer"));
        Self::spawn(program, launch)
    }

    fn spawn(mut program: Command, launch: &Launch) -> Self {
        fs::create_dir_all(&launch.work_dir).unwrap();
        program.arg(write_launch(launch));
        Self::of(program)
    }

    /// A process that is told its launches later.
    pub fn warm() -> Self {
        let mut program = Command::new(env!("CARGO_BIN_EXE_credence-trainer"));
        program.args(["--warm", "test"]).env("OMP_NUM_THREADS", "1");
        let mut rank = Self::of(program);
        rank.ready();
        rank
    }

    /// Waits until a warm process can be told its next launch.
    pub fn ready(&mut self) {
        self.wait_for(|report| matches!(report, Report::Ready).then_some(()));
    }

    /// Tells a warm process its next launch. Returns its log. What it reported before is forgotten.
    pub fn run_warm(&mut self, launch: &Launch) -> PathBuf {
        fs::create_dir_all(&launch.work_dir).unwrap();
        self.seen.clear();
        let log = launch.work_dir.join("log");
        self.command(&AgentCommand::Launch { path: write_launch(launch), log: log.clone() });
        log
    }

    /// What a process that runs on has reported.
    pub fn so_far(&self) -> Ended {
        let status = std::os::unix::process::ExitStatusExt::from_raw(0);
        let reports = self.seen.iter().filter(|report| !matches!(report, Report::Ready)).cloned().collect();
        Ended { status, reports, stderr: String::new() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Forgets what it has said, and what is on its way.
    pub fn forget_reports(&mut self) {
        while self.reports.recv_timeout(Duration::from_millis(100)).is_ok() {}
    }

    /// Whether it has said nothing that was not heard.
    pub fn is_silent(&self) -> bool {
        matches!(self.reports.try_recv(), Err(mpsc::TryRecvError::Empty))
    }

    fn of(mut program: Command) -> Self {
        let mut child =
            program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, reports) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let line = line.unwrap();
                let report = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if sender.send(report).is_err() {
                    return;
                }
            }
        });
        let stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || std::io::read_to_string(stderr).unwrap());
        let stdin = child.stdin.take();
        Self { child, stdin, reports, seen: Vec::new(), stderr }
    }

    pub fn command(&mut self, command: &AgentCommand) {
        let mut line = serde_json::to_vec(command).unwrap();
        line.push(b'\n');
        self.stdin.as_mut().unwrap().write_all(&line).unwrap();
    }

    /// The next report that `wanted` maps to something.
    pub fn wait_for<T>(&mut self, mut wanted: impl FnMut(&Report) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(report) => {
                    let found = wanted(&report);
                    self.seen.push(report);
                    if let Some(found) = found {
                        return found;
                    }
                }
                Err(error @ (RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
                    let _ = self.child.kill();
                    panic!("{error}; reports so far: {:#?}", self.seen);
                }
            }
        }
    }

    /// `SIGKILL`: what a power cut or the kernel's out-of-memory killer looks like.
    pub fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.end()
    }

    /// Closes standard input, as the death of the agent does.
    pub fn lose_agent(&mut self) {
        self.stdin = None;
    }

    /// Waits for the end of the process.
    pub fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("the rank does not end; reports so far: {:#?}", self.seen);
            }
            thread::sleep(Duration::from_millis(5));
        };
        self.seen.extend(self.reports.iter());
        Ended { status, reports: self.seen, stderr: self.stderr.join().unwrap() }
    }
}

impl Ended {
    /// Metrics of the last report, of a rank that succeeded.
    pub fn done(&self) -> &std::collections::BTreeMap<String, f64> {
        assert!(self.status.success(), "{}: {:#?}\n{}", self.status, self.reports, self.stderr);
        match self.reports.last() {
            Some(Report::Done { metrics }) => metrics,
            other => panic!("the last report is {other:?}"),
        }
    }

    /// The only cause reported, as the last report, by a rank that exited with status 1.
    pub fn cause(&self) -> &FailureCause {
        assert_eq!(self.status.code(), Some(1), "{:#?}\n{}", self.reports, self.stderr);
        let failed = |report: &&Report| matches!(report, Report::Failed { .. });
        assert_eq!(self.reports.iter().filter(failed).count(), 1);
        match self.reports.last() {
            Some(Report::Failed { cause }) => cause,
            other => panic!("the last report is {other:?}"),
        }
    }

    /// Checkpoints in the order of their reports.
    pub fn checkpoints(&self) -> Vec<(u64, PathBuf)> {
        let checkpoint = |report: &Report| match report {
            Report::Checkpoint { step, path, .. } => Some((*step, path.clone())),
            _ => None,
        };
        self.reports.iter().filter_map(checkpoint).collect()
    }

    pub fn final_checkpoint(&self) -> PathBuf {
        self.done();
        self.checkpoints().pop().expect("a trial that succeeds leaves a checkpoint").1
    }

    pub fn rows(&self) -> Vec<MetricRow> {
        let rows = |report: &Report| match report {
            Report::Metrics { rows } => rows.clone(),
            _ => Vec::new(),
        };
        self.reports.iter().flat_map(rows).collect()
    }

    /// Values of the rows called `name`, by step.
    pub fn values(&self, name: &str) -> Vec<f64> {
        self.rows().into_iter().filter(|row| row.name == name).map(|row| row.value).collect()
    }

    pub fn warnings<'a>(&'a self) -> Vec<&'a str> {
        let warning = |report: &'a Report| match report {
            Report::Warning { message } => Some(message.as_str()),
            _ => None,
        };
        self.reports.iter().filter_map(warning).collect()
    }
}

fn write_launch(launch: &Launch) -> PathBuf {
    let file = launch.work_dir.join("launch.json");
    fs::write(&file, serde_json::to_vec(launch).unwrap()).unwrap();
    file
}

/// Runs one rank to its end.
pub fn run(launch: &Launch) -> Ended {
    Rank::start(launch).end()
}

/// Launches of all ranks of `launch`, each with a folder of its own.
pub fn gang(launch: &Launch) -> Vec<Launch> {
    (0..launch.world_size)
        .map(|rank| Launch { rank, work_dir: launch.work_dir.join(format!("rank{rank}")), ..launch.clone() })
        .collect()
}

/// Starts all ranks of `launch` and tells them where to meet.
pub fn start_gang(launch: &Launch) -> Vec<Rank> {
    start_gang_with(launch, &[])
}

pub fn start_gang_with(launch: &Launch, environment: &[(&str, &str)]) -> Vec<Rank> {
    let mut ranks: Vec<Rank> =
        gang(launch).iter().map(|launch| Rank::start_with(launch, environment)).collect();
    if launch.world_size > 1 {
        let address = ranks[0].wait_for(|report| match report {
            Report::Rendezvous { address } => Some(address.clone()),
            _ => None,
        });
        for rank in &mut ranks[1..] {
            rank.command(&AgentCommand::Rendezvous { address: address.clone() });
        }
    }
    ranks
}

pub fn run_gang(launch: &Launch) -> Vec<Ended> {
    start_gang(launch).into_iter().map(Rank::end).collect()
}

/// Content of a safetensors file by the name of the tensor: kind, shape and bytes.
pub fn tensors(path: &Path) -> HashMap<String, (String, Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            let kind = format!("{:?}", view.dtype());
            (name.to_owned(), (kind, view.shape().to_vec(), view.data().to_vec()))
        })
        .collect()
}

/// Fails with the names of the tensors that differ by a bit.
pub fn assert_same_tensors(left: &Path, right: &Path) {
    let (left, right) = (tensors(left), tensors(right));
    let mut names: Vec<_> = left.keys().chain(right.keys()).collect();
    names.sort();
    names.dedup();
    let differing: Vec<_> = names.into_iter().filter(|name| left.get(*name) != right.get(*name)).collect();
    assert!(differing.is_empty(), "{differing:?}");
    assert!(left.keys().any(|name| name.starts_with("momentum/")));
}

/// The files that an evaluation of `specs` reads.
pub fn network_files(specs: &[TrainSpec], paths: &[PathBuf]) -> Vec<NetworkFile> {
    let key = |spec: &TrainSpec| TrialSpec::Train(spec.clone()).key();
    specs.iter().zip(paths).map(|(spec, path)| NetworkFile { trial: key(spec), path: path.clone() }).collect()
}
