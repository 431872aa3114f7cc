//! What the first trial of a class waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::{AttemptId, TrialId};

use super::order::{Claim, Rank};
use crate::state::Class;

/// Why a trial does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Its place in the queue, and with it the trial.
    pub(crate) rank: Rank,
    pub(crate) class: Arc<Class>,
    pub(crate) blocked: Blocked,
}

/// Every finding of one look at the queue, in the order of the queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    by_class: BTreeMap<Arc<Class>, usize>,
    /// Of trials with a reservation.
    by_trial: BTreeMap<TrialId, usize>,
    awaited: BTreeMap<TrialId, BTreeSet<AttemptId>>,
}

impl Findings {
    pub(crate) fn new(list: Vec<Finding>, awaited: BTreeMap<TrialId, BTreeSet<AttemptId>>) -> Self {
        let (reserved, first): (Vec<_>, Vec<_>) =
            list.iter().enumerate().partition(|(_, finding)| finding.rank.claim == Claim::Reserved);
        let by_class = first.into_iter().map(|(at, finding)| (Arc::clone(&finding.class), at)).collect();
        let by_trial = reserved.into_iter().map(|(at, finding)| (finding.rank.key.trial, at)).collect();
        Self { list, by_class, by_trial, awaited }
    }

    /// Attempts that were asked to stop, and whose slots a trial will have.
    pub(crate) fn awaited(&self, trial: TrialId) -> Option<&BTreeSet<AttemptId>> {
        self.awaited.get(&trial)
    }

    /// What was found of a trial or of the first of its class, and of those that go before it.
    pub(crate) fn of(&self, trial: TrialId, class: &Class) -> Option<(&Finding, &[Finding])> {
        let at = *self.by_trial.get(&trial).or_else(|| self.by_class.get(class))?;
        Some((self.list.get(at)?, self.list.get(..at)?))
    }
}

/// What keeps a trial from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// No member has what it requires. True of all of its class.
    NoMatch,
    /// Those that have it are too small together. True of all of its class.
    TooWide { offered: u32 },
    /// Its project could never run it. True of all of its class.
    OverQuota { quota: u32 },
    /// Its project uses too much of its quota.
    Quota { quota: u32, used: u32, reserved: u32 },
    /// A trial of its project that goes first waits for the quota.
    Stopped { by: TrialId },
    /// Too few slots are free, held or not.
    Slots { free: u32 },
    /// Enough are free, and some are kept for another trial.
    Held { by: TrialId, refusal: Refusal },
}

impl Blocked {
    /// Whether it holds for every trial of the class, and holds up nobody.
    pub(crate) fn is_hopeless(&self) -> bool {
        match self {
            Self::NoMatch | Self::TooWide { .. } | Self::OverQuota { .. } => true,
            Self::Quota { .. } | Self::Stopped { .. } | Self::Slots { .. } | Self::Held { .. } => false,
        }
    }
}

/// Why slots that are kept for one trial are not lent to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// How long the other one runs is not known: none like it has succeeded yet.
    DurationUnknown,
    /// When the reserved trial can start is not known.
    StartUnknown,
    /// The reserved trial may start at any moment.
    Due,
    /// The other one is too far back in the queue to be looked at.
    Far,
    /// The other one would end this much after the reserved one could start.
    TooLong {
        /// How much.
        late: Duration,
    },
}
