//! Scores of the checkpoints of a trial that keeps its best one.

use std::rc::Rc;
use std::time::{Duration, Instant};

use common::result::Score;
use tch::Device;

use super::meter::Meter;
use crate::beacon::Beacon;
use crate::device;
use crate::error::{TrainerError, chain};
use crate::evaluate::HeldOut;
use crate::model::Network;

/// Name of the metric row.
const ROW: &str = "held-out-nll";

/// Scores the network of rank 0, once for each step.
pub struct Scorer {
    held_out: HeldOut,
    beacon: Rc<Beacon>,
    last: Option<(u64, Option<f64>)>,
    spent: Duration,
    device: Device,
}

impl Scorer {
    /// A scorer by these images.
    pub fn new(held_out: HeldOut, beacon: Rc<Beacon>, device: Device) -> Self {
        Self { held_out, beacon, last: None, spent: Duration::ZERO, device }
    }

    /// Score of the network after `step` steps, which `meter` is told too. None when it says nothing: that is no reason to
    /// give up the training.
    pub fn score(&mut self, network: &Network, step: u64, meter: &Meter) -> Option<f64> {
        if let Some((_, score)) = self.last.filter(|&(of, _)| of == step) {
            return score;
        }
        // What the device still does is training.
        device::synchronize(self.device);
        let started = Instant::now();
        let score = finite(self.held_out.score(network, step, &self.beacon), step, meter);
        self.spent += started.elapsed();
        meter.rows(step, score.map(|score| (ROW.to_owned(), score)));
        self.last = Some((step, score));
        score
    }

    /// Time that scores took.
    pub fn spent(&self) -> Duration {
        self.spent
    }
}

fn finite(score: Result<f64, TrainerError>, step: u64, meter: &Meter) -> Option<f64> {
    let why = match score {
        Ok(value) => match Score::new(value) {
            Some(score) => return Some(score.value()),
            None => format!("it is {value}"),
        },
        Err(error) => chain(&error),
    };
    meter.warn(format!("the checkpoint of step {step} has no score: {why}"));
    None
}
