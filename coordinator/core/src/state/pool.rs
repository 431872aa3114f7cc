//! Values that many records have in common, each kept once for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::plan::Cell;
use common::result::TrialResult;
use common::spec::{RunPolicy, Workload};

use super::spec::Pattern;
use super::{Outcome, Phase, Spec, Trial};

/// What records share. It grows with the number of different values, as the records themselves would.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    /// The newest of each workload: a grid's trials come together, and differ in little else.
    patterns: BTreeMap<Workload, Arc<Pattern>>,
    policies: BTreeSet<Arc<RunPolicy>>,
    /// Names of the scores of a result.
    scores: BTreeSet<Arc<[String]>>,
    /// Labels of cells.
    labels: BTreeSet<Arc<str>>,
}

/// It is no part of the state: without it records are the same, and take more memory.
impl PartialEq for Pool {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Pool {
    /// Lets a record that was read share what it can.
    pub(crate) fn share_trial(&mut self, trial: &mut Trial) {
        self.share_spec(&mut trial.spec);
        trial.policy = self.policy(&trial.policy);
        if let Phase::Ended { outcome, .. } = &mut trial.phase {
            self.share_outcome(outcome);
        }
    }

    pub(super) fn share_spec(&mut self, spec: &mut Spec) {
        let shares = self.patterns.get(&spec.workload()).is_some_and(|newest| spec.share(newest));
        if !shares {
            self.patterns.insert(spec.workload(), Arc::clone(spec.pattern()));
        }
    }

    pub(super) fn policy(&mut self, policy: &RunPolicy) -> Arc<RunPolicy> {
        if let Some(known) = self.policies.get(policy) {
            return Arc::clone(known);
        }
        let policy = Arc::new(policy.clone());
        self.policies.insert(Arc::clone(&policy));
        policy
    }

    pub(super) fn share_outcome(&mut self, outcome: &mut Outcome) {
        match outcome {
            Outcome::Succeeded { result } => self.share_result(result),
            Outcome::Failed { .. }
            | Outcome::LostWorkers { .. }
            | Outcome::Cancelled
            | Outcome::NeedFailed { .. } => {}
        }
    }

    fn share_result(&mut self, result: &mut TrialResult) {
        let names = result.metrics.names();
        match self.scores.get(names) {
            Some(known) => result.metrics.share_names(known),
            None => drop(self.scores.insert(Arc::clone(names))),
        }
    }

    pub(crate) fn share_cells(&mut self, cells: &mut [Cell]) {
        for label in cells.iter_mut().flat_map(|cell| [&mut cell.data, &mut cell.model, &mut cell.method]) {
            match self.labels.get(label) {
                Some(known) => *label = Arc::clone(known),
                None => drop(self.labels.insert(Arc::clone(label))),
            }
        }
    }
}
