//! What a worker's slots are like, and whether that is what a trial requires.

use std::collections::BTreeMap;

use common::spec::Requirements;
use serde::{Deserialize, Serialize};

/// What a worker says about its slots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Traits {
    /// Labels that its operator gave it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Kind of device, like `cpu` or `cuda`; `None` where it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Memory that each slot offers; `None` where it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot_memory_mib: Option<u64>,
}

impl Traits {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.device.is_none() && self.slot_memory_mib.is_none()
    }

    /// Whether a trial with these requirements may run here. What was not said is not there.
    pub fn meet(&self, requires: &Requirements) -> bool {
        let labels = requires.labels.iter().all(|(key, value)| self.labels.get(key) == Some(value));
        let device = requires.device.is_none() || self.device == requires.device;
        let memory =
            requires.memory_mib.is_none_or(|least| self.slot_memory_mib.is_some_and(|mib| mib >= least));
        labels && device && memory
    }
}
