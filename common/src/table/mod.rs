//! Tables: results of a grid's cells, aggregated over seeds.
//!
//! A row is a method on one data set and model. Each value is the mean over the seeds that are done, with the
//! sample standard deviation when there are at least two. **No table hides a missing seed**: each row says how
//! many of its seeds are done and what became of the others, each value that rests on fewer than all seeds
//! says so, and a failed seed stands below the table with its cause.
//!
//! Which values are marked, and what may be claimed of a difference, is decided in one place: `compare`.
//!
//! What a cell's values are is decided by the caller; this module only reads them by name.

mod choice;
mod column;
mod compare;
mod csv;
mod latex;
mod lines;
mod markdown;
mod notes;
mod published;
mod setup;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;

use metrics::Summary;
use serde::{Deserialize, Serialize};

pub use choice::{Against, Choice, ChoiceError};
pub use column::{Column, Noise, PARAMETERS, PEAK_DEVICE_BYTES, TRAIN_SECONDS, UnknownColumn};
pub use compare::{Comparison, LEVEL, Verdict};
pub use published::{PublishedLine, PublishedValue, Source};
pub use setup::{Extent, Setup};
pub use text::{Emphasis, TextStyle};

use crate::TrialKey;
use crate::plan::Cell;

/// A cell of a plan, and what has become of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellOutcome {
    /// The cell.
    pub cell: Cell,
    /// What it computes, for comparison with published figures.
    pub setup: Option<Setup>,
    /// World sizes of the attempts that trained its elastic networks, in order; empty without such networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub world_sizes: Vec<u32>,
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

/// Aggregated results, in the order of the grid file or in the one that was chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What is shown of each row.
    pub columns: Vec<Column>,
    /// Method that the other rows are compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<String>,
    /// Whether published figures were asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub against: Against,
    /// Sources of the published figures, in the order in which they come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// How the intervals were computed, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intervals: Option<Intervals>,
    /// One group for each data set and model.
    pub groups: Vec<Group>,
}

/// How bootstrap intervals over examples were computed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Level, such as 0.95.
    pub level: f64,
    /// Bootstrap replicates.
    pub replicates: usize,
}

/// Both ends of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Rows that can be compared with each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Data set, as labelled in the grid.
    pub data: String,
    /// Model.
    pub model: String,
    /// What was found of the marks, one for each column.
    pub verdicts: Vec<Verdict>,
    /// One for each method.
    pub rows: Vec<Row>,
}

/// One method on one data set and model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Method, as labelled in the grid.
    pub method: String,
    /// How many seeds are in which state.
    pub tally: Tally,
    /// One value for each column.
    pub values: Vec<Aggregate>,
    /// Published figures for the same data set, network and method, one line a source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PublishedLine>,
    /// How the networks behind it were trained, where published figures stand beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// What the values rest on, one for each seed.
    pub seeds: Vec<SeedOutcome>,
}

/// One seed of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedOutcome {
    /// Seed.
    pub seed: u64,
    /// Evaluate trial.
    pub trial: TrialKey,
    /// World sizes of the attempts that trained its elastic networks, in order; empty without such networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub world_sizes: Vec<u32>,
    /// What has become of it, with all values of the result that are finite, shown or not.
    #[serde(flatten)]
    pub status: CellStatus,
}

/// Seeds of a row by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Whether it is marked; the column's [`Verdict`] says what that means.
    pub best: bool,
    /// Bootstrap interval of the mean over examples, if it was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Bounds>,
    /// The row less the one that it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Aggregates outcomes into a table. Groups, rows and seeds keep the order in which they come first, unless the choice
/// has an order of rows. A row to compare with that the choice leaves out stands first.
///
/// # Errors
///
/// [`ChoiceError`] when the choice names what no result or row has.
pub fn build(cells: &[CellOutcome], choice: &Choice) -> Result<Table, ChoiceError> {
    let columns = choice::columns(&choice.columns, cells)?;
    let mut known: Vec<String> = Vec::new();
    for CellOutcome { cell, .. } in cells {
        if !known.iter().any(|known| **known == *cell.method) {
            known.push(cell.method.to_string());
        }
    }
    let compare = choice.compare.as_ref().map(|label| choice::method(label, &known)).transpose()?;
    let mut order = choice::methods(&choice.rows, &known)?;
    if let Some(label) = compare.as_ref().filter(|label| !order.is_empty() && !order.contains(label)) {
        order.insert(0, label.clone());
    }

    let mut groups = grouped(cells);
    let mut sources: Vec<Source> = Vec::new();
    for Draft { group, setups } in &mut groups {
        for row in &mut group.rows {
            row.values = columns.iter().map(|column| aggregate(&row.seeds, column)).collect();
        }
        if choice.against == Against::Published {
            for (row, setup) in group.rows.iter_mut().zip(setups.iter()) {
                add_published(row, setup.as_ref(), &columns);
            }
        }
        if !order.is_empty() {
            let place = |row: &Row| order.iter().position(|label| *label == row.method);
            group.rows.retain(|row| place(row).is_some());
            group.rows.sort_by_key(place);
        }
        let rows = &mut group.rows;
        group.verdicts =
            columns.iter().enumerate().map(|(index, column)| compare::mark(rows, index, column)).collect();
        if let Some(reference) = &compare {
            compare::with_reference(rows, &columns, reference);
        }
        for line in rows.iter().flat_map(|row| &row.published) {
            let new = published::source(&line.source).filter(|source| !sources.contains(source));
            sources.extend(new.cloned());
        }
    }
    let groups = groups.into_iter().map(|draft| draft.group).filter(|group| !group.rows.is_empty()).collect();
    Ok(Table { columns, compare, against: choice.against, sources, intervals: None, groups })
}

