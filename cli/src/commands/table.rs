//! `credence table`

mod intervals;
pub(super) mod predictions;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Context as _;
use common::table::{Emphasis, Table, TextStyle};
use proto::v1::{self, GetExperimentRequest, GetTableRequest, GetTrialRequest};

use super::artifacts::download;
use crate::args::{Against, ClientArguments, TableArguments, TableFormat};
use crate::client::Client;
use crate::error::Failure;
use crate::out;

/// Largest difference between a stored score and the same score computed again. Both are sums in f64 over the same f32
/// probabilities in the same order, so they normally agree to the bit; this allows for another build's order.
const TOLERANCE: f64 = 1e-9;

/// Artifact that holds the probabilities of every member.
const PREDICTIONS: &str = "predictions.safetensors";

pub async fn run(client: &ClientArguments, arguments: TableArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let plan = arguments.ci.map(|percent| intervals::Plan::new(percent, arguments.replicates)).transpose()?;
    let format = arguments.format;
    let request = GetTableRequest {
        experiment: arguments.experiment.clone(),
        columns: arguments.columns,
        // Intervals are computed here, from predictions, and so the whole table is needed here.
        format: if plan.is_some() { v1::TableFormat::Json } else { wire_format(format) }.into(),
        width: terminal_width().unwrap_or(0),
        rows: arguments.rows,
        compare: arguments.compare.unwrap_or_default(),
        against_published: matches!(arguments.against, Some(Against::Published)),
    };
    let response = client.api.get_table(request).await;
    let rendered = client.answer(response)?.rendered;
    match plan {
        None => out::line(&rendered)?,
        Some(plan) => {
            let mut table: Table = serde_json::from_str(&rendered)
                .context("cannot read the coordinator's table; is it of another version?")?;
            intervals::attach(&mut client, &mut table, plan).await?;
            out::line(&render(&table, format))?;
        }
    }
    if arguments.recompute {
        return recompute(&mut client, arguments.experiment).await;
    }
    Ok(ExitCode::SUCCESS)
}

fn wire_format(format: TableFormat) -> v1::TableFormat {
    match format {
        TableFormat::Text if terminal_width().is_some() => v1::TableFormat::Terminal,
        TableFormat::Text => v1::TableFormat::Text,
        TableFormat::Markdown => v1::TableFormat::Markdown,
        TableFormat::Csv => v1::TableFormat::Csv,
        TableFormat::Json => v1::TableFormat::Json,
        TableFormat::Latex => v1::TableFormat::Latex,
    }
}

fn render(table: &Table, format: TableFormat) -> String {
    let width = terminal_width().map(|width| width as usize);
    match format {
        TableFormat::Text => {
            let emphasis = if width.is_some() { Emphasis::Bold } else { Emphasis::Star };
            table.to_text(TextStyle { emphasis, width })
        }
        TableFormat::Markdown => table.to_markdown(),
        TableFormat::Csv => table.to_csv(),
        TableFormat::Json => table.to_json(),
        TableFormat::Latex => table.to_latex(),
    }
}

/// The predictions file of a trial.
pub(super) async fn fetch(client: &mut Client, trial: &str) -> Result<Vec<u8>, Failure> {
    let mut file = Vec::new();
    download(client, trial, PREDICTIONS, |data| {
        file.extend_from_slice(data);
        Ok(())
    })
    .await?;
    Ok(file)
}

/// Characters in a line, if standard output is a terminal.
fn terminal_width() -> Option<u32> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0.into())
}

/// Computes every score of every finished cell again, from the predictions alone. What it says goes to standard
/// error, so that the table on standard output stays what it is.
async fn recompute(client: &mut Client, experiment: String) -> Result<ExitCode, Failure> {
    let response = client.api.get_experiment(GetExperimentRequest { experiment }).await;
    let cells = client.answer(response)?.cells;
    let (mut scores, mut trials, mut different, mut absent) = (0, 0, 0, BTreeSet::new());
    for cell in cells.iter().filter(|cell| cell.state() == v1::TrialState::Succeeded) {
        let response = client.api.get_trial(GetTrialRequest { trial: cell.trial_id.clone() }).await;
        let stored = client.answer(response)?.result.unwrap_or_default().metrics;
        let file = fetch(client, &cell.trial_id).await?;
        let computed = predictions::scores(&file).map_err(|error| {
            Failure::Refused(format!("predictions of trial {}: {error:#}", cell.trial_id))
        })?;
        trials += 1;
        for (name, value) in computed {
            let Some(stored) = stored.get(&name) else {
                absent.insert(name.split('/').next().unwrap_or_default().to_owned());
                continue;
            };
            scores += 1;
            if (stored - value).abs() > TOLERANCE {
                different += 1;
                eprintln!("{} {name}: the table has {stored}, the predictions give {value}", cell.trial_id);
            }
        }
    }
    eprintln!("computed {scores} scores of {trials} trials from their predictions: {different} differ");
    if !absent.is_empty() {
        // A result of an older trainer has fewer scores than this build knows. That is said, and is no difference.
        let names = absent.into_iter().collect::<Vec<_>>().join(", ");
        eprintln!("some results were stored without {names}");
    }
    Ok(if different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
