//! Leases, on a paused clock.

use super::super::*;
use super::support::{Coordinator, LEASE};

const HEARTBEAT: Duration = Duration::from_secs(5);

/// As real time does: step by step, so that nobody sleeps over a deadline.
async fn pass(time: Duration) {
    for _ in 0..time.as_secs() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_worker_is_lost_when_its_lease_ends_and_not_before() {
    let coordinator = Coordinator::start();
    let _worker = coordinator.connect(1, &[]).await;
    pass(LEASE - Duration::from_secs(1)).await;
    assert_eq!(coordinator.workers().await, 1);
    pass(Duration::from_secs(2)).await;
    assert_eq!(coordinator.workers().await, 0);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_extend_the_lease() {
    let coordinator = Coordinator::start();
    let worker = coordinator.connect(1, &[]).await;
    for _ in 0..10 {
        pass(HEARTBEAT).await;
        worker.heartbeat(&[]).await;
    }
    coordinator.settle().await;
    assert_eq!(coordinator.workers().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_broken_session_is_not_a_lost_worker() {
    let coordinator = Coordinator::start();
    let worker = coordinator.connect(1, &[]).await;
    coordinator.driver.session_closed(worker.id, worker.session).await.unwrap();
    pass(LEASE / 2).await;
    assert_eq!(coordinator.workers().await, 1);
    pass(LEASE).await;
    assert_eq!(coordinator.workers().await, 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_every_worker_has_a_full_lease_to_come_back() {
    let coordinator = Coordinator::start();
    coordinator.connect(1, &[]).await;
    let coordinator = Coordinator::start_in(coordinator.kill().await);
    pass(LEASE - Duration::from_secs(1)).await;
    assert_eq!(coordinator.workers().await, 1);
    pass(Duration::from_secs(2)).await;
    assert_eq!(coordinator.workers().await, 0);
}

/// The coordinator was stopped, or its machine suspended: what its workers said meanwhile has not been read.
#[tokio::test(start_paused = true)]
async fn a_coordinator_that_slept_over_a_deadline_blames_nobody() {
    let coordinator = Coordinator::start();
    let worker = coordinator.connect(1, &[]).await;
    tokio::time::advance(3 * LEASE).await;
    coordinator.settle().await;
    assert_eq!(coordinator.workers().await, 1);
    worker.heartbeat(&[]).await;
    pass(LEASE - Duration::from_secs(1)).await;
    assert_eq!(coordinator.workers().await, 1);
    // But not for ever.
    pass(LEASE).await;
    assert_eq!(coordinator.workers().await, 0);
}
