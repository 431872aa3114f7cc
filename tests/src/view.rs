//! What the command line prints as JSON, as a script would read it. Fields that no test reads are left out.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Answer of `credence submit --json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Submitted {
    /// Id of the experiment.
    pub experiment: String,
    /// Cells of the grid.
    pub cells: u32,
    /// Distinct trials.
    pub trials: u32,
    /// Trials that were not known before.
    pub new_trials: u32,
    /// Trials that were.
    pub reused_trials: u32,
}

/// Trials of an experiment by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// Need the result of another trial.
    pub waiting: u32,
    /// Need slots.
    pub queued: u32,
    /// Have slots.
    pub running: u32,
    /// Have a result.
    pub succeeded: u32,
    /// Have none and never will.
    pub failed: u32,
    /// Were given up.
    pub cancelled: u32,
}

/// Answer of `credence status EXPERIMENT --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Experiment {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `active`, `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// Trials by state.
    pub trials: Counts,
    /// Its trials.
    #[serde(default)]
    pub all_trials: Vec<Trial>,
}

impl Experiment {
    /// The trial whose label holds all of `words`.
    ///
    /// # Panics
    ///
    /// When there is none, or more than one.
    pub fn trial(&self, words: &[&str]) -> &Trial {
        let mut meant =
            self.all_trials.iter().filter(|trial| words.iter().all(|word| trial.label.contains(word)));
        let labels = || self.all_trials.iter().map(|trial| trial.label.as_str()).collect::<Vec<_>>();
        let found = meant.next().unwrap_or_else(|| panic!("no trial is labelled {words:?}: {:?}", labels()));
        assert!(meant.next().is_none(), "{words:?} is the label of several trials: {:?}", labels());
        found
    }
}

/// Answer of `credence status TRIAL --json`; what follows `attempts` is only in that one.
#[derive(Clone, Debug, Deserialize)]
pub struct Trial {
    /// Id, like `t7`.
    pub id: String,
    /// Digest of its specification.
    pub key: String,
    /// For people.
    pub label: String,
    /// `waiting`, `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// Slots that it needs.
    pub slots: u32,
    /// Attempts so far.
    pub attempts: u32,
    /// Those that failed and counted.
    pub failures: u32,
    /// Why it does not run, or how it ended.
    #[serde(default)]
    pub reason: String,
    /// Where it stands while it runs.
    pub progress: Option<Progress>,
    /// Every attempt, oldest first.
    #[serde(default)]
    pub history: Vec<Attempt>,
    /// Steps of the checkpoints that are kept.
    #[serde(default)]
    pub checkpoint_steps: Vec<u64>,
    /// What the user should know.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Scores and costs.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
}

impl Trial {
    /// Whether it will not change any more.
    pub fn has_ended(&self) -> bool {
        ["succeeded", "failed", "cancelled"].contains(&self.state.as_str())
    }

    /// Ids of its attempts, oldest first.
    pub fn attempt_ids(&self) -> Vec<&str> {
        self.history.iter().map(|attempt| attempt.id.as_str()).collect()
    }

    /// Bits of every score that is the same on every run: all but measured times.
    pub fn deterministic_metrics(&self) -> BTreeMap<&str, u64> {
        let timeless = self.metrics.iter().filter(|(name, _)| !name.ends_with("_seconds"));
        timeless.map(|(name, value)| (name.as_str(), value.to_bits())).collect()
    }
}

/// Where a running trial stands.
#[derive(Clone, Debug, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub total_steps: u64,
}

/// One execution of a trial.
#[derive(Clone, Debug, Deserialize)]
pub struct Attempt {
    /// Id, like `a12`.
    pub id: String,
    /// Names of the workers of its placement.
    pub workers: Vec<String>,
    /// How it failed.
    #[serde(default)]
    pub failure: String,
}

/// A row of `credence workers --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Worker {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Slots that it offers.
    pub slots: u32,
    /// Slots in use.
    pub slots_used: u32,
    /// Whether it has a session.
    pub connected: bool,
    /// Attempts that it holds.
    pub attempts: Vec<String>,
}

/// A line of `credence metrics --json`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct MetricRow {
    /// The attempt that measured it.
    pub attempt: String,
    /// Steps done.
    pub step: u64,
    /// What was measured.
    pub name: String,
    /// Value.
    pub value: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experiment(labels: &[&str]) -> Experiment {
        let trials: Vec<_> = labels
            .iter()
            .map(|label| {
                serde_json::json!({
                    "id": "t1", "key": "k", "label": label, "state": "queued", "slots": 1, "attempts": 0, "failures": 0
                })
            })
            .collect();
        let counts = serde_json::json!({
            "waiting": 0, "queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0
        });
        serde_json::from_value(serde_json::json!({
            "id": "e1", "name": "n", "state": "active", "trials": counts, "all_trials": trials
        }))
        .unwrap()
    }

    #[test]
    fn a_trial_is_found_by_words_of_its_label() {
        let experiment = experiment(&["train a seed 0", "evaluate a seed 0"]);
        assert_eq!(experiment.trial(&["train", "seed 0"]).label, "train a seed 0");
    }

    #[test]
    #[should_panic(expected = "several trials")]
    fn words_of_several_labels_name_no_trial() {
        experiment(&["train a seed 0", "evaluate a seed 0"]).trial(&["seed 0"]);
    }

    #[test]
    fn times_are_no_deterministic_metrics() {
        let mut trial = experiment(&["train"]).all_trials.remove(0);
        trial.metrics = [("nll".to_owned(), 0.5), ("train_seconds".to_owned(), 3.0)].into();
        assert_eq!(trial.deterministic_metrics(), [("nll", 0.5_f64.to_bits())].into());
    }
}
