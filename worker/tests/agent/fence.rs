//! A worker that cannot prove its lease computes nothing, and goes on or is ended when it hears what is still its own.

use std::time::{Duration, Instant};

use common::session::{FromWorker, ToWorker};

use crate::fake::{Fake, Node, is_alive, launch};
use crate::{A, B, FOR_EVER, progress, say};

const LEASE: Duration = Duration::from_secs(2);

/// Letter of a process's state: `T` where it was stopped.
fn state(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('-')
}

async fn wait(what: &str, holds: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

/// Sequence of the next heartbeat.
async fn beat(fake: &mut Fake) -> u64 {
    match fake.until(|message| matches!(message, FromWorker::Heartbeat { .. })).await {
        FromWorker::Heartbeat { sequence, .. } => sequence,
        other => panic!("{other:?}"),
    }
}

/// A worker whose trainer runs, and the trainer's process.
async fn training(fake: &mut Fake, attempt: common::AttemptId) -> (Node, u32) {
    let script =
        format!("echo $$ > \"$HOME_OF_TEST/$(basename \"$PWD\")\"\n{}\n{FOR_EVER}", say(&progress(1)));
    let node = Node::start(fake, 1, &script).await;
    fake.lease = LEASE;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(attempt, 0, 1, 1)))).await;
    fake.until(|message| matches!(message, FromWorker::Progress { .. })).await;
    let pid = node.read("rank-0").trim().parse().unwrap();
    (node, pid)
}

#[tokio::test(flavor = "multi_thread")]
async fn trainers_stand_still_before_an_unproven_lease_ends_and_go_on_when_it_stands_again() {
    let mut fake = Fake::start().await;
    let welcomed = Instant::now();
    let (_node, pid) = training(&mut fake, A).await;
    // The connection stands, but nothing is acknowledged.
    wait("it is stopped", || state(pid) == 'T').await;
    assert!(welcomed.elapsed() < LEASE + Duration::from_millis(200), "{:?}", welcomed.elapsed());

    let sequence = loop {
        let sequence = beat(&mut fake).await;
        // One that waited in the connection is too old to prove anything now.
        if welcomed.elapsed() > LEASE {
            break sequence + 1;
        }
    };
    while beat(&mut fake).await < sequence {}
    fake.tell(ToWorker::HeartbeatAck { sequence }).await;
    wait("it goes on", || state(pid) != 'T').await;
    assert!(is_alive(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_its_own_is_killed_at_once_though_it_stands_still() {
    let mut fake = Fake::start().await;
    let (_node, pid) = training(&mut fake, B).await;
    wait("it is stopped", || state(pid) == 'T').await;
    fake.tell(ToWorker::Release { attempt: B }).await;
    // The grace of a stopped process would be waited for in vain.
    let took = wait("it is gone", || !is_alive(pid)).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_heartbeats_keep_the_lease() {
    let mut fake = Fake::start().await;
    let (_node, pid) = training(&mut fake, A).await;
    let start = Instant::now();
    while start.elapsed() < 2 * LEASE {
        let sequence = beat(&mut fake).await;
        fake.tell(ToWorker::HeartbeatAck { sequence }).await;
        assert_ne!(state(pid), 'T', "after {:?}", start.elapsed());
    }
}
