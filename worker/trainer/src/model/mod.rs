//! Networks: the architecture, the changes that an uncertainty method makes to its layers, and the tensors
//! by name.
//!
//! Not decided here: the loss of the logits, optimisation, how members' predictions are averaged, and what
//! seeds the draws of a forward pass. Dropout and latent noise come from libtorch's generator of the
//! device; who wants them reproducible calls [`tch::manual_seed`] before [`Network::forward`].

mod body;
pub(crate) mod builder;
mod head;
mod layers;
mod mlp;
pub(crate) mod norm;
pub(crate) mod plan;
mod posterior;
mod resnet;
mod style;
mod wide_resnet;

#[cfg(test)]
pub(crate) mod golden;
#[cfg(test)]
mod golden_models;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vector_tests;

use c10d::{Autocast, Half};
use common::spec::{BatchMode, ModelSpec, TrainMethod};
use tch::{Device, Kind, TchError, Tensor, no_grad};

pub use builder::{NamedTensor, Owner, Role};
pub use posterior::WeightPosterior;

use crate::group::{Group, GroupError};
use crate::uq::lp_bnn::LatentSpace;
use crate::uq::posterior::{Drawn, VectorSource};
use crate::uq::{DecodedPosterior, LatentLoss, LayerDiagnostics};
use crate::uq::{dropout, mimo};
use body::Body;
use builder::Builder;
use head::Head;
use layers::Construction;
use norm::Statistics;
use plan::Plan;
use style::Style;

/// Why a network was not built, or cannot take a batch.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// An image without channels or pixels.
    #[error("images of shape {channels}×{height}×{width} hold nothing to classify")]
    Input {
        /// Channels.
        channels: i64,
        /// Rows of pixels.
        height: i64,
        /// Pixels of a row.
        width: i64,
    },
    /// Too few classes.
    #[error("a classifier needs at least 2 classes, not {0}")]
    Classes(i64),
    /// An ensemble without members.
    #[error("an ensemble needs at least 1 member: set `members`")]
    Members,
    /// A VAE without latent dimensions.
    #[error("the latent size is 0: set `latent` to at least 1")]
    LatentSize,
    /// A prior that allows one value alone.
    #[error("the prior of the rank-1 vectors has no width: set `prior-std` above 0")]
    PriorStd,
    /// No probability of zeroing, or one that leaves nothing.
    #[error("dropout rate {0} is not in [0, 1)")]
    DropoutRate(f64),
    /// A setting that must be a finite number of at least 0.
    #[error("`{setting}` is {value}: it must be finite and not negative")]
    Negative {
        /// Name of the setting.
        setting: &'static str,
        /// Its value.
        value: f64,
    },
    /// A setting that must be a finite number above 0.
    #[error("`{setting}` is {value}: it must be finite and above 0")]
    NotPositive {
        /// Name of the setting.
        setting: &'static str,
        /// Its value.
        value: f64,
    },
    /// Centroids that would never move, or never settle.
    #[error("`centroid-momentum` is {0}: it must be at least 0 and below 1")]
    Momentum(f64),
    /// A batch that cannot be cut in equal blocks.
    #[error("a batch of {batch} cannot be split among {members} members: make it a multiple of {members}")]
    Split {
        /// Images.
        batch: i64,
        /// Members J.
        members: i64,
    },
    /// Masks for which there is no recipe.
    #[error("scale {0} is not between 1 and 6, where masks of Masksembles can be made: set `scale`")]
    MaskScale(f64),
    /// Too few channels to mask.
    #[error(
        "Masksembles needs at least {least} channels, and layer `{layer}` has {channels}: take a wider network"
    )]
    MaskChannels {
        /// Path of the layer.
        layer: String,
        /// Its inputs.
        channels: i64,
        /// Fewest that there are masks for.
        least: i64,
    },
    /// No masks of these numbers.
    #[error(
        "no {members} masks of scale {scale} cover the {channels} channels of layer `{layer}`: change `scale` or \
         `members`"
    )]
    Masks {
        /// Path of the layer.
        layer: String,
        /// Its inputs.
        channels: i64,
        /// Members M.
        members: i64,
        /// Scale S.
        scale: f64,
    },
    /// A setting that must be a probability.
    #[error("`{setting}` is {value}: it must be a number from 0 to 1")]
    Probability {
        /// Name of the setting.
        setting: &'static str,
        /// Its value.
        value: f64,
    },
    /// A width of nothing.
    #[error("a packed ensemble needs `alpha` and `gamma` of at least 1")]
    Packing,
    /// A layer that members cannot share evenly.
    #[error(
        "layer `{layer}` has {inputs} inputs and {outputs} outputs, which {members} members cannot share evenly: \
         choose `alpha` such that `members` divides alpha times every width"
    )]
    PackedWidth {
        /// Path of the layer.
        layer: String,
        /// Inputs, widened.
        inputs: i64,
        /// Outputs, widened.
        outputs: i64,
        /// Members M.
        members: i64,
    },
    /// Too few steps for what a method takes from training.
    #[error("training is too short: {what}")]
    TooShort {
        /// What it has too few of, and the way out.
        what: String,
    },
    /// A predictor that reads the last layer of another kind of network.
    #[error("{0} needs an ordinary linear last layer, which this method's network does not have")]
    LastLayer(&'static str),
    /// The whole curvature of a large last layer.
    #[error(
        "the last layer has {weights} weights, and the whole curvature is kept of up to {most}: \
         set `curvature = \"kronecker\"`"
    )]
    LaplaceSize {
        /// Weights and biases.
        weights: i64,
        /// Most of which the matrix is held.
        most: i64,
    },
    /// libtorch refused, for instance because the device has no memory left.
    #[error("cannot create the network's tensors")]
    Torch(#[from] TchError),
}

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, dropout, the method's row layout, latent loss.
    Train,
    /// Running statistics, no dropout; every member sees every image.
    Evaluate,
    /// As `Evaluate`, with dropout: one pass of MC Dropout.
    SampleDropout,
}

