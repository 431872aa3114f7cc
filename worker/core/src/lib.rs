//! The decisions of a worker's agent, without its I/O.
//!
//! [`Agent::handle`] takes one [`Input`] and the time and returns [`Action`]s to perform, in order. It reads no clock, starts no
//! process and opens no connection, so that it can be tested, and simulated, in any order of events.
//!
//! An agent decides when a slot is free again, what the coordinator must be told, and whether its trainers may compute: from the
//! moment at which its lease may have been given away they stand still, until the coordinator says which of them still count.

mod agent;
mod lease;
mod ledger;
mod notes;
mod rows;
mod slots;
mod tally;
mod words;

pub use agent::{Agent, Settings};
pub use lease::Lease;
pub use ledger::Ledger;
pub use rows::Spool;
pub use slots::Slots;
pub use words::{
    Action, AttemptEvent, AttemptOrder, Input, LogRequest, Note, RowReport, SessionNumber, SpoolEvent,
    SpoolOrder,
};
