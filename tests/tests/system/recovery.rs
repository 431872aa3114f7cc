//! How soon a trial trains again after one of its ranks died or hung, on one worker with two slots.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use common::beacon::{self, Beacon};
use system_tests::{Cluster, Grid, Lease, PATIENCE, TrainerProcess, until};

/// Two ranks that train for long, with a checkpoint every 20 steps.
fn grid(epochs: u32) -> Grid {
    Grid::new("recovery")
        .method("kind = \"mc-dropout\"\nrate = 0.2\nsamples = 2\nslots = 2")
        .recipe(&format!("epochs = {epochs}\nlr = 0.05\nclip-norm = 1.0"))
        .run("checkpoint-steps = 20\ncheckpoint-interval = \"none\"\nmetrics-steps = 50\nmax-failures = 1000")
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::start(Lease::Long);
    cluster.add_worker("alpha", 2);
    cluster.wait_connected("alpha");
    cluster
}

fn attempt_folder(cluster: &Cluster, attempt: &str) -> PathBuf {
    cluster.worker_dir("alpha").join("attempts").join(attempt)
}

fn beacon(cluster: &Cluster, attempt: &str, rank: u32) -> Option<Beacon> {
    let file = attempt_folder(cluster, attempt).join(format!("rank-{rank}")).join(beacon::FILE);
    Beacon::decode(&fs::read(file).ok()?)
}

/// The ranks that train, once both have come to another step than the first that they were seen at, in an attempt other
/// than `before`.
fn wait_training(cluster: &Cluster, before: &str) -> Vec<TrainerProcess> {
    let deadline = Instant::now() + PATIENCE;
    let mut first_steps: BTreeMap<(String, u32), u64> = BTreeMap::new();
    while Instant::now() < deadline {
        let trainers: Vec<_> =
            cluster.trainers().into_iter().filter(|trainer| trainer.attempt != before).collect();
        let mut trains = trainers.len() == 2;
        for TrainerProcess { attempt, rank, .. } in &trainers {
            // Before the first step, the beacon stands at step 0.
            let step = beacon(cluster, attempt, *rank).map_or(0, |beacon| beacon.step);
            let first = *first_steps.entry((attempt.clone(), *rank)).or_insert(step);
            if first == 0 {
                first_steps.insert((attempt.clone(), *rank), step);
            }
            trains &= first > 0 && step > first;
        }
        if trains {
            return trainers;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("no attempt but {before} trains: {:?}", cluster.trainers());
}

fn train_trial(cluster: &Cluster) -> String {
    cluster.experiment("recovery").trial(&["train"]).id.clone()
}

#[test]
fn a_rank_that_is_stopped_is_named_and_its_trial_trains_again() {
    let cluster = cluster();
    cluster.submit(&grid(100_000));
    let trial = train_trial(&cluster);
    let trainers = wait_training(&cluster, "");
    cluster.wait_checkpoint(&trial, 20);
    let stopped = trainers.iter().find(|trainer| trainer.rank == 1).unwrap();
    // The same look at the same moment: which rank is behind depends on nothing but the stop.
    let begun = Instant::now();
    cluster.freeze_trainer(stopped);
    let named = until("the rank is named", PATIENCE, || {
        let failure = cluster.trial(&trial).history.first()?.failure.clone();
        (!failure.is_empty()).then_some(failure)
    });
    let naming = begun.elapsed();
    wait_training(&cluster, &stopped.attempt);
    let training = begun.elapsed();
    eprintln!("named after {naming:?}, training again after {training:?}: {named}");
    assert!(named.contains("rank 1 on alpha hung"), "{named}");
    // The goals are 3 s and 5 s; what is more is for a machine that many tests share.
    assert!(naming < Duration::from_secs(6) && training < Duration::from_secs(12), "{naming:?} {training:?}");
    let log = cluster.run(&["logs", &trial, "--attempt", &stopped.attempt, "--rank", "1"]).ok();
    assert!(log.contains("credence worker: rank 1: step"), "what it did is kept: {log}");
    assert!(log.contains("state T"), "{log}");
    cluster.run(&["cancel", "recovery"]).ok();
    cluster.stop();
}

#[test]
#[ignore = "takes minutes; prints the times of 50 recoveries from SIGKILL"]
fn times_of_recoveries_from_a_rank_that_is_killed() {
    let cluster = cluster();
    cluster.submit(&grid(100_000));
    let trial = train_trial(&cluster);
    let mut trainers = wait_training(&cluster, "");
    let mut times = Vec::new();
    for round in 0..50_u32 {
        let attempt = trainers[0].attempt.clone();
        until("a checkpoint of this attempt", PATIENCE, || {
            let log = fs::read_to_string(attempt_folder(&cluster, &attempt).join("rank-0.log")).ok()?;
            (log.matches("checkpoint written").count() >= 2).then_some(())
        });
        // As between real failures, the pool has the time to fill.
        thread::sleep(Duration::from_millis(4_000));
        let begun = Instant::now();
        cluster.kill_process_of(&trainers[(round % 2) as usize]);
        trainers = wait_training(&cluster, &attempt);
        times.push(begun.elapsed());
        eprintln!("recovery {round}: {:?}", times[times.len() - 1]);
    }
    times.sort();
    eprintln!(
        "{} recoveries: median {:?}, slowest {:?}",
        times.len(),
        times[times.len() / 2],
        times[times.len() - 1]
    );
    let after = cluster.trial(&trial);
    assert_eq!((after.attempts, after.failures), (51, 50), "{after:#?}");
    cluster.run(&["cancel", "recovery"]).ok();
    cluster.stop();
}
