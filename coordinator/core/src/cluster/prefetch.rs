//! Tells workers what they will probably need to read, before they are told to run it.
//!
//! Nothing rests on it. What was told is remembered only so that it is not told at each step; it may be forgotten
//! at any time, and is when a worker says hello, because with a session its prefetches end.

use std::collections::{BTreeMap, BTreeSet};

use common::session::Blob;
use common::{AttemptId, Digest, TrialId, WorkerId};

use super::Cluster;
use crate::scheduling::next_up;
use crate::{Effect, Phase, Step};

/// Blobs of one trial. An ensemble of more members fetches the rest when it is launched.
const OF_TRIAL: usize = 32;

/// Digests that are remembered for a worker: of more trials than are looked at for it in one step, or it would be told of
/// them in turn, for ever.
const REMEMBERED: usize = 8 * OF_TRIAL;

/// What workers were told to prefetch.
#[derive(Clone, Debug, Default)]
pub(super) struct Told(BTreeMap<WorkerId, BTreeSet<Digest>>);

impl Told {
    /// Whether it was not told before.
    fn insert(&mut self, worker: WorkerId, digest: Digest) -> bool {
        let digests = self.0.entry(worker).or_default();
        if digests.len() >= REMEMBERED && !digests.contains(&digest) {
            digests.clear();
        }
        digests.insert(digest)
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.0.remove(&worker);
    }
}

impl Cluster {
    /// Follows a look at the queue that asked attempts to make way for trials.
    pub(super) fn prefetch(&mut self, asked: &[(AttemptId, TrialId)], step: &mut Step) {
        let mut pools = std::mem::take(&mut self.live.pools);
        let connected = |worker| self.live.is_connected(worker);
        let mut next = next_up(self.view(&connected), &self.live.reservations, &mut pools);
        self.live.pools = pools;
        for &(attempt, by) in asked {
            let placement = self.state.running(attempt).map(|(_, running)| &running.placement);
            let shares = placement.into_iter().flat_map(|placement| placement.shares());
            next.extend(shares.map(|share| (by, share.worker)));
        }
        for (trial, worker) in next {
            if !self.in_service(worker) {
                continue;
            }
            let mut blobs = self.inputs(trial);
            blobs.retain(|blob| self.live.told.insert(worker, blob.digest));
            if !blobs.is_empty() {
                step.effects.push(Effect::Prefetch { worker, trial, blobs });
            }
        }
    }

    /// Blobs that an attempt of a queued trial would fetch first.
    fn inputs(&self, trial: TrialId) -> Vec<Blob> {
        let Some(record) = self.state.trials.get(&trial).filter(|record| record.phase == Phase::Queued)
        else {
            return Vec::new();
        };
        let networks = self.networks(trial).map(|(_, checkpoint)| checkpoint);
        let blobs = record.restore().chain(networks).take(OF_TRIAL);
        blobs.map(|held| Blob { digest: held.digest, bytes: held.bytes }).collect()
    }
}
