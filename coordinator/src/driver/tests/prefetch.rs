//! Who hears what to fetch ahead of time.

use common::plan::Plan;
use common::session::{Blob, SessionOrder};

use super::super::*;
use super::support::{Coordinator, GRID, Worker, hello_of, plan};

/// The cell's evaluation waits while its network is kept, because somebody of a higher priority has the only slot.
async fn evaluation_waits(prefetches: bool) -> (Coordinator, Worker, Blob) {
    let coordinator = Coordinator::start();
    coordinator.submit().await;
    let hello = Hello { prefetches, ..hello_of(1, SessionOrder::default(), &[]) };
    let mut worker = coordinator.open(hello).await.unwrap();
    let attempt = worker.hear_launch().await.attempt;
    let network = coordinator.checkpoint(&worker, attempt, 10).await;
    let mut other = plan();
    other.trials.truncate(1);
    other.cells.clear();
    other.trials[0].policy.max_failures += 1;
    if let common::spec::TrialSpec::Train(spec) = &mut other.trials[0].spec {
        spec.seed = 7;
    }
    let other = Plan { priority: 1, ..other };
    coordinator.driver.apply(Input::Submit { plan: other, grid: GRID.to_owned() }).await.unwrap();
    assert!(matches!(worker.hear().await, ToWorker::Preempt { .. }));
    // It was done before it could stop.
    worker.succeed(attempt, 0.0).await;
    assert!(matches!(worker.hear().await, ToWorker::Release { .. }));
    assert_eq!(worker.hear_launch().await.spec.key(), coordinator.trial(3).await.key);
    coordinator.settle().await;
    (coordinator, worker, Blob { digest: network.digest, bytes: network.bytes })
}

#[tokio::test]
async fn a_worker_hears_once_what_the_trial_reads_that_runs_there_next() {
    let (coordinator, mut worker, network) = evaluation_waits(true).await;
    assert_eq!(worker.hear().await, ToWorker::Prefetch { blobs: vec![network] });
    coordinator.submit().await;
    coordinator.settle().await;
    worker.assert_silent();
}

#[tokio::test]
async fn a_worker_that_does_not_say_that_it_understands_is_told_nothing() {
    let (_coordinator, mut worker, _) = evaluation_waits(false).await;
    worker.assert_silent();
}
