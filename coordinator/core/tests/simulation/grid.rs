//! Random submissions, from a small pool of seeds so that they overlap.

use std::collections::BTreeMap;

use common::plan::Plan;
use common::result::Score;
use common::spec::{Scoring, TrainSpec, TrialSpec};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::support::{evaluate, network, plan_with};

/// Networks to choose from. Seed and width go together, so that a network that is drawn twice is the same.
const POOL: u64 = 24;

/// Slots of the network with this seed: mostly few, some more than one worker has, some more than all have.
fn width(seed: u64) -> u32 {
    match seed % 8 {
        0..=3 => 1,
        4 | 5 => 2,
        6 => 5,
        _ => 8,
    }
}

/// Fewest slots of an elastic network.
fn narrowest(seed: u64) -> Option<u32> {
    match seed % 8 {
        5 => Some(1),
        6 if seed > 8 => Some(2),
        7 if seed > 8 => Some(4),
        _ => None,
    }
}

/// Whether a trial is one of the few that do not run everywhere.
fn seldom(spec: &TrialSpec) -> bool {
    match spec {
        TrialSpec::Train(train) => train.seed % 5 == 1,
        TrialSpec::Evaluate(_) => false,
    }
}

/// Optimizer steps that a trial takes.
pub fn steps(spec: &TrialSpec) -> u64 {
    match spec {
        TrialSpec::Train(train) => 5 + train.seed % 20,
        TrialSpec::Evaluate(_) => 6,
    }
}

/// The step at which a trial's loss is not finite, whoever computes it.
pub fn poison(spec: &TrialSpec) -> Option<u64> {
    match spec {
        TrialSpec::Train(train) => (train.seed % 12 == 5).then_some(4),
        TrialSpec::Evaluate(_) => None,
    }
}

/// What a trial's network makes of held-out images: rises and falls, and the same whoever computes it.
pub fn score(spec: &TrialSpec, step: u64) -> Option<Score> {
    match spec {
        // Some steps are alike, so that there are ties, and some have none.
        TrialSpec::Train(train) => {
            Score::new(((train.seed + step / 4 * 5) % 7) as f64 / 8.0).filter(|_| step % 11 != 8)
        }
        TrialSpec::Evaluate(_) => None,
    }
}

pub fn draw(rng: &mut SmallRng) -> Plan {
    let members: BTreeMap<u64, TrainSpec> = (0..rng.random_range(1..4))
        .map(|_| rng.random_range(0..POOL))
        .map(|seed| (seed, TrainSpec { min_world_size: narrowest(seed), ..network(seed, width(seed)) }))
        .collect();
    let networks: Vec<TrainSpec> = members.into_values().collect();
    let mut trials: Vec<TrialSpec> = networks.iter().cloned().map(TrialSpec::Train).collect();
    for _ in 0..rng.random_range(0..3) {
        let members = rng.random_range(1..=2);
        let ensemble = (0..members).filter_map(|_| networks.choose(rng).cloned());
        trials.push(evaluate(ensemble.collect::<Vec<_>>()));
    }
    let mut plan = plan_with(rng.random_range(0..4), trials);
    plan.project = ["default", "alpha", "beta"].choose(rng).unwrap().to_string();
    plan.priority = rng.random_range(-1..=1);
    // Not drawn, so that seeds that are known go on to mean the same.
    let keep_best = (plan.priority != 0).then_some(Scoring { samples: 1, batch_size: 64 });
    for planned in &mut plan.trials {
        planned.policy.keep_best = keep_best;
        if let Some(zone) = ["a", "b"].choose(rng).filter(|_| seldom(&planned.spec)) {
            planned.policy.requires.labels.insert("zone".to_owned(), (*zone).to_owned());
        }
    }
    plan
}
