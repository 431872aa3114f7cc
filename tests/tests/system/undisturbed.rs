//! Grids that are long enough to be disturbed, and what they come to when they are not.
//!
//! Both methods draw random numbers in every forward pass, and images are cropped at random: a random state that is not
//! restored shows in the bits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use system_tests::{Cluster, Grid, Lease, MetricRow, StoredTensor, Trial, tensors_of};

/// Ranks of the train trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranks {
    One,
    /// On two workers.
    Two,
}

/// Steps of the train trial.
pub const STEPS: u64 = 320;

/// Steps between metric rows.
pub const METRICS_STEPS: u64 = 10;

/// A grid of one train and one evaluate trial.
pub fn grid(ranks: Ranks) -> Grid {
    let (name, method) = match ranks {
        Ranks::One => ("one-rank", "kind = \"lp-bnn\"\npreset = \"official\"\nmembers = 2"),
        Ranks::Two => ("two-ranks", "kind = \"mc-dropout\"\nrate = 0.2\nsamples = 2\nslots = 2"),
    };
    Grid::new(name)
        .method(method)
        .recipe("epochs = 40\nlr = 0.05\nclip-norm = 1.0\naugmentation = [{ kind = \"crop\", padding = 1 }]")
        .run(&format!(
            "checkpoint-steps = 20\ncheckpoint-interval = \"none\"\nmetrics-steps = {METRICS_STEPS}\nmax-failures = 100"
        ))
}

/// Everything of a run that does not depend on the clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The final checkpoint: weights, running statistics, momentum.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// Bits of each score of the evaluation.
    pub scores: BTreeMap<String, u64>,
    /// Bits of each value measured while training, by step and name.
    pub rows: BTreeMap<(u64, String), u64>,
}

impl Outcome {
    /// That of an experiment of [`grid`] that has succeeded.
    pub fn of(cluster: &Cluster, experiment: &str) -> Self {
        let trials = cluster.finish(experiment);
        let train = &trials.trial(&["train"]).id;
        let evaluate = cluster.trial(&trials.trial(&["evaluate"]).id);
        let tensors = tensors_of(&cluster.artifact(train, "checkpoint.safetensors"));
        assert!(
            tensors.keys().any(|name| name.starts_with("momentum/")),
            "no momentum in {:?}",
            tensors.keys()
        );
        Self { tensors, scores: scores(&evaluate), rows: rows(&cluster.metric_rows(train)) }
    }

    /// Checks that a disturbed run came to the same.
    #[track_caller]
    pub fn assert_same(&self, disturbed: &Self) {
        let differs = |name: &&String| self.tensors.get(*name) != disturbed.tensors.get(*name);
        let names: BTreeSet<_> =
            self.tensors.keys().chain(disturbed.tensors.keys()).filter(differs).collect();
        assert!(names.is_empty(), "tensors that differ from those of the undisturbed run: {names:?}");
        assert_eq!(self.scores, disturbed.scores, "scores (as bits)");
        assert_eq!(self.rows, disturbed.rows, "metric rows (as bits)");
    }
}

fn scores(evaluate: &Trial) -> BTreeMap<String, u64> {
    let scores = evaluate.deterministic_metrics();
    for name in ["accuracy", "nll", "ece"] {
        assert!(scores.contains_key(name), "no {name} in {scores:?}");
    }
    scores.into_iter().map(|(name, bits)| (name.to_owned(), bits)).collect()
}

fn rows(rows: &[MetricRow]) -> BTreeMap<(u64, String), u64> {
    rows.iter().map(|row| ((row.step, row.name.clone()), row.value.to_bits())).collect()
}

/// What the grid comes to when nothing happens. Computed once; call it before the test starts its own cluster, because
/// a cluster that waits for another within one test may wait for ever.
pub fn outcome(ranks: Ranks) -> &'static Outcome {
    static ONE: OnceLock<Outcome> = OnceLock::new();
    static TWO: OnceLock<Outcome> = OnceLock::new();
    let (cell, workers): (_, &[&str]) = match ranks {
        Ranks::One => (&ONE, &["calm"]),
        Ranks::Two => (&TWO, &["calm", "quiet"]),
    };
    cell.get_or_init(|| {
        let cluster = Cluster::with_workers(Lease::Long, workers);
        let grid = grid(ranks);
        cluster.submit(&grid);
        let outcome = Outcome::of(&cluster, grid.name());
        let train = cluster.trial(&cluster.experiment(grid.name()).trial(&["train"]).id);
        assert_eq!((train.attempts, train.failures), (1, 0), "the run was disturbed: {train:#?}");
        cluster.stop();
        outcome
    })
}

#[test]
fn the_values_of_every_step_are_kept_once() {
    for ranks in [Ranks::One, Ranks::Two] {
        let rows = &outcome(ranks).rows;
        let steps: Vec<u64> = rows.keys().filter(|(_, name)| name == "loss").map(|(step, _)| *step).collect();
        let expected: Vec<u64> = (METRICS_STEPS..=STEPS).step_by(METRICS_STEPS as usize).collect();
        assert_eq!(steps, expected, "{ranks:?}");
    }
}

#[test]
#[should_panic(expected = "tensors that differ from those of the undisturbed run")]
fn one_bit_of_one_tensor_is_a_difference() {
    let outcome = outcome(Ranks::One);
    let mut other = outcome.clone();
    other.tensors.values_mut().next().unwrap().bytes[0] ^= 1;
    outcome.assert_same(&other);
}

#[test]
#[should_panic(expected = "metric rows (as bits)")]
fn a_metric_row_that_is_missing_is_a_difference() {
    let outcome = outcome(Ranks::One);
    let mut other = outcome.clone();
    other.rows.pop_last();
    outcome.assert_same(&other);
}
