use common::WorkerId;
use coordinator_core::Millis;
use tempfile::TempDir;

use super::*;

fn event(worker: u64) -> Event {
    Event::WorkerLost { worker: WorkerId(worker), at: Millis(worker) }
}

fn events(batch: impl IntoIterator<Item = u64>) -> Batch {
    Batch { events: batch.into_iter().map(event).collect(), ..Batch::default() }
}

fn report(attempt: u64, sequence: u64, value: f64) -> MetricReport {
    let rows = vec![MetricRow { step: sequence, name: "loss".to_owned(), value }];
    MetricReport { trial: TrialId(1), attempt: AttemptId(attempt), sequence, rows }
}

/// Key of the only part of a small record.
fn part(sequence: u64) -> Vec<u8> {
    parts::part_key(&sequence.to_be_bytes(), 0)
}

fn replay(store: &Store) -> Result<Vec<Event>, StoreError> {
    store.events().collect()
}

#[test]
fn events_read_back_in_their_order_after_the_folder_is_opened_again() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.commit(&events(1..=300)).unwrap();
    store.commit(&events([])).unwrap();
    drop(store);
    let mut store = Store::open(dir.path()).unwrap();
    store.commit(&events(301..=310)).unwrap();
    assert_eq!(replay(&store).unwrap(), (1..=310).map(event).collect::<Vec<_>>());
}

#[test]
fn a_large_event_stays_in_the_file_that_is_synced() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let large = Event::ExperimentSubmitted {
        experiment: common::ExperimentId(1),
        name: "large".to_owned(),
        grid: "x".repeat(3 << 20),
        cells: Vec::new(),
        trials: Vec::new(),
        project: common::plan::default_project(),
        priority: 0,
        at: Millis(1),
    };
    let batch = Batch { events: vec![event(1), large.clone(), event(2)], ..Batch::default() };
    store.commit(&batch).unwrap();
    drop(store);
    let elsewhere = fs::read_dir(dir.path().join(DATABASE).join("blobs")).unwrap();
    assert_eq!(elsewhere.count(), 0);
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!(replay(&store).unwrap(), [event(1), large, event(2)]);

    // A part that is missing is noticed.
    store.commit(&events([3])).unwrap();
    store.trees.events.remove(parts::part_key(&2_u64.to_be_bytes(), 5)).unwrap();
    assert!(matches!(replay(&store), Err(StoreError::DamagedEvent { sequence: 2, .. })));
}

#[test]
fn a_damaged_record_is_refused_by_its_number() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.commit(&events(1..=5)).unwrap();
    let mut record = store.trees.events.get(part(3)).unwrap().unwrap().to_vec();
    let last = record.len() - 1;
    record[last] ^= 1;
    store.trees.events.insert(part(3), record).unwrap();

    let replayed: Vec<_> = store.events().take_while(Result::is_ok).collect();
    assert_eq!(replayed.len(), 2);
    let error = replay(&store).unwrap_err();
    assert!(matches!(error, StoreError::DamagedEvent { sequence: 3, .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::DataLoss);
}

#[test]
fn a_record_in_the_place_of_another_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.commit(&events(1..=3)).unwrap();
    let first = store.trees.events.get(part(1)).unwrap().unwrap();
    store.trees.events.insert(part(2), first).unwrap();
    assert!(matches!(replay(&store), Err(StoreError::DamagedEvent { sequence: 2, .. })));
}

#[test]
fn a_missing_record_is_refused_by_its_number() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.commit(&events(1..=5)).unwrap();
    store.trees.events.remove(part(4)).unwrap();
    assert!(matches!(replay(&store), Err(StoreError::Gap { expected: 4, found: 5 })));
}

#[test]
fn a_second_coordinator_on_the_same_folder_is_refused_and_told_who_has_it() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    let pid = std::process::id();
    assert!(
        matches!(error, StoreError::Locked { holder: Holder::Process(holder), .. } if holder == pid),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("process id {pid}")), "{error}");
    drop(store);
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_metric_report_that_is_sent_again_is_kept_once() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let metrics = vec![report(2, 1, 0.5), report(1, 2, f64::NAN), report(1, 1, 0.7), report(1, 1, 9.0)];
    store.commit(&Batch { metrics, ..Batch::default() }).unwrap();
    store.commit(&Batch { metrics: vec![report(2, 1, 9.0)], ..Batch::default() }).unwrap();
    drop(store);

    let reader = Store::open(dir.path()).unwrap().reader();
    let rows = reader.metrics(TrialId(1)).unwrap();
    let values: Vec<_> =
        rows.iter().map(|(attempt, rows)| (attempt.0, rows[0].step, rows[0].value.to_bits())).collect();
    let expected = [(1, 1, 0.7), (1, 2, f64::NAN), (2, 1, 0.5)];
    assert_eq!(
        values,
        expected.map(|(attempt, step, value): (u64, u64, f64)| (attempt, step, value.to_bits()))
    );
    assert!(reader.metrics(TrialId(2)).unwrap().is_empty());
}

#[test]
fn a_warning_is_kept_once_however_often_it_comes() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let warning = |at, message: &str| {
        (TrialId(1), Warning { attempt: AttemptId(1), message: message.to_owned(), at: Millis(at) })
    };
    let warnings = vec![warning(5, "second"), warning(3, "first"), warning(9, "first")];
    store.commit(&Batch { warnings, ..Batch::default() }).unwrap();
    let found = store.reader().warnings(TrialId(1)).unwrap();
    let found: Vec<_> = found.iter().map(|warning| (warning.at.0, warning.message.as_str())).collect();
    assert_eq!(found, [(3, "first"), (5, "second")]);
}

#[test]
fn a_stored_log_is_found_by_attempt_and_rank() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let log = StoredLog { digest: Digest::of(b"log"), bytes: 3 };
    store.commit(&Batch { logs: vec![(AttemptId(1), 1, log)], ..Batch::default() }).unwrap();
    let reader = store.reader();
    assert_eq!(reader.log(AttemptId(1), 1).unwrap(), Some(log));
    assert_eq!(reader.log(AttemptId(1), 0).unwrap(), None);
    assert_eq!(reader.log_blobs().unwrap(), [log.digest]);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Store::open(&file.join("data")).unwrap_err();
    assert!(matches!(error, StoreError::Folder { .. }), "{error}");
    assert!(error.to_string().contains("file/data"), "{error}");
}