/// Whether an epoch is the last of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epoch {
    /// There are more to come.
    Earlier,
    /// None comes after it.
    Last,
}

impl Epoch {
    /// The epoch of the step after `done` of `total_steps` steps.
    pub fn of(done: u64, steps_per_epoch: u64, total_steps: u64) -> Self {
        if done + steps_per_epoch >= total_steps { Self::Last } else { Self::Earlier }
    }
}

/// What a rank's network has seen in a step.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// As [`Network::training_batch`] gave them.
    pub images: &'a Tensor,
    /// Labels of the rows of the logits.
    pub targets: &'a Tensor,
    /// Of the forward pass.
    pub features: &'a Tensor,
    /// Where training stands.
    pub epoch: Epoch,
}

/// How the layers behave in a pass, and the vectors that were drawn for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a> {
    /// Member-wise vectors that are drawn or decoded for each pass, by the place that their layer knows.
    pub(crate) vectors: &'a [Tensor],
    pub(crate) statistics: Statistics,
    pub(crate) dropout: Dropout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropout {
    Drawn,
    Off,
}

/// What a forward pass gives.
#[derive(Debug)]
pub struct Forward {
    /// `[rows, K]`, member-major: the first rows are those of the first member.
    pub logits: Tensor,
    /// What the last layer saw: `[rows of activations, F]`, member-major.
    pub features: Tensor,
    /// Latent loss, of LP-BNN in [`Mode::Train`].
    pub latent: Option<LatentLoss>,
    /// Divergence of the posterior over the rank-1 vectors from its prior, of rank-1 BNN in [`Mode::Train`]: a scalar,
    /// in nats, summed over everything that is drawn.
    pub kl: Option<Tensor>,
}

/// A classifier with the members of its method.
pub struct Network {
    body: Body,
    head: Head,
    latent: Option<VectorSource>,
    plan: Plan,
    tensors: Vec<NamedTensor>,
    /// What the body trains in, where it is not single precision.
    half: Option<Half>,
}

