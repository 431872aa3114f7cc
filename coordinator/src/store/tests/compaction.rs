//! Compaction, stopped between each pair of its steps, and snapshots that are damaged.

use super::*;

/// What the store says after the first `n` events: a list of their workers. A state simple enough to see.
fn state(store: &Store) -> Result<Vec<u64>, StoreError> {
    let mut damage = None;
    for snapshot in store.snapshots()? {
        let mut workers = Vec::new();
        match snapshot.read(|worker: u64| workers.push(worker)) {
            Ok(()) => {
                for event in store.events_after(snapshot.covers()) {
                    let Event::WorkerLost { worker, .. } = event? else { panic!("no other event") };
                    workers.push(worker.0);
                }
                return Ok(workers);
            }
            Err(error) => damage = damage.or(Some(error)),
        }
    }
    if let (Some(damage), Some(2..)) = (damage, store.oldest_event()?) {
        return Err(damage);
    }
    let events = store.events_after(0).map(|event| match event? {
        Event::WorkerLost { worker, .. } => Ok(worker.0),
        _ => panic!("no other event"),
    });
    events.collect()
}

fn fill(store: &mut Store, range: std::ops::RangeInclusive<u64>) {
    store.commit(&events(range)).unwrap();
}

fn compact(store: &Store) {
    let newest = store.newest_event();
    let state = state(store).unwrap();
    store.compactor().unwrap().compact(newest, state.iter()).unwrap();
}

#[test]
fn a_snapshot_and_its_tail_are_the_whole_log() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    for round in 0..5_u64 {
        fill(&mut store, round * 100 + 1..=round * 100 + 100);
        compact(&store);
    }
    fill(&mut store, 501..=510);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.newest_event(), 510);
    assert_eq!(state(&store).unwrap(), (1..=510).collect::<Vec<_>>());
    let covered: Vec<_> = store.snapshots().unwrap().iter().map(StoredSnapshot::covers).collect();
    assert_eq!(covered, [500, 400]);
    // What the older one covers is gone, and nothing else.
    assert_eq!(store.oldest_event().unwrap(), Some(401));
}

#[test]
fn a_log_that_is_covered_whole_goes_on_with_the_next_number() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    fill(&mut store, 1..=10);
    compact(&store);
    store.trees.events.clear().unwrap();
    drop(store);
    let mut store = Store::open(dir.path()).unwrap();
    fill(&mut store, 11..=12);
    assert_eq!(state(&store).unwrap(), (1..=12).collect::<Vec<_>>());
}

#[test]
fn a_compaction_stopped_after_any_step_loses_nothing() {
    let mut steps = 1;
    loop {
        let dir = TempDir::new().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        // Two snapshots before it, so that one is given up, with chunks and events enough for several steps.
        for round in 0..2_u64 {
            fill(&mut store, round * 5000 + 1..=round * 5000 + 5000);
            compact(&store);
        }
        fill(&mut store, 10_001..=10_100);
        let expected: Vec<u64> = (1..=10_100).collect();
        let (mut left, mut stages) = (steps, Vec::new());
        let go_on = |stage| {
            stages.push(stage);
            left -= 1;
            left > 0
        };
        store.compactor().unwrap().compact_while(10_100, expected.iter(), go_on).unwrap();
        let ended = stages.len() < steps;
        drop(store);

        let mut store = Store::open(dir.path()).unwrap();
        assert_eq!(state(&store).unwrap(), expected, "stopped after {stages:?}");
        // And the next one clears away what the stopped one left.
        fill(&mut store, 10_101..=10_101);
        compact(&store);
        assert_eq!(state(&store).unwrap(), (1..=10_101).collect::<Vec<_>>(), "stopped after {stages:?}");
        let heads = store.snapshots().unwrap();
        let chunks = store.trees.snapshots.iter().keys().map(|key| key.unwrap()[..8].to_vec());
        for chunk in chunks {
            assert!(heads.iter().any(|head| head.covers().to_be_bytes()[..] == chunk[..]), "{stages:?}");
        }
        if ended {
            assert!(stages.contains(&Stage::Unheaded) && stages.contains(&Stage::Removed), "{stages:?}");
            break;
        }
        steps += 1;
    }
    assert!(steps > 6, "{steps}");
}

#[test]
fn a_damaged_snapshot_is_passed_over_only_where_everything_else_is_there() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    for round in 0..3_u64 {
        fill(&mut store, round * 10 + 1..=round * 10 + 10);
        compact(&store);
    }
    fill(&mut store, 31..=33);
    let damage = |covers: u64| {
        let key = store.trees.snapshots.scan_prefix(covers.to_be_bytes()).keys().next().unwrap().unwrap();
        let mut chunk = store.trees.snapshots.get(&key).unwrap().unwrap().to_vec();
        let last = chunk.len() - 1;
        chunk[last] ^= 1;
        store.trees.snapshots.insert(key, chunk).unwrap();
    };
    damage(30);
    assert_eq!(state(&store).unwrap(), (1..=33).collect::<Vec<_>>());
    damage(20);
    let error = state(&store).unwrap_err();
    assert!(matches!(error, StoreError::DamagedSnapshot { covers: 30, .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::DataLoss);
}
