//! From the disk to the state, and back: the newest snapshot that is whole, the events after it, and the next
//! snapshot when enough events followed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coordinator_core::{Cluster, Millis, Part, Policy, Snapshot};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::History;
use super::history::HistoryPart;
use crate::store::{Store, StoreError, StoredSnapshot};

#[expect(clippy::large_enum_variant, reason = "one lives at a time")]
/// One line of a stored snapshot.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line<'a> {
    Cluster(Part<'a>),
    History(HistoryPart<'a>),
}

/// The state that a store holds.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) cluster: Cluster,
    pub(crate) history: History,
    /// Events that the snapshot stood for; 0 without one.
    pub(crate) covered: u64,
    /// Events that were replayed after it.
    pub(crate) replayed: u64,
    /// Snapshots that were passed over because they are damaged.
    pub(crate) damaged: Vec<StoreError>,
}

/// Reads the state.
///
/// A damaged snapshot is passed over only where an older one, or none, and every event since are there.
pub(crate) fn recover(store: &Store, policy: &Policy, now: Millis) -> Result<Recovered, StoreError> {
    let mut damaged = Vec::new();
    for stored in store.snapshots()? {
        if !damaged.is_empty() && !follows(store, stored.covers())? {
            // The events after it are gone, so it cannot take the place of the damaged one.
            break;
        }
        match recover_from(store, &stored, policy, now) {
            Ok(recovered) => return Ok(Recovered { damaged, ..recovered }),
            Err(error @ StoreError::DamagedSnapshot { .. }) => damaged.push(error),
            Err(error) => return Err(error),
        }
    }
    if !damaged.is_empty() && !follows(store, 0)? {
        return Err(damaged.remove(0));
    }
    let recovered = replay((Snapshot::default(), History::default()), 0, store, policy, now)?;
    Ok(Recovered { damaged, ..recovered })
}

/// Reads the state from one snapshot and the events after it.
pub(crate) fn recover_from(
    store: &Store,
    stored: &StoredSnapshot,
    policy: &Policy,
    now: Millis,
) -> Result<Recovered, StoreError> {
    let (mut snapshot, mut history) = (Snapshot::default(), History::default());
    stored.read(|line| match line {
        Line::Cluster(part) => snapshot.push(part),
        Line::History(part) => history.push(part),
    })?;
    replay((snapshot, history), stored.covers(), store, policy, now)
}

/// Whether the log goes on right after the first `covered` events.
fn follows(store: &Store, covered: u64) -> Result<bool, StoreError> {
    if store.newest_event() == covered {
        return Ok(true);
    }
    Ok(store.oldest_event()?.is_some_and(|oldest| oldest <= covered + 1))
}

fn replay(
    (snapshot, mut history): (Snapshot, History),
    covered: u64,
    store: &Store,
    policy: &Policy,
    now: Millis,
) -> Result<Recovered, StoreError> {
    let mut failed = None;
    let mut replayed = 0_u64;
    let log = store.events_after(covered).map_while(|event| match event {
        Ok(event) => {
            history.apply(&event);
            replayed += 1;
            Some(event)
        }
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    let cluster = Cluster::restore(policy.clone(), now, snapshot, log);
    match failed {
        Some(error) => Err(error),
        None => Ok(Recovered { cluster, history, covered, replayed, damaged: Vec::new() }),
    }
}

/// When the next snapshot is due, and the one that is being written.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// Events between two snapshots, at least.
    every: u64,
    /// Number of the event that makes the next one due.
    due: u64,
    writing: Option<Writing>,
}

#[derive(Debug)]
struct Writing {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        // Nobody may hold the database open for longer than the driver does.
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Snapshots {
    pub(super) fn new(every: u64, covered: u64, cluster: &Cluster) -> Self {
        let due = covered + every.max(cluster.records() as u64);
        Self { every, due, writing: None }
    }

    /// Begins a snapshot of the state after all events of `store`, if one is due.
    ///
    /// The records are shared with the live state, so this takes milliseconds; they are written by a thread of
    /// its own. There are at least as many events between two snapshots as the state has records, so writing
    /// them never costs more than writing the events did.
    pub(super) fn consider(&mut self, store: &Store, cluster: &Cluster, history: &History) {
        let newest = store.newest_event();
        let busy = self.writing.as_ref().is_some_and(|writing| !writing.task.is_finished());
        if newest < self.due || busy {
            return;
        }
        self.due = newest + self.every.max(cluster.records() as u64);
        let compactor = match store.compactor() {
            Ok(compactor) => compactor,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "no snapshot is written");
                return;
            }
        };
        let begun = Instant::now();
        let (cluster, history) = (cluster.snapshot(), history.copy());
        debug!(took = ?begun.elapsed(), "the state is copied for a snapshot");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::task::spawn_blocking(move || {
            let cluster = cluster.parts().map(Line::Cluster);
            let lines = cluster.chain(history.parts().map(Line::History));
            let written = compactor.compact_while(newest, lines, |_| !stopped.load(Ordering::Relaxed));
            match written {
                Ok(()) => info!(events = newest, "the log is compacted"),
                // The next commit meets the same trouble, and the driver answers it.
                Err(error) => warn!(error = &error as &dyn std::error::Error, "the log is not compacted"),
            }
        });
        self.writing = Some(Writing { stop, task });
    }

    /// Waits until nothing is written any more.
    pub(super) async fn stop(&mut self) {
        if let Some(mut writing) = self.writing.take() {
            writing.stop.store(true, Ordering::Relaxed);
            // A panic was logged where it happened.
            let _ = (&mut writing.task).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as the first version of the format wrote them. Never edited.
    const V1: [&str; 3] = [
        r#"{"cluster":{"head":{"workers":{},"last-experiment":1,"last-trial":3,"last-attempt":3}}}"#,
        r#"{"history":{"attempt":[2,{"trial":1,"placement":[{"worker":1,"first_rank":0,"ranks":1}],"started":5,"end":{"at":7,"how":{"failed":{"kind":"out-of-memory"}}}}]}}"#,
        r#"{"history":{"worker":[1,"node-1"]}}"#,
    ];

    #[test]
    fn a_snapshot_of_version_1_decodes_and_is_written_the_same_way() {
        let (mut snapshot, mut history) = (Snapshot::default(), History::default());
        for line in V1 {
            match serde_json::from_str(line).unwrap() {
                Line::Cluster(part) => snapshot.push(part),
                Line::History(part) => history.push(part),
            }
        }
        let attempts: Vec<_> = history.attempts_of(common::TrialId(1)).map(|(id, _)| id.0).collect();
        assert_eq!(attempts, [2]);
        let written: Vec<_> =
            history.parts().map(|part| serde_json::to_string(&Line::History(part)).unwrap()).collect();
        assert_eq!(written, V1[1..]);
        assert_eq!(snapshot.parts().count(), 1);
    }
}
