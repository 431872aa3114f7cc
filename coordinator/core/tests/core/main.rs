//! What the state machine answers to each input: events and effects, exactly.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

#[path = "../support/mod.rs"]
mod support;

mod arena;
mod attempts;
mod bound;
mod cancellation;
mod case;
mod checkpoints;
mod dependencies;
mod elastic;
mod explanations;
mod growth;
mod lifecycle_best;
mod lifecycle_drain;
mod lifecycle_lost;
mod lifecycle_pause;
mod lifecycle_pins;
mod lifecycle_quarantine;
mod lifecycle_rest;
mod lifecycle_yield;
mod log;
mod membership;
mod placement;
mod policies;
mod prefetch;
mod scheduling;
mod snapshot;
mod submission;