impl Network {
    /// Builds a network in single precision, with first values that `seed` determines on every device.
    ///
    /// Shapes: `input` is channels, height, width of an image.
    ///
    /// # Errors
    ///
    /// A variant of [`ModelError`] for each setting that makes no network.
    pub fn new(
        spec: &ModelSpec,
        method: &TrainMethod,
        input: [i64; 3],
        classes: i64,
        seed: u64,
        device: Device,
    ) -> Result<Self, ModelError> {
        Self::build(spec, method, input, classes, Builder::new(seed, Kind::Float, device))
    }

    pub(crate) fn build(
        spec: &ModelSpec,
        method: &TrainMethod,
        input: [i64; 3],
        classes: i64,
        mut builder: Builder,
    ) -> Result<Self, ModelError> {
        let [channels, height, width] = input;
        if channels < 1 || height < 1 || width < 1 {
            return Err(ModelError::Input { channels, height, width });
        }
        if classes < 2 {
            return Err(ModelError::Classes(classes));
        }
        let plan = Plan { style: Style::of(spec), ..Plan::of(method)? };
        let mut latent = None;
        let mut at = Construction { builder: &mut builder, plan: &plan, latent: &mut latent };
        let body = Body::new(&mut at, spec, [channels * plan.images, height, width])?;
        let head = Head::new(&mut at, body.features(), classes)?;
        builder.create_deferred(|options| {
            let image = Tensor::zeros([1, 1, channels * plan.images, height, width], options);
            let pass = Pass { vectors: &[], statistics: Statistics::Running, dropout: Dropout::Off };
            let _ = no_grad(|| body.forward(&image, &pass));
        })?;
        Ok(Self { body, head, latent, plan, tensors: builder.finish(), half: None })
    }

    /// The same network, whose body trains in mixed precision. Weights, the vectors that methods draw, the head and what
    /// follows it stay in single precision, and so does every mode but [`Mode::Train`].
    pub fn training_in(self, half: Option<Half>) -> Self {
        Self { half, ..self }
    }

    /// Makes the weights of convolutions lie pixel by pixel in memory, and with them all that passes through. The tensors
    /// keep their shapes and values.
    ///
    /// # Errors
    ///
    /// When libtorch refuses, as for lack of memory.
    pub fn lay_out_channels_last(&self) -> Result<(), c10d::ErrorKind> {
        self.tensors.iter().try_for_each(|named| c10d::channels_last(&named.tensor))
    }

