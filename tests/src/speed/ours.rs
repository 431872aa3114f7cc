//! The real trainer, launched as an agent launches it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, bail, ensure};
use common::AttemptId;
use common::report::{Command as AgentCommand, Device, Launch, NetworkFile, Report};
use common::result::MetricRow;
use common::spec::{
    BatchEnsembleSettings, DataSpec, DatasetName, EVALUATION_NUMERICS, EvaluateSpec, LpBnnPreset,
    LpBnnSettings, ModelSpec, NUMERICS, Precision, Predictor, Recipe, ResNetDepth, ResNetForm, RunPolicy,
    Schedule, TrainMethod, TrainSpec, TrialSpec, WideResNetVariant,
};
use serde::Deserialize;

use super::{BATCH, CLIP, Compared, DEPTH, Effort, Images, MEMBERS, Method, Times, WIDEN};

/// Our contestants.
pub(super) struct Ours<'a> {
    /// `credence-trainer`.
    pub(super) trainer: &'a Path,
    /// For whatever is written.
    pub(super) folder: &'a Path,
    pub(super) effort: Effort,
}

/// What a rank left.
struct Ended {
    reports: Vec<Report>,
    log: String,
}

impl Ours<'_> {
    /// Steps of so many ranks, those of rank 0.
    pub(super) fn train(&self, method: Method, images: &Images, ranks: u32) -> anyhow::Result<Times> {
        self.times_of_training(TrainSpec { world_size: ranks, ..spec(method) }, images)
    }

    /// Steps of LP-BNN's ResNet-18 with torch-uncertainty's settings.
    pub(super) fn train_as_torch_uncertainty(&self, images: &Images) -> anyhow::Result<Times> {
        let model = ModelSpec::ResNet { depth: ResNetDepth::D18, form: ResNetForm::Cifar };
        let method = TrainMethod::LpBnn(LpBnnSettings {
            members: MEMBERS,
            ..LpBnnPreset::TorchUncertainty.settings()
        });
        let mut spec = TrainSpec { model, method, ..spec(Method::LpBnn) };
        spec.recipe.clip_norm = None;
        self.times_of_training(spec, images)
    }

    fn times_of_training(&self, mut spec: TrainSpec, images: &Images) -> anyhow::Result<Times> {
        ensure!(images.count >= BATCH * (self.effort.warm_up + self.effort.steps + 1), "too few images");
        spec.recipe.epochs = 1;
        let launch = self.launch(TrialSpec::Train(spec), images)?;
        let ended = self.run_gang(&launch)?;
        self.times(&ended.log)
    }

    /// Predictions of all members of a network that was trained for a step.
    pub(super) fn predict(&self, method: Method, images: &Images) -> anyhow::Result<Times> {
        let one = super::images(self.folder, "one batch", BATCH)?;
        let train = TrainSpec { recipe: Recipe { epochs: 1, ..spec(method).recipe }, ..spec(method) };
        let ended = self.run_gang(&self.launch(TrialSpec::Train(train.clone()), &one)?)?;
        let (_, path) =
            checkpoints(&ended.reports).pop().context("a trial that succeeds leaves a checkpoint")?;
        let evaluate = TrialSpec::Evaluate(EvaluateSpec {
            predictor: Predictor::Direct { samples_per_member: 1 },
            networks: vec![train.clone()],
            ood: Vec::new(),
            shift: None,
            seed: 0,
            batch_size: BATCH,
            numerics: EVALUATION_NUMERICS,
        });
        let networks = vec![NetworkFile { trial: TrialSpec::Train(train).key(), path }];
        let launch = Launch { networks, ..self.launch(evaluate, images)? };
        self.times(&self.run_gang(&launch)?.log)
    }

    /// All-reduces of two ranks.
    pub(super) fn all_reduce(&self) -> anyhow::Result<Times> {
        let program = self.trainer.with_file_name("examples").join("all_reduce");
        let output = self
            .command(&program, 1)
            .args([self.effort.warm_up, self.effort.steps].map(|count| count.to_string()))
            .output()
            .with_context(|| format!("cannot start `{}`", program.display()))?;
        ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Checkpoint after the first step of a network without noise, and what the steps after it came to.
    pub(super) fn first_steps(
        &self,
        method: Method,
        images: &Images,
        steps: usize,
    ) -> anyhow::Result<(PathBuf, Vec<Compared>)> {
        let mut spec = spec(method);
        if let TrainMethod::LpBnn(settings) = &mut spec.method {
            settings.std_factor = 0.0;
        }
        spec.recipe.epochs = 1 + u32::try_from(steps)?;
        let mut launch = self.launch(TrialSpec::Train(spec), images)?;
        launch.policy.checkpoint_steps = Some(1);
        launch.policy.metrics_steps = 1;
        let ended = self.run_gang(&launch)?;
        let first = checkpoints(&ended.reports).into_iter().find(|(step, _)| *step == 1);
        let (_, checkpoint) = first.context("there is no checkpoint of the first step")?;
        let rows = ended.reports.iter().flat_map(|report| match report {
            Report::Metrics { rows } => rows.as_slice(),
            _ => &[],
        });
        let rows: Vec<&MetricRow> = rows.filter(|row| row.step > 1).collect();
        let values =
            |name: &str| rows.iter().filter(|row| row.name == name).map(|row| row.value).collect::<Vec<_>>();
        let pairs = values("loss").into_iter().zip(values("grad_norm"));
        Ok((checkpoint, pairs.map(|(loss, grad_norm)| Compared { loss, grad_norm }).collect()))
    }

    fn launch(&self, spec: TrialSpec, images: &Images) -> anyhow::Result<Launch> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let work_dir = self.folder.join(format!("run-{number}"));
        fs::create_dir_all(&work_dir)?;
        let world_size = spec.slots();
        Ok(Launch {
            attempt: AttemptId(number),
            spec,
            policy: RunPolicy { checkpoint_interval: None, ..RunPolicy::default() },
            rank: 0,
            world_size,
            host: "127.0.0.1".to_owned(),
            work_dir,
            data_dir: images.folder.clone(),
            threads: (self.effort.threads / world_size).max(1),
            restore: Vec::new(),
            networks: Vec::new(),
            lease_until_ns: None,
            device: Device::Cpu,
            device_memory_fraction: None,
            shares_device: false,
        })
    }

    fn command(&self, program: &Path, threads: u32) -> Command {
        let mut command = Command::new(program);
        environment_of(&mut command, threads, self.effort);
        command
    }

    /// Runs all ranks to their end; what rank 0 left.
    fn run_gang(&self, launch: &Launch) -> anyhow::Result<Ended> {
        let mut ranks = Vec::new();
        for rank in 0..launch.world_size {
            let work_dir = launch.work_dir.join(format!("rank-{rank}"));
            fs::create_dir_all(&work_dir)?;
            ranks.push(self.start(&Launch { rank, work_dir, ..launch.clone() })?);
        }
        if let [first, others @ ..] = &mut ranks[..]
            && !others.is_empty()
        {
            let address = first.rendezvous()?;
            for other in others {
                other.tell(&AgentCommand::Rendezvous { address: address.clone() })?;
            }
        }
        let ended: anyhow::Result<Vec<Ended>> = ranks.into_iter().map(Rank::end).collect();
        ended?.into_iter().next().context("a gang has a first rank")
    }

    fn start(&self, launch: &Launch) -> anyhow::Result<Rank> {
        let file = launch.work_dir.join("launch.json");
        fs::write(&file, serde_json::to_vec(launch)?)?;
        let mut command = self.command(self.trainer, launch.threads);
        command.arg(&file).env("CREDENCE_LOG", "warn,credence::timing=trace");
        command.env("CREDENCE_LOG_FORMAT", "json");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("cannot start `{}`", self.trainer.display()))?;
        let mut stderr = child.stderr.take().context("it is piped")?;
        let log = thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).map(|_| log)
        });
        let stdout = child.stdout.take().context("it is piped")?;
        Ok(Rank { child, stdout: BufReader::new(stdout), log, reports: Vec::new() })
    }

    /// Times between the beginnings of steps that the log names.
    fn times(&self, log: &str) -> anyhow::Result<Times> {
        let begun: Vec<Begun> = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Line>(line).ok())
            .filter(|line| line.target == "credence::timing")
            .map(|line| line.fields)
            .collect();
        let (from, steps) = (self.effort.warm_up as usize, self.effort.steps as usize);
        ensure!(begun.len() > from + steps, "the log names {} steps:\n{log}", begun.len());
        let counted = &begun[from..=from + steps];
        let times = |clock: fn(&Begun) -> u64| {
            let seconds = |pair: &[Begun]| (clock(&pair[1]) - clock(&pair[0])) as f64 * 1e-9;
            counted.windows(2).map(seconds).collect()
        };
        Ok(Times { wall: times(|begun| begun.wall_ns), processor: times(|begun| begun.processor_ns) })
    }
}

