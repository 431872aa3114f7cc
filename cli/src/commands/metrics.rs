//! `credence metrics`

use std::process::ExitCode;

use proto::v1::QueryMetricsRequest;
use serde::Serialize;

use crate::args::{ClientArguments, MetricsArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::out;

#[derive(Serialize)]
struct Row<'a> {
    attempt: &'a str,
    step: u64,
    name: &'a str,
    value: f64,
}

pub async fn run(client: &ClientArguments, arguments: MetricsArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let request =
        QueryMetricsRequest { trial: arguments.trial, names: arguments.names, after_step: arguments.after };
    let response = client.api.query_metrics(request).await;
    let mut batches = client.answer(response)?;
    if !arguments.json {
        out::line("attempt,step,name,value")?;
    }
    while let Some(batch) = batches.message().await.map_err(|status| client.failure(&status))? {
        for row in &batch.rows {
            if arguments.json {
                let (attempt, name) = (row.attempt_id.as_str(), row.name.as_str());
                out::json_line(&Row { attempt, step: row.step, name, value: row.value })?;
            } else {
                out::line(&format!("{},{},{},{}", row.attempt_id, row.step, row.name, row.value))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
