//! The answers of the coordinator against what the fake trainers told, to the last bit.

use std::collections::HashMap;
use std::sync::Arc;

use proto::v1::{
    GetTableRequest, GetTrialRequest, ListTrialsRequest, QueryMetricsRequest, TableFormat, Trial, TrialState,
};
use tokio::task::JoinSet;

use super::clients::Client;
use super::record::{Executions, ROW, SCORE, row_value, score};

/// Trials that are looked at at once.
const AT_ONCE: usize = 32;

/// What a run must have come to.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) executions: HashMap<String, Executions>,
    pub(super) experiments: Vec<String>,
    /// Rows of a train trial.
    pub(super) rows: u64,
}

/// Checks every trial, every row and every table; returns the number of trials and of rows.
///
/// # Panics
///
/// When anything is lost, doubled or different.
pub(super) async fn everything(client: Client, expected: Arc<Expected>) -> (u64, u64) {
    let mut trials = Vec::new();
    for experiment in &expected.experiments {
        let request = ListTrialsRequest { experiment: experiment.clone() };
        let listed = client.clone().list_trials(request).await.expect("a list of trials").into_inner().trials;
        table(client.clone(), experiment, &listed).await;
        trials.extend(listed);
    }
    assert_eq!(
        trials.len(),
        expected.executions.len(),
        "trials that were launched, and trials that there are"
    );
    let (mut count, mut rows) = (0, 0);
    let mut looks = JoinSet::new();
    for trial in trials {
        if looks.len() == AT_ONCE {
            rows += looks.join_next().await.expect("a look").expect("a trial that is as it should be");
        }
        looks.spawn(one(client.clone(), trial, expected.clone()));
        count += 1;
    }
    while let Some(found) = looks.join_next().await {
        rows += found.expect("a trial that is as it should be");
    }
    (count, rows)
}

/// One trial: it ran once, it has the result that its trainer told, and every row once.
async fn one(mut client: Client, trial: Trial, expected: Arc<Expected>) -> u64 {
    let Trial { id, key, state, .. } = trial;
    assert_eq!(state, i32::from(TrialState::Succeeded), "state of {id}");
    let Executions { launched, ended } = &expected.executions[&key];
    assert_eq!(
        (launched.len(), ended.len()),
        (1, 1),
        "{id} was launched as {launched:?} and ended as {ended:?}"
    );
    let attempt = format!("a{}", launched[0]);
    let found = client.get_trial(GetTrialRequest { trial: id.clone() }).await.expect("a trial").into_inner();
    let attempts: Vec<_> = found.attempts.iter().map(|a| (a.id.as_str(), a.failure.as_str())).collect();
    assert_eq!(attempts, [(attempt.as_str(), "")], "attempts of {id}");
    let result = found.result.unwrap_or_else(|| panic!("{id} has no result"));
    assert_eq!(result.metrics[SCORE].to_bits(), score(&key).to_bits(), "score of {id}");
    let rows = rows(&mut client, &id, &key, &attempt).await;
    let trains = !found.checkpoints.is_empty();
    assert_eq!(rows, if trains { expected.rows } else { 0 }, "rows of {id}");
    rows
}

async fn rows(client: &mut Client, id: &str, key: &str, attempt: &str) -> u64 {
    let request = QueryMetricsRequest { trial: id.to_owned(), ..QueryMetricsRequest::default() };
    let mut batches = client.query_metrics(request).await.expect("metric rows").into_inner();
    let mut step = 0;
    while let Some(batch) = batches.message().await.expect("metric rows") {
        for row in batch.rows {
            step += 1;
            let expected = (step, ROW, row_value(key, step).to_bits(), attempt);
            assert_eq!(
                (row.step, row.name.as_str(), row.value.to_bits(), row.attempt_id.as_str()),
                expected,
                "{id}"
            );
        }
    }
    step
}

/// Each row of a table stands over all its seeds, and over the scores that were told.
async fn table(mut client: Client, experiment: &str, trials: &[Trial]) {
    let request = GetTableRequest {
        experiment: experiment.to_owned(),
        columns: vec![SCORE.to_owned()],
        format: TableFormat::Json.into(),
        ..GetTableRequest::default()
    };
    let table = client.get_table(request).await.expect("a table").into_inner();
    let cells: u32 = table.rows.iter().map(|row| row.done).sum();
    assert!(table.rows.iter().all(|row| row.done == row.seeds), "{experiment} has cells that are not done");
    assert_eq!(cells as usize * 2, trials.len(), "{experiment} has a cell for each network");
    let evaluations = trials.iter().filter(|trial| trial.label.starts_with("evaluate"));
    let told: f64 = evaluations.map(|trial| score(&trial.key)).sum::<f64>() / f64::from(cells);
    let value = |row: &proto::v1::TableRow| row.values.iter().find(|value| value.metric == SCORE)?.mean;
    let means = table.rows.iter().map(|row| value(row).expect("a mean of scores") * f64::from(row.done));
    let shown = means.sum::<f64>() / f64::from(cells);
    // Sums in another order.
    assert!((told - shown).abs() < 1e-12, "{experiment}: the table shows {shown}, the trainers told {told}");
}
