//! Why a trial does not run yet.
//!
//! The answer comes from the same look at the queue that [`crate::Cluster::handle`] schedules by, so it
//! cannot disagree with the decision.

use std::fmt;

use common::{ExperimentId, TrialId, WorkerId};

/// Why a trial does not run yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// Trials that it needs have not succeeded yet.
    Needs(Vec<TrialId>),
    /// It is paused, by its name or because all experiments that want it are.
    Paused {
        /// Whether it was paused by its name.
        by_name: bool,
        /// Paused experiments, if no other one wants it.
        experiments: Vec<ExperimentId>,
    },
    /// Every connected worker is drained or quarantined.
    OutOfService(Vec<WorkerId>),
    /// There is nobody to run it.
    NoWorker,
    /// All workers together are too small for it. It does not hold up others.
    TooWide {
        /// Slots that it needs.
        needs: u32,
        /// Slots that all workers offer.
        offered: u32,
    },
    /// It is the next to run, when enough slots are free.
    Slots {
        /// Slots that it needs.
        needs: u32,
        /// Slots that are free on connected workers.
        free: u32,
    },
    /// An older trial is the next to run.
    Behind {
        /// The older trial.
        trial: TrialId,
        /// Slots that the older trial needs.
        needs: u32,
    },
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Needs(trials) => {
                f.write_str("waits for ")?;
                list(f, trials)
            }
            Self::Paused { by_name, experiments } => {
                let by_name = by_name.then(|| "by its name".to_owned());
                let by = by_name.into_iter().chain(experiments.iter().map(|e| format!("with {e}")));
                write!(f, "paused {}", by.collect::<Vec<_>>().join(" and "))
            }
            Self::OutOfService(workers) => {
                f.write_str("all that is connected is drained or quarantined: ")?;
                list(f, workers)
            }
            Self::NoWorker => f.write_str("no worker is connected"),
            Self::TooWide { needs, offered } => {
                write!(f, "needs {}, the cluster offers {offered}", Slots(*needs))
            }
            Self::Slots { needs, free } => {
                let are = if *free == 1 { "is" } else { "are" };
                write!(f, "needs {}, {free} {are} free", Slots(*needs))
            }
            Self::Behind { trial, needs } => write!(f, "behind {trial}, which needs {}", Slots(*needs)),
        }
    }
}

/// Names named before the rest is only counted: a line of a terminal.
const NAMED: usize = 5;

fn list(f: &mut fmt::Formatter<'_>, names: &[impl fmt::Display]) -> fmt::Result {
    for (i, name) in names.iter().take(NAMED).enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        write!(f, "{comma}{name}")?;
    }
    match names.len().checked_sub(NAMED) {
        None | Some(0) => Ok(()),
        Some(more) => write!(f, " and {more} more"),
    }
}

struct Slots(u32);

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} slot{plural}", self.0)
    }
}
