//! `credence worker`

use std::process::ExitCode;

use anyhow::Context as _;
use common::config::{self, Layers};
use proto::status::chain;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{ClientArguments, WorkerArguments};
use crate::error::Failure;
use crate::{logging, out};

pub async fn run(client: &ClientArguments, arguments: WorkerArguments) -> Result<ExitCode, Failure> {
    if arguments.print_config {
        out::line(worker::DEFAULT)?;
        return Ok(ExitCode::SUCCESS);
    }
    logging::start(&arguments.logging)?;
    let mut flags = Vec::new();
    flag(&mut flags, "coordinator", client.given().as_ref());
    flag(&mut flags, "name", arguments.name.as_ref());
    flag(&mut flags, "host", arguments.host.as_ref());
    flag(&mut flags, "slots", arguments.slots.as_ref());
    flag(&mut flags, "device", arguments.device.as_ref());
    flag(&mut flags, "threads-per-slot", arguments.threads_per_slot);
    flag(&mut flags, "data-dir", arguments.data_dir.as_ref().map(|path| path.display()));
    flag(&mut flags, "datasets-dir", arguments.datasets_dir.as_ref().map(|path| path.display()));
    flag(&mut flags, "trainer", arguments.trainer.as_ref().map(|path| path.display()));
    let layers = Layers {
        default: worker::DEFAULT,
        file: arguments.config.as_deref(),
        env_prefix: "CREDENCE_WORKER",
        overrides: &flags,
    };
    let config: worker::Config = config::load(layers).map_err(|error| Failure::Usage(chain(&error)))?;
    let config = config.validated().map_err(|error| Failure::Usage(error.to_string()))?;
    worker::run(config, shutdown_signal()).await.context("the worker stopped")?;
    Ok(ExitCode::SUCCESS)
}

/// Adds a flag that was given.
pub fn flag(flags: &mut Vec<(&'static str, String)>, key: &'static str, value: Option<impl ToString>) {
    flags.extend(value.map(|value| (key, value.to_string())));
}

/// Ends with the first SIGTERM or Ctrl-C.
pub async fn shutdown_signal() {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => {
            tracing::error!(%error, "SIGTERM cannot be heard");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tracing::info!("asked to stop");
}
