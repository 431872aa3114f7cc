//! Trains and evaluates one trial.

pub mod model;
pub mod uq;
