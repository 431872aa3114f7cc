//! What it costs: run by hand, with `--release --ignored --nocapture`. The bounds catch a change of order, not of percents.

use std::time::{Duration, Instant};

use common::result::{Checkpoint, MetricRow};
use common::{AttemptId, Digest, ExperimentId, TrialId, TrialKey, WorkerId};
use coordinator::store::{Batch, MetricReport, Store};
use coordinator_core::{DropReason, Event, Millis, Outcome, Placement};
use proto::v1;
use tempfile::TempDir;

use crate::support::{GRID, Server};

/// `methods` rows of `seeds` cells.
fn grid(methods: usize, seeds: usize) -> String {
    let head = GRID.split("[[method]]").next().unwrap();
    let seeds = format!("seeds = {{ first = 0, count = {seeds} }}");
    let rows = (1..=methods).map(|row| {
        let rate = row as f64 / 1000.0;
        format!("[[method]]\nkind = \"mc-dropout\"\nlabel = \"row {row}\"\nrate = {rate}\nsamples = 2\n")
    });
    head.replace("seeds = [0, 1]", &seeds) + &rows.collect::<String>()
}

#[tokio::test]
#[ignore = "measures"]
async fn a_thousand_cells_are_submitted_in_seconds() {
    let server = Server::start().await;
    let grid = grid(10, 100);
    let start = Instant::now();
    let response = server.submit(&grid).await.unwrap();
    let submitted = start.elapsed();
    assert_eq!((response.cells, response.new_trials), (1000, 2000));
    let start = Instant::now();
    assert_eq!(server.submit(&grid).await.unwrap().reused_trials, 2000);
    eprintln!("1000 cells, 2000 trials: submitted in {submitted:?}, again in {:?}", start.elapsed());

    let start = Instant::now();
    let request = v1::GetTableRequest {
        experiment: "e2".to_owned(),
        columns: Vec::new(),
        format: v1::TableFormat::Json.into(),
        ..v1::GetTableRequest::default()
    };
    server.client().get_table(request).await.unwrap();
    eprintln!("table in {:?}", start.elapsed());
    let start = Instant::now();
    let server = Server::start_in(server.stop().await).await;
    eprintln!("stopped and started again in {:?}", start.elapsed());
    assert_eq!(server.trials().await.len(), 2000);
    assert!(submitted < Duration::from_secs(10), "{submitted:?}");
}

#[test]
#[ignore = "measures"]
fn one_flush_carries_many_events() {
    for events in [1, 10, 100, 1000] {
        let dir = TempDir::new().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let start = Instant::now();
        let mut turns = 0;
        while start.elapsed() < Duration::from_secs(2) {
            let event = |worker| Event::WorkerLost { worker: WorkerId(worker), at: Millis(turns) };
            let batch = Batch { events: (0..events).map(event).collect(), ..Batch::default() };
            store.commit(&batch).unwrap();
            turns += 1;
        }
        let flush = start.elapsed() / u32::try_from(turns).unwrap();
        let rate = (turns * events) as f64 / start.elapsed().as_secs_f64();
        let file = std::fs::metadata(dir.path().join("state/db")).unwrap().len();
        let size = file / (turns * events);
        eprintln!(
            "{events} events a flush: {flush:?} a flush, {rate:.0} events/s, {size} bytes on disk an event"
        );
        assert!(flush < Duration::from_secs(1), "{flush:?}");
    }
}

#[test]
#[ignore = "measures"]
fn metric_reports_do_not_outgrow_the_disk() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let start = Instant::now();
    let reports = 20_000;
    for sequence in 1..=reports {
        let row = |name: &str| MetricRow { step: sequence, name: name.to_owned(), value: 0.1 };
        let rows = vec![row("loss"), row("lr"), row("accuracy")];
        let report = MetricReport { trial: TrialId(1), attempt: AttemptId(1), sequence, rows };
        store.commit(&Batch { metrics: vec![report], ..Batch::default() }).unwrap();
    }
    let size = std::fs::metadata(dir.path().join("state/db")).unwrap().len() / reports;
    eprintln!(
        "{reports} reports of 3 rows, one a flush: {:?}, {size} bytes on disk a report",
        start.elapsed()
    );
    let read = Instant::now();
    assert_eq!(store.reader().metrics(TrialId(1)).unwrap().len() as u64, reports);
    eprintln!("read in {:?}", read.elapsed());
    assert!(size < 16 << 10, "{size}");
}

