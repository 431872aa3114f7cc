//! One optimizer step: the arithmetic of training, and nothing that depends on the clock.

use c10d::Reducer;
use common::spec::TrainSpec;
use datasets::{Batch, Shape};
use tch::{Device, Kind, Tensor};

use super::meter::Row;
use super::schedule::LearningRate;
use super::sgd::Sgd;
use super::watch::Watch;
use crate::data::{self, Course};
use crate::device;
use crate::error::TrainerError;
use crate::group::{Group, GroupError};
use crate::model::{Mode, NamedTensor, Network, Role};
use crate::seed;

/// Network, optimizer, and what they need to make a step.
pub struct Stepper {
    network: Network,
    optimizer: Sgd,
    reducer: Reducer,
    rate: LearningRate,
    watch: Watch,
    /// Values of the last step, still on the device: loss, cross-entropy, latent loss.
    losses: Tensor,
    grad_norm: Tensor,
    clip_norm: Option<f64>,
    reset_momentum_each_epoch: bool,
    course: Course,
    image: Shape,
    device: Device,
    rank: u32,
}

impl Stepper {
    /// A stepper for the rank `rank` of the trial `spec`.
    pub fn new(
        network: Network,
        optimizer: Sgd,
        reducer: Reducer,
        spec: &TrainSpec,
        course: Course,
        image: Shape,
        rank: u32,
    ) -> Self {
        let device = device::of_rank();
        Self {
            network,
            optimizer,
            reducer,
            rate: LearningRate::new(&spec.recipe, course.steps_per_epoch),
            watch: Watch::new(device),
            losses: Tensor::zeros([3], (Kind::Float, device)),
            grad_norm: Tensor::zeros([], (Kind::Float, device)),
            clip_norm: spec.recipe.clip_norm,
            reset_momentum_each_epoch: spec.recipe.reset_momentum_each_epoch,
            course,
            image,
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

    /// Makes the step after `done` steps.
    ///
    /// The loss is the mean cross-entropy over the rank's rows plus the latent loss. Ranks have equal shares
    /// and gradients are averaged over them, so the gradient is that of the mean over the global batch.
    ///
    /// # Errors
    ///
    /// [`TrainerError::Group`] when another rank is lost.
    pub fn step(&mut self, done: u64, batch: &Batch) -> Result<(), TrainerError> {
        if self.reset_momentum_each_epoch && done.is_multiple_of(self.course.steps_per_epoch) {
            self.optimizer.reset_momentum();
        }
        seed::reseed(self.course.seed, seed::STEP, &[done, u64::from(self.rank)]);
        let (images, labels) = data::tensors(batch, self.image, self.device);
        self.optimizer.zero_grad();

        let forward = self.network.forward(&images, Mode::Train);
        let targets = self.network.row_targets(&labels);
        let cross_entropy = forward.logits.cross_entropy_for_logits(&targets);
        let latent = forward.latent.map(|latent| latent.total);
        let loss = match &latent {
            Some(latent) => &cross_entropy + latent,
            None => cross_entropy.shallow_clone(),
        };
        self.reducer.backward(&loss).map_err(GroupError::from)?;

        self.grad_norm = self.optimizer.grad_norm();
        self.watch.observe(done + 1, &loss, &self.grad_norm);
        if let Some(limit) = self.clip_norm {
            self.optimizer.clip_grad_norm(&self.grad_norm, limit);
        }
        self.optimizer.step(self.rate.at(done));
        let latent = latent.unwrap_or_else(|| cross_entropy.zeros_like());
        self.losses = Tensor::stack(&[&loss, &cross_entropy, &latent], 0).detach();
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

    /// Values of the last of `done` steps, means over the ranks. A collective.
    ///
    /// # Errors
    ///
    /// [`TrainerError::NonFiniteLoss`], and [`TrainerError::Group`] when another rank is lost.
    pub fn row(&self, done: u64, group: &Group) -> Result<Row, TrainerError> {
        self.check_finite()?;
        let losses = group.mean(&self.losses)?;
        // sync: copies four numbers to the host.
        Ok(Row {
            loss: losses.double_value(&[0]),
            cross_entropy: losses.double_value(&[1]),
            latent: self.network.latent_layers().next().is_some().then(|| losses.double_value(&[2])),
            grad_norm: self.grad_norm.double_value(&[]),
            lr: self.rate.at(done - 1),
        })
    }

    /// All tensors that must be the same on every rank: running statistics are each rank's own.
    pub fn learned_tensors(&self) -> Vec<Tensor> {
        let learned = |named: NamedTensor| match named.role {
            Role::Weight { .. } | Role::Frozen => Some(named.tensor),
            Role::Buffer => None,
        };
        self.network.named_tensors().into_iter().filter_map(learned).collect()
    }
}
