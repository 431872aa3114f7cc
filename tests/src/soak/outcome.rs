//! What a grid came to, as far as it does not depend on the clock: the table, the scores and the rows of every trial.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::schedule::WORKERS;
use crate::cluster::Cluster;
use crate::view::Trial;

/// Groups of columns that every run must agree on, to the bit. Costs are times, and differ.
const COLUMNS: &str = "classification,calibration,selective,detection,uncertainty";

/// Bits of the scores and of the metric rows of one trial.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Values {
    label: String,
    scores: BTreeMap<String, u64>,
    rows: BTreeMap<(u64, String), u64>,
}

/// Everything that two runs of one grid must have in common.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    table: Value,
    trials: BTreeMap<String, Values>,
}

/// How the trials of a run went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effort {
    pub(super) cells: u64,
    pub(super) trials: u64,
    pub(super) attempts: u64,
    /// Attempts that failed, by cause.
    pub(super) causes: BTreeMap<String, u64>,
}

impl Outcome {
    /// Reads everything of an experiment that has succeeded.
    ///
    /// `again` are trials whose success may have been taken back, because their checkpoint was damaged.
    ///
    /// # Panics
    ///
    /// When a cell is missing or a trial succeeded twice.
    pub(super) fn of(cluster: &Cluster, name: &str, again: &BTreeSet<String>) -> (Self, Effort) {
        let experiment = cluster.experiment(name);
        assert_eq!(experiment.state, "succeeded", "{experiment:#?}");
        let mut table: Value = cluster.run(&["table", name, "--format", "json", "--columns", COLUMNS]).json();
        remove_times(&mut table);
        let mut effort = Effort { cells: full_cells(&table), ..Effort::default() };
        let mut trials = BTreeMap::new();
        for listed in &experiment.all_trials {
            let trial = cluster.trial(&listed.id);
            assert_once(&trial, again.contains(&trial.id));
            effort.trials += 1;
            effort.attempts += u64::from(trial.attempts);
            for attempt in trial.history.iter().filter(|attempt| !attempt.failure.is_empty()) {
                *effort.causes.entry(kind_of(&attempt.failure)).or_default() += 1;
            }
            let values =
                Values { label: trial.label.clone(), scores: scores(&trial), rows: rows(cluster, &trial.id) };
            assert!(
                trials.insert(trial.key.clone(), values).is_none(),
                "two trials have the key {}",
                trial.key
            );
        }
        (Self { table, trials }, effort)
    }

    /// Checks that a disturbed run came to the same.
    ///
    /// # Panics
    ///
    /// When it did not; with the first thing that differs.
    pub(super) fn assert_same(&self, disturbed: &Self) {
        let keys = |outcome: &Self| outcome.trials.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(self), keys(disturbed), "trials of the undisturbed and of the disturbed run");
        for (key, calm) in &self.trials {
            let other = &disturbed.trials[key];
            assert_eq!(calm.scores, other.scores, "scores (as bits) of {}", calm.label);
            assert_eq!(calm.rows, other.rows, "metric rows (as bits) of {}", calm.label);
        }
        if let Some(difference) = first_difference("", &self.table, &disturbed.table) {
            panic!("the tables differ at {difference}");
        }
    }
}

/// Measured times stand in the table's details, and are all that two runs may differ in.
fn remove_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.ends_with("_seconds"));
            fields.values_mut().for_each(remove_times);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_times),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The place where two values differ first, and how.
fn first_difference(place: &str, calm: &Value, other: &Value) -> Option<String> {
    match (calm, other) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            a.iter().find_map(|(name, value)| first_difference(&format!("{place}/{name}"), value, &b[name]))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => (a.iter().zip(b).enumerate())
            .find_map(|(index, (a, b))| first_difference(&format!("{place}/{index}"), a, b)),
        _ => (calm != other).then(|| format!("{place}: {calm} undisturbed, {other} disturbed")),
    }
}

/// A trial that succeeded did so in one attempt; every other one says how it failed.
fn assert_once(trial: &Trial, again: bool) {
    assert_eq!(trial.state, "succeeded", "{trial:#?}");
    let successes = trial.history.iter().filter(|attempt| attempt.failure.is_empty()).count();
    let allowed = if again { 1..=trial.history.len() } else { 1..=1 };
    assert!(allowed.contains(&successes), "{successes} attempts succeeded: {trial:#?}");
}

