//! What reaches the coordinator.
//!
//! The caller sees to two things: every input of a worker but [`Input::Hello`] is preceded by a hello of
//! the same session, and a hello supersedes all earlier sessions of its worker. Within a session inputs may
//! be lost, repeated or reordered, and those of an earlier session may still arrive: attempts fence them.

use common::plan::Plan;
use common::result::Checkpoint;
use common::session::{AttemptEnd, AttemptReport, SessionOrder};
use common::{AttemptId, Digest, ExperimentId, TrialId, WorkerId};

use crate::Traits;

/// Something that reached the coordinator.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A client submitted a grid file. The answer is in [`crate::Step::experiment`].
    Submit {
        /// The expanded file.
        plan: Plan,
        /// Its text, kept for the user.
        grid: String,
    },
    /// A client gives an experiment another priority.
    SetPriority {
        /// The experiment.
        experiment: ExperimentId,
        /// Its priority from now on. Higher goes first.
        priority: i32,
    },
    /// A client wants no more of an experiment. Trials that another one wants go on.
    CancelExperiment {
        /// The experiment.
        experiment: ExperimentId,
    },
    /// A client wants a trial to end, whoever else wants it.
    CancelTrial {
        /// The trial.
        trial: TrialId,
    },
    /// A client wants a trial to stop at a checkpoint and to wait, whoever wants it.
    PauseTrial {
        /// The trial.
        trial: TrialId,
    },
    /// A client lets a paused trial go on.
    ResumeTrial {
        /// The trial.
        trial: TrialId,
    },
    /// A client wants nothing of an experiment for now. Trials that another one wants go on.
    PauseExperiment {
        /// The experiment.
        experiment: ExperimentId,
    },
    /// A client lets a paused experiment go on.
    ResumeExperiment {
        /// The experiment.
        experiment: ExperimentId,
    },
    /// An operator takes a worker out of service: it is given nothing new.
    Drain {
        /// The worker.
        worker: WorkerId,
        /// Whether what runs there stops at a checkpoint, rather than runs to its end.
        now: bool,
        /// For people.
        reason: String,
    },
    /// An operator takes a drained or quarantined worker back into service.
    Undrain {
        /// The worker.
        worker: WorkerId,
    },
    /// A client wants a checkpoint kept.
    PinCheckpoint {
        /// The trial.
        trial: TrialId,
        /// Step of the checkpoint.
        step: u64,
    },
    /// A client no longer wants a checkpoint kept.
    UnpinCheckpoint {
        /// The trial.
        trial: TrialId,
        /// Step of the checkpoint.
        step: u64,
    },
    /// A worker opened a session. What it does not report is gone.
    Hello {
        /// The worker.
        worker: WorkerId,
        /// Its place among the worker's hellos. One that a later one overtook is refused.
        order: SessionOrder,
        /// Its name, for people.
        name: String,
        /// Host name or address at which its peers reach it.
        host: String,
        /// Slots that it offers.
        slots: u32,
        /// What its slots are like.
        traits: Traits,
        /// Every attempt that it runs, or that ended and was not released.
        attempts: Vec<AttemptReport>,
    },
    /// A worker is alive. An attempt that it does not report may still be on its way to it.
    Heartbeat {
        /// The worker.
        worker: WorkerId,
        /// Every attempt that it runs, or that ended and was not released.
        attempts: Vec<AttemptReport>,
    },
    /// A worker's newest session broke. Nothing is lost yet, but nothing new is placed there.
    Disconnected {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker goes away in good order and will not come back with its attempts.
    WorkerLeft {
        /// The worker.
        worker: WorkerId,
    },
    /// All ranks of a share are gone, and everything that they left is stored and committed.
    ///
    /// The worker repeats this in its reports until it is told [`crate::Effect::Release`].
    Ended {
        /// The worker.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
        /// How the share ended.
        end: AttemptEnd,
    },
    /// Rank 0 of an attempt hosts its rendezvous store.
    RendezvousOpened {
        /// The worker of rank 0.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
        /// `host:port`.
        address: String,
    },
    /// A checkpoint is stored whole. It exists once this is accepted.
    ///
    /// The caller has just looked for the blob, and deletes none before it has the answer: otherwise a late
    /// [`crate::Effect::DeleteBlob`] for the same content could come between.
    CheckpointCommitted {
        /// The worker that stored it.
        worker: WorkerId,
        /// The attempt that wrote it.
        attempt: AttemptId,
        /// The checkpoint.
        checkpoint: Checkpoint,
    },
    /// A checkpoint that an attempt was given cannot be used: its stored copy is missing, does not match its
    /// digest, or does not load.
    CheckpointDamaged {
        /// The attempt that was given it.
        attempt: AttemptId,
        /// Its digest.
        digest: Digest,
    },
    /// A line of a rank's log says that its worker is to blame for what becomes of the attempt.
    Incident {
        /// The worker.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
        /// The rank.
        rank: u32,
        /// Name of the pattern that the line matched.
        pattern: String,
        /// The line.
        line: String,
        /// Whether the worker is to be given nothing more.
        quarantine: bool,
    },
    /// A worker says that it is broken and should be given nothing more. It need not be a member yet: what is said with a hello is
    /// heard before anything is placed there.
    Unhealthy {
        /// The worker.
        worker: WorkerId,
        /// What is wrong.
        message: String,
    },
    /// [`crate::Cluster::next_deadline`] has come.
    Tick,
}
