//! `kill -9` while it answers: what was answered is there when it starts again.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

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
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
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
