//! The images that trials are trained and evaluated on, and the order in which a trial sees them.
//!
//! Decides: which bytes an image data set consists of ([`load`]), which classes and images a trial may see
//! ([`hold_out`], [`split_validation`]), in which order and by which rank each image is visited ([`epoch_order`],
//! [`Sharding`]), and what the network is shown of it ([`Augmentation`], [`Batcher`]). All randomness of a trial
//! comes from [`rng`].
//!
//! Deliberately absent: tensors and devices (the trainer copies a [`Batch`] into one), threads, downloads. Every
//! function is a pure function of its arguments and of the files it names.

pub mod rng;

mod augment;
mod batch;
mod cifar;
mod digits;
mod error;
mod idx;
mod images;
mod load;
mod mat;
mod name;
mod order;
mod partition;
mod source;
mod svhn;

pub use augment::{Augmentation, Crop, Cutout, Flip};
pub use batch::{Batch, Batcher, BatcherError};
pub use cifar::{Cifar100Labels, load_cifar_100};
pub use error::{DataError, Position, Problem};
pub use images::{Images, ImagesError, Shape};
pub use load::{Completeness, DataFolder, load};
pub use name::{Archive, DatasetName, Normalization, Split, UnknownDataset};
pub use order::{Sharding, ShardingError, epoch_order};
pub use partition::{HeldOut, PartitionError, ValidationSplit, hold_out, split_validation};
