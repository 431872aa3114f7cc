//! Bootstrap intervals over test examples, computed from the stored predictions of every finished cell.

use std::collections::BTreeMap;

use anyhow::Context as _;
use common::table::{Bounds, Column, Group, Intervals, Row, SeedOutcome, Table};
use metrics::{
    Bootstrap, BootstrapError, Interval, MetricName, Resampled, difference_replicates, mean_replicates,
};

use super::{fetch, predictions};
use crate::client::Client;
use crate::error::Failure;

/// Names the draws, so that the same table has the same intervals everywhere.
const SEED: u64 = 0;

/// Which intervals to compute.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    level: f64,
    replicates: usize,
}

impl Plan {
    /// Intervals of `percent` percent from so many replicates.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for a level that is none, or too few replicates.
    pub fn new(percent: f64, replicates: usize) -> Result<Self, Failure> {
        if !(percent > 0.0 && percent < 100.0) {
            return Err(Failure::Usage(format!(
                "--ci {percent}: use a number between 0 and 100, such as 95"
            )));
        }
        if replicates < 100 {
            return Err(Failure::Usage(format!("--replicates {replicates}: use at least 100")));
        }
        Ok(Self { level: percent / 100.0, replicates })
    }
}

/// Computes the intervals of every mean and difference in `table`.
///
/// # Errors
///
/// When predictions cannot be fetched or read, or the seeds of a row were not tested on the same examples.
pub async fn attach(client: &mut Client, table: &mut Table, plan: Plan) -> Result<(), Failure> {
    let names: Vec<Option<MetricName>> = table.columns.iter().map(metric).collect();
    for group in &mut table.groups {
        let cells = resample(client, group, plan).await?;
        fill(group, &names, &cells, table.compare.as_deref(), plan.level)
            .with_context(|| format!("no intervals for {}, {}", group.data, group.model))?;
    }
    table.intervals = Some(Intervals { level: plan.level, replicates: plan.replicates });
    let without = table.columns.iter().enumerate().filter(|(index, column)| {
        let values = table.groups.iter().flat_map(|group| &group.rows).map(|row| &row.values[*index]);
        metric(column).is_some()
            && values.clone().any(|value| value.mean.is_some())
            && values.clone().all(|value| value.interval.is_none())
    });
    let without: Vec<String> = without.map(|(_, column)| column.name()).collect();
    if !without.is_empty() {
        eprintln!("no intervals for {}, which resampling does not know", without.join(", "));
    }
    Ok(())
}

fn metric(column: &Column) -> Option<MetricName> {
    match column {
        Column::Metric(name) => Some(name.clone()),
        Column::Parameters | Column::TrainingTime | Column::PeakMemory => None,
    }
}

/// The replicates of each finished cell of a group, by its trial.
type Cells = BTreeMap<String, Resampled>;

async fn resample(client: &mut Client, group: &Group, plan: Plan) -> Result<Cells, Failure> {
    let mut cells = Cells::new();
    let bootstrap = Bootstrap { replicates: plan.replicates, seed: SEED };
    for seed in group.rows.iter().flat_map(|row| &row.seeds).filter(|seed| is_done(seed)) {
        let trial = seed.trial.to_string();
        let file = fetch(client, &trial).await?;
        let resampled = tokio::task::spawn_blocking(move || {
            let predictions::Sets { id, ood, .. } = predictions::sets(&file)?;
            let ood: Vec<_> = ood.iter().map(|(name, set)| (name.as_str(), set)).collect();
            anyhow::Ok(bootstrap.resample(&id, &ood)?)
        });
        let resampled = resampled.await.context("resampling was stopped")?;
        cells.insert(trial.clone(), resampled.with_context(|| format!("predictions of trial {trial}"))?);
    }
    Ok(cells)
}

fn is_done(seed: &SeedOutcome) -> bool {
    use common::table::CellStatus::{Cancelled, Done, Failed, Running, Waiting};
    match seed.status {
        Done(_) => true,
        Running | Waiting | Failed(_) | Cancelled => false,
    }
}

/// Intervals of the means, and of the differences from the row that the others are compared with.
fn fill(
    group: &mut Group,
    names: &[Option<MetricName>],
    cells: &Cells,
    compare: Option<&str>,
    level: f64,
) -> Result<(), BootstrapError> {
    let reference = group.rows.iter().find(|row| compare == Some(row.method.as_str())).cloned();
    for row in &mut group.rows {
        for (index, name) in names.iter().enumerate() {
            let Some(name) = name else { continue };
            let of = |row: &Row, with: Option<&Row>| resampled(row, with, name, cells);
            let own = of(row, None);
            let interval = bounds(mean_replicates(&own, name), level)?;
            let mut difference = None;
            if let Some(reference) = &reference {
                let pair = (of(row, Some(reference)), of(reference, Some(row)));
                difference = bounds(difference_replicates(&pair.0, &pair.1, name), level)?;
            }
            let value = &mut row.values[index];
            value.interval = interval;
            if let Some(comparison) = &mut value.comparison {
                comparison.interval = difference;
            }
        }
    }
    Ok(())
}

