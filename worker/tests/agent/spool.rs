//! Rows that trainers report while the coordinator is away for long.

use std::fs;
use std::time::Duration;

use common::report::Report;
use common::result::MetricRow;
use common::session::{FromWorker, ToWorker};

use crate::fake::{Fake, Node, until};
use crate::launch::launch;
use crate::{A, done, progress, say};

/// Reports of a trainer: more than an agent keeps in memory, by far.
const REPORTS: u64 = 3_000;

/// Rows of one of them.
const ROWS: u64 = 100;

/// Long enough for a loaded machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Memory that the agent may use for them.
const MEMORY: u64 = 2 << 20;

/// Waits for a file, reports, and comes to its end.
fn script(first: &str) -> String {
    format!(
        "{first}\n{}\nwhile [ ! -e \"$HOME_OF_TEST/go\" ]; do sleep 0.01; done\ncat \"$HOME_OF_TEST/reports\"\n{}\n\
         touch \"$HOME_OF_TEST/reported\"",
        say(&progress(1)),
        say(&done())
    )
}

/// A trainer that says all it has to say while there is no coordinator.
async fn reported_to_nobody(fake: &mut Fake, first: &str) -> Node {
    let node = Node::start(fake, 1, &script(first)).await;
    let lines = (1..=REPORTS).map(|step| {
        let row = |index| MetricRow { step, name: format!("loss/{index}"), value: 0.5 };
        let report = Report::Metrics { rows: (0..ROWS).map(row).collect() };
        serde_json::to_string(&report).unwrap() + "\n"
    });
    node.write("reports", &lines.collect::<String>());
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;
    fake.until(|message| matches!(message, FromWorker::Progress { .. })).await;
    fake.die();
    node.write("go", "");
    until("all is reported", || node.has("reported")).await;
    node
}

/// What a session was told.
#[derive(Debug, Default)]
struct Heard {
    sequences: Vec<u64>,
    warnings: Vec<String>,
    /// Whether the end came, after which nothing should.
    ended: bool,
}

/// Acknowledges what comes until the end, or until so many reports came.
async fn hear(fake: &mut Fake, reports: usize) -> Heard {
    let heard = tokio::time::timeout(PATIENCE, hear_all(fake, reports));
    heard.await.expect("the end in time")
}

async fn hear_all(fake: &mut Fake, reports: usize) -> Heard {
    let mut heard = Heard::default();
    while heard.sequences.len() < reports && !heard.ended {
        match fake.next().await {
            FromWorker::Metrics { attempt: A, sequence, rows } => {
                assert_eq!(rows.len() as u64, ROWS);
                assert!(rows.iter().all(|row| row.step == sequence), "other rows than were reported");
                heard.sequences.push(sequence);
                fake.tell(ToWorker::MetricAck { attempt: A, sequence }).await;
            }
            FromWorker::Warning { message, .. } => heard.warnings.push(message),
            FromWorker::AttemptEnded { attempt: A, end } => {
                end.unwrap();
                heard.ended = true;
            }
            _ => {}
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_long_absence_wait_on_the_disk_and_arrive_once_in_order_before_the_end() {
    let mut fake = Fake::start().await;
    let node = reported_to_nobody(&mut fake, "").await;
    let on_disk =
        || -> u64 { node.spooled(A).iter().map(|file| fs::metadata(file).map_or(0, |m| m.len())).sum() };
    let all = fs::metadata(node.path("reports")).unwrap().len();
    // A row takes fewer bytes on the disk than as JSON, and in memory more.
    until("what memory has no room for is on the disk", || on_disk() > all / 2 - MEMORY).await;

    fake.rise().await;
    fake.hello().await;
    let first = hear(&mut fake, 1_000).await;
    assert!(first.sequences.iter().copied().eq(1..=1_000), "{:?}", first.sequences);
    fake.hang_up();
    fake.hello().await;
    let second = hear(&mut fake, usize::MAX).await;
    // The last acknowledgements may have been lost with the session.
    let again = second.sequences[0];
    assert!((500..=1_001).contains(&again), "told again from {again} on");
    assert!(second.sequences.iter().copied().eq(again..=REPORTS), "{:?}", second.sequences);
    assert!(second.ended);
    assert_eq!((first.warnings, second.warnings), (Vec::new(), Vec::new()));
    assert_eq!(node.spooled(A), Vec::<std::path::PathBuf>::new());

    fake.tell(ToWorker::Release { attempt: A }).await;
    fake.until(|message| matches!(message, FromWorker::Heartbeat { attempts, .. } if attempts.is_empty()))
        .await;
    node.wait_until_no_attempt_folder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_disk_does_not_take_arrive_from_memory() {
    let mut fake = Fake::start().await;
    let full = "mkdir ../spool; for page in $(seq 100); do ln -s /dev/full ../spool/$page.rows; done";
    let node = reported_to_nobody(&mut fake, full).await;
    fake.rise().await;
    fake.hello().await;
    let heard = hear(&mut fake, usize::MAX).await;
    assert!(heard.sequences.iter().copied().eq(1..=REPORTS), "{:?}", heard.sequences);
    assert!(heard.ended);
    let tried = 100 - node.spooled(A).len();
    assert!(tried > 3, "the disk was asked for {tried} pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_rows_on_the_disk_loses_what_is_damaged_and_is_said() {
    let mut fake = Fake::start().await;
    let node = reported_to_nobody(&mut fake, "").await;
    until("some pages are written", || node.spooled(A).len() > 3).await;
    let page = node.path("data/attempts/a1/spool/2.rows");
    let mut bytes = fs::read(&page).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&page, bytes).unwrap();

    fake.rise().await;
    fake.hello().await;
    let heard = hear(&mut fake, usize::MAX).await;
    assert!(heard.ended && heard.sequences.is_sorted());
    assert_eq!(heard.sequences.len() as u64, REPORTS - 1);
    let warning = format!(
        "{ROWS} metric rows were lost: the worker's disk damaged them before the coordinator took them"
    );
    assert_eq!(heard.warnings, [warning]);
}
