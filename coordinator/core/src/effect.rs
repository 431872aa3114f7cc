//! What the caller must do.
//!
//! Effects are idempotent and may be lost: a worker's next report shows what is missing, and the core asks
//! again. A lost [`Effect::DeleteBlob`] leaves garbage, which [`crate::Cluster::is_referenced`] finds. A lost [`Effect::Prefetch`] is
//! missed by nobody.

use common::session::Blob;
use common::{AttemptId, Digest, TrialId, WorkerId};

use crate::Share;

/// Something the caller must do, after the events of the same step are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start one worker's ranks of an attempt. A worker that already knows the attempt ignores it; one whose
    /// slots are still held by processes of an older attempt starts it when they are gone.
    Launch {
        /// The attempt.
        attempt: AttemptId,
        /// Its trial, for what else the worker must be told: see [`crate::Cluster::trial`] and
        /// [`crate::Cluster::networks`].
        trial: TrialId,
        /// The worker and its ranks.
        share: Share,
        /// Ranks of the attempt on all workers.
        world_size: u32,
    },
    /// Stop what is left of an attempt on a worker, and forget it. Acknowledges an end.
    Release {
        /// The worker.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Tell a worker where rank 0 hosts the rendezvous store.
    Rendezvous {
        /// The worker.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
        /// `host:port`.
        address: String,
    },
    /// Ask a worker's ranks of an attempt to stop at a checkpoint. A worker that was asked before ignores it.
    Preempt {
        /// The worker.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Tell a worker what a queued trial reads that will probably run there next. It may ignore it.
    Prefetch {
        /// The worker.
        worker: WorkerId,
        /// The trial.
        trial: TrialId,
        /// What it reads, as far as this worker was not told before, in the order in which an attempt fetches it.
        blobs: Vec<Blob>,
    },
    /// Delete a blob that no durable record refers to any more.
    ///
    /// The same content may be stored and committed again at any time, so the caller asks
    /// [`crate::Cluster::is_referenced`] once more, under whatever excludes a commit, before it deletes.
    DeleteBlob {
        /// The blob.
        digest: Digest,
    },
}
