//! What a worker's agent and the coordinator say to each other, free of any encoding.
//!
//! The agent repeats the state of every attempt it holds in each heartbeat and at the start of each session, so a
//! message that is lost is made good by the next one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::result::{Checkpoint, MetricRow, TrialResult};
use crate::spec::{RunPolicy, TrialSpec};
use crate::{AttemptId, Digest, FailureCause, TrialKey, WorkerId};

/// Version of the session protocol. Both sides must have the same.
pub const PROTOCOL: u32 = 2;

/// How the ranks of an attempt on one worker ended. The worker that holds rank 0 has the result.
pub type AttemptEnd = Result<Option<TrialResult>, FailureCause>;

/// State of an attempt on the worker that reports it.
#[derive(Clone, Debug, PartialEq)]
pub enum AttemptState {
    /// At least one process is alive.
    Running {
        /// Where rank 0 hosts the rendezvous store, once this worker knows it from its own rank 0.
        rendezvous: Option<String>,
        /// Optimizer steps done.
        step: u64,
    },
    /// Every process is gone; waiting for the release.
    Ended(AttemptEnd),
}

/// An attempt that a worker holds.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptReport {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its state on this worker.
    pub state: AttemptState,
}

/// Which of two hellos of a worker is the later one, whichever arrives first: the network may hold one up until its sender is
/// dead and another has taken its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionOrder {
    /// Names the agent's start: each on the same data folder has a larger number. 0: it does not say.
    pub start: u64,
    /// Counts the sessions that it asked for since then.
    pub session: u64,
}

/// First message of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// [`PROTOCOL`] of the worker.
    pub protocol: u32,
    /// The worker.
    pub worker: WorkerId,
    /// Its place among the worker's hellos.
    pub order: SessionOrder,
    /// Name for people.
    pub name: String,
    /// Host name or address at which ranks on other workers reach this one.
    pub host: String,
    /// Slots it offers.
    pub slots: u32,
    /// What a trial may ask for, and what says which workers are near each other.
    pub labels: BTreeMap<String, String>,
    /// Kind of device of its slots, like `cpu` or `cuda`.
    pub device: String,
    /// Memory that a rank on one slot may use, if it is limited.
    pub slot_memory_mib: Option<u64>,
    /// Version of its build.
    pub version: String,
    /// Whether it knows [`ToWorker::Prefetch`]. An older worker of the same [`PROTOCOL`] would end at a message that it does not know.
    pub prefetches: bool,
    /// What is wrong with the worker, as in [`FromWorker::Heartbeat`].
    pub faults: Vec<String>,
    /// Attempts alive, or ended and not yet released.
    pub attempts: Vec<AttemptReport>,
}

/// Where a running attempt stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Steps in all.
    pub total_steps: u64,
    /// Loss of the last step that was read back.
    pub loss: Option<f64>,
    /// Steps per second.
    pub steps_per_second: Option<f64>,
}

/// From worker to coordinator.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker {
    /// Opens the session. Boxed, because it is by far the largest and the rarest.
    Hello(Box<Hello>),
    /// The worker is alive, and this is what it holds.
    Heartbeat {
        /// Counts the heartbeats of a session from 1.
        sequence: u64,
        /// Attempts alive, or ended and not yet released.
        attempts: Vec<AttemptReport>,
        /// What is wrong with the worker, as long as it lasts: it should be given nothing more. A sentence each.
        faults: Vec<String>,
    },
    /// Rank 0 hosts the rendezvous store.
    RendezvousOpened {
        /// The attempt.
        attempt: AttemptId,
        /// `host:port`.
        address: String,
    },
    /// The last process of an attempt is gone.
    AttemptEnded {
        /// The attempt.
        attempt: AttemptId,
        /// How its ranks ended.
        end: AttemptEnd,
    },
    /// A checkpoint's bytes are in the blob store.
    CheckpointStored {
        /// The attempt.
        attempt: AttemptId,
        /// The checkpoint.
        checkpoint: Checkpoint,
    },
    /// A checkpoint did not load.
    CheckpointDamaged {
        /// The attempt.
        attempt: AttemptId,
        /// Its bytes' name.
        digest: Digest,
        /// Why.
        message: String,
    },
    /// Where an attempt stands.
    Progress {
        /// The attempt.
        attempt: AttemptId,
        /// Its progress.
        progress: Progress,
    },
    /// Measured values, sent again until acknowledged.
    Metrics {
        /// The attempt.
        attempt: AttemptId,
        /// Counts the reports of the attempt from 1.
        sequence: u64,
        /// Rows.
        rows: Vec<MetricRow>,
    },
    /// Something that the user should know.
    Warning {
        /// The attempt.
        attempt: AttemptId,
        /// One sentence.
        message: String,
    },
    /// A line of a rank's log matched a pattern of the worker's configuration.
    Incident {
        /// The attempt.
        attempt: AttemptId,
        /// The rank.
        rank: u32,
        /// Name of the pattern.
        pattern: String,
        /// The line.
        line: String,
        /// Whether the worker should be given nothing more.
        quarantine: bool,
    },
    /// The log of a rank that ended is in the blob store.
    LogStored {
        /// The attempt.
        attempt: AttemptId,
        /// The rank.
        rank: u32,
        /// The bytes' name.
        digest: Digest,
        /// Their number.
        bytes: u64,
    },
    /// Part of an answer to [`ToWorker::FetchLog`].
    LogData {
        /// The request.
        request: u64,
        /// What was read, or why it cannot be.
        part: LogPart,
    },
    /// The worker leaves for good; its attempts are gone.
    Goodbye,
}

