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

/// `until_ns` of a launch file or a command.
fn until_ns(text: &str) -> Vec<u64> {
    let times = text.lines().filter_map(|line| line.split_once("until_ns\":")).map(|(_, time)| time);
    times.map(|time| time.trim().trim_end_matches([',', '}']).parse().unwrap()).collect()
}

fn boot_ns() -> u64 {
    let time = Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap());
    u64::try_from(time.as_nanos()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_is_told_until_when_it_may_compute_from_its_launch_on_and_by_each_answer() {
    let mut fake = Fake::start().await;
    fake.lease = LEASE;
    let script = format!(
        "cp \"$1\" \"$HOME_OF_TEST/launch\"\n{}\nexec cat > \"$HOME_OF_TEST/told\"",
        say(&progress(1))
    );
    let node = Node::start(&fake, 1, &script).await;
    let before = boot_ns();
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;
    fake.until(|message| matches!(message, FromWorker::Progress { attempt: A, .. })).await;
    fake.listen_for(LEASE / 4).await;
    let mut told = until_ns(&node.read("launch"));
    assert_eq!(told.len(), 1);
    told.extend(until_ns(&node.read("told")));
    let lease = u64::try_from(LEASE.as_nanos()).unwrap();
    assert!(told.len() > 2 && told.is_sorted(), "{told:?}");
    // From when it was asked, not from when it was answered, and before the lease ends.
    assert!(told[0] > before && *told.last().unwrap() < boot_ns() + lease, "{told:?}, from {before}");

    // A refused connection proves that the lease cannot end yet.
    fake.die();
    let count = until_ns(&node.read("told")).len();
    until("it is told more", || until_ns(&node.read("told")).len() > count + 2).await;
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
