//! Facts, as they are written to the log.
//!
//! Every event ever written must decode for ever: a field is added only with a default, and none is renamed
//! or given another meaning. `tests/fixtures` holds every event as each version of the format wrote it.

use std::fmt;

use common::plan::{Cell, DEFAULT_PROJECT, default_project};
use common::result::Checkpoint;
use common::session::SessionOrder;
use common::spec::{RunPolicy, TrialSpec};
use common::{AttemptId, Digest, ExperimentId, FailureCause, TrialId, TrialKey, WorkerId};
use serde::{Deserialize, Serialize};

use crate::{Millis, Outcome, Placement, QuarantineReason, Traits};

/// A fact. The events of one step become durable together or not at all, and before its effects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A trial that nobody had asked for before became known.
    TrialSubmitted {
        /// The new trial.
        trial: TrialId,
        /// The first experiment that wants it.
        experiment: ExperimentId,
        /// Its name. Recorded, because a later build may write the same specification differently.
        key: TrialKey,
        /// Trials whose checkpoints it reads, in the order of its networks.
        needs: Vec<TrialId>,
        /// What to compute.
        spec: Box<TrialSpec>,
        /// How to run it.
        policy: RunPolicy,
        /// For people.
        label: String,
        /// When.
        at: Millis,
    },
    /// A trial that had ended without success was wanted again. It starts with a fresh budget.
    TrialResubmitted {
        /// The trial.
        trial: TrialId,
        /// The experiment that wants it now.
        experiment: ExperimentId,
        /// How to run it from now on.
        policy: RunPolicy,
        /// When.
        at: Millis,
    },
    /// A trial that had succeeded lost its checkpoint, and another trial needs it.
    TrialReopened {
        /// The trial.
        trial: TrialId,
        /// When.
        at: Millis,
    },
    /// An experiment was accepted. Follows the submission of its trials.
    ExperimentSubmitted {
        /// The new experiment.
        experiment: ExperimentId,
        /// Its name.
        name: String,
        /// Text of the grid file.
        grid: String,
        /// Cells of its table.
        cells: Vec<Cell>,
        /// Its trials, new or not, in the order of the plan.
        trials: Vec<TrialId>,
        /// Project that it is charged to.
        #[serde(default = "default_project", skip_serializing_if = "is_default_project")]
        project: String,
        /// Priority of its trials.
        #[serde(default, skip_serializing_if = "is_zero")]
        priority: i32,
        /// When.
        at: Millis,
    },
    /// The trials of an experiment have another priority.
    ExperimentPrioritized {
        /// The experiment.
        experiment: ExperimentId,
        /// Its priority from now on.
        priority: i32,
        /// When.
        at: Millis,
    },
    /// A trial is not to run until it is resumed, whoever wants it.
    TrialPaused {
        /// The trial.
        trial: TrialId,
        /// When.
        at: Millis,
    },
    /// A paused trial may run again.
    TrialResumed {
        /// The trial.
        trial: TrialId,
        /// When.
        at: Millis,
    },
    /// An experiment wants nothing for now.
    ExperimentPaused {
        /// The experiment.
        experiment: ExperimentId,
        /// When.
        at: Millis,
    },
    /// A paused experiment wants its trials again.
    ExperimentResumed {
        /// The experiment.
        experiment: ExperimentId,
        /// When.
        at: Millis,
    },
    /// An experiment wants nothing any more.
    ExperimentCancelled {
        /// The experiment.
        experiment: ExperimentId,
        /// When.
        at: Millis,
    },
    /// A worker's slots became available, or its name or host changed.
    WorkerJoined {
        /// The worker.
        worker: WorkerId,
        /// Its name.
        name: String,
        /// Host name or address at which its peers reach it.
        host: String,
        /// Slots that it offers.
        slots: u32,
        /// What its slots are like.
        #[serde(default, skip_serializing_if = "Traits::is_empty")]
        traits: Traits,
        /// When.
        at: Millis,
    },
    /// A worker opened a session that is later than all that it opened before. It outlives the worker's membership.
    SessionOpened {
        /// The worker.
        worker: WorkerId,
        /// Its place among the worker's sessions.
        order: SessionOrder,
        /// When.
        at: Millis,
    },
    /// A worker's lease ended, or it came back with other slots.
    WorkerLost {
        /// The worker.
        worker: WorkerId,
        /// When.
        at: Millis,
    },
    /// A worker went away in good order.
    WorkerLeft {
        /// The worker.
        worker: WorkerId,
        /// When.
        at: Millis,
    },
    /// A worker is given nothing new, because its operator says so. It may not be a member.
    WorkerDrained {
        /// The worker.
        worker: WorkerId,
        /// What the operator said.
        reason: String,
        /// When.
        at: Millis,
    },
    /// A worker is given nothing new, because of what happened there. It may not be a member.
    WorkerQuarantined {
        /// The worker.
        worker: WorkerId,
        /// What happened.
        reason: QuarantineReason,
        /// When.
        at: Millis,
    },
    /// A worker that was drained or quarantined is in service again.
    WorkerUndrained {
        /// The worker.
        worker: WorkerId,
        /// When.
        at: Millis,
    },
    /// A trial was placed.
    AttemptStarted {
        /// The trial.
        trial: TrialId,
        /// The new attempt.
        attempt: AttemptId,
        /// Where it runs.
        placement: Placement,
        /// When.
        at: Millis,
    },
    /// An attempt was asked to stop at a checkpoint. It ends as [`FailureCause::Preempted`] when it has.
    YieldRequested {
        /// The trial.
        trial: TrialId,
        /// The attempt.
        attempt: AttemptId,
        /// Why.
        reason: YieldReason,
        /// When.
        at: Millis,
    },
    /// An attempt failed. Its trial is queued again, unless its end follows.
    AttemptFailed {
        /// The trial.
        trial: TrialId,
        /// The attempt.
        attempt: AttemptId,
        /// Why.
        cause: FailureCause,
        /// The worker whose ranks failed, where one is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<WorkerId>,
        /// When.
        at: Millis,
    },
    /// A trial ended.
    TrialEnded {
        /// The trial.
        trial: TrialId,
        /// How.
        outcome: Outcome,
        /// When.
        at: Millis,
    },
    /// A checkpoint exists from now on.
    CheckpointCommitted {
        /// The trial.
        trial: TrialId,
        /// The attempt that wrote it.
        attempt: AttemptId,
        /// The checkpoint.
        checkpoint: Checkpoint,
        /// When.
        at: Millis,
    },
    /// A checkpoint is kept until it is unpinned.
    CheckpointPinned {
        /// The trial.
        trial: TrialId,
        /// Step of the checkpoint.
        step: u64,
        /// When.
        at: Millis,
    },
    /// A checkpoint is kept only as long as every other.
    CheckpointUnpinned {
        /// The trial.
        trial: TrialId,
        /// Step of the checkpoint.
        step: u64,
        /// When.
        at: Millis,
    },
    /// A checkpoint is no longer kept.
    CheckpointDropped {
        /// The trial.
        trial: TrialId,
        /// Its content.
        digest: Digest,
        /// Why.
        reason: DropReason,
        /// When.
        at: Millis,
    },
}

