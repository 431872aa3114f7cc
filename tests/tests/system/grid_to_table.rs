//! The main job: a grid of every method becomes a full table.

use std::collections::BTreeSet;

use serde_json::Value;
use system_tests::{Cluster, Grid, Lease, method};

const ROWS: [&str; 6] = [
    "Deterministic (MSP)",
    "MC Dropout",
    "Deep Ensemble",
    "BatchEnsemble",
    "LP-BNN (paper)",
    "LP-BNN (official)",
];

/// Columns that the issue asks for.
const COLUMNS: [&str; 9] =
    ["accuracy", "nll", "brier", "ece", "auroc", "aupr", "fpr95", "parameters", "train_seconds"];

fn grid() -> Grid {
    Grid::new("all-methods")
        .method(method::DETERMINISTIC)
        .method(method::MC_DROPOUT)
        .method(method::DEEP_ENSEMBLE)
        .method(method::BATCH_ENSEMBLE_ON_TWO)
        .method(method::LP_BNN_PAPER)
        .method(method::LP_BNN_OFFICIAL)
}

#[test]
fn a_grid_of_all_methods_ends_in_a_full_table() {
    let cluster = Cluster::with_workers(Lease::Long, &["alpha", "beta"]);
    let submitted = cluster.submit(&grid());
    // Six networks, because the ensemble shares one with the deterministic row, and an evaluation of each row.
    assert_eq!((submitted.cells, submitted.trials, submitted.new_trials), (6, 12, 12));
    let experiment = cluster.finish("all-methods");
    assert_eq!(experiment.trials.succeeded, 12);

    assert_ranks_were_spread(&cluster, &experiment.trial(&["train", "BatchEnsemble"]).id);
    let table: Value = serde_json::from_str(&table(&cluster, "json")).unwrap();
    assert_full(&table);
    assert_other_formats(&cluster);
    assert_recomputed(&cluster);
    cluster.stop();
}

fn table(cluster: &Cluster, format: &str) -> String {
    cluster.run(&["table", "all-methods", "--format", format]).ok()
}

/// Data-parallel training with a rank on each worker, not two on one.
fn assert_ranks_were_spread(cluster: &Cluster, train: &str) {
    let train = cluster.trial(train);
    assert_eq!((train.slots, train.attempts), (2, 1));
    let workers: BTreeSet<&str> = train.history[0].workers.iter().map(String::as_str).collect();
    assert_eq!(workers, ["alpha", "beta"].into());
}

fn assert_full(table: &Value) {
    let columns: BTreeSet<&str> = items(&table["columns"]).map(|column| text(&column["name"])).collect();
    // One out-of-distribution set gives columns with its name.
    let missing: Vec<_> =
        COLUMNS.iter().filter(|name| !columns.iter().any(|column| column.starts_with(**name))).collect();
    assert!(missing.is_empty(), "no column for {missing:?} among {columns:?}");
    let rows: Vec<&Value> = items(&table["groups"]).flat_map(|group| items(&group["rows"])).collect();
    assert_eq!(rows.iter().map(|row| text(&row["method"])).collect::<Vec<_>>(), ROWS);
    for row in &rows {
        assert_eq!((&row["tally"]["done"], &row["tally"]["of"]), (&1.into(), &1.into()), "{row}");
        for value in items(&row["values"]) {
            assert!(
                value["mean"].as_f64().is_some_and(f64::is_finite),
                "{} of {}",
                value["name"],
                row["method"]
            );
            assert_eq!((&value["n"], &value["of"]), (&1.into(), &1.into()), "{value}");
        }
    }
    // One seed claims nothing; a count needs no seeds.
    let marked = rows.iter().flat_map(|row| items(&row["values"])).filter(|value| value["best"] == true);
    let marked: BTreeSet<&str> = marked.map(|value| text(&value["name"])).collect();
    assert_eq!(marked, ["parameters"].into());
}

/// Every form holds every row and the count of seeds.
fn assert_other_formats(cluster: &Cluster) {
    let forms = ["text", "markdown", "csv", "latex"].map(|format| (format, table(cluster, format)));
    for (format, rendered) in &forms {
        for row in ROWS {
            assert!(rendered.contains(row), "no {row} in the {format} table:\n{rendered}");
        }
    }
    let [(_, text), (_, markdown), (_, csv), (_, latex)] = &forms;
    assert_eq!(text.matches("1/1").count(), ROWS.len(), "{text}");
    assert!(markdown.contains("**"), "the best value is not bold:\n{markdown}");
    assert!(latex.contains("\\mathbf"), "the best value is not bold:\n{latex}");
    let widths: BTreeSet<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(widths.len(), 1, "rows of different lengths:\n{csv}");
    assert_eq!(csv.lines().count(), 1 + ROWS.len(), "{csv}");
}

/// The predictions alone give the same scores.
fn assert_recomputed(cluster: &Cluster) {
    let recomputed = cluster.run(&["table", "all-methods", "--recompute"]);
    assert!(
        recomputed.stderr.contains("of 6 trials") && recomputed.stderr.contains(" 0 differ"),
        "{recomputed}"
    );
    assert!(!recomputed.stderr.contains("stored without"), "{recomputed}");
    recomputed.ok();
    // And so they give intervals and curves.
    let intervals = cluster.run(&["table", "all-methods", "--ci", "--replicates", "100"]).ok();
    assert!(intervals.contains("95 % percentile bootstrap interval"), "{intervals}");
    let curves = cluster.run(&["curves", "all-methods", "--kind", "reliability"]).ok();
    assert_eq!(curves.lines().count(), 1 + ROWS.len() * 15, "{curves}");
}

fn items(value: &Value) -> std::slice::Iter<'_, Value> {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}")).iter()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}
