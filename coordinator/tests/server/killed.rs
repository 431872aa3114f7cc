//! `kill -9` while it answers: what was answered is there when it starts again.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use common::WorkerId;
use coordinator::store::{Batch, Store};
use coordinator_core::{Event, Millis};
use proto::v1;
use tempfile::TempDir;

use crate::support::{GRID, Server};

/// Set for the process that is killed; its data folder.
const FOLDER: &str = "CREDENCE_TEST_TO_BE_KILLED";

const TEST: &str = "killed::a_coordinator_that_is_killed_loses_nothing_that_it_answered";

/// Answers after which the process is killed in each round. No sleeping: it is always in the middle of the next.
const ROUNDS: [usize; 6] = [1, 2, 5, 17, 3, 40];

#[tokio::test]
async fn a_coordinator_that_is_killed_loses_nothing_that_it_answered() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return submit_for_ever(PathBuf::from(folder)).await;
    }
    let mut dir = Arc::new(TempDir::new().unwrap());
    let mut known = 0;
    for answers in ROUNDS {
        let folder = dir.path().to_owned();
        let newest = tokio::task::spawn_blocking(move || kill_after(&folder, answers)).await.unwrap();
        let server = Server::start_in(dir).await;
        let list = server.client().list_experiments(v1::ListExperimentsRequest {}).await.unwrap();
        let experiments = list.into_inner().experiments;
        // One more may have become durable before its answer was on its way.
        let expected = newest..=newest + 1;
        assert!(expected.contains(&experiments.len()), "{} of {newest}", experiments.len());
        assert!(newest >= known + answers, "the round before is gone");
        known = experiments.len();
        // Whole, down to the last trial.
        let counts = experiments.iter().map(|experiment| experiment.counts.unwrap());
        assert!(counts.into_iter().all(|counts| (counts.queued, counts.waiting) == (1, 1)));
        dir = server.stop().await;
    }
}

/// Number of the newest experiment that was answered.
fn kill_after(folder: &std::path::Path, answers: usize) -> usize {
    kill_test_after(TEST, folder, answers)
}

/// The same of any test that answers with numbers.
fn kill_test_after(test: &str, folder: &std::path::Path, answers: usize) -> usize {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let answered = |line: String| line.strip_prefix("answered e").and_then(|id| id.parse().ok());
    let newest = lines.by_ref().filter_map(answered).nth(answers - 1);
    child.kill().unwrap();
    child.wait().unwrap();
    // What was answered before the kill arrived counts, too.
    let newest: Option<usize> = lines.filter_map(answered).last().or(newest);
    newest.expect("the child answers until it is killed")
}

async fn submit_for_ever(folder: PathBuf) {
    let server = Server::start_at(folder).await;
    let list = server.client().list_experiments(v1::ListExperimentsRequest {}).await.unwrap();
    let one_method = GRID.rsplit_once("[[method]]").unwrap().0;
    for seed in list.into_inner().experiments.len().. {
        // Two trials that were not known.
        let grid = one_method.replace("seeds = [0, 1]", &format!("seeds = [{seed}]"));
        let response = server.submit(&grid).await.unwrap();
        assert_eq!(response.new_trials, 2);
        eprintln!("answered {}", response.experiment_id);
    }
}

const COMPACTING: &str = "killed::a_store_that_is_killed_while_it_compacts_loses_nothing";

/// Answers after which the process is killed in each round; a compaction is always under way.
const COMPACTIONS: [usize; 10] = [3, 7, 12, 18, 25, 5, 9, 31, 14, 21];

#[test]
fn a_store_that_is_killed_while_it_compacts_loses_nothing() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return compact_for_ever(&PathBuf::from(folder));
    }
    let dir = TempDir::new().unwrap();
    let mut compacted = 0;
    for answers in COMPACTIONS {
        let newest = kill_test_after(COMPACTING, dir.path(), answers) as u64;
        let store = Store::open(dir.path()).unwrap();
        assert!(store.newest_event() >= newest, "{} of {newest}", store.newest_event());
        let expected: Vec<u64> = (1..=store.newest_event()).collect();
        assert!(state(&store) == expected, "after {answers} answers");
        compacted += store.snapshots().unwrap().len();
    }
    assert!(compacted > COMPACTIONS.len(), "{compacted}");
}

/// The newest snapshot and the events since: numbers from 1 on.
fn state(store: &Store) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut covered = 0;
    if let Some(snapshot) = store.snapshots().unwrap().first() {
        snapshot.read(|number: u64| numbers.push(number)).unwrap();
        covered = snapshot.covers();
    }
    numbers.extend(store.events_after(covered).map(|event| match event.unwrap() {
        Event::WorkerLost { worker, .. } => worker.0,
        other => panic!("{other:?}"),
    }));
    numbers
}

fn compact_for_ever(folder: &std::path::Path) {
    let mut store = Store::open(folder).unwrap();
    let mut compaction: Option<thread::JoinHandle<()>> = None;
    loop {
        let newest = store.newest_event();
        let lost = |number| Event::WorkerLost { worker: WorkerId(number), at: Millis(number) };
        let events = (newest + 1..=newest + 500).map(lost).collect();
        store.commit(&Batch { events, ..Batch::default() }).unwrap();
        let newest = store.newest_event();
        eprintln!("answered e{newest}");
        if compaction.as_ref().is_none_or(thread::JoinHandle::is_finished) {
            let compactor = store.compactor().unwrap();
            compaction = Some(thread::spawn(move || compactor.compact(newest, 1..=newest).unwrap()));
        }
    }
}
