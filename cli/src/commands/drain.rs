//! `credence drain`, `credence undrain`

use std::process::ExitCode;

use proto::v1::{DrainRequest, UndrainRequest};
use serde::Serialize;

use crate::args::{ClientArguments, DrainArguments, UndrainArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::out;

#[derive(Serialize)]
struct Drained {
    attempts: Vec<String>,
}

pub async fn drain(client: &ClientArguments, arguments: DrainArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let DrainArguments { worker, now, reason, json } = arguments;
    let response = client.api.drain(DrainRequest { worker: worker.clone(), now, reason }).await;
    let attempts = client.answer(response)?.attempts;
    if json {
        return out::json(&Drained { attempts });
    }
    let rest = match (attempts.as_slice(), now) {
        ([], _) => "nothing runs there".to_owned(),
        (running, true) => format!("{} write a checkpoint and go elsewhere", running.join(", ")),
        (running, false) => format!("{} run to their end", running.join(", ")),
    };
    out::line(&format!("{worker} is given nothing new; {rest}"))?;
    Ok(ExitCode::SUCCESS)
}

pub async fn undrain(client: &ClientArguments, arguments: UndrainArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let worker = arguments.worker;
    let response = client.api.undrain(UndrainRequest { worker: worker.clone() }).await;
    client.answer(response)?;
    out::line(&format!("{worker} is used again"))?;
    Ok(ExitCode::SUCCESS)
}
