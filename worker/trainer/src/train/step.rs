//! One optimizer step: the arithmetic of training, and nothing that depends on the clock.

use c10d::Reducer;
use common::beacon::Phase;
use common::spec::TrainSpec;
use tch::{Device, Kind, Tensor};

use super::meter::Row;
use super::objective::{Objective, Position, TermNames, Terms};
use super::scaler::GradScaler;
use super::schedule::LearningRate;
use super::sgd::Sgd;
use super::tracker::Tracker;
use super::watch::Watch;
use crate::data::{Course, Pixels, Prepared};
use crate::error::TrainerError;
use crate::group::{Group, GroupError};
use crate::model::{Epoch, Mode, NamedTensor, Network, Role, Seen};
use crate::seed;

/// Network, optimizer, and what they need to make a step.
pub struct Stepper {
    network: Network,
    optimizer: Sgd,
    objective: Objective,
    names: TermNames,
    tracker: Tracker,
    reducer: Reducer,
    rate: LearningRate,
    watch: Watch,
    /// Values of the last step, still on the device: loss, data term, regulariser.
    losses: Tensor,
    grad_norm: Tensor,
    lr: f64,
    /// Of training in half precision.
    scaler: Option<GradScaler>,
    clip_norm: Option<f64>,
    reset_momentum_each_epoch: bool,
    course: Course,
    pixels: Pixels,
    device: Device,
    rank: u32,
}

/// What a stepper moves.
pub struct Parts {
    /// Network.
    pub network: Network,
    /// Of its weights.
    pub optimizer: Sgd,
    /// What the method remembers beside them.
    pub tracker: Tracker,
    /// Averages their gradients over the ranks.
    pub reducer: Reducer,
    /// Keeps them in the range of half precision, where that is what they are computed in.
    pub scaler: Option<GradScaler>,
    /// Of all of them.
    pub device: Device,
}

