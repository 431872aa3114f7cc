//! Metric rows of a trial.

use std::collections::{BTreeMap, BTreeSet};

use common::AttemptId;
use common::result::MetricRow;
use futures::{StreamExt, stream};
use proto::convert::row_to_wire;
use proto::v1;

use super::{Answer, Messages, Service, lookup};

/// Rows in one message.
const ROWS: usize = 500;

impl Service {
    pub(super) async fn query_metrics(
        &self,
        request: v1::QueryMetricsRequest,
    ) -> Answer<Messages<v1::MetricBatch>> {
        let v1::QueryMetricsRequest { trial, names, after_step } = request;
        let id = self.look(move |view| Ok(lookup::trial(view, &trial)?.0)).await?;
        let names: BTreeSet<String> = names.into_iter().collect();
        let wanted = move |row: &MetricRow| {
            // 0 is also what a client sends that did not ask, and rows of step 0 are rows.
            let later = after_step == 0 || row.step > after_step;
            later && (names.is_empty() || names.contains(&row.name))
        };
        let rows = self.stored(move |store| Ok(merge(store.metrics(id)?, wanted))).await?;
        let batches: Vec<_> =
            rows.chunks(ROWS).map(|rows| Ok(v1::MetricBatch { rows: rows.to_vec() })).collect();
        Ok(stream::iter(batches).boxed())
    }
}

/// One row for each step and name, in their order. Where attempts overlap, because one went on from a checkpoint
/// before the point that another had reached, the newest is shown.
fn merge(
    reports: Vec<(AttemptId, Vec<MetricRow>)>,
    wanted: impl Fn(&MetricRow) -> bool,
) -> Vec<v1::MetricRow> {
    let mut merged = BTreeMap::new();
    for (attempt, rows) in reports {
        for row in rows.into_iter().filter(|row| wanted(row)) {
            merged.insert((row.step, row.name.clone()), row_to_wire(row, attempt));
        }
    }
    merged.into_values().collect()
}
