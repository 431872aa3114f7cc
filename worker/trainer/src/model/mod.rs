//! Networks: the architecture, the changes that an uncertainty method makes to its layers, and the tensors
//! by name.
//!
//! Not decided here: the loss of the logits, optimisation, how members' predictions are averaged, and what
//! seeds the draws of a forward pass. Dropout and latent noise come from libtorch's generator of the
//! device; who wants them reproducible calls [`tch::manual_seed`] before [`Network::forward`].

mod body;
pub(crate) mod builder;
mod dropout;
mod head;
mod layers;
mod mlp;
mod norm;
mod plan;
mod resnet;
mod style;
mod wide_resnet;

#[cfg(test)]
pub(crate) mod golden;
#[cfg(test)]
mod golden_models;
#[cfg(test)]
mod tests;

use common::spec::{BatchMode, ModelSpec, TrainMethod};
use tch::{Device, Kind, TchError, Tensor};

pub use builder::{NamedTensor, Role};

use crate::uq::lp_bnn::LatentSpace;
use crate::uq::{DecodedPosterior, LatentLoss, LayerDiagnostics};
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
    /// A batch that cannot be cut in equal blocks.
    #[error("a batch of {batch} cannot be split among {members} members: make it a multiple of {members}")]
    Split {
        /// Images.
        batch: i64,
        /// Members J.
        members: i64,
    },
    /// Temporary.
    #[error("`{0}` is not built yet")]
    NotBuilt(&'static str),
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
}

/// A classifier with the members of its method.
pub struct Network {
    body: Body,
    head: Head,
    latent: Option<LatentSpace>,
    plan: Plan,
    tensors: Vec<NamedTensor>,
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
        Ok(Self { body, head, latent, plan, tensors: builder.finish() })
    }

    /// Classifies images.
    ///
    /// Draws come from libtorch's generator of the device: dropout masks, and for LP-BNN one latent draw
    /// per member and layer, in every mode.
    ///
    /// Shapes: `x` is `[B, C, H, W]`, of distinct images. The logits have J·B rows, or B in training when
    /// the method splits the batch; see [`Self::training_batch`].
    ///
    /// # Panics
    ///
    /// When libtorch refuses (shapes, memory), and where [`Self::check_batch`] gives an error.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Forward {
        let noise = self.latent.as_ref().map(LatentSpace::draw_noise);
        self.forward_with(x, mode, noise.as_ref())
    }

    fn forward_with(&self, x: &Tensor, mode: Mode, noise: Option<&Tensor>) -> Forward {
        let decoded = self.latent.as_ref().zip(noise).map(|(latent, noise)| latent.decode(noise));
        let (statistics, dropout) = match mode {
            Mode::Train => (Statistics::Batch, Dropout::Drawn),
            Mode::Evaluate => (Statistics::Running, Dropout::Off),
            Mode::SampleDropout => (Statistics::Running, Dropout::Drawn),
        };
        let vectors = decoded.as_ref().map_or(&[][..], |decoded| &decoded.scales);
        let pass = Pass { vectors, statistics, dropout };
        let features = self.body.forward(&self.images(x, mode), &pass);
        let logits = self.head.forward(&features, &pass);
        let latent = match mode {
            Mode::Train => self.latent.as_ref().zip(decoded).map(|(latent, decoded)| latent.loss(&decoded)),
            Mode::Evaluate | Mode::SampleDropout => None,
        };
        let features = features.unflatten(0, [-1, self.plan.rows]).transpose(0, 1).flatten(0, 1);
        Forward { logits: self.member_major(&logits), features, latent }
    }

    /// Images as the first layer takes them: `[N, J, C, H, W]`, or `[N, 1, C, H, W]` for all members.
    fn images(&self, x: &Tensor, mode: Mode) -> Tensor {
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
    /// Shapes: `x` `[B, C, H, W]`, `y` `[B]`. The labels are `[J·B]`, or `[B]` as they are when the method splits the
    /// batch.
    pub fn training_batch(&self, x: &Tensor, y: &Tensor) -> (Tensor, Tensor) {
        let targets = match self.plan.batch {
            BatchMode::Repeat => y.repeat([self.plan.members]),
            BatchMode::Split => y.shallow_clone(),
        };
        (x.shallow_clone(), targets)
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
                Role::Buffer => false,
            })
            .map(|named| named.tensor.numel() as i64)
            .sum()
    }

    /// State of the latent posterior of each layer; empty for methods without one.
    ///
    /// Draws nothing, so that asking for it does not change what comes after.
    pub fn diagnostics(&self) -> Vec<LayerDiagnostics> {
        self.latent.as_ref().map_or_else(Vec::new, LatentSpace::diagnostics)
    }

    /// Paths of the layers with a latent posterior, as [`Self::decoded_posterior`] takes them.
    pub fn latent_layers(&self) -> impl Iterator<Item = &str> {
        self.latent.iter().flat_map(LatentSpace::paths)
    }

    /// Analytic posterior over the input-side vectors of the layer at `path`, if it has one.
    pub fn decoded_posterior(&self, path: &str) -> Option<DecodedPosterior> {
        self.latent.as_ref()?.decoded_posterior(path)
    }
}
