//! `credence cancel`

use std::process::ExitCode;

use proto::v1::{CancelRequest, cancel_request::Target};
use serde::Serialize;

use super::names_trial;
use crate::args::{ClientArguments, TargetArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::{out, text};

#[derive(Serialize)]
struct Cancelled {
    cancelled: u32,
}

pub async fn run(client: &ClientArguments, arguments: TargetArguments) -> Result<ExitCode, Failure> {
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
    out::line(&format!("cancelled {} of {}", text::count(cancelled, "trial"), arguments.target))?;
    Ok(ExitCode::SUCCESS)
}
