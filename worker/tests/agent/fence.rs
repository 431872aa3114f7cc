//! What becomes of trainers while their agent cannot prove that its lease stands.

use std::time::{Duration, Instant};

use common::FailureCause;
use common::session::{FromWorker, ToWorker};

use crate::fake::{Fake, Node, is_alive, stands_still, until};
use crate::launch::launch;
use crate::{A, B, progress, say};

/// Long enough that a busy machine does not use it up, short enough to wait for.
const LEASE: Duration = Duration::from_secs(2);

/// Writes its process into a file, says that it is there, and counts for ever.
fn counts() -> String {
    let pid = "echo $$ > \"$HOME_OF_TEST/$(basename \"$(dirname \"$PWD\")\")\"";
    format!("{pid}\n{}\nwhile :; do echo . >> \"$HOME_OF_TEST/count\"; sleep 0.02; done", say(&progress(1)))
}

async fn training(fake: &mut Fake) -> (Node, u32) {
    fake.lease = LEASE;
    let node = Node::start_with(fake, 1, &counts(), |config| config.grace = Duration::from_secs(60)).await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;
    fake.until(|message| matches!(message, FromWorker::Progress { attempt: A, .. })).await;
    let pid = node.pid_of(A);
    (node, pid)
}

#[tokio::test(flavor = "multi_thread")]
async fn trainers_stand_still_before_an_unproven_lease_ends_and_go_on_when_it_stands_again() {
    let mut fake = Fake::start().await;
    let (node, pid) = training(&mut fake).await;
    fake.listen_for(LEASE).await;
    assert!(!stands_still(pid), "answers keep it going");

    fake.answers = false;
    let since = Instant::now();
    until("it stands still", || stands_still(pid)).await;
    // Nothing was answered since, and what was answered before was sent before.
    assert!(since.elapsed() < LEASE, "{:?}", since.elapsed());
    let counted = node.read("count").len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(node.read("count").len(), counted, "it counts while it stands still");

    fake.hello().await;
    until("it goes on", || !stands_still(pid) && node.read("count").len() > counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_its_own_is_killed_at_once_though_it_stands_still() {
    let mut fake = Fake::start().await;
    let (_node, pid) = training(&mut fake).await;
    fake.answers = false;
    until("it stands still", || stands_still(pid)).await;
    (fake.answers, fake.given_away) = (true, vec![A]);
    fake.hello().await;
    fake.listen_for(Duration::from_millis(300)).await;
    assert!(stands_still(pid), "it went on though it is not current");

    fake.tell(ToWorker::Release { attempt: A }).await;
    fake.tell(ToWorker::Launch(Box::new(launch(B, 0, 1, 1)))).await;
    let took = until("it is gone", || !is_alive(pid)).await;
    assert!(took < Duration::from_secs(5), "{took:?} with a grace of a minute");
    fake.until(|message| matches!(message, FromWorker::Progress { attempt: B, .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_down_stops_no_trainer_and_is_found_again_within_two_seconds() {
    let mut fake = Fake::start().await;
    let (node, pid) = training(&mut fake).await;
    fake.die();
    let down = Instant::now();
    while down.elapsed() < LEASE * 2 {
        assert!(!stands_still(pid), "after {:?}", down.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let counted = node.read("count").len();
    fake.rise().await;
    let back = Instant::now();
    let hello = fake.hello().await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    assert_eq!(hello.attempts.len(), 1);
    fake.listen_for(LEASE / 2).await;
    assert!(node.read("count").len() > counted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_that_dies_while_it_stands_still_is_reported_with_its_signal() {
    let mut fake = Fake::start().await;
    let (_node, pid) = training(&mut fake).await;
    fake.answers = false;
    until("it stands still", || stands_still(pid)).await;
    nix::sys::signal::killpg(
        nix::unistd::Pid::from_raw(pid.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    fake.answers = true;
    fake.hello().await;
    let end = fake.until(|message| matches!(message, FromWorker::AttemptEnded { .. })).await;
    let cause = FailureCause::TrainerSignal { signal: 9 };
    assert_eq!(end, FromWorker::AttemptEnded { attempt: A, end: Err(cause) });
}
