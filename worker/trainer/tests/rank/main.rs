//! Tests of the program as an agent sees it: launch files, pipes, signals, files.

#![expect(clippy::unwrap_used, reason = "a test ends where an assumption of it does not hold")]

mod best;
mod elastic;
mod evaluation;
mod failure;
mod fence;
mod gang;
mod old_formats;
mod posteriors;
mod precision;
mod pretrained;
mod resume;
mod sets;
mod state;
mod support;
mod throughput;
mod warm;
mod yielding;
