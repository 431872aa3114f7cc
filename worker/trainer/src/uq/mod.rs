//! Uncertainty methods, as far as they change a network's layers, or read a posterior off its training. One file a
//! method.
//!
//! The equations are in `docs/methods/`. What a method changes in prediction (how many passes, how members are
//! averaged) is not decided here, and Deep Ensembles need nothing here at all: they are several networks.

pub(crate) mod batch_ensemble;
pub(crate) mod dropout;
pub(crate) mod duq;
pub(crate) mod evidential;
pub(crate) mod laplace;
pub(crate) mod lp_bnn;
pub(crate) mod masksembles;
pub(crate) mod mimo;
pub(crate) mod packed;
pub(crate) mod posterior;
pub(crate) mod rank_one;
pub(crate) mod snapshots;
pub(crate) mod sngp;
pub(crate) mod spectral;
pub(crate) mod swag;
pub(crate) mod tradi;

pub use lp_bnn::{DecodedPosterior, LatentLoss, LayerDiagnostics};
pub use posterior::{Side, Spread, VectorPosterior};
