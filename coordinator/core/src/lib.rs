//! The coordinator's decisions, without its I/O.
//!
//! [`Cluster::handle`] takes one [`Input`] and the current time and returns a [`Step`]: the events that
//! became true and the effects that they call for. State changes only by applying events, live and in
//! [`Cluster::replay`] alike, or with a [`Snapshot`] in the place of the older events ([`Cluster::restore`]). Nothing here reads a clock, draws a random number, or touches a socket.
//!
//! The caller makes a step's events durable together, performs its effects, and only then answers. Effects
//! may be lost: what a worker reports next shows what is missing, and the core asks for it again. Silence
//! proves nothing: an attempt is gone when a new session does not report it, or when its worker's lease ends.

mod cluster;
mod effect;
mod event;
mod explain;
mod input;
mod placement;
mod policy;
mod scheduling;
mod snapshot;
mod standing;
mod state;
mod step;
mod time;
mod traits;

pub use cluster::{Cluster, Session, Violation, WorkerView};
pub use effect::Effect;
pub use event::{DropReason, Event, YieldReason};
pub use explain::{Before, WaitReason};
pub use input::Input;
pub use placement::{Placement, Share, place};
pub use policy::{Policy, ProjectPolicy};
pub use scheduling::{Refusal, Reservation, Start};
pub use snapshot::{Head, Part, Snapshot};
pub use standing::{Drain, Quarantine, QuarantineReason, Strike};
pub use state::{
    Attempt, Counts, Experiment, Failure, Few, Outcome, Phase, Setbacks, Shared, Spec, Trial, Worker,
    Yielding,
};
pub use step::{Reject, Step};
pub use time::Millis;
pub use traits::Traits;
