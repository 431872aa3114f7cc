//! Experiments, trials and workers, as replaying the log rebuilds them.

use std::num::NonZeroUsize;
use std::sync::Arc;

use common::plan::Cell;
use common::result::{Checkpoint, TrialResult};
use common::spec::{RunPolicy, Workload};
use common::{AttemptId, ExperimentId, TrialId, TrialKey, WorkerId};
use serde::{Deserialize, Serialize};

use super::{Failure, Few, Outcome, Spec};
use crate::{Millis, Placement, Traits, YieldReason};

/// A submitted grid file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Experiment {
    /// Name.
    pub name: String,
    /// Text of the grid file.
    pub grid: String,
    /// Cells of the table, in the order of the file.
    pub cells: Vec<Cell>,
    /// Trials, in the order of the plan.
    pub trials: Vec<TrialId>,
    /// Project that it is charged to.
    #[serde(default = "common::plan::default_project")]
    pub project: String,
    /// Priority of its trials. Higher goes first.
    #[serde(default)]
    pub priority: i32,
    /// When it was submitted.
    pub submitted: Millis,
    /// When it was cancelled, if it was.
    pub cancelled: Option<Millis>,
    /// Since when it is paused, if it is.
    #[serde(default)]
    pub paused: Option<Millis>,
}

/// One unit of scheduling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Trial {
    /// Name by content.
    pub key: TrialKey,
    /// What to compute.
    pub spec: Spec,
    /// How to run it.
    pub policy: Arc<RunPolicy>,
    /// For people.
    pub label: String,
    /// Trials whose checkpoints it reads, in the order of its networks.
    pub needs: Few<TrialId>,
    /// When it was first submitted.
    pub submitted: Millis,
    /// Every experiment that it is part of.
    pub experiments: Few<ExperimentId>,
    /// Experiments that wait for it. Empty once it ended: one that it ended for has its answer.
    pub wanted_by: Few<ExperimentId>,
    /// Experiment whose submission queued it last. Older ones go first.
    pub queued_by: ExperimentId,
    /// Where it stands.
    pub phase: Phase,
    /// Attempts made.
    pub attempts: u32,
    /// Every failure, oldest first.
    pub failures: Few<Failure>,
    /// Workers of attempts that failed, other than by being preempted. It is placed elsewhere if it can be.
    #[serde(default)]
    pub failed_on: Few<WorkerId>,
    /// Failures that count, since it was last submitted.
    pub counted_failures: u32,
    /// Attempts in a row that lost a worker, since one of them left a checkpoint.
    #[serde(default)]
    pub workers_lost: u32,
    /// Failures in a row that no budget counts.
    #[serde(default, skip_serializing_if = "Setbacks::is_empty")]
    pub setbacks: Setbacks,
    /// Since when it is paused by its name, if it is.
    #[serde(default)]
    pub paused: Option<Millis>,
    /// Checkpoints that are kept, oldest first.
    pub checkpoints: Few<Checkpoint>,
    /// Whether its newest checkpoint was damaged, and none was committed since: then the newest that is kept
    /// is not where training stands.
    #[serde(default, skip_serializing_if = "is_false")]
    pub newest_damaged: bool,
    /// Steps of checkpoints that users want kept.
    #[serde(default)]
    pub pins: Few<u64>,
    /// Numbers of ranks that its training took, in order. A number that left no checkpoint is not among them.
    #[serde(default)]
    pub world_sizes: Few<u32>,
}

/// Failures in a row that no budget counts, since the trial left a checkpoint: each makes it wait longer before it is tried
/// again. Not counted are preemptions, one on a worker where the trial had not failed before, and the first worker that is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Setbacks {
    /// How many.
    pub in_a_row: u32,
    /// When the last one was, if the trial was not tried again since.
    pub last: Option<Millis>,
}

impl Setbacks {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a trial stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Not every trial that it needs has succeeded yet.
    Waiting,
    /// It could run.
    Queued,
    /// It neither waits nor runs until it, or an experiment that wants it, is resumed.
    Paused,
    /// It runs.
    Running(Box<Attempt>),
    /// It has an outcome.
    Ended {
        /// The outcome.
        outcome: Box<Outcome>,
        /// When it ended.
        at: Millis,
    },
}

/// The current execution of a running trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// Where it runs.
    pub placement: Placement,
    /// When it was placed.
    pub started: Millis,
    /// When it will end, going by trials like it. `None` where none has succeeded yet.
    #[serde(default)]
    pub expected_end: Option<Millis>,
    /// Whether it was asked to stop at a checkpoint.
    #[serde(default)]
    pub yielding: Option<Yielding>,
}

/// A request to stop at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Yielding {
    /// Why.
    pub reason: YieldReason,
    /// When it was asked for that reason.
    pub since: Millis,
}

impl Attempt {
    /// Ranks that go on where they are once it has stopped: the first ones, of one that goes on with another number.
    pub(crate) fn stays(&self) -> u32 {
        match self.yielding.map(|asked| asked.reason) {
            Some(YieldReason::Resized { to }) => to.min(self.placement.world_size()),
            Some(YieldReason::Preempted { .. } | YieldReason::Paused | YieldReason::Draining { .. })
            | None => 0,
        }
    }

