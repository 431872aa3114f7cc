//! What it costs: run by hand, with `--release --ignored --nocapture`. The bounds catch a change of order, not of percents.

use std::time::{Duration, Instant};

use common::result::MetricRow;
use common::{AttemptId, TrialId, WorkerId};
use coordinator::store::{Batch, MetricReport, Store};
use coordinator_core::{Event, Millis};
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
