//! What the fake trainers computed, as far as it can be told from a trial's name alone, and what was launched.
//!
//! Every row and every score follows from the trial's key. So the answers of the coordinator can be checked to the last
//! bit at the end, without remembering millions of rows.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::draws::mix;

/// Name of the metric rows.
pub(super) const ROW: &str = "loss";

/// Name of the score of every trial.
pub(super) const SCORE: &str = "accuracy";

/// Value of the row of one step of a trial.
pub(super) fn row_value(key: &str, step: u64) -> f64 {
    unit(seed(key) ^ mix(step))
}

/// Score of a trial.
pub(super) fn score(key: &str) -> f64 {
    unit(mix(seed(key)))
}

/// The first 64 bits of a key, which is a digest in hexadecimal.
fn seed(key: &str) -> u64 {
    key.get(..16).and_then(|head| u64::from_str_radix(head, 16).ok()).expect("a key is a digest")
}

/// From bits to [0, 1), by the 53 bits that a double holds.
fn unit(bits: u64) -> f64 {
    (mix(bits) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Executions of one trial.
#[derive(Clone, Debug, Default)]
pub(super) struct Executions {
    /// Attempts that some worker was told to launch.
    pub(super) launched: Vec<u64>,
    /// Attempts whose end some worker told.
    pub(super) ended: Vec<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    trials: HashMap<String, Executions>,
    launches: u64,
    dispatch: Vec<Duration>,
}

/// Everything that the fake workers saw.
#[derive(Debug, Default)]
pub(super) struct Record(Mutex<Inner>);

impl Record {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker was told to launch an attempt. `free` is when it told that its slot is free, if there was something
    /// to fill it at once.
    pub(super) fn launched(&self, key: &str, attempt: u64, free: Option<Instant>) {
        let mut inner = self.lock();
        inner.launches += 1;
        inner.trials.entry(key.to_owned()).or_default().launched.push(attempt);
        inner.dispatch.extend(free.map(|free| free.elapsed()));
    }

    /// A worker told the end of an attempt.
    pub(super) fn ended(&self, key: &str, attempt: u64) {
        self.lock().trials.entry(key.to_owned()).or_default().ended.push(attempt);
    }

    /// Launches so far.
    pub(super) fn launches(&self) -> u64 {
        self.lock().launches
    }

    /// Trials by key.
    pub(super) fn trials(&self) -> HashMap<String, Executions> {
        self.lock().trials.clone()
    }

    /// Times from a slot that is free to the next launch.
    pub(super) fn dispatch(&self) -> Vec<Duration> {
        self.lock().dispatch.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_from_the_name_and_differ_between_names_and_steps() {
        let (a, b) = ("00ff00ff00ff00ff".repeat(4), "00ff00ff00ff00fe".repeat(4));
        assert_eq!(row_value(&a, 3).to_bits(), row_value(&a, 3).to_bits());
        assert!((0.0..1.0).contains(&score(&a)));
        assert_ne!(row_value(&a, 3).to_bits(), row_value(&a, 4).to_bits());
        assert_ne!(row_value(&a, 3).to_bits(), row_value(&b, 3).to_bits());
        assert_ne!(score(&a).to_bits(), score(&b).to_bits());
    }
}
