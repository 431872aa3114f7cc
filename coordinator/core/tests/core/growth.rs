//! Inputs stay cheap however many trials there are.

#![expect(clippy::disallowed_types, reason = "the test's own clock, not the core's")]

use std::time::{Duration, Instant};

use common::session::SessionOrder;
use common::{AttemptId, WorkerId};
use coordinator_core::{Cluster, Counts, Effect, Input, Millis, Traits};

use crate::case::{E1, checkpoint, plan, runs, success, train};
use crate::support::{evaluate, network, policy};

/// Train trials; as many evaluations follow them.
const NETWORKS: u64 = 10_000;
const WORKERS: u64 = 16;

/// Twenty thousand trials run one after the other, with heartbeats in between. A scan over all trials per input
/// would take minutes; the limit leaves room for a busy machine, and none for that.
#[test]
fn twenty_thousand_trials_are_no_burden() {
    let start = Instant::now();
    let mut cluster = Cluster::new(policy());
    let mut log = Vec::new();
    let now = Millis(0);
    let mut handle = |cluster: &mut Cluster, input| {
        let step = cluster.handle(now, input).unwrap();
        log.extend(step.events);
        step.effects
    };

    // Wider than the cluster will ever be, and older than everything else.
    let hopeless = (0..NETWORKS).map(|seed| train(NETWORKS + seed, 1_000));
    let _ = handle(&mut cluster, Input::Submit { plan: plan(hopeless), grid: String::new() });
    let trials = (0..NETWORKS).flat_map(|seed| [train(seed, 1), evaluate([network(seed, 1)])]);
    let _ = handle(&mut cluster, Input::Submit { plan: plan(trials), grid: String::new() });

    let mut effects = Vec::new();
    for worker in (0..WORKERS).map(WorkerId) {
        let hello = Input::Hello {
            worker,
            order: SessionOrder::default(),
            name: String::new(),
            host: String::new(),
            slots: 1,
            traits: Traits::default(),
            attempts: vec![],
        };
        effects.extend(handle(&mut cluster, hello));
    }
    let mut ended = 0;
    while let Some(effect) = effects.pop() {
        let Effect::Launch { attempt, share, .. } = effect else { continue };
        let attempts = vec![runs(attempt, 0)];
        effects.extend(handle(&mut cluster, Input::Heartbeat { worker: share.worker, attempts }));
        finish(&mut cluster, &mut handle, share.worker, attempt, &mut effects);
        ended += 1;
    }
    assert_eq!(ended, 2 * NETWORKS);
    let width = u32::try_from(NETWORKS).unwrap();
    assert_eq!(cluster.counts(E1), Some(Counts { queued: width, ..Counts::default() }));
    cluster.check().unwrap();
    assert!(Cluster::replay(policy(), now, &log).same_durable_state(&cluster));
    assert!(start.elapsed() < Duration::from_secs(60), "took {:?}", start.elapsed());
}

fn finish(
    cluster: &mut Cluster,
    handle: &mut impl FnMut(&mut Cluster, Input) -> Vec<Effect>,
    worker: WorkerId,
    attempt: AttemptId,
    effects: &mut Vec<Effect>,
) {
    let checkpoint = checkpoint(1, &attempt.to_string());
    effects.extend(handle(cluster, Input::CheckpointCommitted { worker, attempt, checkpoint }));
    effects.extend(handle(cluster, Input::Ended { worker, attempt, end: success() }));
}
