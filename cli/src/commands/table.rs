//! `credence table`

mod predictions;

use std::process::ExitCode;

use proto::v1::{self, GetExperimentRequest, GetTableRequest, GetTrialRequest};

use super::artifacts::download;
use crate::args::{ClientArguments, TableArguments, TableFormat};
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
    let request = GetTableRequest {
        experiment: arguments.experiment.clone(),
        columns: arguments.columns,
        format: wire_format(arguments.format).into(),
        width: terminal_width().unwrap_or(0),
        ..GetTableRequest::default()
    };
    let response = client.api.get_table(request).await;
    out::line(&client.answer(response)?.rendered)?;
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

/// Characters in a line, if standard output is a terminal.
fn terminal_width() -> Option<u32> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0.into())
}

/// Computes every score of every finished cell again, from the predictions alone. What it says goes to standard
/// error, so that the table on standard output stays what it is.
async fn recompute(client: &mut Client, experiment: String) -> Result<ExitCode, Failure> {
    let response = client.api.get_experiment(GetExperimentRequest { experiment }).await;
    let cells = client.answer(response)?.cells;
    let (mut scores, mut trials, mut different) = (0, 0, 0);
    for cell in cells.iter().filter(|cell| cell.state() == v1::TrialState::Succeeded) {
        let response = client.api.get_trial(GetTrialRequest { trial: cell.trial_id.clone() }).await;
        let stored = client.answer(response)?.result.unwrap_or_default().metrics;
        let mut file = Vec::new();
        download(client, &cell.trial_id, PREDICTIONS, |data| {
            file.extend_from_slice(data);
            Ok(())
        })
        .await?;
        let computed = predictions::scores(&file).map_err(|error| {
            Failure::Refused(format!("predictions of trial {}: {error:#}", cell.trial_id))
        })?;
        trials += 1;
        for (name, value) in computed {
            scores += 1;
            let same = stored.get(&name).is_some_and(|stored| (stored - value).abs() <= TOLERANCE);
            if !same {
                different += 1;
                let stored = stored.get(&name).map_or_else(|| "nothing".to_owned(), f64::to_string);
                eprintln!("{} {name}: the table has {stored}, the predictions give {value}", cell.trial_id);
            }
        }
    }
    eprintln!("computed {scores} scores of {trials} trials from their predictions: {different} differ");
    Ok(if different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
