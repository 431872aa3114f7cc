//! The table of an experiment: cells joined with the results of their evaluate trials.

use common::plan::Cell;
use common::table::{self, Aggregate, CellOutcome, CellStatus, Column, Emphasis, Table, TextStyle};
use coordinator_core::{Outcome, Phase, Trial};
use proto::v1;

use super::error::RequestError;
use super::{Answer, Service, lookup, message};
use crate::driver::View;

impl Service {
    pub(super) async fn get_table(&self, request: v1::GetTableRequest) -> Answer<v1::GetTableResponse> {
        let v1::GetTableRequest { experiment, columns, format, width } = request;
        let columns: Vec<Column> = columns.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        let form = form(format)?;
        let width = (width > 0).then_some(width as usize);
        let outcomes = self
            .look(move |view| {
                let (_, record) = lookup::experiment(view, &experiment)?;
                Ok(record.cells.iter().map(|cell| outcome(view, cell)).collect::<Vec<_>>())
            })
            .await?;
        let columns = if columns.is_empty() { Column::defaults(&outcomes) } else { columns };
        let table = table::build(&outcomes, &columns);
        Ok(v1::GetTableResponse { rows: rows(&table), rendered: render(&table, form, width) })
    }
}

fn outcome(view: &View<'_>, cell: &Cell) -> CellOutcome {
    let trial = view.cluster.trial_by_key(cell.trial).and_then(|id| view.cluster.trial(id));
    let status = trial.map_or(CellStatus::Waiting, |trial| status(view, trial));
    CellOutcome { cell: cell.clone(), status }
}

fn status(view: &View<'_>, trial: &Trial) -> CellStatus {
    match &trial.phase {
        Phase::Running(_) => CellStatus::Running,
        Phase::Waiting | Phase::Queued => {
            let needs = trial.needs.iter().filter_map(|&need| view.cluster.trial(need));
            if needs.into_iter().any(|need| need.attempt().is_some()) {
                CellStatus::Running
            } else {
                CellStatus::Waiting
            }
        }
        Phase::Ended { outcome, .. } => match outcome {
            Outcome::Succeeded { result } => CellStatus::Done(result.metrics.clone()),
            Outcome::Failed { cause } => CellStatus::Failed(cause.to_string()),
            Outcome::NeedFailed { .. } => CellStatus::Failed(message::failure(view, outcome)),
            Outcome::Cancelled => CellStatus::Cancelled,
        },
    }
}

/// How a table is to be written.
fn form(format: i32) -> Answer<v1::TableFormat> {
    match v1::TableFormat::try_from(format) {
        Err(_) | Ok(v1::TableFormat::Unspecified) => Err(RequestError::UnknownFormat(format)),
        Ok(form) => Ok(form),
    }
}

fn render(table: &Table, form: v1::TableFormat, width: Option<usize>) -> String {
    match form {
        v1::TableFormat::Unspecified | v1::TableFormat::Text => {
            table.to_text(TextStyle { emphasis: Emphasis::Star, width })
        }
        v1::TableFormat::Terminal => table.to_text(TextStyle { emphasis: Emphasis::Bold, width }),
        v1::TableFormat::Markdown => table.to_markdown(),
        v1::TableFormat::Csv => table.to_csv(),
        v1::TableFormat::Json => table.to_json(),
        v1::TableFormat::Latex => table.to_latex(),
    }
}

fn rows(table: &Table) -> Vec<v1::TableRow> {
    let rows = table.groups.iter().flat_map(|group| group.rows.iter().map(move |row| (group, row)));
    rows.map(|(group, row)| v1::TableRow {
        data: group.data.clone(),
        model: group.model.clone(),
        method: row.method.clone(),
        done: count(row.tally.done),
        seeds: count(row.tally.of),
        values: row.values.iter().map(value).collect(),
    })
    .collect()
}

fn value(value: &Aggregate) -> v1::TableValue {
    v1::TableValue {
        metric: value.name.clone(),
        mean: value.mean,
        sd: value.sd,
        n: count(value.n),
        best: value.best,
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
