//! A train trial: from a launch to the final checkpoint.
//!
//! Decides the order of things: what is checked before the ranks meet, what happens after each step, and
//! what must hold before a trial is done. The arithmetic of a step is in `step`.
//!
//! Batch normalisation uses the statistics of each rank's own share of the batch, as PyTorch's
//! DistributedDataParallel does; the running statistics that a checkpoint holds are those of rank 0.
//!
//! An elastic trial may go on with another number of ranks than it began with. The images of each step, their
//! augmentation and the learning rate do not depend on that number; what does is named in `docs/operations.md`. At the
//! level `trace`, the target `credence::samples` logs the images of each step, so that this can be checked.

mod agreement;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_amp;
mod latent;
mod meter;
mod objective;
mod restore;
mod scaler;
mod schedule;
mod scorer;
mod sgd;
mod step;
mod tracker;
mod watch;

use std::rc::Rc;
use std::time::{Duration, Instant};

use c10d::{Reducer, ReducerOptions};
use common::TrialKey;
use common::beacon::Phase;
use common::report::{Launch, Report};
use common::spec::{NUMERICS, Precision, Task, TrainMethod, TrainSpec};
use common::table::PEAK_DEVICE_BYTES;
use datasets::{Batcher, Sharding};
use tch::Device;

pub use meter::Progress;
pub use objective::LOG_VARIANCE_BOUND;
pub use objective::Position;
pub use schedule::LearningRate;
pub(crate) use schedule::part_end;
pub use sgd::{Sgd, SgdSettings};

use crate::agent::Agent;
use crate::checkpoint::{FORMAT, Header, Saver, Snapshot};
use crate::data::{self, Course, Pixels, Prefetch};
use crate::device;
use crate::error::TrainerError;
use crate::evaluate::HeldOut;
use crate::group::{Group, GroupError};
use crate::memory::{self, Step};
use crate::model::Network;
use crate::pretrained;
use crate::timing;
use agreement::Agreement;
use latent::CollapseWatch;
use meter::Meter;
use restore::{Start, State};
use scaler::GradScaler;
use scorer::Scorer;
use sgd::Kernel;
use step::{Parts, Stepper};
use tracker::Tracker;

/// Trains the network of `spec` and leaves its final checkpoint; one that is asked to yield leaves that of the step it
/// has come to.
///
/// # Errors
///
/// [`TrainerError`] when the specification, the data, another rank or the arithmetic stops it.
pub fn run(launch: &Launch, spec: &TrainSpec, agent: &Agent, device: Device) -> Result<(), TrainerError> {
    let prepared = Prepared::new(launch, spec, device)?;
    // Only now: a rank that cannot take part says so before the others wait for it.
    let group = Group::join(launch, agent, device)?;
    let mut training = Training::start(launch, spec, agent, prepared, group)?;
    match training.run()? {
        Reached::End => training.finish(),
        Reached::Yield => training.leave(),
    }
}

/// What a rank can check and build without the others.
struct Prepared {
    device: Device,
    batcher: Batcher,
    course: Course,
    network: Network,
    tracker: Tracker,
    held_out: Option<HeldOut>,
}