/// The cells of a row that have the metric; with another row, only those of seeds of which both have it.
fn resampled<'a>(row: &Row, with: Option<&Row>, name: &MetricName, cells: &'a Cells) -> Vec<&'a Resampled> {
    let name = name.to_string();
    let has = |row: &Row, number: u64| {
        row.seeds.iter().any(|seed| seed.seed == number && seed.value(&name).is_some())
    };
    let seeds = row.seeds.iter().filter(|seed| has(row, seed.seed));
    let seeds = seeds.filter(|seed| with.is_none_or(|other| has(other, seed.seed)));
    seeds.filter_map(|seed| cells.get(&seed.trial.to_string())).collect()
}

/// `None` where there is nothing to resample.
fn bounds(
    replicates: Result<Vec<f64>, BootstrapError>,
    level: f64,
) -> Result<Option<Bounds>, BootstrapError> {
    match replicates {
        Ok(replicates) => {
            let Interval { low, high } = Interval::of_replicates(&replicates, level)?;
            Ok(Some(Bounds { low, high }))
        }
        Err(BootstrapError::Empty | BootstrapError::NotResampled(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use common::plan::Cell;
    use common::table::{self, CellOutcome, CellStatus, Choice};
    use common::{Digest, TrialKey};
    use metrics::{Metric, Predictions, Shape};

    use super::*;

    /// Seeds whose networks are right on all but the first so many of 40 images.
    fn cells(rows: &[(&str, &[usize])]) -> (Table, Cells) {
        let bootstrap = Bootstrap { replicates: 200, seed: SEED };
        let (mut outcomes, mut resampled) = (Vec::new(), Cells::new());
        for (method, seeds) in rows {
            for (seed, wrong) in seeds.iter().enumerate() {
                let trial = TrialKey(Digest::of(format!("{method} {seed}").as_bytes()));
                let labels: Vec<u32> = (0..40).map(|n| u32::from(n < *wrong)).collect();
                let shape = Shape { members: 1, samples: 40, classes: 2 };
                let id = Predictions::new(shape, [0.75_f64, 0.25].repeat(40), (0..40).collect::<Vec<_>>());
                let id = id.unwrap().with_labels(labels).unwrap();
                resampled.insert(trial.to_string(), bootstrap.resample(&id, &[]).unwrap());
                let accuracy = 1.0 - *wrong as f64 / 40.0;
                let status = CellStatus::Done([("accuracy".to_owned(), accuracy)].into());
                let cell = Cell {
                    data: "d".into(),
                    model: "m".into(),
                    method: (*method).into(),
                    seed: seed as u64,
                    trial,
                };
                outcomes.push(CellOutcome { cell, setup: None, world_sizes: Vec::new(), status });
            }
        }
        let choice = Choice { compare: Some(rows[0].0.to_owned()), ..Choice::default() };
        (table::build(&outcomes, &choice).unwrap(), resampled)
    }

    #[test]
    fn means_and_differences_have_intervals_over_the_seeds_that_they_rest_on() {
        let (mut table, cells) = cells(&[("a", &[10, 12, 8]), ("b", &[10, 12])]);
        let names: Vec<_> = table.columns.iter().map(metric).collect();
        fill(&mut table.groups[0], &names, &cells, Some("a"), 0.9).unwrap();
        let [a, b] = table.groups[0].rows.as_slice() else { panic!("two rows") };
        for row in [a, b] {
            let (mean, interval) = (row.values[0].mean.unwrap(), row.values[0].interval.unwrap());
            assert!(interval.low < mean && mean < interval.high, "{mean}, {interval:?}");
            assert_eq!(row.values[1].interval, None, "NLL has no mean here, so no interval");
        }
        // Two common seeds with the same mistakes: no difference in any replicate.
        let found = b.values[0].comparison.as_ref().unwrap();
        assert_eq!((found.pairs, found.interval), (2, Some(Bounds { low: 0.0, high: 0.0 })));
        assert!(a.values[0].comparison.is_none());
    }

    #[test]
    fn what_resampling_does_not_know_has_no_interval() {
        let (table, cells) = cells(&[("a", &[10])]);
        let name: MetricName = Metric::QStatistic.into();
        assert!(resampled(&table.groups[0].rows[0], None, &name, &cells).is_empty());
        let all: Vec<&Resampled> = cells.values().collect();
        assert_eq!(bounds(mean_replicates(&all, &name), 0.9), Ok(None));
    }

    #[test]
    fn a_level_or_a_number_of_replicates_that_is_none_is_refused() {
        assert!(Plan::new(95.0, 100).is_ok());
        for (percent, replicates) in [(0.0, 1000), (100.0, 1000), (f64::NAN, 1000), (95.0, 99)] {
            assert!(matches!(Plan::new(percent, replicates), Err(Failure::Usage(_))));
        }
    }
}