/// A cause without what differs from attempt to attempt: numbers, workers, and the details behind a colon.
fn kind_of(failure: &str) -> String {
    let head = failure.split(':').next().unwrap_or(failure);
    let general = |word| match word {
        word if WORKERS.contains(&word) => "W",
        word if word.chars().any(|c| c.is_ascii_digit()) => "N",
        word => word,
    };
    head.split(' ').map(general).collect::<Vec<_>>().join(" ")
}

fn scores(trial: &Trial) -> BTreeMap<String, u64> {
    let scores = trial.deterministic_metrics().into_iter();
    scores.map(|(name, bits)| (name.to_owned(), bits)).collect()
}

/// # Panics
///
/// When a step has two values of one name.
fn rows(cluster: &Cluster, trial: &str) -> BTreeMap<(u64, String), u64> {
    let mut rows = BTreeMap::new();
    for row in cluster.metric_rows(trial) {
        let before = rows.insert((row.step, row.name.clone()), row.value.to_bits());
        assert!(before.is_none(), "{trial} has two rows `{}` of step {}", row.name, row.step);
    }
    rows
}

/// Cells of a table, all of which are done.
fn full_cells(table: &Value) -> u64 {
    let items = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let rows = items(table, "groups").into_iter().flat_map(|group| items(&group, "rows"));
    let cells = rows.map(|row| {
        let count = |name: &str| row["tally"][name].as_u64();
        assert_eq!(count("done"), count("of"), "cells are missing: {row}");
        count("of").unwrap_or_default()
    });
    let cells = cells.sum();
    assert!(cells > 0, "a table without cells: {table}");
    cells
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(accuracy: f64, seconds: f64) -> Value {
        let detail = json!({ "accuracy": accuracy, "train_seconds": seconds });
        let row = json!({ "tally": { "done": 2, "of": 2 }, "seeds": [{ "detail": detail }] });
        json!({ "groups": [{ "rows": [row] }] })
    }

    fn outcome(accuracy: f64, seconds: f64) -> Outcome {
        let mut table = table(accuracy, seconds);
        remove_times(&mut table);
        Outcome { table, trials: BTreeMap::new() }
    }

    #[test]
    fn causes_are_counted_by_kind() {
        assert_eq!(kind_of("a trainer was ended by signal 9"), "a trainer was ended by signal N");
        assert_eq!(kind_of("a collective failed on rank 1"), "a collective failed on rank N");
        assert_eq!(kind_of("rank 1 on beta hung: silent for 1.7 s"), "rank N on W hung");
        assert_eq!(kind_of("no space is left: `/tmp/x`"), "no space is left");
    }

    #[test]
    fn times_may_differ() {
        outcome(0.5, 1.0).assert_same(&outcome(0.5, 2.0));
        assert_eq!(full_cells(&outcome(0.5, 1.0).table), 2);
    }

    #[test]
    #[should_panic(expected = "/groups/0/rows/0/seeds/0/detail/accuracy")]
    fn a_score_that_differs_in_its_last_bit_is_named() {
        outcome(0.5, 1.0).assert_same(&outcome(0.5 + f64::EPSILON, 1.0));
    }

    #[test]
    #[should_panic(expected = "cells are missing")]
    fn a_table_with_a_missing_cell_is_not_full() {
        full_cells(&json!({ "groups": [{ "rows": [{ "tally": { "done": 1, "of": 2 } }] }] }));
    }

    fn trial(failures: &[&str]) -> Trial {
        let history: Vec<_> = failures
            .iter()
            .map(|failure| json!({ "id": "a1", "workers": ["w"], "failure": failure }))
            .collect();
        let trial = json!({
            "id": "t1", "key": "k", "label": "l", "state": "succeeded", "slots": 1, "attempts": failures.len(),
            "failures": 0, "history": history
        });
        serde_json::from_value(trial).unwrap()
    }

    #[test]
    #[should_panic(expected = "2 attempts succeeded")]
    fn a_trial_that_succeeded_twice_is_not_once() {
        assert_once(&trial(&["", ""]), false);
    }

    #[test]
    fn a_trial_whose_network_was_damaged_may_succeed_again() {
        assert_once(&trial(&["", ""]), true);
        assert_once(&trial(&["a worker was lost", ""]), false);
    }
}
