//! Uncertainty methods, as far as they change a network's layers, or read a posterior off its training. One file a
//! method.
//!
//! The equations are in `docs/methods.md`. What a method changes in prediction (how many passes, how
//! members are averaged) is not decided here, and Deep Ensembles and MC Dropout need nothing here at all:
//! the first are several networks, the second is a layer that libtorch has.

pub(crate) mod batch_ensemble;
pub(crate) mod laplace;
pub(crate) mod lp_bnn;
pub(crate) mod snapshots;
pub(crate) mod swag;
pub(crate) mod tradi;

pub use lp_bnn::{DecodedPosterior, LatentLoss, LayerDiagnostics};
