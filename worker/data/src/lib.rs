//! The images that trials are trained and evaluated on, and the order in which a trial sees them.
//!
//! Decides: which bytes an image data set consists of ([`load`]), which classes and images a trial may see
//! ([`hold_out`], [`split_validation`]), how test images look after a corruption ([`corrupt`], [`CorruptedFiles`]), in which order and by which rank each image is visited ([`epoch_order`],
//! [`Sharding`]), and what the network is shown of it ([`Augmentation`], [`Batcher`]). All randomness of a trial
//! comes from [`rng`].
//!
//! Deliberately absent: tensors and devices (the trainer copies a [`Batch`] into one), downloads, threads that outlive a call. Every
//! function is a pure function of its arguments and of the files it names.

pub mod rng;

mod archive;
mod augment;
mod batch;
mod cifar;
mod codec;
mod corrupt;
mod corrupted;
mod cubic;
mod digits;
mod error;
mod folders;
mod idx;
mod images;
mod load;
mod mat;
mod name;
mod npy;
mod order;
mod partition;
mod resize;
mod source;
mod svhn;
mod two_moons;

pub use archive::{Archive, Place};
pub use augment::{Augmentation, Crop, Cutout, Flip};
pub use batch::{Batch, Batcher, BatcherError, Draft};
pub use cifar::{Cifar100Labels, load_cifar_100};
pub use corrupt::{CorruptError, Corruption, Severity, UnknownCorruption, corrupt};
pub use corrupted::CorruptedFiles;
pub use cubic::cubic_far;
pub use error::{DataError, Position, Problem};
pub use images::{Example, Images, ImagesError, Shape};
pub use load::{Completeness, DataFolder, Loaded, load, load_reported, load_resized};
pub use name::{DatasetName, Normalization, Split, UnknownDataset};
pub use order::{Sharding, ShardingError, epoch_order};
pub use partition::{HeldOut, PartitionError, ValidationSplit, hold_out, split_validation};
pub use two_moons::two_moons_far;
