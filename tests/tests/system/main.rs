//! End-to-end and chaos tests: real coordinators, agents and trainers, killed for real.
//!
//! What is asserted is what a user is promised: tables that are complete and equal, trials that go on, nothing left
//! behind, and errors that name the way out. Where a run was disturbed, its result is compared to the last bit with
//! that of one that was not ([`undisturbed`]).

#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

mod cancel;
mod checkpoints;
mod coordinator_loss;
mod folders;
mod full_disk;
mod gpu;
mod grid_to_table;
mod load;
mod logs;
mod numerics;
mod operations;
mod partition;
mod placement;
mod protocol;
mod recovery;
mod reuse;
mod shutdown;
mod storm;
mod trainer_loss;
mod undisturbed;
mod usage;
mod worker_loss;
