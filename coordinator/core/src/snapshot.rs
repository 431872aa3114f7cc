//! The durable state in the place of the events that made it.
//!
//! A snapshot is written and read in parts, so that nobody needs all of its bytes at once. What follows from
//! the records is computed again: a later build may look things up in another way.

use std::borrow::Cow;

use common::{ExperimentId, TrialId};
use serde::{Deserialize, Serialize};

use crate::state::{Index, State};
use crate::{Experiment, Trial};

/// The durable state at one moment. Copies share their records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    state: State,
}

#[expect(clippy::large_enum_variant, reason = "one lives at a time")]
/// A part of a snapshot, as it is stored. Like an event, it must decode for ever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part<'a> {
    /// What there is once. The first part.
    Head(Head<'a>),
    /// An experiment.
    Experiment(ExperimentId, Cow<'a, Experiment>),
    /// A trial.
    Trial(TrialId, Cow<'a, Trial>),
}

/// Members, and the newest ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Head<'a>(Cow<'a, State>);

impl Snapshot {
    pub(crate) fn of(state: &State) -> Self {
        Self { state: state.records() }
    }

    /// Its parts, the head first.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let State { experiments, trials, .. } = &self.state;
        let experiments = experiments.iter().map(|(&id, record)| Part::Experiment(id, Cow::Borrowed(record)));
        let trials = trials.iter().map(|(&id, record)| Part::Trial(id, Cow::Borrowed(record)));
        std::iter::once(Part::Head(Head(Cow::Borrowed(&self.state)))).chain(experiments).chain(trials)
    }

    /// Takes the next part.
    pub fn push(&mut self, part: Part<'_>) {
        match part {
            Part::Head(Head(head)) => {
                let State { experiments, trials, .. } = std::mem::take(&mut self.state);
                self.state = State { experiments, trials, ..head.records() };
            }
            Part::Experiment(id, record) => {
                let mut record = record.into_owned();
                self.state.pool.share_cells(&mut record.cells);
                self.state.experiments.insert(id, record);
            }
            Part::Trial(id, record) => {
                let mut record = record.into_owned();
                self.state.pool.share_trial(&mut record);
                self.state.trials.insert(id, record);
            }
        }
    }

    pub(crate) fn into_state(mut self) -> State {
        self.state.index = Index::of(&self.state);
        self.state
    }
}