impl Prepared {
    fn new(launch: &Launch, spec: &TrainSpec, device: Device) -> Result<Self, TrainerError> {
        if spec.numerics != NUMERICS {
            return Err(TrainerError::Numerics { found: spec.numerics, expected: NUMERICS });
        }
        if !launch.spec.allows(launch.world_size) {
            return Err(TrainerError::WorldSize { allowed: allowed_ranks(spec), found: launch.world_size });
        }
        if spec.data.set.task() == Task::Regression && !spec.method.can_regress() {
            return Err(TrainerError::OnlyClasses("the method"));
        }
        if spec.recipe.epochs == 0 {
            return Err(TrainerError::Zero { what: "the number of epochs" });
        }
        let precision = spec.recipe.precision;
        if precision == Precision::Fp16 && reads_gradients(&spec.method) {
            return Err(TrainerError::ReadsGradients);
        }
        device::configure(launch, device, Some(precision))?;
        let [global_batch, world_size, rank] =
            [spec.recipe.batch_size, launch.world_size, launch.rank].map(|count| count as usize);
        let sharding = Sharding::new(global_batch, world_size, rank)?;
        let classes = i64::from(spec.data.outputs());
        let input = data::input_shape(&spec.data);
        let network = Network::new(&spec.model, &spec.method, input, classes, spec.seed, device)?;
        let network = network.training_in(device::half(precision));
        if launch.policy.channels_last {
            network.lay_out_channels_last()?;
        }
        network.check_batch(sharding.local_batch() as i64)?;
        // The others get the tensors of rank 0, whether those come from here or from a checkpoint.
        if let Some(pretrained) = spec.pretrained.as_ref().filter(|_| launch.rank == 0) {
            pretrained::load(&launch.data_dir, pretrained, spec.model, &network.named_tensors())?;
        }
        let batcher = data::training(spec, &launch.data_dir)?;
        let steps_per_epoch = sharding.steps_per_epoch(batcher.images().len())? as u64;
        let total_steps = steps_per_epoch * u64::from(spec.recipe.epochs);
        let images = batcher.images().len() as u64;
        let course = Course { seed: spec.seed, sharding, images, steps_per_epoch, total_steps };
        let length = Position { done: 0, steps_per_epoch, total_steps, train_images: images };
        let tracker = Tracker::new(&spec.method, &network.named_tensors(), length)?;
        let scoring = launch.policy.keep_best.filter(|_| launch.rank == 0);
        let held_out = scoring.map(|scoring| HeldOut::load(spec, scoring, &launch.data_dir, device));
        let held_out = held_out.transpose()?.flatten();
        Ok(Self { device, batcher, course, network, tracker, held_out })
    }
}

/// Whether a method looks at gradients between backward and the optimizer, where those of half precision are scaled, or
/// computes some within the loss, where they are not.
fn reads_gradients(method: &TrainMethod) -> bool {
    match method {
        TrainMethod::Tradi(_) | TrainMethod::Duq(_) => true,
        TrainMethod::Deterministic
        | TrainMethod::Dropout(_)
        | TrainMethod::BatchEnsemble(_)
        | TrainMethod::LpBnn(_)
        | TrainMethod::RankOne(_)
        | TrainMethod::Mimo(_)
        | TrainMethod::Packed(_)
        | TrainMethod::Masksembles(_)
        | TrainMethod::Evidential(_)
        | TrainMethod::Sngp(_)
        | TrainMethod::Swag(_)
        | TrainMethod::Snapshots(_) => false,
    }
}

/// The optimizer of a trial, and the scale of its loss where it has one.
fn optimizer(spec: &TrainSpec, network: &Network, device: Device) -> (Sgd, Option<GradScaler>) {
    let scaler = (spec.recipe.precision == Precision::Fp16).then(|| GradScaler::new(device));
    let kernel = if device.is_cuda() || scaler.is_some() { Kernel::Fused } else { Kernel::Each };
    let mut optimizer = Sgd::new(&network.named_tensors(), SgdSettings::of(spec)).computed_by(kernel);
    optimizer.materialise_gradients();
    (optimizer, scaler)
}

/// What a step takes of a GPU's memory before its images come, as far as it is taken by now.
fn step_memory(spec: &TrainSpec, course: Course, network: &Network, device: Device) -> Option<Step> {
    // Momentum is as large as the weights, and is there after the first step.
    let weights = 4 * network.parameter_count().unsigned_abs();
    let momentum = if spec.recipe.momentum > 0.0 { weights } else { 0 };
    device::peak_bytes(device).map(|bytes| Step {
        device: 0,
        images: course.sharding.local_batch() as u64,
        fixed: bytes + momentum,
    })
}

/// How many ranks a trial may have, in words.
fn allowed_ranks(spec: &TrainSpec) -> String {
    match spec.min_world_size {
        Some(least) => format!("{least} to {} (of those that divide the batch)", spec.world_size),
        None => spec.world_size.to_string(),
    }
}

/// Why steps are no longer made.
enum Reached {
    /// All are done.
    End,
    /// The slots are wanted.
    Yield,
}

struct Training<'a> {
    launch: &'a Launch,
    agent: &'a Agent,
    device: Device,
    key: TrialKey,
    course: Course,
    group: Group,
    stepper: Stepper,
    batches: Prefetch,
    meter: Meter,
    progress: Progress,
    collapse: CollapseWatch,
    /// On rank 0.
    saver: Option<Saver>,
    /// On rank 0, of a trial that keeps its best checkpoint.
    scorer: Option<Scorer>,
    done: u64,
    /// Steps that the attempt began with.
    restored: u64,
    agreement: Agreement,
    before: Duration,
    /// Most of the device's memory that earlier attempts had; known to rank 0 only.
    peak_before: Option<u64>,
    started: Instant,
    checkpoint_due: bool,
    last_checkpoint: Instant,
    final_loss: Option<f64>,
}

