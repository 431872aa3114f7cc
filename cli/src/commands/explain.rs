//! `credence explain`

use std::process::ExitCode;

use proto::v1::ExplainRequest;
use serde::Serialize;

use crate::args::{ClientArguments, ExplainArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::out;
use crate::view::Trial;

#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    trial: Trial,
    reasons: Vec<String>,
}

pub async fn run(client: &ClientArguments, arguments: ExplainArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let response = client.api.explain(ExplainRequest { trial: arguments.trial }).await;
    let proto::v1::ExplainResponse { trial, reasons } = client.answer(response)?;
    let trial: Trial = trial.unwrap_or_default().into();
    if arguments.json {
        return out::json(&Explained { trial, reasons });
    }
    let mut page = format!("{} {}: {}\n", trial.id, trial.label, trial.state);
    for reason in &reasons {
        page.push_str(&format!("  {reason}\n"));
    }
    out::line(&page)?;
    Ok(ExitCode::SUCCESS)
}
