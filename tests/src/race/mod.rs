//! Races with peers that run on this machine: what is measured, with everything that is needed to judge it.

mod grid;
mod recovery;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use crate::environment::{Environment, Purpose};
use crate::machine::Machine;

pub use grid::Cells;
pub use recovery::{Contestant, Fault, Result, Run};

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Ours and the peers.
    Everybody,
    /// Ours alone, which needs no Python.
    Ours,
}

/// What a race came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report<T> {
    /// Where.
    pub machine: Machine,
    /// Versions of the peers.
    pub versions: BTreeMap<&'static str, String>,
    /// Every single run.
    pub results: T,
}

/// Times to recover, by fault and contestant.
pub type Recovery = BTreeMap<String, BTreeMap<&'static str, Result>>;

/// Cells of faulted grids, by contestant.
pub type Grids = BTreeMap<&'static str, Vec<Cells>>;

fn environment(field: Field, python: Option<PathBuf>) -> anyhow::Result<Option<Environment>> {
    match field {
        Field::Everybody => Environment::provide(Purpose::Race, python).map(Some),
        Field::Ours => Ok(None),
    }
}

fn versions(
    environment: Option<&Environment>,
    packages: &[&'static str],
) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let Some(environment) = environment else { return Ok(BTreeMap::new()) };
    packages.iter().map(|&package| Ok((package, environment.version(package)?))).collect()
}

/// Recovery from `faults` of one rank of two.
///
/// # Errors
///
/// When a peer cannot be installed.
pub fn recovery(
    field: Field,
    faults: &[Fault],
    runs: usize,
    python: Option<PathBuf>,
) -> anyhow::Result<Report<Recovery>> {
    let machine = Machine::describe();
    let environment = environment(field, python)?;
    let environment = environment.as_ref();
    let contestants: &[Contestant] = match field {
        Field::Everybody => &Contestant::ALL,
        Field::Ours => &[Contestant::Ours],
    };
    let versions = versions(environment, &["torch", "ray"])?;
    Ok(Report { machine, versions, results: recovery::all(contestants, faults, runs, environment)? })
}

/// Lost and double cells of a grid whose processes are killed.
///
/// # Errors
///
/// When a peer cannot be installed or does not run at all.
pub fn grid(field: Field, runs: u64, python: Option<PathBuf>) -> anyhow::Result<Report<Grids>> {
    let machine = Machine::describe();
    let environment = environment(field, python)?;
    let versions = versions(environment.as_ref(), &["optuna"])?;
    Ok(Report { machine, versions, results: grid::all(runs, environment.as_ref())? })
}

/// The table of [`recovery`].
pub fn recovery_table(report: &Report<Recovery>) -> String {
    let mut text = heading(report);
    let _ = writeln!(
        text,
        "{:<10}{:<20}{:>12}{:>12}{:>10}{:>10}",
        "fault", "contestant", "went on", "median s", "min s", "max s"
    );
    for (fault, contestants) in &report.results {
        for (name, result) in contestants {
            let times = || result.runs.iter().filter_map(|run| run.seconds);
            let shown = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |time| format!("{time:.2}"));
            let went_on = format!("{} of {}", result.successes, result.runs.len());
            let (median, least, most) = (
                shown(result.median_seconds),
                shown(times().reduce(f64::min)),
                shown(times().reduce(f64::max)),
            );
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{fault:<10}{name:<20}{went_on:>12}{median:>12}{least:>10}{most:>10}");
        }
    }
    text
}

/// The table of [`grid`].
pub fn grid_table(report: &Report<Grids>) -> String {
    let mut text = heading(report);
    let _ =
        writeln!(text, "{:<20}{:>8}{:>8}{:>8}{:>12}", "contestant", "cells", "lost", "double", "executions");
    for (name, runs) in &report.results {
        for Cells { cells, lost, double, executions } in runs {
            let _ = writeln!(text, "{name:<20}{cells:>8}{lost:>8}{double:>8}{executions:>12}");
        }
    }
    text
}

fn heading<T>(report: &Report<T>) -> String {
    let versions = report.versions.iter().map(|(name, version)| format!(", {name} {version}"));
    format!("{}{}\n\n", report.machine, versions.collect::<String>())
}
