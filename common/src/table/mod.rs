//! Tables: results of a grid's cells, aggregated over seeds.
//!
//! A row is a method on one data set and model. Each value is the mean over the seeds that are done, with the
//! sample standard deviation when there are at least two. **No table hides a missing seed**: each row says how
//! many of its seeds are done and what became of the others, each value that rests on fewer than all seeds
//! says so, and a failed seed stands below the table with its cause.
//!
//! The best value of a column is marked among the rows of one data set and model, under two conditions:
//! a row takes part only when *all* its seeds have the value (a mean over the lucky half of the seeds is not
//! comparable), and at least two rows take part. Every row that prints the same mean as the best one is marked.
//! Nothing is said about significance.
//!
//! What a cell's values are is decided by the caller; this module only reads them by name.

mod column;
mod csv;
mod latex;
mod markdown;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;

use metrics::Summary;
use serde::{Deserialize, Serialize};

pub use column::{Column, PARAMETERS, TRAIN_SECONDS, UnknownColumn};
pub use text::{Emphasis, TextStyle};

use crate::TrialKey;
use crate::plan::Cell;

/// A cell of a plan, and what has become of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellOutcome {
    /// The cell.
    pub cell: Cell,
    /// What has become of it.
    pub status: CellStatus,
}

/// What has become of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", content = "detail", rename_all = "kebab-case")]
pub enum CellStatus {
    /// Evaluated: values by name. A value that is not finite counts as missing.
    Done(BTreeMap<String, f64>),
    /// A trial that it needs, or its evaluation, is being computed.
    Running,
    /// Nothing of it is being computed.
    Waiting,
    /// It will have no values. Why, in one sentence.
    Failed(String),
    /// Given up by a user.
    Cancelled,
}

/// Aggregated results, in the order of the grid file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// What is shown of each row.
    pub columns: Vec<Column>,
    /// One group for each data set and model.
    pub groups: Vec<Group>,
}

/// Rows that can be compared with each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Data set, as labelled in the grid.
    pub data: String,
    /// Model.
    pub model: String,
    /// One for each method.
    pub rows: Vec<Row>,
}

/// One method on one data set and model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Method, as labelled in the grid.
    pub method: String,
    /// How many seeds are in which state.
    pub tally: Tally,
    /// One value for each column.
    pub values: Vec<Aggregate>,
    /// What the values rest on, one for each seed.
    pub seeds: Vec<SeedOutcome>,
}

/// One seed of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeedOutcome {
    /// Seed.
    pub seed: u64,
    /// Evaluate trial.
    pub trial: TrialKey,
    /// What has become of it, with all values of the result, shown or not.
    #[serde(flatten)]
    pub status: CellStatus,
}

/// Seeds of a row by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Seeds in all: N.
    pub of: usize,
    /// Evaluated.
    pub done: usize,
    /// Being computed.
    pub running: usize,
    /// Not begun.
    pub waiting: usize,
    /// Failed for good.
    pub failed: usize,
    /// Given up by a user.
    pub cancelled: usize,
}

/// One value of a row over its seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Aggregate {
    /// Name of the column.
    pub name: String,
    /// Arithmetic mean; `None` when no seed has the value.
    pub mean: Option<f64>,
    /// Sample standard deviation; `None` for fewer than two seeds.
    pub sd: Option<f64>,
    /// Seeds that have the value: n.
    pub n: usize,
    /// Seeds of the row: N.
    pub of: usize,
    /// Whether it is marked as the best of its column and group.
    pub best: bool,
}

/// Aggregates outcomes into a table. Groups, rows and seeds keep the order in which they come first.
pub fn build(cells: &[CellOutcome], columns: &[Column]) -> Table {
    let mut groups: Vec<Group> = Vec::new();
    for CellOutcome { cell, status } in cells {
        let group = find_or_push(
            &mut groups,
            |group| group.data == cell.data && group.model == cell.model,
            || Group { data: cell.data.clone(), model: cell.model.clone(), rows: Vec::new() },
        );
        let row = find_or_push(
            &mut group.rows,
            |row| row.method == cell.method,
            || Row {
                method: cell.method.clone(),
                tally: Tally::default(),
                values: Vec::new(),
                seeds: Vec::new(),
            },
        );
        row.tally.count(status);
        row.seeds.push(SeedOutcome { seed: cell.seed, trial: cell.trial, status: status.clone() });
    }
    for group in &mut groups {
        for row in &mut group.rows {
            row.values = columns.iter().map(|column| aggregate(&row.seeds, column)).collect();
        }
        for (index, column) in columns.iter().enumerate() {
            mark_best(&mut group.rows, index, column);
        }
    }
    Table { columns: columns.to_vec(), groups }
}

