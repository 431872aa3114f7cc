//! The way of a trial, from its submission to the table, with what happens to its checkpoints.

use std::fs;

use common::result::Checkpoint;
use coordinator_core::Phase;

use super::super::*;
use super::support::{Coordinator, blob_file, is_running, plan};

#[tokio::test]
async fn a_launch_names_everything_that_the_trainer_needs() {
    let coordinator = Coordinator::start();
    coordinator.submit().await;
    let mut worker = coordinator.connect(1, &[]).await;
    let [train, evaluate] = &plan().trials[..] else { panic!("two trials") };

    let launch = worker.hear_launch().await;
    assert_eq!((launch.first_rank, launch.ranks, launch.world_size), (0, 1, 1));
    assert_eq!((&launch.spec, &launch.policy, &launch.label), (&train.spec, &train.policy, &train.label));
    assert_eq!(launch.key, train.spec.key());
    assert!(launch.restore.is_empty() && launch.networks.is_empty());

    let network = coordinator.checkpoint(&worker, launch.attempt, 10).await;
    worker.succeed(launch.attempt, 0.0).await;
    assert!(matches!(worker.hear().await, ToWorker::Release { attempt } if attempt == launch.attempt));
    let launch = worker.hear_launch().await;
    assert_eq!(launch.spec, evaluate.spec);
    assert_eq!(launch.networks, [(train.spec.key(), network)]);
    worker.succeed(launch.attempt, 0.5).await;
    assert!(matches!(worker.hear().await, ToWorker::Release { attempt } if attempt == launch.attempt));
    worker.assert_silent();
    let result = coordinator.trial(2).await.result().cloned().unwrap();
    assert_eq!(result.metrics["accuracy"], 0.5);
}

#[tokio::test]
async fn the_next_attempt_goes_on_from_the_newest_checkpoints() {
    let coordinator = Coordinator::start();
    coordinator.submit().await;
    let mut worker = coordinator.connect(1, &[]).await;
    let first = worker.hear_launch().await.attempt;
    let mut checkpoints = Vec::new();
    for step in [10, 20, 30] {
        checkpoints.push(coordinator.checkpoint(&worker, first, step).await);
    }
    let end = Err(common::FailureCause::TrainerSignal { signal: 9 });
    worker.say(FromWorker::AttemptEnded { attempt: first, end }).await;
    worker.hear().await;
    let launch = worker.hear_launch().await;
    assert!(launch.attempt > first);
    assert_eq!(launch.restore, [checkpoints[2].clone(), checkpoints[1].clone()]);
    // Retention keeps two, so the bytes of the first are gone.
    assert_eq!(coordinator.blobs.size(checkpoints[0].digest).await.unwrap(), None);
    assert!(coordinator.blobs.size(checkpoints[1].digest).await.unwrap().is_some());
}

#[tokio::test]
async fn a_checkpoint_without_its_bytes_is_not_committed_and_its_attempt_goes_no_further() {
    let coordinator = Coordinator::start();
    coordinator.submit().await;
    let mut worker = coordinator.connect(1, &[]).await;
    let missing = Checkpoint::new(10, Digest::of(b"missing"), 7);
    let cut = Checkpoint::new(11, coordinator.upload(b"cut").await, 4);
    for checkpoint in [missing, cut] {
        let attempt = worker.hear_launch().await.attempt;
        worker.say(FromWorker::CheckpointStored { attempt, checkpoint }).await;
        // Otherwise it would end with an older network than it says.
        let released = worker.hear().await;
        assert!(matches!(released, ToWorker::Release { attempt: other } if other == attempt), "{released:?}");
    }
    coordinator.settle().await;
    let trial = coordinator.trial(1).await;
    assert!(trial.checkpoints.is_empty() && is_running(&trial), "{trial:?}");
    assert_eq!(trial.failures.len(), 2);
}

#[tokio::test]
async fn a_damaged_checkpoint_is_dropped_and_the_one_before_it_is_used() {
    let coordinator = Coordinator::start();
    coordinator.submit().await;
    let mut worker = coordinator.connect(1, &[]).await;
    let attempt = worker.hear_launch().await.attempt;
    let older = coordinator.checkpoint(&worker, attempt, 10).await;
    let newer = coordinator.checkpoint(&worker, attempt, 20).await;
    coordinator.settle().await;
    fs::write(blob_file(coordinator.dir.path(), newer.digest), b"damaged").unwrap();
    let message = "digest differs".to_owned();
    worker.say(FromWorker::CheckpointDamaged { attempt, digest: newer.digest, message }).await;
    coordinator.settle().await;
    assert_eq!(*coordinator.trial(1).await.checkpoints, [older]);
    assert_eq!(coordinator.blobs.size(newer.digest).await.unwrap(), None);
}

#[tokio::test]
async fn a_cancelled_trial_is_released_and_those_that_need_it_end_too() {
    let coordinator = Coordinator::start();
    coordinator.submit().await;
    let mut worker = coordinator.connect(1, &[]).await;
    let attempt = worker.hear_launch().await.attempt;
    let applied = coordinator.driver.apply(Input::CancelTrial { trial: TrialId(1) }).await.unwrap();
    assert_eq!(applied.cancelled, 2);
    assert!(matches!(worker.hear().await, ToWorker::Release { attempt: released } if released == attempt));
    assert!(matches!(coordinator.trial(2).await.phase, Phase::Ended { .. }));
    let how = coordinator
        .driver
        .read(move |view| view.history.attempt(attempt).and_then(|record| record.end.clone()))
        .await
        .unwrap();
    assert_eq!(how.map(|end| end.how), Some(AttemptOutcome::Cancelled));
}

#[tokio::test]
async fn logs_and_warnings_are_kept_also_when_their_attempt_is_over() {
    let coordinator = Coordinator::start();
    coordinator.submit().await;
    let mut worker = coordinator.connect(1, &[]).await;
    let attempt = worker.hear_launch().await.attempt;
    worker.say(FromWorker::AttemptEnded { attempt, end: Err(common::FailureCause::OutOfMemory) }).await;
    let message = "posterior collapsed".to_owned();
    worker.say(FromWorker::Warning { attempt, message: message.clone() }).await;
    let digest = coordinator.upload(b"log").await;
    worker.say(FromWorker::LogStored { attempt, rank: 0, digest, bytes: 3 }).await;
    coordinator.settle().await;
    let warnings = coordinator.reader.warnings(TrialId(1)).unwrap();
    assert_eq!(warnings.iter().map(|warning| &warning.message).collect::<Vec<_>>(), [&message]);
    assert_eq!(coordinator.reader.log(attempt, 0).unwrap().map(|log| log.digest), Some(digest));
    // The core does not know the blob, and still it stays.
    coordinator.driver.collect(vec![digest]).await.unwrap();
    coordinator.settle().await;
    assert!(coordinator.blobs.size(digest).await.unwrap().is_some());
}

#[tokio::test]
async fn a_blob_that_nothing_refers_to_is_collected() {
    let coordinator = Coordinator::start();
    let digest = coordinator.upload(b"garbage").await;
    coordinator.blobs.unpin(digest).await;
    coordinator.driver.collect(vec![digest]).await.unwrap();
    coordinator.settle().await;
    assert_eq!(coordinator.blobs.size(digest).await.unwrap(), None);
}
