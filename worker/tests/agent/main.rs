//! The agent against a coordinator of the test's own, with shell scripts for trainers.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its tests do")]

mod fake;
mod fence;
mod gpus;
#[path = "../../core/tests/support/launch.rs"]
mod launch;
mod prefetch;
mod ranks;
mod spool;

use std::time::Duration;

use common::report::Report;
use common::result::{Checkpoint, MetricRow, Score};
use common::session::{AttemptState, FromWorker, LogPart, ToWorker};
use common::{AttemptId, Digest, FailureCause};

use fake::{Fake, Node};
use launch::launch;

const A: AttemptId = AttemptId(1);
const B: AttemptId = AttemptId(2);

fn say(report: &Report) -> String {
    format!("echo '{}'", serde_json::to_string(report).unwrap())
}

fn progress(step: u64) -> Report {
    Report::Progress { step, total_steps: 10, loss: None, steps_per_second: None }
}

fn row(step: u64) -> Report {
    Report::Metrics { rows: vec![MetricRow { step, name: "loss".to_owned(), value: 0.5 }] }
}

fn done() -> Report {
    Report::Done { metrics: [("accuracy".to_owned(), 0.9)].into() }
}

/// Never ends by itself, except when its agent does.
const FOR_EVER: &str = "cat >/dev/null; exit 3";