fn is_default_project(project: &String) -> bool {
    project == DEFAULT_PROJECT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(priority: &i32) -> bool {
    *priority == 0
}

/// Why an attempt is asked to stop at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum YieldReason {
    /// Another trial goes first and needs its slots.
    Preempted {
        /// The other trial.
        by: TrialId,
    },
    /// The trial, or every experiment that wants it, is paused.
    Paused,
    /// One of its workers is to run nothing any more.
    Draining {
        /// The worker.
        worker: WorkerId,
    },
    /// It goes on with another number of ranks.
    Resized {
        /// Ranks that it is meant to have.
        to: u32,
    },
}

impl YieldReason {
    /// Whether somebody asked for the attempt to stop, so that it is stopped without a checkpoint if it does not
    /// write one in time. What the scheduler asks for costs no work: such an attempt then runs on.
    pub fn insists(self) -> bool {
        match self {
            Self::Paused | Self::Draining { .. } => true,
            Self::Preempted { .. } | Self::Resized { .. } => false,
        }
    }
}

impl fmt::Display for YieldReason {
    /// Completes "stops at its next checkpoint: …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preempted { by } => write!(f, "{by} goes first"),
            Self::Paused => f.write_str("paused"),
            Self::Draining { worker } => write!(f, "{worker} is to run nothing any more"),
            Self::Resized { to } => write!(f, "goes on with {to} rank{}", if *to == 1 { "" } else { "s" }),
        }
    }
}

/// Why a checkpoint is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropReason {
    /// Newer ones are kept.
    Superseded,
    /// Its stored copy is missing, does not match its digest, or does not load.
    Damaged,
    /// The trainer cannot read it, and its trial starts from the beginning.
    Incompatible,
}
