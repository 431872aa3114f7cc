//! `credence`: coordinator, worker and every client command in one program that knows nothing of tensors.

mod args;
mod client;
mod commands;
mod error;
mod logging;
mod out;
mod text;
mod view;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Arguments, Command};
use crate::error::Failure;

/// The C library's allocator keeps what each thread freed for that thread: of a busy coordinator, as much again as is in use.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(dispatch(arguments)) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

async fn dispatch(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { client, command } = arguments;
    match command {
        Command::Coordinator(arguments) => commands::coordinator::run(arguments).await,
        Command::Worker(arguments) => commands::worker::run(&client, arguments).await,
        Command::Submit(arguments) => commands::submit::run(&client, arguments).await,
        Command::List(arguments) => commands::list::run(&client, arguments).await,
        Command::Status(arguments) => commands::status::run(&client, arguments).await,
        Command::Watch(arguments) => commands::watch::run(&client, arguments).await,
        Command::Logs(arguments) => commands::logs::run(&client, arguments).await,
        Command::Cancel(arguments) => commands::cancel::run(&client, arguments).await,
        Command::Explain(arguments) => commands::explain::run(&client, arguments).await,
        Command::Pause(arguments) => commands::pause::pause(&client, arguments).await,
        Command::Resume(arguments) => commands::pause::resume(&client, arguments).await,
        Command::Priority(arguments) => commands::priority::run(&client, arguments).await,
        Command::Pin(arguments) => commands::pin::run(&client, arguments, true).await,
        Command::Unpin(arguments) => commands::pin::run(&client, arguments, false).await,
        Command::Drain(arguments) => commands::drain::drain(&client, arguments).await,
        Command::Undrain(arguments) => commands::drain::undrain(&client, arguments).await,
        Command::Table(arguments) => commands::table::run(&client, arguments).await,
        Command::Curves(arguments) => commands::curves::run(&client, arguments).await,
        Command::Artifacts(arguments) => commands::artifacts::run(&client, arguments).await,
        Command::Metrics(arguments) => commands::metrics::run(&client, arguments).await,
        Command::Store(arguments) => commands::store::run(arguments.command).await,
        Command::Doctor(arguments) => commands::doctor::run(&client, arguments).await,
        Command::Data(arguments) => commands::data::run(arguments.command).await,
        Command::Workers(arguments) => commands::workers::run(&client, arguments).await,
    }
}
