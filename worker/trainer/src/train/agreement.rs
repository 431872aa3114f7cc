//! When ranks that were asked to yield stop: all before the same step, however late each of them heard of it.
//!
//! They agree in a collective of two numbers, a few times a second. How many steps lie between two of them follows from
//! the slowest rank's step time, which is one of the numbers: so every rank computes the same next step, and none ever waits
//! for a collective that another one does not take part in.

use std::time::{Duration, Instant};

use tch::Tensor;

use crate::group::{Group, GroupError};

/// Aim of the time between two agreements. Each costs what the smallest of collectives costs.
const INTERVAL: Duration = Duration::from_millis(250);

/// Agreement of the ranks on the step before which they stop.
pub struct Agreement {
    /// Steps done when ranks agree next.
    next: u64,
    /// Steps done at the last agreement, and its time.
    last: (u64, Instant),
}

impl Agreement {
    /// The ranks agree for the first time before the step after `done` steps.
    pub fn new(done: u64) -> Self {
        Self { next: done, last: (done, Instant::now()) }
    }

    /// Whether all ranks stop here, after `done` steps. A collective, at steps that every rank knows alike.
    ///
    /// # Errors
    ///
    /// [`GroupError::Collective`] when a rank does not take part.
    pub fn stops(&mut self, done: u64, asked: bool, group: &Group) -> Result<bool, GroupError> {
        if group.is_alone() {
            return Ok(asked);
        }
        if done < self.next {
            return Ok(false);
        }
        let steps = done - self.last.0;
        let step_seconds = if steps == 0 { 0.0 } else { self.last.1.elapsed().as_secs_f64() / steps as f64 };
        let mine = Tensor::from_slice(&[f64::from(u8::from(asked)), step_seconds]);
        let all = group.max(&mine)?;
        self.last = (done, Instant::now());
        self.next = done + steps_between(steps, all.double_value(&[1]));
        Ok(all.double_value(&[0]) > 0.0)
    }
}

/// Steps until the next agreement. At most twice as many as before: the first steps of a process are slow, those after
/// a pause quick, and neither says much of those to come.
fn steps_between(before: u64, step_seconds: f64) -> u64 {
    let most = (before * 2).max(1);
    let wanted = INTERVAL.as_secs_f64() / step_seconds;
    if wanted.is_finite() { (wanted as u64).clamp(1, most) } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_alone_stops_when_it_is_asked() {
        let mut agreement = Agreement::new(5);
        assert!(!agreement.stops(5, false, &Group::alone()).unwrap());
        assert!(agreement.stops(6, true, &Group::alone()).unwrap());
    }

    #[test]
    fn agreements_lie_a_quarter_of_a_second_apart_and_come_after_each_slow_step() {
        assert_eq!(steps_between(0, 0.0), 1);
        assert_eq!(steps_between(1_000, 0.001), 250);
        assert_eq!(steps_between(4, 0.001), 8);
        assert_eq!(steps_between(4, 3.0), 1);
        assert_eq!(steps_between(4, f64::NAN), 1);
    }
}
