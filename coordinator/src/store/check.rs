//! A look at every record, whatever it says.

use serde::Serialize;

use super::trees::{EVENTS, LOGS, META, METRICS, SNAPSHOTS, WARNINGS};
use super::{Store, StoreError, frame};

/// Damaged records that are named one by one.
const NAMED: usize = 20;

/// Records of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Events that no snapshot took the place of.
    pub events: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Reports of measured values.
    pub metric_reports: u64,
    /// Warnings.
    pub warnings: u64,
    /// Logs.
    pub logs: u64,
}

impl Store {
    /// Reads every record. What is wrong comes with the way out.
    pub(crate) fn check(&self) -> (Counts, Vec<String>) {
        let mut damage = Vec::new();
        let trees = &self.trees;
        let mut count = |tree: &'static str, entries: sled::Iter| {
            let (mut records, mut bad) = (0, 0);
            for entry in trees.records(tree, entries) {
                records += 1;
                let checked = entry.and_then(|(key, record)| {
                    let body = frame::open(&key, &record);
                    let body = body.map_err(|source| StoreError::Damaged { tree, source })?;
                    if tree == METRICS {
                        frame::rows(body).map_err(|source| StoreError::Damaged { tree, source })?;
                    }
                    Ok(())
                });
                if let Err(error) = checked {
                    bad += 1;
                    if bad <= NAMED {
                        let error = proto::status::chain(&error);
                        damage.push(format!("record {records} of `{tree}`: {error}: restore the store from a copy or an export"));
                    }
                    if bad > NAMED {
                        damage.push(format!("more records of `{tree}` are damaged"));
                        break;
                    }
                }
            }
            records
        };
        count(META, trees.meta.iter());
        count(SNAPSHOTS, trees.snapshots.iter());
        let counts = Counts {
            events: count(EVENTS, trees.events.iter()),
            snapshots: 0,
            metric_reports: count(METRICS, trees.metrics.iter()),
            warnings: count(WARNINGS, trees.warnings.iter()),
            logs: count(LOGS, trees.logs.iter()),
        };
        match self.snapshots() {
            Ok(snapshots) => (Counts { snapshots: snapshots.len() as u64, ..counts }, damage),
            Err(error) => {
                damage.push(proto::status::chain(&error));
                (counts, damage)
            }
        }
    }
}
