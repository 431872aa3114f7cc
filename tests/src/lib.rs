//! Coordinators, workers and trainers as a user runs them: real processes on this machine.
//!
//! A [`Cluster`] owns a temporary folder; every process of it has a path below that folder in its command line, so
//! what survives a test can be found and is. Everything is asked through the command line and its JSON, as a script
//! would ask. Faults happen at logical points (a step was reached, a checkpoint was committed), never after a sleep.
//!
//! A harness that does not get what it waits for panics: that is how a test fails. Nothing here decides what is right.

mod client;
mod cluster;
mod disk;
mod draws;
mod environment;
pub mod gpu;
mod grid;
pub mod load;
mod machine;
mod process;
mod programs;
mod proxy;
pub mod race;
pub mod soak;
pub mod speed;
mod tensors;
mod view;
mod wait;

pub use client::Finished;
pub use cluster::{Cluster, Lease, TrainerProcess};
pub use disk::{NoDisk, SmallDisk};
pub use draws::Draws;
pub use grid::{Grid, method};
pub use machine::Machine;
pub use process::{Service, ServiceCommand, processes_naming};
pub use programs::{Programs, repository};
pub use proxy::{Direction, Flow, Proxy};
pub use tensors::{StoredTensor, tensors_of};
pub use view::{Attempt, Counts, Experiment, MetricRow, Progress, Submitted, Trial, Worker};
pub use wait::{PATIENCE, until};
