//! The agent of a node: offers slots to a coordinator, and runs trainers on them.
//!
//! It dials in and keeps one session; nothing listens on a worker. It knows processes, files and bytes, and nothing
//! of tensors. What to run is decided by the coordinator; the agent decides only when a slot is free again
//! (when its processes are gone) and repeats what it holds until it is told to forget it.
//!
//! What the agent decides is in `worker-core`. A lost session changes nothing for trainers while the lease lasts, and nothing at
//! all while the coordinator is only down: they train on while the agent dials again.

mod agent;
mod attempt;
mod blobs;
mod cache;
mod clock;
mod config;
pub mod devices;
mod disk;
mod identity;
mod leftovers;
mod prefetch;
mod proc;
mod process;
mod session;
mod spool;
mod warm;

pub use agent::{AgentError, run};
pub use config::{Config, DEFAULT, DeviceKind, InvalidConfig, LogPattern, Slots, find_trainer};
pub use disk::free_mib;
