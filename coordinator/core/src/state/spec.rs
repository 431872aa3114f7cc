//! Specifications as the state keeps them.
//!
//! The trials of a grid differ in their seeds; everything else there are as many of as the grid has rows. So a record
//! has the seeds, and shares the rest.

use std::sync::Arc;

use common::spec::{TrialSpec, Workload};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Few;

/// What a trial computes. Written and read as the [`TrialSpec`] that it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pattern: Arc<Pattern>,
    /// In the order of [`TrialSpec::seeds_mut`].
    seeds: Few<u64>,
}

/// A specification without its seeds.
#[derive(Debug, PartialEq)]
pub(super) struct Pattern {
    /// Its seeds are 0.
    spec: TrialSpec,
    workload: Workload,
}

impl Spec {
    /// The specification itself.
    pub fn to_spec(&self) -> TrialSpec {
        let mut spec = self.pattern.spec.clone();
        for (place, &seed) in spec.seeds_mut().zip(&self.seeds) {
            *place = seed;
        }
        spec
    }

    /// The specification with 0 in the place of its seeds, for what does not depend on them.
    pub fn unseeded(&self) -> &TrialSpec {
        &self.pattern.spec
    }

    /// What the run time depends on.
    pub fn workload(&self) -> Workload {
        self.pattern.workload
    }

    /// Whether it fits a network, rather than predicting with some.
    pub fn trains(&self) -> bool {
        match self.pattern.spec {
            TrialSpec::Train(_) => true,
            TrialSpec::Evaluate(_) => false,
        }
    }

    /// As [`TrialSpec::slots`].
    pub fn slots(&self) -> u32 {
        self.pattern.spec.slots()
    }

    /// As [`TrialSpec::min_slots`].
    pub fn min_slots(&self) -> u32 {
        self.pattern.spec.min_slots()
    }

    /// As [`TrialSpec::is_elastic`].
    pub fn is_elastic(&self) -> bool {
        self.pattern.spec.is_elastic()
    }

    /// As [`TrialSpec::allows`].
    pub fn allows(&self, ranks: u32) -> bool {
        self.pattern.spec.allows(ranks)
    }

    pub(super) fn pattern(&self) -> &Arc<Pattern> {
        &self.pattern
    }

    /// Shares `pattern`, if it is its own. Returns whether it is.
    pub(super) fn share(&mut self, pattern: &Arc<Pattern>) -> bool {
        let equal = self.pattern == *pattern;
        if equal {
            self.pattern = Arc::clone(pattern);
        }
        equal
    }
}

impl From<TrialSpec> for Spec {
    fn from(mut spec: TrialSpec) -> Self {
        let workload = spec.workload();
        let seeds = spec.seeds_mut().map(std::mem::take).collect();
        Self { pattern: Arc::new(Pattern { spec, workload }), seeds }
    }
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_spec().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TrialSpec::deserialize(deserializer).map(Self::from)
    }
}
