//! `credence cancel`

use std::process::ExitCode;

use proto::v1::{CancelRequest, cancel_request::Target};
use serde::Serialize;

use super::names_trial;
use crate::args::{CancelArguments, ClientArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::out;

#[derive(Serialize)]
struct Cancelled {
    cancelled: u32,
}

pub async fn run(client: &ClientArguments, arguments: CancelArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let target = if names_trial(&arguments.target) {
        Target::Trial(arguments.target.clone())
    } else {
        Target::Experiment(arguments.target.clone())
    };
    let response = client.api.cancel(CancelRequest { target: Some(target) }).await;
    let cancelled = client.answer(response)?.cancelled;
    if arguments.json {
        return out::json(&Cancelled { cancelled });
    }
    let trials = if cancelled == 1 { "1 trial".to_owned() } else { format!("{cancelled} trials") };
    out::line(&format!("cancelled {trials} of {}", arguments.target))?;
    Ok(ExitCode::SUCCESS)
}
