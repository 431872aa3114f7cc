//! `credence logs`

use std::process::ExitCode;

use proto::v1::ReadLogRequest;

use crate::args::{ClientArguments, LogsArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::out;

pub async fn run(client: &ClientArguments, arguments: LogsArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let request = ReadLogRequest {
        trial: arguments.trial,
        attempt: arguments.attempt.unwrap_or_default(),
        rank: arguments.rank,
        tail_bytes: arguments.tail.unwrap_or(0),
    };
    let response = client.api.read_log(request).await;
    let mut chunks = client.answer(response)?;
    while let Some(chunk) = chunks.message().await.map_err(|status| client.failure(&status))? {
        out::write(&chunk.data)?;
    }
    Ok(ExitCode::SUCCESS)
}
