//! The words of the system: identifiers, trial specifications, grid files, reports, results, tables, configuration.
//!
//! Nothing here reads a clock, opens a socket or touches a tensor, so every other crate may depend on it.
//! What crosses the network is described in `proto`; what is decided, in `coordinator-core`.

pub mod beacon;
pub mod cause;
pub mod config;
pub mod cuda;
pub mod digest;
#[cfg(test)]
mod golden;
pub mod grid;
pub mod id;
pub mod plan;
pub mod report;
pub mod result;
pub mod session;
pub mod spec;
pub mod suggest;
pub mod table;
pub mod timeouts;

pub use cause::FailureCause;
pub use digest::{Digest, TrialKey};
pub use id::{AttemptId, ExperimentId, TrialId, WorkerId};
