//! Export and import, and what becomes of a file that was cut or changed.

use super::*;

/// A store with something of everything: two snapshots, events before and after, rows, warnings, logs.
fn full(dir: &TempDir) -> Store {
    let mut store = Store::open(dir.path()).unwrap();
    for round in 0..3_u64 {
        store.commit(&events(round * 10 + 1..=round * 10 + 10)).unwrap();
        let covers = store.newest_event();
        store.compactor().unwrap().compact(covers, 1..=covers).unwrap();
    }
    let warning = Warning { attempt: AttemptId(1), message: "careful".to_owned(), at: Millis(3) };
    let log = StoredLog { digest: Digest::of(b"log"), bytes: 3 };
    let batch = Batch {
        events: (31..=35).map(event).collect(),
        metrics: vec![report(1, 1, 0.5), report(1, 2, f64::NAN)],
        warnings: vec![(TrialId(1), warning)],
        logs: vec![(AttemptId(1), 0, log)],
    };
    store.commit(&batch).unwrap();
    store
}

/// Every record of every tree.
fn content(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Trees { events, metrics, warnings, logs, snapshots, meta, .. } = &store.trees;
    let trees = [events, metrics, warnings, logs, snapshots, meta];
    let entries = trees.into_iter().flat_map(|tree| {
        tree.iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
    });
    entries.collect()
}

#[test]
fn a_round_trip_is_exact() {
    let (dir, target, files) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = full(&dir);
    let before = content(&store);
    drop(store);
    let file = files.path().join("store.export");
    let exported = export(dir.path(), &file).unwrap();
    assert_eq!((exported.newest_event, exported.snapshots, exported.torn), (35, 2, false));
    assert_eq!(import(&file, target.path(), TornTail::Refuse).unwrap(), exported);
    let store = Store::open(target.path()).unwrap();
    assert!(content(&store) == before);
    assert_eq!(store.commits, 4);
    drop(store);

    let error = import(&file, target.path(), TornTail::Refuse).unwrap_err();
    assert!(matches!(error, TransferError::NotEmpty(_)), "{error}");
    let empty = TempDir::new().unwrap();
    assert!(matches!(export(empty.path(), &file), Err(TransferError::NoStore(_))));
}

#[test]
fn a_store_in_use_is_not_exported_and_its_holder_is_named() {
    let dir = TempDir::new().unwrap();
    let _store = full(&dir);
    let error = export(dir.path(), &dir.path().join("export")).unwrap_err();
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
}

#[test]
fn a_file_cut_anywhere_is_refused_or_gives_a_state_that_once_was() {
    let (dir, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    drop(full(&dir));
    let file = files.path().join("store.export");
    export(dir.path(), &file).unwrap();
    let bytes = fs::read(&file).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    // Every byte is in `portable`'s tests; here every record's end, and one in the middle of each.
    for length in (1..bytes.len()).step_by(61) {
        fs::write(&file, &bytes[..length]).unwrap();
        let target = TempDir::new().unwrap();
        let refused = import(&file, target.path(), TornTail::Refuse).unwrap_err();
        assert!(
            matches!(refused, TransferError::Portable { source: PortableError::Torn { .. }, .. }),
            "{refused}"
        );
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0, "{length}: something is left");
        let Ok(imported) = import(&file, target.path(), TornTail::Accept) else {
            // Not even one record is whole.
            assert!(length < 200, "{length}");
            continue;
        };
        assert!(imported.torn);
        let store = Store::open(target.path()).unwrap();
        if let Some(snapshot) = store.snapshots().unwrap().first() {
            let mut covered = Vec::new();
            snapshot.read(|worker: u64| covered.push(worker)).unwrap();
            assert_eq!(covered, (1..=snapshot.covers()).collect::<Vec<_>>());
            let tail: Vec<_> = store.events_after(snapshot.covers()).collect::<Result<_, _>>().unwrap();
            let newest = store.newest_event();
            assert_eq!(tail, (snapshot.covers() + 1..=newest).map(event).collect::<Vec<_>>(), "{length}");
            seen.insert(newest);
        } else {
            assert_eq!(store.newest_event(), 0, "{length}: events of a state that is not there");
        }
    }
    // Never between two events of a commit.
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [20, 30, 35]);
}

#[test]
fn a_damaged_middle_is_refused_by_its_number_and_nothing_is_left() {
    let (dir, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    drop(full(&dir));
    let file = files.path().join("store.export");
    export(dir.path(), &file).unwrap();
    let bytes = fs::read(&file).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        fs::write(&file, &flipped).unwrap();
        let target = files.path().join("data");
        let error = import(&file, &target, TornTail::Accept).unwrap_err();
        let TransferError::Portable { source, .. } = &error else { panic!("byte {at}: {error}") };
        assert!(
            matches!(source, PortableError::Damaged { .. } | PortableError::Foreign),
            "byte {at}: {source}"
        );
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "byte {at}");
    }
}
