//! `credence coordinator`

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use common::config::{self, Layers};

use super::worker::{flag, shutdown_signal};
use crate::args::CoordinatorArguments;
use crate::error::Failure;
use crate::{logging, out};

pub async fn run(arguments: CoordinatorArguments) -> Result<ExitCode, Failure> {
    if arguments.print_config {
        out::line(coordinator::DEFAULT)?;
        return Ok(ExitCode::SUCCESS);
    }
    logging::start(&arguments.logging)?;
    let mut flags = Vec::new();
    flag(&mut flags, "listen", arguments.listen.as_ref());
    flag(&mut flags, "data-dir", arguments.data_dir.as_ref().map(|path| path.display()));
    let layers = Layers {
        default: coordinator::DEFAULT,
        file: arguments.config.as_deref(),
        env_prefix: "CREDENCE_COORDINATOR",
        overrides: &flags,
    };
    let config: coordinator::Config =
        config::load(layers).map_err(|error| Failure::Usage(error.to_string()))?;
    let config = config.validated().map_err(|error| Failure::Usage(format!("{error:#}")))?;
    let address_file = arguments.address_file;
    let announce = move |address: SocketAddr| {
        if let Some(file) = &address_file
            && let Err(error) = write_whole(file, &format!("{address}\n"))
        {
            tracing::error!(%error, "cannot write `{}`", file.display());
        }
    };
    coordinator::serve(config, shutdown_signal(), announce).await.context("the coordinator stopped")?;
    Ok(ExitCode::SUCCESS)
}

/// Writes beside and renames, so that a reader sees all or nothing.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, text)?;
    std::fs::rename(part, path)
}
