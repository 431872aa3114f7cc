//! Logs of every rank are there while it runs, after it ended, and after its worker is gone.

use nix::sys::signal::Signal;
use system_tests::{Cluster, Lease, PATIENCE};

use crate::undisturbed::{self, Ranks};

#[test]
fn the_log_of_each_rank_is_readable_during_and_after_its_run() {
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha", "beta"]);
    let grid = undisturbed::grid(Ranks::Two);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    cluster.wait_checkpoint(&train, 20);
    let read = |cluster: &Cluster, rank: &str| cluster.run(&["logs", &train, "--rank", rank]).ok();
    let during = [read(&cluster, "0"), read(&cluster, "1")];
    for (rank, log) in during.iter().enumerate() {
        assert!(
            log.contains("training starts") && log.contains(&format!("rank={rank}")),
            "rank {rank}:\n{log}"
        );
        let attempt = &cluster.trial(&train).history[0].id;
        assert!(log.lines().all(|line| line.contains(&format!("attempt={attempt}"))), "rank {rank}:\n{log}");
    }
    cluster.finish(grid.name());
    for (rank, before) in during.iter().enumerate() {
        let after = read(&cluster, &rank.to_string());
        assert!(after.starts_with(before.as_str()), "the log of rank {rank} changed: {before}\n---\n{after}");
        assert!(after.contains("training done"), "rank {rank}:\n{after}");
    }
    let tail = cluster.run(&["logs", &train, "--tail", "100"]).ok();
    assert!(tail.len() == 100 && read(&cluster, "0").ends_with(&tail), "{tail}");

    for name in ["alpha", "beta"] {
        let worker = cluster.take_worker(name);
        worker.signal(Signal::SIGTERM);
        assert!(worker.wait(PATIENCE).success());
    }
    for rank in ["0", "1"] {
        assert!(
            read(&cluster, rank).contains("training done"),
            "the log of rank {rank} went with its worker"
        );
    }
    cluster.stop();
}

#[test]
fn a_log_that_cannot_be_is_refused_by_name() {
    let cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One).recipe("epochs = 1");
    cluster.submit(&grid);
    let experiment = cluster.finish(grid.name());
    let train = &experiment.trial(&["train"]).id;
    let refused = |arguments: &[&str]| cluster.run(arguments).failed_with(3);
    assert!(refused(&["logs", train, "--rank", "1"]).contains("no rank 1"));
    assert!(refused(&["logs", train, "--attempt", "a999"]).contains("a999"));
    assert!(refused(&["logs", "t999"]).contains("t999"));
    cluster.stop();
}

#[test]
fn the_log_of_an_attempt_survives_the_agent_that_was_killed() {
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = undisturbed::grid(Ranks::One);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    let first = cluster.wait_checkpoint(&train, 20).history[0].id.clone();
    cluster.kill_worker("alpha");
    cluster.add_worker("alpha", 1);
    cluster.finish(grid.name());
    let log = cluster.run(&["logs", &train, "--attempt", &first]).ok();
    assert!(log.contains("training starts") && !log.contains("training done"), "{log}");
    cluster.stop();
}
