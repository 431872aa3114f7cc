//! The coordinator: one process that owns the state of the cluster, and speaks to clients and workers.
//!
//! What is decided is decided in `coordinator-core`. This crate surrounds it with everything that it must not
//! know: a clock, a disk ([`store`], [`blobs`]), the task that persists before it performs ([`driver`]), and the
//! services of the wire.

pub mod blobs;
mod config;
pub mod driver;
mod grpc;
mod serve;
mod session;
pub mod store;
mod verify;

pub use config::{Config, ConfigError, DEFAULT};
pub use serve::{ServeError, serve};
pub use verify::{Files, Verified, VerifyError, verify};