/// Part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPart {
    /// Bytes; more follow.
    Data(Vec<u8>),
    /// All was sent.
    End,
    /// The log cannot be read.
    Unreadable(String),
}

/// Starts the ranks of an attempt on one worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The attempt.
    pub attempt: AttemptId,
    /// Name of the trial: digest of `spec`.
    pub key: TrialKey,
    /// For people.
    pub label: String,
    /// What to compute.
    pub spec: TrialSpec,
    /// How to run it.
    pub policy: RunPolicy,
    /// First rank on this worker.
    pub first_rank: u32,
    /// Ranks on this worker.
    pub ranks: u32,
    /// Ranks in all.
    pub world_size: u32,
    /// Checkpoints to go on from, newest first.
    pub restore: Vec<Checkpoint>,
    /// Final checkpoints of the trials that this one needs, in order.
    pub networks: Vec<(TrialKey, Checkpoint)>,
}

/// A blob that will probably be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Content.
    pub digest: Digest,
    /// Size in bytes.
    pub bytes: u64,
}

/// From coordinator to worker.
#[derive(Clone, Debug, PartialEq)]
pub enum ToWorker {
    /// Accepts the session.
    Welcome {
        /// Without a heartbeat for this long, the worker is lost.
        lease: std::time::Duration,
        /// Time between heartbeats.
        heartbeat: std::time::Duration,
        /// Version of the coordinator's build.
        version: String,
        /// Attempts of the hello that are current on this worker. What stands still may go on; what is not named here waits for
        /// its release.
        current: Vec<AttemptId>,
    },
    /// Start ranks.
    Launch(Box<Launch>),
    /// Stop what is left of the attempt, and forget it.
    Release {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Write a checkpoint after the current step, then end: the slots are wanted, the work is not lost.
    Preempt {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The heartbeat extended the lease.
    HeartbeatAck {
        /// Its sequence number.
        sequence: u64,
        /// Attempts that it named and that are current on this worker, as in [`ToWorker::Welcome`].
        current: Vec<AttemptId>,
    },
    /// Where rank 0 hosts the rendezvous store.
    Rendezvous {
        /// The attempt.
        attempt: AttemptId,
        /// `host:port`.
        address: String,
    },
    /// Every metric report of the attempt up to this one is durable.
    MetricAck {
        /// The attempt.
        attempt: AttemptId,
        /// Sequence number.
        sequence: u64,
    },
    /// A trial that will probably run here next reads these: they may be fetched now. Only to a worker whose hello said that it
    /// [prefetches](Hello::prefetches).
    Prefetch {
        /// In the order in which they will be needed.
        blobs: Vec<Blob>,
    },
    /// Send the log of a rank.
    FetchLog {
        /// Names the request in the answer.
        request: u64,
        /// The attempt.
        attempt: AttemptId,
        /// The rank.
        rank: u32,
        /// Only the last so many bytes; `None` for all.
        tail: Option<u64>,
    },
}
