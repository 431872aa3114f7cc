//! What a grid file comes to: trials to run, and cells that read their results.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::TrialKey;
use crate::spec::{RunPolicy, TrialSpec};

/// An expanded grid file. Expansion is deterministic: the same text gives the same plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the experiment.
    pub name: String,
    /// Project that it is charged to.
    #[serde(default = "default_project")]
    pub project: String,
    /// Priority of its trials. Higher goes first.
    #[serde(default)]
    pub priority: i32,
    /// Distinct trials; each stands after those that it needs.
    pub trials: Vec<PlannedTrial>,
    /// Cells in the order of the file: by data set, model, method, seed.
    pub cells: Vec<Cell>,
}

/// Project of an experiment that names none.
pub const DEFAULT_PROJECT: &str = "default";

/// [`DEFAULT_PROJECT`], as serde wants it.
pub fn default_project() -> String {
    DEFAULT_PROJECT.to_owned()
}

/// A trial of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedTrial {
    /// What to compute.
    pub spec: TrialSpec,
    /// How to run it.
    pub policy: RunPolicy,
    /// For people, like `train deterministic wrn-10-1 digits seed 0`.
    pub label: String,
}

/// One cell of the grid with one seed. Its row of the table is (data, model, method).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Data set, as labelled in the table.
    pub data: Arc<str>,
    /// Model.
    pub model: Arc<str>,
    /// Method, as labelled in the table.
    pub method: Arc<str>,
    /// Seed of the cell.
    pub seed: u64,
    /// Evaluate trial whose result fills the cell.
    pub trial: TrialKey,
}