impl<'a> Training<'a> {
    fn start(
        launch: &'a Launch,
        spec: &TrainSpec,
        agent: &'a Agent,
        prepared: Prepared,
        group: Group,
    ) -> Result<Self, TrainerError> {
        let Prepared { device, batcher, course, network, tracker, held_out } = prepared;
        let key = launch.spec.key();
        let (mut optimizer, scaler) = optimizer(spec, &network, device);
        let state = State {
            network: &network,
            optimizer: &mut optimizer,
            tracker: &tracker,
            scaler: scaler.as_ref(),
            device,
        };
        let start = restore::restore(launch, key, state, &group, &agent.reporter)?;
        let Start { step: done, train_seconds, final_loss, peak_before } = start;
        let weights = optimizer.weights();
        let reducer =
            Reducer::new(group.process(), &weights, ReducerOptions::default()).map_err(GroupError::from)?;
        tracing::info!(
            step = done,
            total_steps = course.total_steps,
            parameters = network.parameter_count(),
            images = batcher.images().len(),
            ?device,
            "training starts"
        );
        let pixels = Pixels::of(&batcher, spec.data.set.task(), device);
        let batches = Prefetch::start(batcher, course, done, pixels.preparation());
        memory::steps_are(step_memory(spec, course, &network, device));
        let parts = Parts { network, optimizer, tracker, reducer, scaler, device };
        let stepper = Stepper::new(parts, spec, course, pixels, launch.rank);
        let saver = group.is_first().then(|| Saver::start(launch.work_dir.clone(), agent.reporter.clone()));
        let now = Instant::now();
        Ok(Self {
            launch,
            agent,
            device,
            key,
            course,
            group,
            stepper,
            batches,
            meter: Meter::new(agent.reporter.clone()),
            progress: Progress::new(agent.reporter.clone(), course.total_steps, done),
            collapse: CollapseWatch::default(),
            saver,
            scorer: held_out.map(|images| Scorer::new(images, Rc::clone(&agent.beacon), device)),
            done,
            restored: done,
            agreement: Agreement::new(done),
            before: Duration::from_secs_f64(train_seconds.max(0.0)),
            peak_before,
            started: now,
            checkpoint_due: false,
            last_checkpoint: now,
            final_loss,
        })
    }

    fn run(&mut self) -> Result<Reached, TrainerError> {
        if self.group.is_first() {
            for message in self.stepper.tracker().warnings(self.course.total_steps) {
                self.meter.warn(message);
            }
            self.progress.report(self.done, None);
        }
        while self.done < self.course.total_steps {
            let asked = self.agent.commands.yield_asked();
            if self.agreement.stops(self.done, asked, &self.group)? {
                return Ok(Reached::Yield);
            }
            self.agent.beacon.enter(Phase::Batch, self.done + 1);
            let batch = self
                .batches
                .next()
                .expect("the prefetch thread has a batch for each step, or has ended the process");
            timing::begins(self.done);
            tracing::trace!(target: "credence::samples", step = self.done + 1, images = ?batch.ids());
            let outcome = self.stepper.step(self.done, &batch, &self.group);
            // Another rank that saw the same step go wrong may have left already; its absence is not the cause.
            outcome.map_err(|error| self.stepper.check_finite().err().unwrap_or(error))?;
            self.done += 1;
            self.group.check()?;
            self.after_step()?;
        }
        Ok(Reached::End)
    }

    /// What follows a step. The conditions of collectives depend on the step alone, those of rank 0's own
    /// business also on the clock.
    fn after_step(&mut self) -> Result<(), TrainerError> {
        let metrics_steps = self.launch.policy.metrics_steps.max(1);
        let last = self.done == self.course.total_steps;
        if self.done.is_multiple_of(metrics_steps) || last {
            let row = self.stepper.row(&self.group)?;
            if last {
                self.final_loss = Some(row.loss);
            }
            if self.group.is_first() {
                self.meter.row(self.done, row);
            }
        }
        if !self.group.is_first() {
            return Ok(());
        }
        if self.done.is_multiple_of(self.course.steps_per_epoch) {
            let layers = self.stepper.network().diagnostics();
            self.meter.rows(self.done, latent::rows(&layers));
            for message in self.collapse.warnings(&layers) {
                self.meter.warn(message);
            }
        }
        if self.progress.is_due() || last {
            self.stepper.check_finite()?;
            self.progress.report(self.done, Some(self.stepper.loss()));
        }
        if last { Ok(()) } else { self.checkpoint_if_due() }
    }