impl Table {
    /// Whether every seed of every row is done.
    pub fn is_complete(&self) -> bool {
        self.groups.iter().flat_map(|group| &group.rows).all(|row| row.tally.done == row.tally.of)
    }

    /// For people at a terminal.
    pub fn to_text(&self, style: TextStyle) -> String {
        text::render(self, style)
    }

    /// For notes and pull requests; best values are bold.
    pub fn to_markdown(&self) -> String {
        markdown::render(self)
    }

    /// For spreadsheets: a line a row, with mean, sd, n and N of each column, unrounded.
    pub fn to_csv(&self) -> String {
        csv::render(self)
    }

    /// For papers: a `tabular` of the `booktabs` package; best values are bold.
    pub fn to_latex(&self) -> String {
        latex::render(self)
    }

    /// For programs: everything, down to each seed's values and trial key.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a table holds only numbers, strings, lists and structs")
    }

    /// Seeds that failed or were given up, with the reason, for the lines below a table.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for group in &self.groups {
            for row in &group.rows {
                for seed in &row.seeds {
                    let what = match &seed.status {
                        CellStatus::Failed(reason) => format!("failed: {reason}"),
                        CellStatus::Cancelled => "cancelled".to_owned(),
                        CellStatus::Done(_) | CellStatus::Running | CellStatus::Waiting => continue,
                    };
                    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
                    notes.push(format!(
                        "{}, {}, {}, seed {}: {what}",
                        group.data, group.model, row.method, seed.seed
                    ));
                }
            }
        }
        notes
    }

    fn has_best(&self) -> bool {
        self.groups.iter().flat_map(|group| &group.rows).flat_map(|row| &row.values).any(|value| value.best)
    }
}

impl Tally {
    fn count(&mut self, status: &CellStatus) {
        self.of += 1;
        let state = match status {
            CellStatus::Done(_) => &mut self.done,
            CellStatus::Running => &mut self.running,
            CellStatus::Waiting => &mut self.waiting,
            CellStatus::Failed(_) => &mut self.failed,
            CellStatus::Cancelled => &mut self.cancelled,
        };
        *state += 1;
    }

    /// `3/3`, or `1/3 (1 failed, 1 running)`.
    fn words(&self) -> String {
        let states = [
            (self.failed, "failed"),
            (self.cancelled, "cancelled"),
            (self.running, "running"),
            (self.waiting, "waiting"),
        ];
        let missing: Vec<String> = states
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        let done = format!("{}/{}", self.done, self.of);
        if missing.is_empty() { done } else { format!("{done} ({})", missing.join(", ")) }
    }
}

impl Aggregate {
    /// The value in words: `join(mean, sd)`, and how many seeds it rests on when they are not all.
    fn words(&self, column: &Column, join: impl FnOnce(&str, Option<&str>) -> String) -> String {
        let Some(mean) = self.mean else {
            return "–".to_owned();
        };
        let shown = column.show(mean, self.sd);
        let mut words = join(&shown.mean, shown.deviation.as_deref());
        if !shown.unit.is_empty() {
            words = format!("{words} {}", shown.unit);
        }
        if self.n < self.of { format!("{words} ({}/{})", self.n, self.of) } else { words }
    }
}

fn find_or_push<T>(list: &mut Vec<T>, found: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> &mut T {
    let index = list.iter().position(found).unwrap_or(list.len());
    if index == list.len() {
        list.push(make());
    }
    &mut list[index]
}

fn aggregate(seeds: &[SeedOutcome], column: &Column) -> Aggregate {
    let name = column.name();
    let value = |seed: &SeedOutcome| match &seed.status {
        CellStatus::Done(values) => values.get(&name).copied().filter(|value| value.is_finite()),
        CellStatus::Running | CellStatus::Waiting | CellStatus::Failed(_) | CellStatus::Cancelled => None,
    };
    let values: Vec<f64> = seeds.iter().filter_map(value).collect();
    // The only other way to have no summary is to have no values.
    let summary = Summary::new(&values).ok();
    Aggregate {
        name,
        mean: summary.map(|summary| summary.mean),
        sd: summary.and_then(|summary| summary.standard_deviation),
        n: values.len(),
        of: seeds.len(),
        best: false,
    }
}

fn mark_best(rows: &mut [Row], index: usize, column: &Column) {
    let taking_part =
        |row: &Row| row.values[index].mean.filter(|_| row.values[index].n == row.values[index].of);
    let means: Vec<f64> = rows.iter().filter_map(taking_part).collect();
    let Some(best) = column.direction().best(means.iter().copied()).filter(|_| means.len() > 1) else {
        return;
    };
    let printed = column.show(best, None);
    for row in rows {
        let best = taking_part(row).is_some_and(|mean| column.show(mean, None) == printed);
        row.values[index].best = best;
    }
}
