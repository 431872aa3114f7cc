//! Rules of the workspace that the compiler does not know: who may depend on whom, where `unsafe` may be, and how
//! large a file may grow. Needs no built program.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

mod dependencies;
mod guarantees;
mod sources;
