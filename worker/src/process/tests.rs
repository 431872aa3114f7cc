//! One process, made of a shell script.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;

use super::*;
use crate::clock;

/// A trainer made of a shell script, whose launch file is `/dev/null`.
fn start_script(
    folder: &Path,
    body: &str,
    grace: Duration,
) -> (mpsc::Sender<RankOrder>, mpsc::Receiver<RankEvent>) {
    use std::os::unix::fs::PermissionsExt as _;
    let script: PathBuf = folder.join("trainer.sh");
    std::fs::write(&script, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (events, inbox) = mpsc::channel(16);
    let program = RankProgram {
        trainer: &script,
        launch_file: Path::new("/dev/null"),
        log: folder.join("log"),
        rank: 0,
        local_rank: 0,
        world_size: 1,
        threads: 1,
        lease: None,
        environment: &[],
    };
    let started = start(program, grace, events).unwrap();
    (started.orders, inbox)
}

async fn gone(inbox: &mut mpsc::Receiver<RankEvent>) -> ExitStatus {
    loop {
        if let RankEvent::Gone(_, status) = inbox.recv().await.unwrap() {
            return status.unwrap();
        }
    }
}

#[tokio::test]
async fn reports_come_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let body = r#"echo noise; echo '{"report":"warning","message":"m"}'; exit 7"#;
    let (_orders, mut inbox) = start_script(folder.path(), body, Duration::from_secs(5));
    let first = inbox.recv().await.unwrap();
    assert!(matches!(first, RankEvent::Report(0, Report::Warning { .. })), "{first:?}");
    assert_eq!(gone(&mut inbox).await.code(), Some(7));
}

#[tokio::test]
async fn a_command_reaches_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let body = "read line; case $line in *rendezvous*h:1*) exit 0;; esac; exit 1";
    let (orders, mut inbox) = start_script(folder.path(), body, Duration::from_secs(5));
    let command = Command::Rendezvous { address: "h:1".to_owned() };
    orders.send(RankOrder::Tell(command)).await.unwrap();
    assert!(gone(&mut inbox).await.success());
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let body = "trap '' TERM; sleep 1000 & echo $! >\"$(dirname $0)/child\"; echo '{\"report\":\"warning\",\"message\":\"up\"}'; while :; do sleep 1; done";
    let (orders, mut inbox) = start_script(folder.path(), body, Duration::from_millis(200));
    inbox.recv().await.unwrap();
    orders.send(RankOrder::Stop).await.unwrap();
    assert_eq!(gone(&mut inbox).await.signal(), Some(9));
    let child: i32 = std::fs::read_to_string(folder.path().join("child")).unwrap().trim().parse().unwrap();
    // The orphan is reaped by init, which may take a moment.
    for _ in 0..200 {
        if nix::sys::signal::kill(Pid::from_raw(child), None).is_err() || is_zombie(child) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the child outlived its group");
}

#[tokio::test]
async fn a_suspended_process_stands_still_goes_on_and_can_be_ended() {
    let folder = tempfile::tempdir().unwrap();
    let body = r#"while :; do echo '{"report":"warning","message":"tick"}'; sleep 0.02; done"#;
    let (orders, mut inbox) = start_script(folder.path(), body, Duration::from_secs(60));
    inbox.recv().await.unwrap();
    orders.send(RankOrder::Suspend).await.unwrap();
    let quiet = Duration::from_millis(300);
    while tokio::time::timeout(quiet, inbox.recv()).await.is_ok() {}
    orders.send(RankOrder::Resume).await.unwrap();
    inbox.recv().await.unwrap();
    orders.send(RankOrder::Suspend).await.unwrap();
    // Without the grace that only a process which hears would need.
    orders.send(RankOrder::Stop).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), gone(&mut inbox)).await.unwrap();
    assert_eq!(ended.signal(), Some(9));
}

/// What a trainer that stopped itself looks like: it says its number, and stops.
const STOPS_ITSELF: &str = r#"echo "{\"report\":\"warning\",\"message\":\"$$\"}"; kill -STOP $$; exit 7"#;

async fn pid(inbox: &mut mpsc::Receiver<RankEvent>) -> i32 {
    match inbox.recv().await.unwrap() {
        RankEvent::Report(_, Report::Warning { message }) => message.parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn until_stopped(pid: i32) {
    let stopped = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ");
    let wait = async {
        while !stopped() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it stops");
}

/// The agent was frozen, wakes, and the lease stands: it had been extended, but the rank was not told in time.
#[tokio::test]
async fn a_process_that_stopped_itself_at_the_end_of_its_lease_goes_on_with_a_longer_one() {
    let folder = tempfile::tempdir().unwrap();
    let (orders, mut inbox) = start_script(folder.path(), STOPS_ITSELF, Duration::from_secs(5));
    until_stopped(pid(&mut inbox).await).await;
    orders.send(RankOrder::Lease(Duration::from_nanos(1))).await.unwrap();
    orders.send(RankOrder::Lease(clock::now() + Duration::from_secs(60))).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), gone(&mut inbox)).await.unwrap();
    assert_eq!(ended.code(), Some(7));
}

#[tokio::test]
async fn a_process_that_somebody_else_stopped_stays_stopped_whatever_its_lease() {
    let folder = tempfile::tempdir().unwrap();
    let (orders, mut inbox) = start_script(folder.path(), STOPS_ITSELF, Duration::from_secs(5));
    until_stopped(pid(&mut inbox).await).await;
    for minutes in 1..20 {
        let until = clock::now() + Duration::from_secs(minutes * 60);
        orders.send(RankOrder::Lease(until)).await.unwrap();
    }
    let ended = tokio::time::timeout(ranks::WAKE_AGAIN * 2, gone(&mut inbox)).await;
    assert!(ended.is_err(), "{ended:?}");
    orders.send(RankOrder::Kill).await.unwrap();
    gone(&mut inbox).await;
}

/// More than a pipe holds.
#[tokio::test]
async fn a_process_that_reads_nothing_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (orders, mut inbox) = start_script(folder.path(), STOPS_ITSELF, Duration::from_secs(60));
    until_stopped(pid(&mut inbox).await).await;
    let obeyed = async {
        for second in 1..20_000 {
            let until = clock::now() + Duration::from_secs(60 + second);
            orders.send(RankOrder::Lease(until)).await.unwrap();
        }
        orders.send(RankOrder::Resume).await.unwrap();
        gone(&mut inbox).await
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), obeyed).await.expect("orders are obeyed");
    assert_eq!(ended.code(), Some(7));
}

fn is_zombie(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}
