//! A snapshot and the events after it are the log. [`Case`] holds every input of every test to that; here is
//! what no other test looks at.

use common::FailureCause;
use coordinator_core::{Cluster, Counts, Event, Input, Millis, Part, Snapshot};

use crate::case::*;
use crate::support::{evaluate, network, policy};

/// Trials of every phase: one that succeeded, one that failed once and runs again, one that waits.
fn mixed() -> Case {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), train(2, 1), evaluate([network(2, 1)])]);
    let _ =
        case.handle(Input::CheckpointCommitted { worker: W1, attempt: A1, checkpoint: checkpoint(1, "one") });
    let _ = case.handle(Input::Ended { worker: W1, attempt: A1, end: success() });
    let _ = case.handle(Input::Ended { worker: W1, attempt: A2, end: Err(FailureCause::OutOfMemory) });
    case
}

#[test]
fn a_snapshot_is_not_changed_by_what_happens_after_it() {
    let mut case = mixed();
    let (snapshot, before) = (case.cluster.snapshot(), case.log.len());
    let _ = case.handle(Input::CancelExperiment { experiment: E1 });
    let then = Cluster::restore(policy(), case.now, snapshot.clone(), &case.log[..0]);
    assert!(then.same_durable_state(&Cluster::replay(policy(), case.now, &case.log[..before])));
    assert!(!then.same_durable_state(&case.cluster));
    let now = Cluster::restore(policy(), case.now, snapshot, &case.log[before..]);
    assert!(now.same_durable_state(&case.cluster));
}

#[test]
fn parts_come_back_in_any_order() {
    let case = mixed();
    let snapshot = case.cluster.snapshot();
    let mut parts: Vec<String> = snapshot.parts().map(|part| serde_json::to_string(&part).unwrap()).collect();
    parts.reverse();
    let mut read = Snapshot::default();
    for part in &parts {
        read.push(serde_json::from_str::<Part<'_>>(part).unwrap());
    }
    assert_eq!(read, snapshot);
}

/// One part a line, as the first version of the format wrote them. Never edited, like the events' files.
const V1: &str = include_str!("../fixtures/snapshot-v1.jsonl");

#[test]
fn a_snapshot_of_version_1_decodes() {
    let mut snapshot = Snapshot::default();
    for line in V1.lines() {
        snapshot.push(serde_json::from_str::<Part<'_>>(line).unwrap());
    }
    let cluster = Cluster::restore(policy(), Millis(5), snapshot, &[] as &[Event]);
    cluster.check().unwrap();
    let counts = Counts { waiting: 1, running: 1, succeeded: 1, ..Counts::default() };
    assert_eq!(cluster.counts(E1), Some(counts));
    assert_eq!(cluster.trial(T2).unwrap().failures[0].cause, FailureCause::OutOfMemory);
    assert_eq!(*cluster.trial(T1).unwrap().checkpoints, [checkpoint(1, "one")]);
    assert_eq!(cluster.worker(W1).unwrap().worker.slots, 1);
}
