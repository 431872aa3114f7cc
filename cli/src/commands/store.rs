//! `credence store`: what a coordinator stores, while no coordinator runs on it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use coordinator::Verified;
use coordinator::store::{TornTail, TransferError, Transferred, export, import};
use serde::Serialize;

use crate::args::StoreCommand;
use crate::error::Failure;
use crate::out;

pub async fn run(command: StoreCommand) -> Result<ExitCode, Failure> {
    // All of it waits for the disk.
    tokio::task::spawn_blocking(move || perform(command)).await.context("cannot go on")?
}

fn perform(command: StoreCommand) -> Result<ExitCode, Failure> {
    match command {
        StoreCommand::Verify(arguments) => {
            let folder = arguments.folder;
            let found = coordinator::verify(&folder.data_dir).map_err(|error| failure(&error))?;
            if folder.json {
                out::json(&found)?;
            } else {
                report(&folder.data_dir, &found)?;
            }
            Ok(if found.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        StoreCommand::Export(arguments) => {
            let folder = arguments.folder;
            let done = export(&folder.data_dir, &arguments.file).map_err(|error| failure(&error))?;
            say(&done, folder.json, "exported", &arguments.file)?;
            Ok(ExitCode::SUCCESS)
        }
        StoreCommand::Import(arguments) => {
            let folder = arguments.folder;
            let torn = if arguments.accept_torn_tail { TornTail::Accept } else { TornTail::Refuse };
            let done =
                import(&arguments.file, &folder.data_dir, torn).map_err(|error| import_failure(&error))?;
            say(&done, folder.json, "imported", &folder.data_dir)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn failure(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::Refused(proto::status::chain(error))
}

fn import_failure(error: &TransferError) -> Failure {
    let hint = if error.is_torn() {
        "; give --accept-torn-tail to import what it holds up to the last whole commit, a state that once was"
    } else {
        ""
    };
    Failure::Refused(format!("{}{hint}", proto::status::chain(error)))
}

fn say(done: &Transferred, json: bool, verb: &str, target: &Path) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Said<'a> {
        #[serde(flatten)]
        done: &'a Transferred,
        target: String,
    }
    if json {
        return out::json(&Said { done, target: target.display().to_string() }).map(drop);
    }
    let Transferred { records, newest_event, snapshots, torn } = *done;
    let mut text = format!(
        "{verb} {records} records to `{}`: events up to {newest_event}, {snapshots} snapshots",
        target.display()
    );
    if torn {
        text += "\nthe end of the file was cut: what came after the last whole commit is lost";
    }
    out::line(&text)
}

fn report(folder: &Path, found: &Verified) -> Result<(), Failure> {
    let Verified { records, newest_event, experiments, trials, blobs, garbage, damage } = found;
    let mut text = format!(
        "`{}`\n  log        {} events, the newest is {newest_event}; {} snapshots\n  state      {experiments} experiments, \
         {trials} trials\n  beside it  {} metric reports, {} warnings, {} logs\n  blobs      {}, {} bytes\n  garbage    {}, {} \
         bytes, which the coordinator removes in time\n",
        folder.display(),
        records.events,
        records.snapshots,
        records.metric_reports,
        records.warnings,
        records.logs,
        blobs.count,
        blobs.bytes,
        garbage.count,
        garbage.bytes,
    );
    match damage.len() {
        0 => text += "everything is whole",
        count => {
            text += &format!("{count} things are damaged or missing:\n");
            text.extend(damage.iter().map(|damage| format!("  - {damage}\n")));
        }
    }
    out::line(&text)
}
