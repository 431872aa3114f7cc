//! `credence submit`

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use common::grid;
use proto::v1::SubmitRequest;
use serde::Serialize;

use crate::args::{ClientArguments, SubmitArguments, WatchArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::{out, text};

#[derive(Serialize)]
struct Submitted {
    experiment: String,
    name: String,
    cells: u32,
    trials: usize,
    new_trials: u32,
    reused_trials: u32,
}

pub async fn run(client: &ClientArguments, arguments: SubmitArguments) -> Result<ExitCode, Failure> {
    let text = read(&arguments.file)?;
    // Checked here too, so that a mistake is shown at once and with the file's name.
    let file = arguments.file.display().to_string();
    let (plan, warnings) = grid::check(&text)
        .map_err(|errors| Failure::Usage(format!("cannot submit `{file}`\n\n{}", errors.in_file(&*file))))?;
    // On standard error, also with `--json`: what a program reads from standard output is the plan alone.
    eprint!("{}", warnings.in_file(&*file));
    if arguments.dry_run {
        return dry_run(&plan, arguments.json);
    }
    let mut connection = Client::connect(client).await?;
    let request =
        SubmitRequest { grid: text, client_version: env!("CARGO_PKG_VERSION").to_owned(), dry_run: false };
    let response = connection.api.submit(request).await;
    let response = connection.answer(response)?;
    let submitted = Submitted {
        experiment: response.experiment_id,
        name: response.name,
        cells: response.cells,
        trials: response.trials.len(),
        new_trials: response.new_trials,
        reused_trials: response.reused_trials,
    };
    if arguments.json {
        out::json(&submitted)?;
    } else {
        out::line(&format!(
            "{} {}: {} cells, {} trials ({} new, {} known)",
            submitted.experiment,
            submitted.name,
            submitted.cells,
            submitted.trials,
            submitted.new_trials,
            submitted.reused_trials
        ))?;
    }
    if arguments.watch {
        let watch = WatchArguments { experiment: submitted.experiment, json: arguments.json };
        return super::watch::run(client, watch).await;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<String, Failure> {
    let result = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    result.map_err(|error| Failure::Usage(format!("cannot read grid file `{}`: {error}", path.display())))
}

fn dry_run(plan: &common::plan::Plan, json: bool) -> Result<ExitCode, Failure> {
    if json {
        return out::json(plan);
    }
    let rows: Vec<_> = plan
        .trials
        .iter()
        .map(|trial| {
            let needs: Vec<_> = trial.spec.needs().iter().map(|key| key.0.short()).collect();
            [trial.spec.key().0.short(), trial.spec.slots().to_string(), trial.label.clone(), needs.join(" ")]
        })
        .collect();
    out::line(&text::columns(["KEY", "SLOTS", "TRIAL", "NEEDS"], &rows))?;
    out::line(&format!(
        "{}: {} cells, {} trials; nothing was submitted",
        plan.name,
        plan.cells.len(),
        plan.trials.len()
    ))?;
    Ok(ExitCode::SUCCESS)
}
