//! What is told about training, and how often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::report::Report;
use common::result::MetricRow;

use crate::agent::Reporter;

/// Least time between two progress reports. Each costs a copy from the device.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Values of one step, means over the ranks; all finite.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What was minimised.
    pub loss: f64,
    /// Name and value of the data term.
    pub data: (&'static str, f64),
    /// Name and weighted value of what is added to it, of methods that have such a term.
    pub regulariser: Option<(&'static str, f64)>,
    /// Global L2 norm of the gradient before clipping, without weight decay.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Scale of the loss and steps skipped so far, in half precision.
    pub scale: Option<(f64, f64)>,
}

impl Row {
    fn values(self) -> impl Iterator<Item = (String, f64)> {
        let values = [("loss", self.loss), self.data, ("grad_norm", self.grad_norm), ("lr", self.lr)];
        let scale = self
            .scale
            .into_iter()
            .flat_map(|(scale, skipped)| [("loss_scale", scale), ("skipped_steps", skipped)]);
        let values = values.into_iter().chain(self.regulariser).chain(scale);
        values.map(|(name, value)| (name.to_owned(), value))
    }
}

/// Progress reports, at most a few a second.
pub struct Progress {
    reporter: Arc<Reporter>,
    total_steps: u64,
    reported: Instant,
    reported_step: u64,
}

impl Progress {
    /// Progress of a trial that stands at step `done`.
    pub fn new(reporter: Arc<Reporter>, total_steps: u64, done: u64) -> Self {
        Self { reporter, total_steps, reported: Instant::now(), reported_step: done }
    }

    /// Steps in all.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// Whether the last report is old enough for another.
    pub fn is_due(&self) -> bool {
        self.reported.elapsed() >= PROGRESS_INTERVAL
    }

    /// Reports where the trial stands.
    pub fn report(&mut self, step: u64, loss: Option<f64>) {
        let seconds = self.reported.elapsed().as_secs_f64();
        let steps = step - self.reported_step;
        let steps_per_second = (steps > 0 && seconds > 0.0).then(|| steps as f64 / seconds);
        let total_steps = self.total_steps;
        self.reporter.send(&Report::Progress { step, total_steps, loss, steps_per_second });
        self.reported = Instant::now();
        self.reported_step = step;
    }
}

/// Measured values and messages of rank 0.
pub struct Meter {
    reporter: Arc<Reporter>,
}

impl Meter {
    /// A meter that reports to `reporter`.
    pub fn new(reporter: Arc<Reporter>) -> Self {
        Self { reporter }
    }

    /// Reports the values of a step.
    pub fn row(&self, step: u64, row: Row) {
        self.rows(step, row.values());
    }

    /// Reports named values that hold after `step` steps. Values that are not finite are left out, because
    /// JSON has no word for them.
    pub fn rows(&self, step: u64, values: impl IntoIterator<Item = (String, f64)>) {
        let rows: Vec<MetricRow> = values
            .into_iter()
            .filter(|(_, value)| value.is_finite())
            .map(|(name, value)| MetricRow { step, name, value })
            .collect();
        if !rows.is_empty() {
            self.reporter.send(&Report::Metrics { rows });
        }
    }

    /// Tells the user something.
    pub fn warn(&self, message: String) {
        tracing::warn!("{message}");
        self.reporter.send(&Report::Warning { message });
    }

    /// Reports the end of training.
    pub fn done(
        &self,
        steps: u64,
        parameters: i64,
        train_seconds: f64,
        more: impl IntoIterator<Item = (&'static str, f64)>,
    ) {
        let mut metrics = BTreeMap::from([
            ("parameters".to_owned(), parameters as f64),
            ("steps".to_owned(), steps as f64),
            ("train_seconds".to_owned(), train_seconds),
        ]);
        metrics.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
        self.reporter.send(&Report::Done { metrics });
    }
}
