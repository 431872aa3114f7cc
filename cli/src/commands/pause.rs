//! `credence pause`, `credence resume`

use std::process::ExitCode;

use proto::v1::{PauseRequest, ResumeRequest, pause_request, resume_request};
use serde::Serialize;

use super::names_trial;
use crate::args::{ClientArguments, TargetArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::{out, text};

#[derive(Serialize)]
struct Paused {
    paused: u32,
    yielding: u32,
}

#[derive(Serialize)]
struct Resumed {
    resumed: u32,
}

pub async fn pause(client: &ClientArguments, arguments: TargetArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let TargetArguments { target: name, json } = arguments;
    let target = if names_trial(&name) {
        pause_request::Target::Trial(name.clone())
    } else {
        pause_request::Target::Experiment(name.clone())
    };
    let response = client.api.pause(PauseRequest { target: Some(target) }).await;
    let proto::v1::PauseResponse { paused, yielding } = client.answer(response)?;
    if json {
        return out::json(&Paused { paused, yielding });
    }
    let mut said = format!("paused {} of {name}", text::count(paused, "trial"));
    if yielding > 0 {
        said.push_str(&format!(", {yielding} of them after a checkpoint"));
    }
    out::line(&said)?;
    Ok(ExitCode::SUCCESS)
}

pub async fn resume(client: &ClientArguments, arguments: TargetArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let TargetArguments { target: name, json } = arguments;
    let target = if names_trial(&name) {
        resume_request::Target::Trial(name.clone())
    } else {
        resume_request::Target::Experiment(name.clone())
    };
    let response = client.api.resume(ResumeRequest { target: Some(target) }).await;
    let resumed = client.answer(response)?.resumed;
    if json {
        return out::json(&Resumed { resumed });
    }
    out::line(&format!("resumed {} of {name}", text::count(resumed, "trial")))?;
    Ok(ExitCode::SUCCESS)
}