impl Stepper {
    /// A stepper for the rank `rank` of the trial `spec`.
    pub fn new(
        Parts { network, optimizer, tracker, reducer, scaler, device }: Parts,
        spec: &TrainSpec,
        course: Course,
        pixels: Pixels,
        rank: u32,
    ) -> Self {
        let objective = Objective::of(&spec.method, spec.data.set.task());
        Self {
            names: objective.names(&network),
            network,
            optimizer,
            objective,
            tracker,
            reducer,
            rate: LearningRate::new(&spec.recipe, course.steps_per_epoch),
            watch: Watch::new(device),
            losses: Tensor::zeros([3], (Kind::Float, device)),
            grad_norm: Tensor::zeros([], (Kind::Float, device)),
            lr: 0.0,
            scaler,
            clip_norm: spec.recipe.clip_norm,
            reset_momentum_each_epoch: spec.recipe.reset_momentum_each_epoch,
            course,
            pixels,
            device,
            rank,
        }
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The optimizer.
    pub fn optimizer(&self) -> &Sgd {
        &self.optimizer
    }

    /// What the method remembers beside the network.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// The scale of the loss, in half precision.
    pub fn scaler(&self) -> Option<&GradScaler> {
        self.scaler.as_ref()
    }

    fn position(&self, done: u64) -> Position {
        Position {
            done,
            steps_per_epoch: self.course.steps_per_epoch,
            total_steps: self.course.total_steps,
            train_images: self.course.images,
        }
    }

    /// Makes the step after `done` steps.
    ///
    /// The loss is the sum of the objective's terms over the rank's rows. Ranks have equal shares
    /// and gradients are averaged over them, so the gradient is that of the mean over the global batch.
    ///
    /// # Errors
    ///
    /// [`TrainerError::Group`] when another rank is lost.
    pub fn step(&mut self, done: u64, batch: &Prepared, group: &Group) -> Result<(), TrainerError> {
        group.beacon().enter(Phase::Forward, done + 1);
        if self.reset_momentum_each_epoch && done.is_multiple_of(self.course.steps_per_epoch) {
            self.optimizer.reset_momentum();
        }
        seed::reseed(self.course.seed, seed::STEP, &[done, u64::from(self.rank)]);
        let (images, labels) = self.pixels.tensors(batch, self.device);
        self.optimizer.zero_grad()?;

        let (images, targets) = self.network.training_batch(&images, &labels);
        let images = images.set_requires_grad(self.objective.differentiates_images());
        let forward = self.network.forward(&images, Mode::Train);
        let position = self.position(done);
        let Terms { data, regulariser } = self.objective.terms(&images, &targets, &forward, position);
        let loss = match &regulariser {
            Some(regulariser) => &data + regulariser,
            None => data.shallow_clone(),
        };
        group.beacon().enter(Phase::Backward, done + 1);
        let scaled = self.scaler.as_ref().map(|scaler| scaler.scale(&loss));
        self.reducer.backward(scaled.as_ref().unwrap_or(&loss)).map_err(GroupError::from)?;

        group.beacon().enter(Phase::Update, done + 1);
        self.update(&loss, position)?;
        self.tracker.after_step(&self.network.named_tensors(), self.lr, position);
        let epoch = Epoch::of(position.done, position.steps_per_epoch, position.total_steps);
        let seen = Seen { images: &images, targets: &targets, features: &forward.features, epoch };
        self.network.after_step(&seen, group)?;
        let regulariser = regulariser.unwrap_or_else(|| data.zeros_like());
        self.losses = Tensor::stack(&[&loss, &data, &regulariser], 0).detach();
        Ok(())
    }

    /// Changes the weights by the gradients that backward left. Nothing of it waits for the device.
    fn update(&mut self, loss: &Tensor, position: Position) -> Result<(), TrainerError> {
        let norm = self.optimizer.grad_norm()?;
        let inverse = self.scaler.as_ref().map(GradScaler::inverse);
        self.grad_norm = inverse.as_ref().map_or_else(|| norm.shallow_clone(), |inverse| &norm * inverse);
        let forgiven = self.scaler.as_ref().map(|scaler| scaler.forgiven(&self.grad_norm));
        self.watch.observe(position.done + 1, loss, forgiven.as_ref().unwrap_or(&self.grad_norm));

        let clip = self.clip_norm.map(|limit| Sgd::clip_factor(&self.grad_norm, limit));
        let factor = match (inverse, clip) {
            (Some(inverse), Some(clip)) => Some(inverse * clip),
            (inverse, clip) => inverse.or(clip),
        };
        if let Some(factor) = factor {
            self.optimizer.multiply_gradients(&factor)?;
        }
        self.lr = self.tracker.learning_rate(self.rate.at(position.done), position);
        let found_inf = self.scaler.as_ref().map(|_| GradScaler::found_inf(&self.grad_norm));
        self.optimizer.step(self.lr, found_inf.as_ref())?;
        if let (Some(scaler), Some(found_inf)) = (&mut self.scaler, &found_inf) {
            scaler.update(found_inf);
        }
        Ok(())
    }

    /// Fails when a step was not finite.
    ///
    /// # Errors
    ///
    /// [`TrainerError::NonFiniteLoss`] with the first such step.
    pub fn check_finite(&self) -> Result<(), TrainerError> {
        match self.watch.first() {
            Some(step) => Err(TrainerError::NonFiniteLoss { step }),
            None => Ok(()),
        }
    }

    /// Loss of the last step on this rank.
    pub fn loss(&self) -> f64 {
        // sync: copies one number to the host.
        self.losses.double_value(&[0])
    }

    /// Values of the last step, means over the ranks. A collective.
    ///
    /// # Errors
    ///
    /// [`TrainerError::NonFiniteLoss`], and [`TrainerError::Group`] when another rank is lost.
    pub fn row(&self, group: &Group) -> Result<Row, TrainerError> {
        self.check_finite()?;
        let losses = group.mean(&self.losses)?;
        // sync: copies four numbers to the host.
        let row = Row {
            loss: losses.double_value(&[0]),
            data: (self.names.data, losses.double_value(&[1])),
            regulariser: self.names.regulariser.map(|name| (name, losses.double_value(&[2]))),
            grad_norm: self.grad_norm.double_value(&[]),
            lr: self.lr,
            scale: self.scaler.as_ref().map(GradScaler::values),
        };
        group.check()?;
        Ok(row)
    }

    /// All tensors that must be the same on every rank: running statistics are each rank's own.
    pub fn learned_tensors(&self) -> Vec<Tensor> {
        let learned = |named: NamedTensor| match named.role {
            Role::Weight { .. } | Role::Frozen | Role::State => Some(named.tensor),
            Role::Buffer => None,
        };
        let network = self.network.named_tensors().into_iter().filter_map(learned);
        network.chain(self.tracker.learned()).collect()
    }
}
