//! `credence curves`

mod data;
mod svg;

use std::process::ExitCode;

use anyhow::Context as _;
use common::suggest;
use proto::v1::{self, GetExperimentRequest};

use super::names_trial;
use super::table::{fetch, predictions};
use crate::args::{ClientArguments, CurveFormat, CurvesArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::out;
use data::Curve;

pub async fn run(client: &ClientArguments, arguments: CurvesArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    let trials = trials(&mut client, &arguments).await?;
    let mut curves = Vec::with_capacity(trials.len());
    for (name, trial) in trials {
        let file = fetch(&mut client, &trial).await?;
        let sets = predictions::sets(&file).with_context(|| format!("predictions of trial {trial}"))?;
        let points = data::points(&sets, arguments.kind, arguments.set.as_deref()).map_err(Failure::Usage)?;
        curves.push(Curve { name, points });
    }
    match arguments.format {
        CurveFormat::Csv => out::line(&data::csv(&curves, arguments.kind))?,
        CurveFormat::Json => {
            return out::json(&data::json(&curves, arguments.kind));
        }
        CurveFormat::Svg => out::line(&svg::chart(&curves, arguments.kind))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Names of the curves, and the trials whose predictions they are of.
async fn trials(client: &mut Client, arguments: &CurvesArguments) -> Result<Vec<(String, String)>, Failure> {
    let target = arguments.target.clone();
    if names_trial(&target) {
        return Ok(vec![(target.clone(), target)]);
    }
    let response = client.api.get_experiment(GetExperimentRequest { experiment: target.clone() }).await;
    let cells = client.answer(response)?.cells;
    let chosen: Vec<&v1::Cell> = cells.iter().filter(|cell| is_chosen(cell, arguments)).collect();
    if chosen.is_empty() {
        return Err(Failure::NotFound(nothing_chosen(&cells, arguments)));
    }
    let done: Vec<_> = chosen
        .iter()
        .filter(|cell| cell.state() == v1::TrialState::Succeeded)
        .map(|cell| (name(cell, &cells), cell.trial_id.clone()))
        .collect();
    // A missing seed is never passed over in silence.
    if done.len() < chosen.len() {
        eprintln!("{} of {} cells are done", done.len(), chosen.len());
    }
    if done.is_empty() {
        return Err(Failure::Refused(format!("no cell of `{target}` that was asked for is done")));
    }
    Ok(done)
}

fn is_chosen(cell: &v1::Cell, arguments: &CurvesArguments) -> bool {
    let is = |chosen: &Option<String>, label: &str| chosen.as_ref().is_none_or(|chosen| chosen == label);
    is(&arguments.data, &cell.data)
        && is(&arguments.model, &cell.model)
        && is(&arguments.method, &cell.method)
        && arguments.seed.is_none_or(|seed| seed == cell.seed)
}

fn nothing_chosen(cells: &[v1::Cell], arguments: &CurvesArguments) -> String {
    let unknown = |what: &str, chosen: &Option<String>, label: fn(&v1::Cell) -> &str| {
        let chosen = chosen.as_deref()?;
        let mut known: Vec<&str> = cells.iter().map(label).collect();
        known.sort_unstable();
        known.dedup();
        let hint =
            || format!("no {what} is labelled `{chosen}`: {}", suggest::hint(chosen, known.iter().copied()));
        (!known.contains(&chosen)).then(hint)
    };
    unknown("data set", &arguments.data, |cell| &cell.data)
        .or_else(|| unknown("model", &arguments.model, |cell| &cell.model))
        .or_else(|| unknown("method", &arguments.method, |cell| &cell.method))
        .unwrap_or_else(|| format!("no cell of `{}` has all that was asked for", arguments.target))
}

/// What a cell is called, as short as the experiment allows.
fn name(cell: &v1::Cell, cells: &[v1::Cell]) -> String {
    let varies = |label: fn(&v1::Cell) -> &str| cells.iter().any(|other| label(other) != label(cell));
    let mut parts = Vec::new();
    if varies(|cell| &cell.data) {
        parts.push(cell.data.clone());
    }
    if varies(|cell| &cell.model) {
        parts.push(cell.model.clone());
    }
    parts.push(cell.method.clone());
    parts.push(format!("seed {}", cell.seed));
    parts.join(", ")
}
