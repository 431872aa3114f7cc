//! The agent of a node: offers slots to a coordinator, and runs trainers on them.
//!
//! It dials in and keeps one session; nothing listens on a worker. It knows processes, files and bytes, and nothing
//! of tensors. What to run is decided by the coordinator; the agent decides only when a slot is free again
//! (when its processes are gone) and repeats what it holds until it is told to forget it.
//!
//! A lost session changes nothing for trainers: they train on while the agent dials again.

mod agent;
mod attempt;
mod blobs;
mod cache;
mod config;
mod identity;
mod lease;
mod ledger;
mod leftovers;
mod process;
mod session;
mod warm;

pub use agent::{AgentError, run};
pub use config::{Config, DEFAULT, InvalidConfig, LogPattern};