/// A rank that runs.
struct Rank {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    log: thread::JoinHandle<std::io::Result<String>>,
    reports: Vec<Report>,
}

impl Rank {
    fn next(&mut self) -> anyhow::Result<Option<Report>> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line).with_context(|| line)?))
    }

    fn rendezvous(&mut self) -> anyhow::Result<String> {
        while let Some(report) = self.next()? {
            if let Report::Rendezvous { address } = report {
                return Ok(address);
            }
            self.reports.push(report);
        }
        bail!("rank 0 ended before it said where to meet")
    }

    fn tell(&mut self, command: &AgentCommand) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        Ok(self.child.stdin.as_mut().context("it is piped")?.write_all(&line)?)
    }

    fn end(mut self) -> anyhow::Result<Ended> {
        while let Some(report) = self.next()? {
            self.reports.push(report);
        }
        // Only now: the end of its standard input is the end of a trainer.
        let status = self.child.wait()?;
        let log = self.log.join().map_err(|_| anyhow::anyhow!("the reader of the log panicked"))??;
        ensure!(status.success(), "{status}: {:?}\n{log}", self.reports.last());
        Ok(Ended { reports: self.reports, log })
    }
}

/// A line of the log.
#[derive(Deserialize)]
struct Line {
    target: String,
    fields: Begun,
}