#[tokio::test(flavor = "multi_thread")]
async fn the_end_comes_after_the_checkpoint_and_the_rows_and_names_the_artifacts() {
    let mut fake = Fake::start().await;
    let script = [
        "printf weights > final; printf table > predictions".to_owned(),
        say(&row(3)),
        say(&Report::Checkpoint { step: 3, path: "final".into(), score: Some(0.5) }),
        say(&Report::Artifact { name: "predictions.safetensors".to_owned(), path: "predictions".into() }),
        say(&done()),
    ]
    .join("\n");
    let _node = Node::start(&fake, 1, &script).await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;

    let mut order = Vec::new();
    let end = loop {
        match fake.next().await {
            FromWorker::Metrics { rows, .. } => order.push(format!("rows of step {}", rows[0].step)),
            FromWorker::CheckpointStored { checkpoint, .. } => {
                assert_eq!(fake.blob(checkpoint.digest), b"weights");
                assert_eq!(checkpoint.score, Score::new(0.5));
                order.push(format!("checkpoint of step {}", checkpoint.step));
            }
            FromWorker::AttemptEnded { attempt: A, end } => break end.unwrap().unwrap(),
            _ => {}
        }
    };
    order.sort();
    assert_eq!(order, ["checkpoint of step 3", "rows of step 3"]);
    assert_eq!(end.metrics["accuracy"], 0.9);
    assert_eq!(fake.blob(end.artifacts[0].digest), b"table");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_given_again_only_when_its_process_is_gone() {
    let mut fake = Fake::start().await;
    // Does not mind SIGTERM, so it goes only after the grace.
    let script = format!(
        "trap '' TERM\necho $$ > \"$HOME_OF_TEST/$(basename \"$(dirname \"$PWD\")\")\"\n{}\nwhile :; do sleep 0.05; done",
        say(&progress(1))
    );
    let node = Node::start(&fake, 1, &script).await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;
    fake.until(|message| matches!(message, FromWorker::Progress { attempt: A, .. })).await;
    let first = node.pid_of(A);

    fake.tell(ToWorker::Release { attempt: A }).await;
    fake.tell(ToWorker::Launch(Box::new(launch(B, 0, 1, 1)))).await;
    fake.until(|message| matches!(message, FromWorker::Progress { attempt: B, .. })).await;
    assert!(!fake::is_alive(first), "two processes on one slot");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_leaves_the_trainer_alone_and_rows_are_sent_until_acknowledged() {
    let mut fake = Fake::start().await;
    let script = format!("{}\n{}\n{}\n{FOR_EVER}", say(&row(1)), say(&row(2)), say(&progress(2)));
    let _node = Node::start(&fake, 1, &script).await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;
    fake.until(|message| matches!(message, FromWorker::Metrics { sequence: 2, .. })).await;
    fake.tell(ToWorker::MetricAck { attempt: A, sequence: 1 }).await;
    // The acknowledgement is heard before a log is asked for and answered.
    fake.tell(ToWorker::FetchLog { request: 1, attempt: A, rank: 0, tail: None }).await;
    fake.until(|message| matches!(message, FromWorker::LogData { part: LogPart::End, .. })).await;

    fake.hang_up();
    let hello = fake.hello().await;
    assert_eq!(hello.attempts.len(), 1);
    assert!(matches!(hello.attempts[0].state, AttemptState::Running { step: 2, .. }), "{hello:?}");
    let again = fake.until(|message| matches!(message, FromWorker::Metrics { .. })).await;
    assert!(matches!(again, FromWorker::Metrics { sequence: 2, .. }), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_no_session_heard_is_told_to_the_next() {
    let mut fake = Fake::start().await;
    let script = format!("read line\n{}\n", say(&done()));
    let node = Node::start(&fake, 1, &script).await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 1, 1, 2)))).await;
    fake.tell(ToWorker::Rendezvous { attempt: A, address: "h:1".to_owned() }).await;
    fake.until(|message| matches!(message, FromWorker::AttemptEnded { .. })).await;
    fake.hang_up();
    let hello = fake.hello().await;
    assert!(
        matches!(hello.attempts[0].state, AttemptState::Running { .. }),
        "the end comes after what it rests on"
    );
    let end = fake.until(|message| matches!(message, FromWorker::AttemptEnded { .. })).await;
    assert_eq!(end, FromWorker::AttemptEnded { attempt: A, end: Ok(None) });
    fake.tell(ToWorker::Release { attempt: A }).await;
    fake.until(|message| matches!(message, FromWorker::Heartbeat { attempts, .. } if attempts.is_empty()))
        .await;
    node.wait_until_no_attempt_folder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_rank_dies_the_others_are_stopped_and_its_death_is_the_cause() {
    let mut fake = Fake::start().await;
    let script = format!("if [ $RANK = 1 ]; then kill -9 $$; fi\n{FOR_EVER}");
    let _node = Node::start(&fake, 2, &script).await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 2, 2)))).await;
    let end = fake.until(|message| matches!(message, FromWorker::AttemptEnded { .. })).await;
    let cause = FailureCause::TrainerSignal { signal: 9 };
    assert_eq!(end, FromWorker::AttemptEnded { attempt: A, end: Err(cause) });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_reported_and_the_one_before_it_is_used() {
    let mut fake = Fake::start().await;
    let good = Digest::of(b"old weights");
    let bad = Digest::of(b"new weights");
    fake.put(good, b"old weights");
    fake.put(bad, b"new w3ights");
    let script = format!("grep -c restore-1 \"$1\" >&2; grep -c restore-2 \"$1\" >&2\n{}", say(&done()));
    let _node = Node::start(&fake, 1, &script).await;
    fake.hello().await;
    let mut launch = launch(A, 0, 1, 1);
    launch.restore = vec![Checkpoint::new(2, bad, 11), Checkpoint::new(1, good, 11)];
    fake.tell(ToWorker::Launch(Box::new(launch))).await;
    let damaged = fake.until(|message| matches!(message, FromWorker::CheckpointDamaged { .. })).await;
    assert!(matches!(damaged, FromWorker::CheckpointDamaged { digest, .. } if digest == bad));
    let log = fake.until(|message| matches!(message, FromWorker::LogStored { .. })).await;
    let FromWorker::LogStored { digest, .. } = log else { unreachable!() };
    assert_eq!(fake.blob(digest), b"1\n0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_other_than_0_are_told_where_the_store_is_and_the_coordinator_too() {
    let mut fake = Fake::start().await;
    let opened = say(&Report::Rendezvous { address: "h:41000".to_owned() });
    let script = format!(
        "if [ $RANK = 0 ]; then {opened}; {FOR_EVER}; fi\nread line; echo \"$line\" >&2\n{}",
        say(&Report::Warning { message: "introduced".to_owned() })
    );
    let _node = Node::start(&fake, 2, &script).await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 2, 3)))).await;
    let opened = fake.until(|message| matches!(message, FromWorker::RendezvousOpened { .. })).await;
    assert_eq!(opened, FromWorker::RendezvousOpened { attempt: A, address: "h:41000".to_owned() });
    fake.until(|message| matches!(message, FromWorker::Warning { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_rank_is_read_while_it_runs() {
    let mut fake = Fake::start().await;
    let script = format!("echo first >&2; echo second >&2\n{}\n{FOR_EVER}", say(&progress(1)));
    let _node = Node::start(&fake, 1, &script).await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;
    fake.until(|message| matches!(message, FromWorker::Progress { .. })).await;
    fake.tell(ToWorker::FetchLog { request: 5, attempt: A, rank: 0, tail: Some(7) }).await;
    let part = fake.until(|message| matches!(message, FromWorker::LogData { .. })).await;
    assert_eq!(part, FromWorker::LogData { request: 5, part: LogPart::Data(b"second\n".to_vec()) });
    fake.tell(ToWorker::FetchLog { request: 6, attempt: B, rank: 0, tail: None }).await;
    let missing =
        |m: &FromWorker| matches!(m, FromWorker::LogData { request: 6, part: LogPart::Unreadable(_) });
    fake.until(missing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_that_cannot_be_started_is_a_failed_launch() {
    let mut fake = Fake::start().await;
    let node = Node::start(&fake, 1, "exit 0").await;
    node.break_trainer();
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;
    let end = fake.until(|message| matches!(message, FromWorker::AttemptEnded { .. })).await;
    assert!(
        matches!(&end, FromWorker::AttemptEnded { end: Err(FailureCause::LaunchFailed { message }), .. } if message.contains("trainer.sh")),
        "{end:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_asked_to_stop_leaves_no_process_and_says_goodbye() {
    let mut fake = Fake::start().await;
    let script = format!(
        "echo $$ > \"$HOME_OF_TEST/$(basename \"$(dirname \"$PWD\")\")\"\n{}\n{FOR_EVER}",
        say(&progress(1))
    );
    let mut node = Node::start(&fake, 1, &script).await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;
    fake.until(|message| matches!(message, FromWorker::Progress { .. })).await;
    let pid = node.pid_of(A);
    node.ask_to_stop();
    fake.until(|message| matches!(message, FromWorker::Goodbye)).await;
    assert!(!fake::is_alive(pid));
    fake.hang_up();
    tokio::time::timeout(Duration::from_secs(10), node.ended()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_the_coordinator_refuses_ends_with_the_reason() {
    let fake = Fake::refusing("protocol 1 is spoken here, worker speaks 2").await;
    let mut node = Node::start(&fake, 1, "exit 0").await;
    let error = tokio::time::timeout(Duration::from_secs(10), node.ended()).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("protocol 1 is spoken here"), "{error}");
}
