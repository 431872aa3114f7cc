//! The table of an experiment: cells joined with the results of their evaluate trials.

use common::plan::Cell;
use common::spec::TrialSpec;
use common::table::{
    self, Against, Aggregate, CellOutcome, CellStatus, Choice, Comparison, Emphasis, Row, Setup, Table,
    TextStyle,
};
use coordinator_core::{Outcome, Phase, Trial};
use proto::v1;

use super::error::RequestError;
use super::{Answer, Service, lookup, message};
use crate::driver::View;

impl Service {
    pub(super) async fn get_table(&self, request: v1::GetTableRequest) -> Answer<v1::GetTableResponse> {
        let v1::GetTableRequest { experiment, columns, format, width, rows, compare, against_published } =
            request;
        let form = form(format)?;
        let width = (width > 0).then_some(width as usize);
        let choice = Choice {
            columns,
            rows,
            compare: (!compare.is_empty()).then_some(compare),
            against: if against_published { Against::Published } else { Against::Nothing },
        };
        let outcomes = self
            .look(move |view| {
                let (_, record) = lookup::experiment(view, &experiment)?;
                Ok(record.cells.iter().map(|cell| outcome(view, cell)).collect::<Vec<_>>())
            })
            .await?;
        let table = table::build(&outcomes, &choice)?;
        Ok(v1::GetTableResponse { rows: table_rows(&table), rendered: render(&table, form, width) })
    }
}

fn outcome(view: &View<'_>, cell: &Cell) -> CellOutcome {
    let trial = view.cluster.trial_by_key(cell.trial).and_then(|id| view.cluster.trial(id));
    let status = trial.map_or(CellStatus::Waiting, |trial| status(view, trial));
    let setup = trial.and_then(|trial| match trial.spec.unseeded() {
        TrialSpec::Evaluate(spec) => Setup::of(spec),
        TrialSpec::Train(_) => None,
    });
    let world_sizes = trial.map(|trial| world_sizes(view, trial)).unwrap_or_default();
    CellOutcome { cell: cell.clone(), setup, world_sizes, status }
}

/// World sizes of the attempts of the elastic networks that an evaluation reads, repeats left out.
fn world_sizes(view: &View<'_>, evaluation: &Trial) -> Vec<u32> {
    let networks = evaluation
        .needs
        .iter()
        .filter(|&&need| view.cluster.trial(need).is_some_and(|network| network.spec.is_elastic()));
    let attempts = networks.flat_map(|&network| view.history.attempts_of(network));
    let mut sizes: Vec<u32> = attempts.map(|(_, attempt)| attempt.placement.world_size()).collect();
    sizes.dedup();
    sizes
}

fn status(view: &View<'_>, trial: &Trial) -> CellStatus {
    match &trial.phase {
        Phase::Running(_) => CellStatus::Running,
        Phase::Waiting | Phase::Queued | Phase::Paused => {
            let needs = trial.needs.iter().filter_map(|&need| view.cluster.trial(need));
            if needs.into_iter().any(|need| need.attempt().is_some()) {
                CellStatus::Running
            } else {
                CellStatus::Waiting
            }
        }
        Phase::Ended { outcome, .. } => match outcome.as_ref() {
            Outcome::Succeeded { result } => CellStatus::Done(result.metrics.to_map()),
            Outcome::Failed { cause } => CellStatus::Failed(cause.to_string()),
            Outcome::LostWorkers { .. } => CellStatus::Failed(outcome.to_string()),
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

fn table_rows(table: &Table) -> Vec<v1::TableRow> {
    let rows = table.groups.iter().flat_map(|group| group.rows.iter().map(move |row| (group, row)));
    rows.map(|(group, row)| v1::TableRow {
        data: group.data.clone(),
        model: group.model.clone(),
        method: row.method.clone(),
        done: count(row.tally.done),
        seeds: count(row.tally.of),
        values: row.values.iter().map(value).collect(),
        published: published(table, row),
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
        comparison: value.comparison.as_ref().map(comparison),
    }
}

fn comparison(found: &Comparison) -> v1::TableComparison {
    v1::TableComparison {
        pairs: count(found.pairs),
        difference: found.difference,
        sd: found.sd,
        effect: found.effect,
        p: found.p,
        p_holm: found.p_holm,
        p_wilcoxon: found.p_wilcoxon,
    }
}

fn published(table: &Table, row: &Row) -> Vec<v1::PublishedFigures> {
    let lines = row.published.iter().filter_map(|line| {
        let source = table.sources.iter().find(|source| source.id == line.source)?;
        let figures = line.values.iter().zip(&table.columns).filter_map(|(value, column)| {
            let value = value.as_ref()?;
            Some(v1::PublishedFigure {
                metric: column.name(),
                value: value.value,
                difference: value.difference,
            })
        });
        Some(v1::PublishedFigures {
            source: source.id.clone(),
            title: source.title.clone(),
            protocol: source.protocol.clone(),
            caveat: source.caveat.clone(),
            figures: figures.collect(),
        })
    });
    lines.collect()
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
