//! `credence doctor`: what a worker on this machine would find, and what to do about what is missing.
//!
//! `facts` looks, `report` judges. It changes nothing and downloads nothing.

mod facts;
mod report;

use std::process::ExitCode;

use common::config::{self, Layers};
use proto::status::chain;

use super::worker::flag;
use crate::args::{ClientArguments, DoctorArguments};
use crate::error::Failure;
use crate::out;
use report::Report;

pub async fn run(client: &ClientArguments, arguments: DoctorArguments) -> Result<ExitCode, Failure> {
    let mut flags = Vec::new();
    flag(&mut flags, "coordinator", client.given().as_ref());
    flag(&mut flags, "device", arguments.device.as_ref());
    flag(&mut flags, "cuda-libtorch", arguments.cuda_libtorch.as_ref().map(|path| path.display()));
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
    let report = Report::of(&facts::gather(config).await?);
    if arguments.json {
        out::json(&report)?;
    } else {
        out::line(&report.to_string())?;
    }
    Ok(if report.gaps() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
