//! The real trainer, launched as an agent launches it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use common::AttemptId;
use common::report::{Launch, Report};
use common::spec::{
    BatchEnsembleSettings, DataSpec, DatasetName, LpBnnPreset, LpBnnSettings, ModelSpec, NUMERICS, Recipe,
    RunPolicy, Schedule, TrainMethod, TrainSpec, TrialSpec, WideResNetVariant,
};

use super::{CLIP, Method, Run, Setting};
use crate::draws::Draws;

/// Images of the data set while steps are timed, as the peers' script has.
const IMAGES: u32 = 4096;

/// Epochs that nobody waits for: the rank is ended when enough was seen.
const FOR_EVER: u32 = 1_000_000;

/// Steps of the trial that goes to its end, which alone says what it took.
const SHORT: u32 = 8;

/// Our contestant.
pub(super) struct Ours<'a> {
    /// `credence-trainer`.
    pub(super) trainer: &'a Path,
    /// For whatever is written.
    pub(super) folder: &'a Path,
    pub(super) setting: Setting,
}

impl Ours<'_> {
    /// Times of a trial that is long enough, memory and parameters of one that goes to its end.
    pub(super) fn train(&self, method: Method) -> anyhow::Result<Run> {
        let Setting { batch, warm_up, windows, window_ms, .. } = self.setting;
        let long = self.launch(method, "long", IMAGES.max(batch), FOR_EVER)?;
        let mut rank = self.start(&long)?;
        let mut timer = Windows::new(u64::from(warm_up), Duration::from_millis(window_ms.into()));
        while timer.seconds.len() < windows {
            if let Report::Progress { step, .. } = rank.next()? {
                timer.see(step, Instant::now());
            }
        }
        rank.child.kill().context("cannot end a trainer")?;
        rank.child.wait().context("cannot end a trainer")?;
        let short = self.launch(method, "short", batch * SHORT, 1)?;
        let mut rank = self.start(&short)?;
        let metrics = loop {
            if let Report::Done { metrics } = rank.next()? {
                break metrics;
            }
        };
        let of = |name: &str| metrics.get(name).map(|&value| value as u64);
        let parameters = of("parameters").context("a trial says how many parameters it has")?;
        Ok(Run { seconds: timer.seconds, peak_bytes: of("peak_device_bytes"), parameters })
    }

    fn launch(&self, method: Method, name: &str, images: u32, epochs: u32) -> anyhow::Result<Launch> {
        let work_dir = self.folder.join(format!("{}-{name}", method.name()));
        // Of the round before.
        drop(fs::remove_dir_all(&work_dir));
        fs::create_dir_all(&work_dir)?;
        let spec = self.spec(method, epochs);
        let policy = RunPolicy {
            checkpoint_steps: None,
            checkpoint_interval: None,
            // A row waits for the device.
            metrics_steps: 1_000_000,
            channels_last: self.setting.channels_last(),
            ..RunPolicy::default()
        };
        Ok(Launch {
            attempt: AttemptId(1),
            spec: TrialSpec::Train(spec),
            policy,
            rank: 0,
            world_size: 1,
            host: "127.0.0.1".to_owned(),
            data_dir: data(self.folder, images)?,
            work_dir,
            threads: self.setting.threads,
            restore: Vec::new(),
            networks: Vec::new(),
            lease_until_ns: None,
            device: self.setting.device,
            device_memory_fraction: None,
            shares_device: false,
        })
    }

    /// What is trained: as the peers' script has it.
    fn spec(&self, method: Method, epochs: u32) -> TrainSpec {
        let Setting { batch, depth, widen, members, precision, .. } = self.setting;
        TrainSpec {
            method: match method {
                Method::Deterministic => TrainMethod::Deterministic,
                Method::BatchEnsemble => TrainMethod::BatchEnsemble(BatchEnsembleSettings {
                    members,
                    ..BatchEnsembleSettings::default()
                }),
                Method::LpBnn => {
                    TrainMethod::LpBnn(LpBnnSettings { members, ..LpBnnPreset::Paper.settings() })
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
            model: ModelSpec::WideResNet { depth, widen, variant: WideResNetVariant::Authors },
            recipe: Recipe {
                epochs,
                batch_size: batch,
                lr: 0.05,
                schedule: Schedule::Constant,
                warmup_epochs: 0.0,
                momentum: 0.9,
                nesterov: false,
                weight_decay: 5e-4,
                clip_norm: method.clip().map(|_| CLIP),
                reset_momentum_each_epoch: false,
                precision,
                augmentation: Vec::new(),
            },
            pretrained: None,
            seed: 1,
            world_size: 1,
            min_world_size: None,
            numerics: NUMERICS,
        }
    }

    fn start(&self, launch: &Launch) -> anyhow::Result<Rank> {
        let file = launch.work_dir.join("launch.json");
        fs::write(&file, serde_json::to_vec(launch)?)?;
        let mut command = Command::new(self.trainer);
        command.arg(&file).env("CREDENCE_LOG", "warn").env("OMP_NUM_THREADS", launch.threads.to_string());
        // The end of its standard input would be the end of a trainer.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("cannot start `{}`", self.trainer.display()))?;
        let stdout = BufReader::new(child.stdout.take().context("it is piped")?);
        let mut stderr = child.stderr.take().context("it is piped")?;
        let log = thread::spawn(move || {
            let mut log = Vec::new();
            // What was read before a failure is shown.
            let _ = stderr.read_to_end(&mut log);
            String::from_utf8_lossy(&log).into_owned()
        });
        Ok(Rank { child, stdout, log: Some(log) })
    }
}

/// A trainer that runs. It ends with this value.
struct Rank {
    child: Child,
    stdout: BufReader<ChildStdout>,
    log: Option<JoinHandle<String>>,
}

impl Rank {
    /// Its next report.
    fn next(&mut self) -> anyhow::Result<Report> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            let status = self.child.wait()?;
            let log = self.log.take().and_then(|log| log.join().ok()).unwrap_or_default();
            bail!("the trainer ended ({status}):\n{log}");
        }
        let report = serde_json::from_str(&line).with_context(|| line.clone())?;
        match report {
            Report::Failed { .. } => bail!("the trainer failed: {}", line.trim()),
            report => Ok(report),
        }
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        // It is gone already, or the bench has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Means over windows between two reports of progress, at each of which the device has done what was queued.
struct Windows {
    warm_up: u64,
    least: Duration,
    begun: Option<(u64, Instant)>,
    seconds: Vec<f64>,
}

impl Windows {
    fn new(warm_up: u64, least: Duration) -> Self {
        Self { warm_up, least, begun: None, seconds: Vec::new() }
    }

    fn see(&mut self, step: u64, now: Instant) {
        if step < self.warm_up {
            return;
        }
        let Some((from, begun)) = self.begun else {
            self.begun = Some((step, now));
            return;
        };
        let passed = now.duration_since(begun);
        if passed >= self.least && step > from {
            self.seconds.push(passed.as_secs_f64() / (step - from) as f64);
            self.begun = Some((step, now));
        }
    }
}

/// A folder with so many random images in CIFAR-10's format.
fn data(folder: &Path, count: u32) -> anyhow::Result<PathBuf> {
    ensure!(count <= 10_000, "{count} images do not fit CIFAR-10's file: choose a smaller batch");
    let data = folder.join(format!("images-{count}"));
    let set = data.join("cifar-10-batches-bin");
    if set.is_dir() {
        return Ok(data);
    }
    let mut draws = Draws::new(7);
    let mut bytes = Vec::with_capacity(count as usize * 3073);
    for _ in 0..count {
        bytes.push(draws.below(10) as u8);
        bytes.extend((0..384).flat_map(|_| draws.bits().to_le_bytes()));
    }
    fs::create_dir_all(&set)?;
    fs::write(set.join("data_batch_1.bin"), &bytes)?;
    fs::write(set.join("test_batch.bin"), &bytes)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_after_the_warm_up_and_ends_when_it_is_long_enough_and_a_step_was_done() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut windows = Windows::new(10, Duration::from_millis(500));
        for (step, ms) in [(1, 0), (9, 900), (12, 1_000), (13, 1_250), (14, 1_500), (14, 2_100), (22, 2_300)]
        {
            windows.see(step, at(ms));
        }
        assert_eq!(windows.seconds, [0.25, 0.1]);
    }
}
