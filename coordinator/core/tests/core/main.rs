//! What the state machine answers to each input: events and effects, exactly.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod cancellation;
mod case;
mod checkpoints;
mod dependencies;
mod growth;
mod lifecycle_pause;
mod lifecycle_yield;
mod log;
mod membership;
mod placement;
mod scheduling;
mod submission;