    fn checkpoint_if_due(&mut self) -> Result<(), TrainerError> {
        let policy = &self.launch.policy;
        let by_steps = policy.checkpoint_steps.is_some_and(|steps| self.done.is_multiple_of(steps.max(1)));
        let by_time =
            policy.checkpoint_interval.is_some_and(|interval| self.last_checkpoint.elapsed() >= interval);
        let asked = self.agent.commands.checkpoint_asked();
        self.checkpoint_due |= by_steps || by_time || asked;
        // A disk slower than the policy gets fewer checkpoints, not a queue of them.
        if !self.checkpoint_due || !self.saver.as_ref().is_some_and(Saver::is_idle) {
            return Ok(());
        }
        self.stepper.check_finite()?;
        self.agent.beacon.enter(Phase::Checkpoint, self.done);
        let snapshot = self.snapshot()?;
        if let Some(saver) = &self.saver {
            saver.save(snapshot);
        }
        self.checkpoint_due = false;
        self.last_checkpoint = Instant::now();
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Snapshot, TrainerError> {
        let score = self.score();
        let header = Header {
            format: FORMAT,
            trial: self.key,
            numerics: NUMERICS,
            step: self.done,
            epoch: self.done / self.course.steps_per_epoch,
            step_in_epoch: self.done % self.course.steps_per_epoch,
            train_seconds: self.train_seconds(),
            computed_on: restore::computed_on(self.launch, self.device),
            final_loss: self.final_loss,
            peak_device_bytes: device::peak_bytes(self.device).max(self.peak_before),
        };
        let network = self.stepper.network().named_tensors();
        let tracked = self.stepper.tracker().named_tensors();
        let scaler = self.stepper.scaler().map(GradScaler::named_tensors).unwrap_or_default();
        let snapshot = Snapshot::take(header, &network, self.stepper.optimizer(), &tracked, &scaler)?;
        self.group.check()?;
        Ok(snapshot.scored(score))
    }

    fn score(&mut self) -> Option<f64> {
        let (scorer, network) = (self.scorer.as_mut()?, self.stepper.network());
        self.agent.beacon.during(Phase::Checkpoint, || scorer.score(network, self.done, &self.meter))
    }

    /// Time spent on training; to find out which checkpoint is best is not a part of it.
    fn train_seconds(&self) -> f64 {
        let scoring = self.scorer.as_ref().map_or(Duration::ZERO, Scorer::spent);
        (self.before + self.started.elapsed().saturating_sub(scoring)).as_secs_f64()
    }

    /// Ends before the trial does, with nothing lost.
    fn leave(mut self) -> Result<(), TrainerError> {
        self.stepper.check_finite()?;
        if let Some(saver) = self.saver.take() {
            self.agent.beacon.enter(Phase::Checkpoint, self.done);
            if self.done > self.restored {
                saver.leave(&self.snapshot()?)?;
            }
        }
        tracing::info!(step = self.done, "training yields");
        self.agent.reporter.send(&Report::Yielded { step: self.done });
        self.group.leave();
        Ok(())
    }

    fn finish(mut self) -> Result<(), TrainerError> {
        self.agent.beacon.enter(Phase::Finishing, self.done);
        self.stepper.check_finite()?;
        device::synchronize(self.device);
        let seconds = self.train_seconds();
        let tensors = self.stepper.learned_tensors();
        self.group.check_equal(&tensors)?;
        let last = self.snapshot()?;
        if let Some(saver) = self.saver.take() {
            // A rank that waits for space is alive, and says so.
            let (beacon, done) = (&self.agent.beacon, self.done);
            saver.finish(&last, || beacon.enter(Phase::Finishing, done))?;
            let parameters = self.stepper.network().parameter_count();
            let peak = device::peak_bytes(self.device).max(self.peak_before);
            let peak = peak.map(|bytes| (PEAK_DEVICE_BYTES, bytes as f64));
            let loss = self.final_loss.map(|loss| ("loss", loss));
            self.meter.done(self.done, parameters, seconds, loss.into_iter().chain(peak));
        }
        tracing::info!(seconds, "training done");
        self.group.leave();
        Ok(())
    }
}
