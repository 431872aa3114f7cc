//! The sentences below a table: what a mark means, what the lines below a row are, and what became of missing seeds.

use metrics::Metric;

use super::compare::LEVEL;
use super::{Against, CellStatus, Column, Noise, Source, Table, Verdict, published};

/// What the marks and the further lines of a table mean, each sentence without its full stop. `mark` is what a mark is
/// called in the format at hand.
pub(super) fn legend(table: &Table, mark: &str) -> Vec<String> {
    let mut notes = marks(table, mark);
    notes.extend(comparison(table));
    if let Some(intervals) = table.intervals {
        let (percent, replicates) = (shortest(intervals.level * 100.0), intervals.replicates);
        notes.push(format!(
            "[low, high]: {percent} % percentile bootstrap interval over test examples, {replicates} replicates, seeds \
             taken as they are"
        ));
        let ece = Column::Metric(Metric::ExpectedCalibrationError.into());
        if table.columns.contains(&ece) {
            notes.push("resampling adds to a calibration error: the interval of ECE lies high".to_owned());
        }
    }
    match table.against {
        Against::Nothing => {}
        Against::Published if table.sources.is_empty() => notes.push(format!(
            "nothing published belongs to these rows and columns: figures are compared only on the same whole data set, \
             with the same network and method; there are figures for {}",
            published::available()
        )),
        Against::Published => {
            notes.push("published: as printed in its source; in brackets this row less the published figure".to_owned());
        }
    }
    notes
}

fn marks(table: &Table, mark: &str) -> Vec<String> {
    let has = |wanted: Verdict| table.groups.iter().any(|group| group.verdicts.contains(&wanted));
    let mut notes = Vec::new();
    if has(Verdict::Marked) {
        notes.push(format!(
            "{mark}: not distinguishable from the best of its column, while another row is (paired t-test over seeds, \
             Holm-corrected, p < {LEVEL}); rows with missing seeds, or fewer than three, take no part"
        ));
    }
    if has(Verdict::Exact) {
        notes.push(format!("{mark} in Parameters: the least"));
    }
    if has(Verdict::Indistinct) {
        notes.push(if has(Verdict::Marked) {
            "a column without a mark: no row is worse than its best by more than seed noise".to_owned()
        } else {
            format!(
                "no mark: no row is worse than the best by more than seed noise (paired t-test over seeds, \
                 Holm-corrected, p < {LEVEL})"
            )
        });
    }
    if has(Verdict::TooFewSeeds) {
        notes.push("fewer than three seeds of two rows: no claim is made, and nothing marked".to_owned());
    }
    notes
}

fn comparison(table: &Table) -> Vec<String> {
    let Some(reference) = &table.compare else { return Vec::new() };
    let comparisons: Vec<_> = (table.groups.iter().flat_map(|group| &group.rows))
        .flat_map(|row| &row.values)
        .filter_map(|value| value.comparison.as_ref())
        .collect();
    if comparisons.is_empty() {
        return vec![format!("no row has a seed in common with {reference}: nothing is compared")];
    }
    let mut notes =
        vec![format!("− {reference}: mean ± sd of the differences over the seeds that both have")];
    if comparisons.iter().any(|found| found.p.is_some()) {
        notes.push(
            "p: two-sided paired t-test, Holm-corrected for the rows compared in the column; d: Cohen's d_z, mean over sd \
             of the differences; – where they do not vary, or are too few"
                .to_owned(),
        );
    }
    if comparisons.iter().any(|found| found.pairs == 2 && found.p.is_some()) {
        notes.push("two pairs leave one degree of freedom: such a p is a hint at most".to_owned());
    }
    let machines = |column: &Column| column.noise() == Noise::Machines;
    if table.columns.iter().any(machines) {
        notes.push("times depend on machines, load and ranks, and are not tested".to_owned());
    }
    notes
}

/// Sources of the published figures, in their order: title, protocol, and what is different here.
pub(super) fn sources(table: &Table) -> Vec<String> {
    let of = |source: &Source| {
        format!(
            "{}. There: {}; {}. Here: {}",
            source.title,
            source.protocol,
            source.caveat,
            here(table, source)
        )
    };
    table.sources.iter().map(of).collect()
}

/// How the rows were trained that stand beside a source, rows of the same recipe together.
fn here(table: &Table, source: &Source) -> String {
    let mut recipes: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in table.groups.iter().flat_map(|group| &group.rows) {
        let Some(recipe) = &row.recipe else { continue };
        if !row.published.iter().any(|line| line.source == source.id) {
            continue;
        }
        match recipes.iter_mut().find(|(other, _)| other == recipe) {
            Some((_, methods)) if methods.contains(&row.method.as_str()) => {}
            Some((_, methods)) => methods.push(&row.method),
            None => recipes.push((recipe, vec![&row.method])),
        }
    }
    if let [(recipe, _)] = recipes.as_slice() {
        return (*recipe).to_owned();
    }
    let named = recipes.iter().map(|(recipe, methods)| format!("{recipe} ({})", methods.join(", ")));
    named.collect::<Vec<_>>().join("; ")
}

/// What a reader must know of single seeds: with how many ranks elastic ones were trained, and what is missing.
pub(super) fn of_seeds(table: &Table) -> Vec<String> {
    let mut notes = resized(table);
    notes.extend(missing(table));
    notes
}

/// Seeds that failed or were given up, with the reason.
fn missing(table: &Table) -> Vec<String> {
    let mut notes = Vec::new();
    for group in &table.groups {
        for row in &group.rows {
            for seed in &row.seeds {
                let what = match &seed.status {
                    CellStatus::Failed(reason) => format!("failed: {reason}"),
                    CellStatus::Cancelled => "cancelled".to_owned(),
                    CellStatus::Done(_) | CellStatus::Running | CellStatus::Waiting => continue,
                };
                let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
                notes.push(format!(
                    "{}, {}, {}, seed {}: {what}",
                    group.data, group.model, row.method, seed.seed
                ));
            }
        }
    }
    notes
}

/// With how many ranks elastic trials were trained, which decides their last bits and the share of a batch that batch
/// normalisation sees. Seeds of a row with the same history together.
fn resized(table: &Table) -> Vec<String> {
    let mut notes = Vec::new();
    for group in &table.groups {
        for row in &group.rows {
            let mut histories: Vec<(&[u32], Vec<String>)> = Vec::new();
            for seed in row.seeds.iter().filter(|seed| !seed.world_sizes.is_empty()) {
                match histories.iter_mut().find(|(sizes, _)| *sizes == seed.world_sizes) {
                    Some((_, seeds)) => seeds.push(seed.seed.to_string()),
                    None => histories.push((&seed.world_sizes, vec![seed.seed.to_string()])),
                }
            }
            notes.extend(histories.into_iter().map(|(sizes, seeds)| {
                let plural = if seeds.len() == 1 { "" } else { "s" };
                let sizes = sizes.iter().map(u32::to_string).collect::<Vec<_>>().join(", then ");
                format!(
                    "{}, {}, {}, seed{plural} {}: elastic, trained with {sizes} ranks",
                    group.data,
                    group.model,
                    row.method,
                    seeds.join(", ")
                )
            }));
        }
    }
    notes
}

/// 95, or 99.9: without the digits that a product leaves.
fn shortest(percent: f64) -> String {
    let text = format!("{percent:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
