//! Why a trial does not run yet.
//!
//! The answer comes from the same look at the queue that [`crate::Cluster::handle`] schedules by, so it
//! cannot disagree with the decision.

use std::fmt;
use std::time::Duration;

use common::spec::Requirements;
use common::{AttemptId, ExperimentId, FailureCause, TrialId, WorkerId};

use crate::Refusal;

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
    /// It failed again and again in a way that no budget counts, and is not tried again for a while. It holds up nobody.
    Resting {
        /// How long it still waits.
        time: Duration,
        /// Such failures in a row.
        failures: u32,
        /// The last one.
        cause: FailureCause,
    },
    /// No worker has what it requires. It does not hold up others.
    NoMatch {
        /// What it requires.
        requires: Requirements,
    },
    /// All workers that have what it requires are too small together. It does not hold up others.
    TooWide {
        /// Slots that it needs.
        needs: u32,
        /// Slots that they offer.
        offered: u32,
        /// What it requires.
        requires: Requirements,
    },
    /// It is wider than its project's quota. It does not hold up others.
    OverQuota {
        /// Slots that it needs.
        needs: u32,
        /// The project.
        project: String,
        /// Its quota.
        quota: u32,
    },
    /// It is the next of its project, which uses too much of its quota. It holds up nobody else's trials.
    Quota {
        /// Slots that it needs.
        needs: u32,
        /// The project.
        project: String,
        /// Its quota.
        quota: u32,
        /// Slots that it uses.
        used: u32,
        /// Slots that are reserved for other trials of it.
        reserved: u32,
    },
    /// It is the next to run, when enough slots are free.
    Slots {
        /// Slots that it needs.
        needs: u32,
        /// Slots that are free on connected workers that have what it requires.
        free: u32,
    },
    /// It is the next to run, and slots are kept for it as they become free.
    Reserved {
        /// Slots that it needs.
        needs: u32,
        /// Slots that are free on connected workers that have what it requires.
        free: u32,
        /// Slots kept on each worker.
        slots: Vec<(WorkerId, u32)>,
        /// Time until it can start, as far as that is known.
        starts_in: Option<Duration>,
    },
    /// Attempts of lower priority are asked to stop at a checkpoint, and it has their slots then.
    Yielding {
        /// Slots that it needs.
        needs: u32,
        /// The attempts.
        attempts: Vec<AttemptId>,
    },
    /// Enough slots are free, and some are kept for another trial.
    Held {
        /// Slots that it needs.
        needs: u32,
        /// Slots that are free.
        free: u32,
        /// The trial that they are kept for.
        by: TrialId,
        /// Why they are not lent.
        refusal: Refusal,
    },
    /// Another trial goes first.
    Behind {
        /// The other trial.
        trial: TrialId,
        /// Slots that the other trial needs.
        needs: u32,
        /// Why it goes first.
        before: Before,
    },
}

/// Why one trial goes before another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// It has a higher priority.
    Priority(i32),
    /// Slots are kept for it already.
    Reserved,
    /// Its project uses less of its share.
    Share {
        /// The project.
        project: String,
    },
    /// It was submitted before, or stands before it in the same submission.
    Older,
    /// Of one submission, evaluations go first.
    Evaluation,
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
            Self::Resting { time, failures, cause } => {
                let (s, do_not) = if *failures == 1 { ("", "does not") } else { ("s", "do not") };
                write!(f, "waits {} after {failures} failure{s} that {do_not} count: {cause}", Time(*time))
            }
            Self::NoMatch { requires } => write!(f, "no worker has what it requires: {requires}"),
            Self::TooWide { needs, offered, requires } if requires.is_empty() => {
                write!(f, "needs {}, the cluster offers {offered}", Slots(*needs))
            }
            Self::TooWide { needs, offered, requires } => {
                write!(f, "needs {}, the workers with {requires} offer {offered}", Slots(*needs))
            }
            Self::OverQuota { needs, project, quota } => {
                write!(f, "needs {}, the quota of project {project} is {quota}", Slots(*needs))
            }
            Self::Quota { needs, project, quota, used, reserved } => {
                let needs = Slots(*needs);
                write!(f, "needs {needs}, project {project} uses {used} of its quota of {quota}")?;
                if *reserved > 0 { write!(f, ", and {reserved} of it are reserved") } else { Ok(()) }
            }
            Self::Slots { needs, free } => write!(f, "needs {}, {}", Slots(*needs), Free(*free)),
            Self::Reserved { needs, free, slots, starts_in } => {
                write!(f, "needs {}, {}; reserved on ", Slots(*needs), Free(*free))?;
                list(f, slots.iter().map(|(worker, slots)| format!("{worker}:{slots}")))?;
                match starts_in {
                    None => f.write_str("; when it starts is not known yet"),
                    Some(time) => write!(f, "; starts in about {}", Time(*time)),
                }
            }
            Self::Yielding { needs, attempts } => {
                write!(f, "needs {}, which it has when at a checkpoint stop ", Slots(*needs))?;
                list(f, attempts)
            }
            Self::Held { needs, free, by, refusal } => {
                write!(f, "needs {}, {}, kept for {by}: {refusal}", Slots(*needs), Free(*free))
            }
            Self::Behind { trial, needs, before } => {
                write!(f, "behind {trial}{before}, which needs {}", Slots(*needs))
            }
        }
    }
}

impl fmt::Display for Before {
    /// Completes "behind t7…".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Priority(priority) => write!(f, " of priority {priority}"),
            Self::Share { project } => write!(f, " of project {project}, which uses less of its share"),
            Self::Reserved => f.write_str(", for which slots are kept"),
            Self::Older => Ok(()),
            Self::Evaluation => f.write_str(", an evaluation"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DurationUnknown => {
                f.write_str("no trial like this one has ended yet, so how long it runs is not known")
            }
            Self::StartUnknown => f.write_str("when that one starts is not known"),
            Self::Far => f.write_str("too many others go before this one"),
            Self::Due => f.write_str("that one starts as soon as the last slots are back"),
            Self::TooLong { late } => {
                write!(f, "this one would end about {} after that one can start", Time(*late))
            }
        }
    }
}

/// Names named before the rest is only counted: a line of a terminal.
const NAMED: usize = 5;

fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
) -> fmt::Result {
    let items = items.into_iter();
    let more = items.len().saturating_sub(NAMED);
    for (i, item) in items.take(NAMED).enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        write!(f, "{comma}{item}")?;
    }
    if more == 0 { Ok(()) } else { write!(f, " and {more} more") }
}

struct Slots(u32);

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} slot{plural}", self.0)
    }
}

struct Free(u32);

impl fmt::Display for Free {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let are = if self.0 == 1 { "is" } else { "are" };
        write!(f, "{} {are} free", self.0)
    }
}

/// A time in the two largest units that it has.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_millis().div_ceil(1_000);
        let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds} s"),
            (0, 0, _) => write!(f, "{minutes} min {} s", seconds % 60),
            (0, _, _) => write!(f, "{hours} h {} min", minutes % 60),
            (_, _, _) => write!(f, "{days} d {} h", hours % 24),
        }
    }
}
