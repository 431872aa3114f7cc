//! What the agent does with ranks that hang, take too much memory, or say that the machine is broken, and with those that
//! wait for a launch.

use std::path::Path;
use std::time::{Duration, Instant};

use common::FailureCause;
use common::report::Report;
use common::session::{AttemptEnd, FromWorker, ToWorker};
use common::spec::{EVALUATION_NUMERICS, EvaluateSpec, Predictor, TrialSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use worker::LogPattern;

use crate::fake::{Fake, Node, is_alive};
use crate::launch::launch;
use crate::{A, B, FOR_EVER, done, progress, say};

/// Writes the process of each rank into a file of its name, and says that it is there.
fn alive_for_ever() -> String {
    format!("echo $$ > \"$HOME_OF_TEST/$(basename \"$PWD\")\"\n{}\n{FOR_EVER}", say(&progress(1)))
}

async fn end_of(fake: &mut Fake, wanted: common::AttemptId) -> AttemptEnd {
    let ended = |message: &FromWorker| matches!(message, FromWorker::AttemptEnded { attempt, .. } if *attempt == wanted);
    match fake.until(ended).await {
        FromWorker::AttemptEnded { end, .. } => end,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_that_is_stopped_is_named_with_its_worker_and_its_gang_is_killed() {
    let mut fake = Fake::start().await;
    let node = Node::start_with(&fake, 2, &alive_for_ever(), |config| {
        config.grace = Duration::from_secs(60);
    })
    .await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 2, 2)))).await;
    for _ in 0..2 {
        fake.until(|message| matches!(message, FromWorker::Progress { .. })).await;
    }
    let pids = ["rank-0", "rank-1"].map(|rank| node.read(rank).parse::<u32>().unwrap());
    kill(Pid::from_raw(pids[1].cast_signed()), Signal::SIGSTOP).unwrap();
    let stopped = Instant::now();
    let end = end_of(&mut fake, A).await;
    let took = stopped.elapsed();
    match end {
        Err(FailureCause::Hung { rank: 1, worker, silent_ms, .. }) => {
            assert_eq!(worker, "node");
            assert!((1_000..4_000).contains(&silent_ms), "{silent_ms} ms");
        }
        other => panic!("{other:?}"),
    }
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(!pids.into_iter().any(is_alive));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_that_takes_more_memory_than_its_slot_has_is_ended_and_both_are_told() {
    let mut fake = Fake::start().await;
    let script = "x=$(head -c 90000000 /dev/zero | tr '\\0' x)\nsleep 60";
    let _node = Node::start_with(&fake, 1, script, |config| config.slot_memory_mib = 48).await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;
    let warned = |message: &FromWorker| matches!(message, FromWorker::Warning { message, .. } if message.contains("slot-memory-mib"));
    match fake.until(warned).await {
        FromWorker::Warning { message, .. } => assert!(message.contains("has 48"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(end_of(&mut fake, A).await, Err(FailureCause::OutOfMemory));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_a_log_that_matches_a_pattern_is_an_incident() {
    let mut fake = Fake::start().await;
    let script = "echo 'NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus' >&2; exit 1";
    let pattern = LogPattern { name: "xid".to_owned(), regex: r"Xid \(PCI".to_owned(), quarantine: true };
    let _node = Node::start_with(&fake, 1, script, |config| config.log_patterns = vec![pattern]).await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;
    match fake.until(|message| matches!(message, FromWorker::Incident { .. })).await {
        FromWorker::Incident { attempt: A, rank: 0, pattern, line, quarantine: true } => {
            assert_eq!(pattern, "xid");
            assert!(line.contains("79, GPU has fallen off the bus"), "{line}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(end_of(&mut fake, A).await, Err(FailureCause::TrainerExit { code: 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_that_waited_serves_trial_after_trial_until_one_fails() {
    let mut fake = Fake::start().await;
    let script = format!(
        "echo \"${{WARM:-cold}}\" >> \"$HOME_OF_TEST/served\"\n[ -e \"$HOME_OF_TEST/fail\" ] && exit 1\n{}",
        say(&done())
    );
    let node = Node::start_with(&fake, 1, &script, |config| config.warm_trainers = Some(1)).await;
    fake.hello().await;
    node.wait_for_warm(1).await;
    for attempt in [A, B] {
        fake.tell(ToWorker::Launch(Box::new(launch(attempt, 0, 1, 1)))).await;
        end_of(&mut fake, attempt).await.unwrap();
        fake.tell(ToWorker::Release { attempt }).await;
    }
    node.write("fail", "");
    let third = common::AttemptId(3);
    fake.tell(ToWorker::Launch(Box::new(launch(third, 0, 1, 1)))).await;
    assert_eq!(end_of(&mut fake, third).await, Err(FailureCause::TrainerExit { code: 1 }));

    let served = node.read("served");
    let served: Vec<&str> = served.lines().collect();
    assert_eq!(served.len(), 3, "{served:?}");
    assert!(served[0] != "cold" && served[1..] == [served[0]; 2], "{served:?}");
    let first: u32 = served[0].parse().unwrap();
    assert!(!is_alive(first), "what failed is not used again");
    // Another one takes its place.
    node.wait_for_warm(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stops_leaves_no_trainer_that_waits() {
    let mut fake = Fake::start().await;
    let mut node = Node::start_with(&fake, 2, &say(&done()), |config| config.warm_trainers = Some(2)).await;
    fake.hello().await;
    node.wait_for_warm(2).await;
    let waiting = node.warm();
    node.ask_to_stop();
    node.ended().await.unwrap();
    // Gone, reaped and forgotten: nothing of them is left for whoever started the agent, or starts the next one.
    assert!(node.warm().is_empty(), "{:?} are remembered", node.warm());
    let left: Vec<_> = waiting.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
    assert!(left.is_empty(), "{left:?} of {waiting:?} are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_that_is_asked_to_yield_is_preempted_after_its_checkpoint_is_stored() {
    let mut fake = Fake::start().await;
    let script = [
        say(&progress(4)),
        "read -r line; case $line in *yield*) ;; *) exit 8;; esac".to_owned(),
        "printf weights > last".to_owned(),
        say(&Report::Checkpoint { step: 5, path: "last".into(), score: None }),
        say(&Report::Yielded { step: 5 }),
    ]
    .join("\n");
    let _node = Node::start(&fake, 1, &script).await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;
    fake.until(|message| matches!(message, FromWorker::Progress { .. })).await;
    fake.tell(ToWorker::Preempt { attempt: A }).await;
    let mut stored = None;
    let end = loop {
        match fake.next().await {
            FromWorker::CheckpointStored { checkpoint, .. } => stored = Some(checkpoint),
            FromWorker::AttemptEnded { attempt: A, end } => break end,
            _ => {}
        }
    };
    assert_eq!(end, Err(FailureCause::Preempted));
    let stored = stored.expect("the checkpoint comes before the end");
    assert_eq!((stored.step, fake.blob(stored.digest)), (5, b"weights".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_that_is_asked_to_yield_ends_at_once() {
    let mut fake = Fake::start().await;
    // Does not read what it is told.
    let script = format!("{}\nsleep 1000", say(&progress(1)));
    let _node = Node::start_with(&fake, 1, &script, |config| config.grace = Duration::from_secs(60)).await;
    fake.hello().await;
    let mut order = launch(A, 0, 1, 1);
    let TrialSpec::Train(network) = order.spec else { panic!("a launch of a train trial") };
    order.spec = TrialSpec::Evaluate(EvaluateSpec {
        predictor: Predictor::Direct { samples_per_member: 1 },
        networks: vec![network],
        ood: Vec::new(),
        shift: None,
        seed: 0,
        batch_size: 10,
        numerics: EVALUATION_NUMERICS,
    });
    order.key = order.spec.key();
    fake.tell(ToWorker::Launch(Box::new(order))).await;
    fake.until(|message| matches!(message, FromWorker::Progress { .. })).await;
    let asked = Instant::now();
    fake.tell(ToWorker::Preempt { attempt: A }).await;
    assert_eq!(end_of(&mut fake, A).await, Err(FailureCause::Preempted));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}
