//! `credence list`

use std::process::ExitCode;

use proto::v1::ListExperimentsRequest;

use crate::args::{ClientArguments, ListArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::view::Experiment;
use crate::{out, text};

pub async fn run(client: &ClientArguments, arguments: ListArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let response = client.api.list_experiments(ListExperimentsRequest {}).await;
    let experiments: Vec<Experiment> =
        client.answer(response)?.experiments.into_iter().map(Into::into).collect();
    if arguments.json {
        return out::json(&experiments);
    }
    if experiments.is_empty() {
        out::line("no experiment yet; submit one with `credence submit GRID.toml`")?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = text::now_ms();
    let rows: Vec<_> = experiments
        .iter()
        .map(|experiment| {
            let trials = &experiment.trials;
            [
                experiment.id.clone(),
                experiment.name.clone(),
                experiment.state.to_owned(),
                format!("{}/{}", trials.ended(), trials.total()),
                trials.running.to_string(),
                trials.failed.to_string(),
                format!("{} ago", text::between(experiment.submitted_at_ms, now)),
            ]
        })
        .collect();
    out::line(&text::columns(["ID", "NAME", "STATE", "ENDED", "RUNNING", "FAILED", "SUBMITTED"], &rows))?;
    Ok(ExitCode::SUCCESS)
}
