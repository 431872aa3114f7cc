//! `credence priority`

use std::process::ExitCode;

use proto::v1::SetPriorityRequest;

use crate::args::{ClientArguments, PriorityArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::out;

pub async fn run(client: &ClientArguments, arguments: PriorityArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let PriorityArguments { experiment, priority } = arguments;
    let request = SetPriorityRequest { experiment: experiment.clone(), priority };
    let response = client.api.set_priority(request).await;
    client.answer(response)?;
    out::line(&format!("{experiment} has priority {priority}"))?;
    Ok(ExitCode::SUCCESS)
}
