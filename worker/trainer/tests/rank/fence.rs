//! A rank whose agent tells nothing more of its lease stands still by itself, and loses nothing by it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::AttemptId;
use common::report::{Command, Launch, Report};
use common::spec::{TrainSpec, TrialSpec};
use common::timeouts::ranks::WAKE_AGAIN;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::support::{PATIENCE, Rank, assert_same_tensors, launch, lp_bnn, run, train_spec};

/// Time to the end of a lease: long enough to see what happens before it.
const LEASE: Duration = Duration::from_millis(300);

/// How long it is watched whether something does not happen.
const WATCHED: Duration = Duration::from_millis(500);

/// So many steps that no machine makes them within a lease.
fn long_spec() -> TrainSpec {
    let mut spec = train_spec(lp_bnn());
    spec.recipe.epochs = 150;
    spec
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap().into()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

fn lease(rank: &mut Rank, time: Duration) {
    rank.command(&Command::Lease { until_ns: nanoseconds(now() + time) });
}

fn stands_still(rank: &Rank) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", rank.pid())).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('T')
}

fn wait_until_it_stands_still(rank: &Rank) {
    let start = Instant::now();
    while !stands_still(rank) {
        assert!(start.elapsed() < PATIENCE, "it computes on");
        thread::sleep(Duration::from_millis(1));
    }
}

fn go_on(rank: &Rank) {
    kill(Pid::from_raw(rank.pid().cast_signed()), Signal::SIGCONT).unwrap();
}

/// Lets it go on with the lease that it was told. It may have been about to stop itself once more when it was stopped, and
/// does so before it reads: an agent lets it go on twice, and here the machine may be very busy.
fn go_on_for_good(rank: &Rank) {
    for _ in 0..4 {
        go_on(rank);
        thread::sleep(WAKE_AGAIN);
    }
}

fn wait_for_a_step(rank: &mut Rank) {
    rank.wait_for(|report| matches!(report, Report::Metrics { .. }).then_some(()));
}

#[test]
fn a_rank_stands_still_when_its_lease_is_over_and_goes_on_to_the_same_bits_with_another() {
    let folder = tempfile::tempdir().unwrap();
    let expected = run(&launch(TrialSpec::Train(long_spec()), &folder.path().join("undisturbed")));
    let mut rank = Rank::start(&launch(TrialSpec::Train(long_spec()), &folder.path().join("fenced")));
    wait_for_a_step(&mut rank);
    // Each extends the one before.
    let start = now();
    while now() < start + LEASE * 2 {
        lease(&mut rank, LEASE);
        thread::sleep(LEASE / 20);
        assert!(!stands_still(&rank), "{:?} after the first lease began", now() - start);
    }
    let told = now();
    wait_until_it_stands_still(&rank);
    assert!(now() - told > LEASE / 2, "it stood still after {:?}", now() - told);

    // Whoever lets it go on without a lease does so in vain.
    go_on(&rank);
    wait_until_it_stands_still(&rank);
    rank.forget_reports();
    thread::sleep(WATCHED);
    assert!(stands_still(&rank) && rank.is_silent(), "it computes though it must not");

    lease(&mut rank, LEASE * 1_000);
    go_on_for_good(&rank);
    wait_for_a_step(&mut rank);
    assert_same_tensors(&rank.end().final_checkpoint(), &expected.final_checkpoint());
}

#[test]
fn a_rank_that_was_launched_too_late_stands_still_before_it_computes() {
    let folder = tempfile::tempdir().unwrap();
    let lease_until_ns = Some(nanoseconds(now()));
    let plain = launch(TrialSpec::Train(train_spec(lp_bnn())), folder.path());
    let mut rank = Rank::start(&Launch { lease_until_ns, ..plain });
    wait_until_it_stands_still(&rank);
    assert!(rank.is_silent());
    lease(&mut rank, LEASE * 1_000);
    go_on_for_good(&rank);
    rank.end().done();
}

#[test]
fn a_lease_ends_with_its_launch_and_an_idle_process_never_stands_still() {
    let folder = tempfile::tempdir().unwrap();
    let mut warm = Rank::warm();
    lease(&mut warm, Duration::ZERO);
    let spec = TrialSpec::Train(train_spec(lp_bnn()));
    for attempt in 1..=2 {
        let plain = launch(spec.clone(), &folder.path().join(attempt.to_string()));
        warm.run_warm(&Launch { attempt: AttemptId(attempt), ..plain });
        lease(&mut warm, PATIENCE);
        wait_for_a_step(&mut warm);
        warm.ready();
        // It comes too late for the launch that it was meant for.
        lease(&mut warm, Duration::ZERO);
        thread::sleep(WATCHED);
        assert!(!stands_still(&warm), "it stands still though nothing runs");
    }
    let long = launch(TrialSpec::Train(long_spec()), &folder.path().join("long"));
    warm.run_warm(&Launch { attempt: AttemptId(3), ..long });
    wait_for_a_step(&mut warm);
    lease(&mut warm, LEASE);
    wait_until_it_stands_still(&warm);
    warm.kill();
}
