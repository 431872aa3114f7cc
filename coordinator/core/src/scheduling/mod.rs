//! Policies: who goes first, where, and who must wait for whom.
//!
//! Each has a file of its own and gives its reason beside its decision. They read the state and change
//! nothing; [`crate::Cluster`] turns what they decide into events.

mod board;
mod finding;
mod line;
mod order;
mod pass;
mod preemption;
mod prefetch;
mod reservation;
mod reserve;
mod shrink;
mod victims;

pub(crate) use board::Pools;
pub use finding::Refusal;
pub(crate) use finding::{Blocked, Finding, Findings};
pub(crate) use order::Claim;
pub(crate) use pass::{Decisions, Depth, Pass, Resuming, View};
pub(crate) use preemption::{Ask, Preemption, awaited, preempt};
pub(crate) use prefetch::next_up;
pub(crate) use reservation::Reservations;
pub use reservation::{Reservation, Start};
pub(crate) use shrink::is_settled;
