//! `credence workers`

use std::process::ExitCode;
use std::time::Duration;

use proto::v1::ListWorkersRequest;

use crate::args::{ClientArguments, WorkersArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::view::Worker;
use crate::{out, text};

pub async fn run(client: &ClientArguments, arguments: WorkersArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let response = client.api.list_workers(ListWorkersRequest {}).await;
    let workers: Vec<Worker> = client.answer(response)?.workers.into_iter().map(Into::into).collect();
    if arguments.json {
        return out::json(&workers);
    }
    if workers.is_empty() {
        out::line("no worker yet; start one with `credence worker --coordinator URL`")?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = workers
        .iter()
        .map(|worker| {
            let state = if worker.connected {
                "connected".to_owned()
            } else {
                format!("lost in {}", text::duration(Duration::from_millis(worker.lease_left_ms)))
            };
            let state = if worker.held.is_empty() { state } else { format!("{state}, {}", worker.held) };
            [
                worker.id.clone(),
                worker.name.clone(),
                worker.host.clone(),
                format!("{}/{}", worker.slots_used, worker.slots),
                state,
                worker.attempts.join(" "),
            ]
        })
        .collect();
    out::line(&text::columns(["ID", "NAME", "HOST", "SLOTS", "STATE", "ATTEMPTS"], &rows))?;
    Ok(ExitCode::SUCCESS)
}