    /// Classifies images.
    ///
    /// Draws come from libtorch's generator of the device: dropout masks; for LP-BNN one latent draw per member and
    /// layer, for rank-1 BNN one draw of the vectors per example, member and layer, both in every mode.
    ///
    /// Shapes: `x` is `[B, C, H, W]`, of distinct images, or in training what [`Self::training_batch`] made of them.
    /// The logits have J·B rows, or B in training when the method splits the batch.
    ///
    /// # Panics
    ///
    /// When libtorch refuses (shapes, memory), and where [`Self::check_batch`] gives an error.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Forward {
        let noise = self.latent.as_ref().map(|source| source.draw_noise(self.images(x, mode).size()[0]));
        self.forward_with(x, mode, noise.as_ref())
    }

    fn forward_with(&self, x: &Tensor, mode: Mode, noise: Option<&Tensor>) -> Forward {
        let drawn = self.latent.as_ref().zip(noise).map(|(source, noise)| source.draw(noise));
        let (statistics, dropout) = match mode {
            Mode::Train => (Statistics::Batch, Dropout::Drawn),
            Mode::Evaluate => (Statistics::Running, Dropout::Off),
            Mode::SampleDropout => (Statistics::Running, Dropout::Drawn),
        };
        let vectors = drawn.as_ref().map_or(&[][..], Drawn::vectors);
        let pass = Pass { vectors, statistics, dropout };
        let features = self.features(&self.images(x, mode), &pass, mode);
        let logits = self.head.forward(&features, &pass);
        let (latent, kl) = match (mode, &self.latent, &drawn) {
            (Mode::Train, Some(VectorSource::LpBnn(latent)), Some(Drawn::LpBnn(decoded))) => {
                (Some(latent.loss(decoded)), None)
            }
            (Mode::Train, Some(VectorSource::RankOne(space)), _) => (None, Some(space.divergence())),
            (Mode::Train | Mode::Evaluate | Mode::SampleDropout, _, _) => (None, None),
        };
        let features = features.unflatten(0, [-1, self.plan.rows]).transpose(0, 1).flatten(0, 1);
        Forward { logits: self.member_major(&logits), features, latent, kl }
    }

    fn features(&self, images: &Tensor, pass: &Pass<'_>, mode: Mode) -> Tensor {
        match (self.half, mode) {
            (Some(half), Mode::Train) => {
                let _mixed = Autocast::half(images.device(), half);
                self.body.forward(images, pass).to_kind(Kind::Float)
            }
            (_, Mode::Train | Mode::Evaluate | Mode::SampleDropout) => self.body.forward(images, pass),
        }
    }

    /// Makes running statistics those of the images since `seen` was 0: each batch weighs as many as it has images, and
    /// at `seen` 0 what was before is forgotten. For networks whose layers draw nothing.
    ///
    /// Shapes: `x` is `[B, C, H, W]`; `seen` images came before.
    ///
    /// # Panics
    ///
    /// When libtorch refuses, and for methods that draw vectors in each pass.
    pub fn average_statistics(&self, x: &Tensor, seen: i64) {
        let _no_grad = tch::no_grad_guard();
        let statistics = Statistics::Averaged { seen, batch: x.size()[0] };
        let pass = Pass { vectors: &[], statistics, dropout: Dropout::Off };
        let _ = self.body.forward(&self.images(x, Mode::Evaluate), &pass);
    }

    /// Weight `[K, F]` and bias `[K]` of the last layer, if it is an ordinary linear one.
    pub fn last_linear(&self) -> Option<(&Tensor, &Tensor)> {
        self.head.linear()
    }

    /// Images as the first layer takes them: `[N, J, C, H, W]`, or `[N, 1, C, H, W]` for all members.
    fn images(&self, x: &Tensor, mode: Mode) -> Tensor {
        let tiled = match mode {
            // Mixed by `training_batch`.
            Mode::Train => x.shallow_clone(),
            Mode::Evaluate | Mode::SampleDropout => mimo::tile(x, self.plan.images),
        };
        let x = &tiled;
        match (self.plan.batch, mode) {
            (BatchMode::Repeat, _) | (BatchMode::Split, Mode::Evaluate | Mode::SampleDropout) => {
                x.unsqueeze(1)
            }
            (BatchMode::Split, Mode::Train) => x.unflatten(0, [self.plan.rows, -1]).transpose(0, 1),
        }
    }

    fn member_major(&self, rows: &Tensor) -> Tensor {
        // A row of an example holds the predictions of `members / rows` members, one behind the other.
        let per_row = self.plan.members / self.plan.rows;
        let classes = rows.size()[1] / per_row;
        rows.view([-1, self.plan.members, classes]).transpose(0, 1).flatten(0, 1)
    }

    /// What the method does between an optimizer's step and the next pass: moves centroids, adds to sums over the
    /// training images. A collective for the methods that do something.
    ///
    /// # Errors
    ///
    /// [`GroupError`] when another rank is lost.
    pub fn after_step(&self, seen: &Seen<'_>, group: &Group) -> Result<(), GroupError> {
        match (&self.head, seen.epoch) {
            (Head::Duq(duq), _) => {
                self.share_statistics(group)?;
                let features = no_grad(|| self.forward(seen.images, Mode::Evaluate).features);
                duq.update(&features, seen.targets, group)
            }
            (Head::GaussianProcess(process), Epoch::Last) => process.accumulate(seen.features, group),
            (Head::GaussianProcess(_), Epoch::Earlier) | (Head::Linear(_) | Head::Evidential(..), _) => {
                Ok(())
            }
        }
    }

    /// Gives every rank the running statistics of rank 0, which are those that a checkpoint holds: else a resumed run
    /// would make something else of the same images.
    fn share_statistics(&self, group: &Group) -> Result<(), GroupError> {
        if group.is_alone() {
            return Ok(());
        }
        let buffers = self.tensors.iter().filter(|named| named.role == Role::Buffer);
        let buffers: Vec<&Tensor> = buffers.map(|named| &named.tensor).collect();
        // One collective, of all of them behind each other.
        let flat: Vec<Tensor> = buffers.iter().map(|buffer| buffer.flatten(0, -1)).collect();
        let all = Tensor::cat(&flat, 0);
        group.broadcast([&all])?;
        no_grad(|| {
            let mut start = 0;
            for buffer in buffers {
                let count = buffer.numel() as i64;
                buffer.shallow_clone().copy_(&all.narrow(0, start, count).view_as(buffer));
                start += count;
            }
        });
        Ok(())
    }

    /// Members J that the network holds.
    pub fn members(&self) -> i64 {
        self.plan.members
    }

    /// Checks that a training batch of `batch` images meets the members evenly.
    ///
    /// # Errors
    ///
    /// [`ModelError::Split`] when the method splits batches and `batch` is not a multiple of the members.
    pub fn check_batch(&self, batch: i64) -> Result<(), ModelError> {
        match self.plan.batch {
            BatchMode::Repeat => Ok(()),
            BatchMode::Split if batch % self.plan.members == 0 => Ok(()),
            BatchMode::Split => Err(ModelError::Split { batch, members: self.plan.members }),
        }
    }

    /// A training batch as the method shows it to the network, and the labels of the rows of its logits.
    ///
    /// Draws of methods that mix images come from libtorch's generator of the device.
    ///
    /// Shapes: `x` `[B, C, H, W]`, `y` `[B]`. The labels are `[J·B]`, or `[B]` as they are when the method splits the
    /// batch; B is R times as large where images are repeated. With M images in an input, they are `[B, M·C, H, W]`.
    pub fn training_batch(&self, x: &Tensor, y: &Tensor) -> (Tensor, Tensor) {
        if let Some(mixing) = &self.plan.mixing {
            return mixing.batch(x, y);
        }
        let (x, y) = dropout::repeat_batch(x, y, self.plan.repetitions);
        let targets = match self.plan.batch {
            BatchMode::Repeat => y.repeat([self.plan.members]),
            BatchMode::Split => y,
        };
        (x, targets)
    }

    /// Every tensor of the network, in an order that only depends on specification and method: all that a
    /// checkpoint has to hold of it. The tensors share storage with the network.
    pub fn named_tensors(&self) -> Vec<NamedTensor> {
        self.tensors.iter().map(NamedTensor::share).collect()
    }

    /// Parameters, trained and frozen; running statistics are not among them.
    pub fn parameter_count(&self) -> i64 {
        self.tensors
            .iter()
            .filter(|named| match named.role {
                Role::Weight { .. } | Role::Frozen => true,
                Role::Buffer | Role::State => false,
            })
            .map(|named| named.tensor.numel() as i64)
            .sum()
    }

    /// State of the latent posterior of each VAE; empty for methods without one.
    ///
    /// Draws nothing, so that asking for it does not change what comes after.
    pub fn diagnostics(&self) -> Vec<LayerDiagnostics> {
        self.vaes().map_or_else(Vec::new, LatentSpace::diagnostics)
    }

    /// Names of the VAEs, as [`Self::decoded_posterior`] takes them: the path of the layer, with `/gamma` behind it
    /// for the output side.
    pub fn latent_layers(&self) -> impl Iterator<Item = &str> {
        self.vaes().into_iter().flat_map(LatentSpace::names)
    }

    /// Analytic posterior over the vectors that the VAE called `name` decodes, if there is one.
    pub fn decoded_posterior(&self, name: &str) -> Option<DecodedPosterior> {
        self.vaes()?.decoded_posterior(name)
    }

    fn vaes(&self) -> Option<&LatentSpace> {
        self.latent.as_ref().and_then(VectorSource::latent)
    }
}
