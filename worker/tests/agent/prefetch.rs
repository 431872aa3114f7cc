//! What is fetched before a launch needs it, and that no launch waits for it.

use common::result::Checkpoint;
use common::session::{Blob, FromWorker, Launch, ToWorker};
use common::{AttemptId, Digest};

use crate::fake::{Fake, Node, until};
use crate::launch::launch;
use crate::{A, B, done, say};

/// More than is written at once, so that what came of it can be seen on the disk.
const BYTES: usize = 40_000;

fn content(fill: u8) -> Vec<u8> {
    vec![fill; BYTES]
}

fn put(fake: &Fake, content: &[u8]) -> Blob {
    let digest = Digest::of(content);
    fake.put(digest, content);
    Blob { digest, bytes: content.len() as u64 }
}

/// Goes on from `blob`.
fn resume(attempt: AttemptId, blob: Blob) -> ToWorker {
    let Blob { digest, bytes } = blob;
    let restore = vec![Checkpoint::new(1, digest, bytes)];
    ToWorker::Launch(Box::new(Launch { restore, ..launch(attempt, 0, 1, 1) }))
}

async fn runs_to_its_end(fake: &mut Fake, attempt: AttemptId) {
    let ended = |message: &FromWorker| matches!(message, FromWorker::AttemptEnded { .. });
    let end = fake.until(ended).await;
    assert!(
        matches!(&end, FromWorker::AttemptEnded { attempt: of, end: Ok(_) } if *of == attempt),
        "{end:?}"
    );
}

async fn connected() -> (Fake, Node) {
    let mut fake = Fake::start().await;
    let node = Node::start(&fake, 1, &say(&done())).await;
    assert!(fake.hello().await.prefetches);
    (fake, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_prefetched_is_there_before_the_launch_and_not_downloaded_for_it() {
    let (mut fake, node) = connected().await;
    let (first, second) = (put(&fake, &content(1)), put(&fake, &content(2)));
    fake.tell(ToWorker::Prefetch { blobs: vec![first, second] }).await;
    let cached = |blob: Blob| node.cached(&blob.digest.to_string()).exists();
    until("both are in the cache", || cached(first) && cached(second)).await;
    fake.tell(resume(A, second)).await;
    runs_to_its_end(&mut fake, A).await;
    assert_eq!(fake.downloads(), [(first.digest, 0), (second.digest, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_or_larger_than_the_cache_is_not_prefetched() {
    let (mut fake, node) = connected().await;
    let (held, wanted) = (put(&fake, &content(1)), put(&fake, &content(2)));
    let large = Blob { bytes: 17 << 20, ..put(&fake, &content(3)) };
    std::fs::write(node.cached(&held.digest.to_string()), content(1)).unwrap();
    fake.tell(ToWorker::Prefetch { blobs: vec![held, large, wanted] }).await;
    until("the last one is in the cache", || node.cached(&wanted.digest.to_string()).exists()).await;
    assert_eq!(fake.downloads(), [(wanted.digest, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefetch_that_is_stuck_or_fails_delays_no_launch() {
    let (mut fake, node) = connected().await;
    let (stuck, other) = (put(&fake, &content(1)), put(&fake, &content(2)));
    let gone = Blob { digest: Digest::of(b"gone"), bytes: 4 };
    fake.hold_back(stuck.digest, BYTES / 2);
    fake.tell(ToWorker::Prefetch { blobs: vec![gone, stuck] }).await;
    until("it is stuck", || node.cached(&format!("{}-ahead.part", stuck.digest)).exists()).await;
    fake.tell(resume(A, other)).await;
    runs_to_its_end(&mut fake, A).await;
    assert_eq!(fake.downloads(), [(gone.digest, 0), (stuck.digest, 0), (other.digest, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_goes_on_where_the_prefetch_of_the_same_blob_stands() {
    let (mut fake, node) = connected().await;
    let stuck = put(&fake, &content(1));
    fake.hold_back(stuck.digest, BYTES / 2);
    fake.tell(ToWorker::Prefetch { blobs: vec![stuck] }).await;
    let part = node.cached(&format!("{}-ahead.part", stuck.digest));
    let came = || std::fs::metadata(&part).is_ok_and(|part| part.len() >= 8192);
    until("a part of it is there", came).await;
    fake.tell(resume(A, stuck)).await;
    runs_to_its_end(&mut fake, A).await;
    let offsets: Vec<u64> = fake.downloads().into_iter().map(|(_, offset)| offset).collect();
    assert!(matches!(offsets[..], [0, behind] if behind >= 8192), "{offsets:?}");
    assert!(std::fs::read(node.cached(&stuck.digest.to_string())).unwrap() == content(1));
    assert!(!part.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_session_its_prefetches_end_and_the_next_one_has_its_own() {
    let (mut fake, node) = connected().await;
    let (stuck, next) = (put(&fake, &content(1)), put(&fake, &content(2)));
    fake.hold_back(stuck.digest, BYTES / 2);
    fake.tell(ToWorker::Prefetch { blobs: vec![stuck, next] }).await;
    let part = node.cached(&format!("{}-ahead.part", stuck.digest));
    until("it is stuck", || part.exists()).await;
    fake.hang_up();
    fake.hello().await;
    until("nothing is left of it", || !part.exists()).await;
    assert_eq!(fake.downloads().len(), 1, "the rest is not fetched");
    fake.tell(ToWorker::Prefetch { blobs: vec![next] }).await;
    until("the next is in the cache", || node.cached(&next.digest.to_string()).exists()).await;
    fake.tell(resume(B, next)).await;
    runs_to_its_end(&mut fake, B).await;
}