/// A group whose rows have no values yet, and what each row computes.
struct Draft {
    group: Group,
    setups: Vec<Option<Setup>>,
}

fn grouped(cells: &[CellOutcome]) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    for CellOutcome { cell, setup, world_sizes, status } in cells {
        let (data, model) = (&cell.data, &cell.model);
        let draft = find_or_push(
            &mut drafts,
            |draft| *draft.group.data == **data && *draft.group.model == **model,
            || Draft {
                group: Group {
                    data: data.to_string(),
                    model: model.to_string(),
                    verdicts: Vec::new(),
                    rows: Vec::new(),
                },
                setups: Vec::new(),
            },
        );
        let new = Row {
            method: cell.method.to_string(),
            tally: Tally::default(),
            values: Vec::new(),
            published: Vec::new(),
            recipe: None,
            seeds: Vec::new(),
        };
        let row = find_or_push(&mut draft.group.rows, |row| *row.method == *cell.method, || new);
        row.tally.count(status);
        let (seed, trial, world_sizes) = (cell.seed, cell.trial, world_sizes.clone());
        row.seeds.push(SeedOutcome { seed, trial, world_sizes, status: finite(status) });
        if draft.setups.len() < draft.group.rows.len() {
            draft.setups.push(setup.clone());
        }
    }
    drafts
}

/// A value that is not finite counts as missing, and JSON has no word for it.
fn finite(status: &CellStatus) -> CellStatus {
    match status {
        CellStatus::Done(values) => {
            let kept = values.iter().filter(|(_, value)| value.is_finite());
            CellStatus::Done(kept.map(|(name, value)| (name.clone(), *value)).collect())
        }
        CellStatus::Running | CellStatus::Waiting | CellStatus::Failed(_) | CellStatus::Cancelled => {
            status.clone()
        }
    }
}

fn add_published(row: &mut Row, setup: Option<&Setup>, columns: &[Column]) {
    let Some(setup) = setup else { return };
    let means: Vec<Option<f64>> = row.values.iter().map(|value| value.mean).collect();
    row.published = published::lines(setup, columns, &means);
    row.recipe = (!row.published.is_empty()).then(|| setup.recipe.clone());
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

    /// For notes and pull requests; marked values are bold.
    pub fn to_markdown(&self) -> String {
        markdown::render(self)
    }

    /// For spreadsheets: a line a row, with mean, sd, n and N of each column, unrounded.
    pub fn to_csv(&self) -> String {
        csv::render(self)
    }

    /// For papers: a `table*` a data set, with the packages `booktabs` and `graphicx`; marked values are bold.
    pub fn to_latex(&self) -> String {
        latex::render(self)
    }

    /// For programs: everything, down to each seed's values and trial key. Reads back as this table.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a table holds only numbers, strings, lists and structs")
    }
}

impl SeedOutcome {
    /// The value of that name, if the seed is done and has it.
    pub fn value(&self, name: &str) -> Option<f64> {
        match &self.status {
            CellStatus::Done(values) => values.get(name).copied(),
            CellStatus::Running | CellStatus::Waiting | CellStatus::Failed(_) | CellStatus::Cancelled => None,
        }
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

fn find_or_push<T>(list: &mut Vec<T>, found: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> &mut T {
    let index = list.iter().position(found).unwrap_or(list.len());
    if index == list.len() {
        list.push(make());
    }
    &mut list[index]
}

fn aggregate(seeds: &[SeedOutcome], column: &Column) -> Aggregate {
    let name = column.name();
    let values: Vec<f64> = seeds.iter().filter_map(|seed| seed.value(&name)).collect();
    // The only other way to have no summary is to have no values.
    let summary = Summary::new(&values).ok();
    Aggregate {
        name,
        mean: summary.map(|summary| summary.mean),
        sd: summary.and_then(|summary| summary.standard_deviation),
        n: values.len(),
        of: seeds.len(),
        best: false,
        interval: None,
        comparison: None,
    }
}
