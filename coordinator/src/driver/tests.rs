//! The real driver on a real folder, with fake workers.

mod durability;
mod fencing;
mod prefetch;
mod silence;
mod support;
mod trial;