#[derive(Deserialize)]
struct Begun {
    wall_ns: u64,
    processor_ns: u64,
}

/// What every contestant's process has in its environment.
pub(super) fn environment_of(command: &mut Command, threads: u32, effort: Effort) {
    command.env("OMP_NUM_THREADS", threads.to_string());
    if effort.passive {
        command.env("OMP_WAIT_POLICY", "passive");
    }
}

fn checkpoints(reports: &[Report]) -> Vec<(u64, PathBuf)> {
    let checkpoint = |report: &Report| match report {
        Report::Checkpoint { step, path, .. } => Some((*step, path.clone())),
        _ => None,
    };
    reports.iter().filter_map(checkpoint).collect()
}

/// What is trained: the same for every method, but the limit of the gradient's norm.
fn spec(method: Method) -> TrainSpec {
    TrainSpec {
        method: match method {
            Method::Deterministic => TrainMethod::Deterministic,
            Method::BatchEnsemble => TrainMethod::BatchEnsemble(BatchEnsembleSettings {
                members: MEMBERS,
                ..BatchEnsembleSettings::default()
            }),
            Method::LpBnn => {
                TrainMethod::LpBnn(LpBnnSettings { members: MEMBERS, ..LpBnnPreset::Paper.settings() })
            }
        },
        data: DataSpec {
            set: DatasetName::Cifar10,
            held_out: Vec::new(),
            train_limit: None,
            test_limit: None,
            allow_subset: true,
            validation: 0,
        },
        model: ModelSpec::WideResNet { depth: DEPTH, widen: WIDEN, variant: WideResNetVariant::Authors },
        recipe: Recipe {
            epochs: 1,
            batch_size: BATCH,
            lr: 0.05,
            schedule: Schedule::Constant,
            warmup_epochs: 0.0,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 5e-4,
            clip_norm: match method {
                Method::LpBnn => Some(CLIP),
                Method::Deterministic | Method::BatchEnsemble => None,
            },
            reset_momentum_each_epoch: false,
            augmentation: Vec::new(),
            precision: Precision::Fp32,
        },
        pretrained: None,
        seed: 1,
        world_size: 1,
        min_world_size: None,
        numerics: NUMERICS,
    }
}