    /// Slots that others can have once it has stopped.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = (WorkerId, u32)> {
        self.placement.beyond(self.stays())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Trial {
    /// What its run time depends on.
    pub fn workload(&self) -> Workload {
        self.spec.workload()
    }

    /// Slots that an attempt needs.
    pub fn slots(&self) -> u32 {
        self.spec.slots()
    }

    /// Checkpoints to go on from, newest first.
    pub fn restore(&self) -> impl DoubleEndedIterator<Item = &Checkpoint> {
        self.checkpoints.iter().rev()
    }

    /// Whether a user wants a checkpoint kept.
    pub fn is_pinned(&self, checkpoint: &Checkpoint) -> bool {
        self.pins.contains(&checkpoint.step)
    }

    /// The checkpoint with the lowest score, the newest of several, of a trial whose policy is to keep it.
    pub fn best(&self) -> Option<&Checkpoint> {
        self.policy.keep_best?;
        let scored = self.restore().filter_map(|held| Some((held.score?, held)));
        scored.min_by_key(|&(score, _)| score).map(|(_, held)| held)
    }

    /// Checkpoints that need not be kept, newest first: of a trial that succeeded, all but its network; of any other,
    /// all but the newest `keep`. What is pinned or best stays, and is not counted.
    pub(crate) fn surplus(&self, keep: NonZeroUsize) -> impl Iterator<Item = &Checkpoint> {
        let network = self.checkpoints.last().filter(|_| self.has_succeeded());
        let best = self.best();
        let keep = if network.is_some() { 0 } else { keep.get() };
        let others = self
            .restore()
            .filter(move |&held| Some(held) != network && !self.is_pinned(held) && Some(held) != best);
        others.skip(keep)
    }

    /// The current attempt of a running trial.
    pub fn attempt(&self) -> Option<&Attempt> {
        match &self.phase {
            Phase::Running(attempt) => Some(attempt),
            Phase::Waiting | Phase::Queued | Phase::Paused | Phase::Ended { .. } => None,
        }
    }

    pub(super) fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        match &mut self.phase {
            Phase::Running(attempt) => Some(attempt),
            Phase::Waiting | Phase::Queued | Phase::Paused | Phase::Ended { .. } => None,
        }
    }

    /// How the trial ended, if it did.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Ended { outcome, .. } => Some(outcome),
            Phase::Waiting | Phase::Queued | Phase::Paused | Phase::Running(_) => None,
        }
    }

    /// Result of a trial that succeeded.
    pub fn result(&self) -> Option<&TrialResult> {
        self.outcome().and_then(|outcome| match outcome {
            Outcome::Succeeded { result } => Some(result),
            Outcome::Failed { .. }
            | Outcome::LostWorkers { .. }
            | Outcome::Cancelled
            | Outcome::NeedFailed { .. } => None,
        })
    }

    /// Whether the trial has an outcome.
    pub fn has_ended(&self) -> bool {
        self.outcome().is_some()
    }

    /// Whether the trial has neither an outcome nor an attempt.
    pub fn is_pending(&self) -> bool {
        match &self.phase {
            Phase::Waiting | Phase::Queued | Phase::Paused => true,
            Phase::Running(_) | Phase::Ended { .. } => false,
        }
    }

    /// Whether the trial has a result.
    pub fn has_succeeded(&self) -> bool {
        self.outcome().is_some_and(Outcome::is_success)
    }
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// Host name or address at which its peers reach it.
    pub host: String,
    /// Slots that it offers.
    pub slots: u32,
    /// What they are like.
    #[serde(default)]
    pub traits: Traits,
    /// When it joined.
    pub joined: Millis,
}

/// How many trials of an experiment are in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting for trials that they need.
    pub waiting: u32,
    /// Could run.
    pub queued: u32,
    /// Are paused.
    pub paused: u32,
    /// Run.
    pub running: u32,
    /// Have a result.
    pub succeeded: u32,
    /// Failed for good, or need one that did not succeed.
    pub failed: u32,
    /// Were cancelled.
    pub cancelled: u32,
}

impl Counts {
    /// Trials in all.
    pub fn total(&self) -> u32 {
        self.open() + self.succeeded + self.failed + self.cancelled
    }

    /// Trials that have no outcome yet.
    pub fn open(&self) -> u32 {
        self.waiting + self.queued + self.paused + self.running
    }

    /// The count that a trial in `phase` belongs to.
    pub(super) fn of_phase(&mut self, phase: &Phase) -> &mut u32 {
        match phase {
            Phase::Waiting => &mut self.waiting,
            Phase::Queued => &mut self.queued,
            Phase::Paused => &mut self.paused,
            Phase::Running(_) => &mut self.running,
            Phase::Ended { outcome, .. } => match outcome.as_ref() {
                Outcome::Succeeded { .. } => &mut self.succeeded,
                Outcome::Failed { .. } | Outcome::LostWorkers { .. } | Outcome::NeedFailed { .. } => {
                    &mut self.failed
                }
                Outcome::Cancelled => &mut self.cancelled,
            },
        }
    }
}
