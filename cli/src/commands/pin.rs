//! `credence pin`, `credence unpin`

use std::process::ExitCode;

use proto::v1::PinCheckpointRequest;

use crate::args::{ClientArguments, PinArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::out;

pub async fn run(
    client: &ClientArguments,
    arguments: PinArguments,
    pinned: bool,
) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let PinArguments { trial, step } = arguments;
    let response =
        client.api.pin_checkpoint(PinCheckpointRequest { trial: trial.clone(), step, pinned }).await;
    client.answer(response)?;
    let done = if pinned { "pinned" } else { "unpinned" };
    out::line(&format!("{done} the checkpoint of step {step} of {trial}"))?;
    Ok(ExitCode::SUCCESS)
}