/// A hundred thousand trials with ten events each.
fn a_million_events(folder: &std::path::Path) {
    let mut store = Store::open(folder).unwrap();
    let text = grid(1, 2);
    let planned = common::grid::parse(&text).unwrap().trials;
    let trials = 100_000;
    for first in (1..=trials).step_by(100) {
        let events = (first..first + 100).flat_map(|id| life(id, &planned[0])).collect();
        store.commit(&Batch { events, ..Batch::default() }).unwrap();
    }
    assert_eq!(store.newest_event(), 10 * trials);
}

fn life(id: u64, planned: &common::plan::PlannedTrial) -> Vec<Event> {
    let (trial, attempt, at) = (TrialId(id), AttemptId(id), Millis(id));
    let checkpoint = |step| Checkpoint::new(step, Digest::of(&(id * 10 + step).to_le_bytes()), 1);
    let committed = |step| Event::CheckpointCommitted { trial, attempt, checkpoint: checkpoint(step), at };
    let dropped = |step| Event::CheckpointDropped {
        trial,
        digest: checkpoint(step).digest,
        reason: DropReason::Superseded,
        at,
    };
    let submitted = Event::TrialSubmitted {
        trial,
        experiment: ExperimentId(1),
        key: TrialKey(Digest::of(&id.to_le_bytes())),
        needs: Vec::new(),
        spec: Box::new(planned.spec.clone()),
        policy: planned.policy.clone(),
        label: planned.label.clone(),
        at,
    };
    let placement = Placement::new([(WorkerId(1), 1)]);
    let mut events = vec![submitted, Event::AttemptStarted { trial, attempt, placement, at }];
    events.extend((1..=4).map(committed));
    events.extend((1..=3).map(dropped));
    events.push(Event::TrialEnded { trial, outcome: Outcome::Succeeded { result: Default::default() }, at });
    events
}

#[tokio::test]
#[ignore = "measures"]
async fn a_million_events_are_read_in_seconds() {
    let dir = std::sync::Arc::new(TempDir::new().unwrap());
    let folder = dir.path().to_owned();
    let start = Instant::now();
    tokio::task::spawn_blocking(move || a_million_events(&folder)).await.unwrap();
    eprintln!("1,000,000 events of 100,000 trials written in {:?}", start.elapsed());
    let start = Instant::now();
    let server = Server::start_in(dir).await;
    let replayed = start.elapsed();
    // The first commit makes the snapshot due; those after it meet what it costs.
    let mut slowest = Duration::ZERO;
    let mut answers = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        let asked = Instant::now();
        server.submit(&GRID.replace("seeds = [0, 1]", &format!("seeds = [{answers}]"))).await.unwrap();
        slowest = slowest.max(asked.elapsed());
        answers += 1;
    }
    eprintln!("started by replay in {replayed:?}; then {answers} submissions, the slowest took {slowest:?}");
    let dir = server.stop().await;
    let start = Instant::now();
    let server = Server::start_in(dir).await;
    eprintln!("started from a snapshot in {:?}", start.elapsed());
    let size = std::fs::metadata(server.folder.join("state/db")).unwrap().len();
    eprintln!("{} MB on disk", size >> 20);
    let dir = server.stop().await;
    let found = coordinator::verify(dir.path()).unwrap();
    assert!(found.records.snapshots > 0, "{found:?}");
    assert!(replayed < Duration::from_secs(120) && slowest < Duration::from_secs(5), "{slowest:?}");
}
