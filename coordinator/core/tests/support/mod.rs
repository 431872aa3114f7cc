//! What the tests of the core share: small plans, and a cluster that checks itself after every input.

pub mod explained;

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use common::TrialKey;
use common::plan::{Cell, Plan, PlannedTrial, default_project};
use common::spec::{
    DataSpec, DatasetName, EvaluateSpec, ModelSpec, NUMERICS, Precision, Predictor, Recipe, RunPolicy,
    Schedule, TrainMethod, TrainSpec, TrialSpec, WideResNetVariant,
};
use coordinator_core::Policy;

/// Short limits, so that a test reads in small numbers.
pub fn policy() -> Policy {
    Policy {
        lease: Duration::from_millis(50),
        stall: Some(Duration::from_millis(400)),
        checkpoints: NonZeroUsize::MIN.saturating_add(1),
        projects: BTreeMap::new(),
        yield_limit: Duration::from_millis(200),
        // More often than a simulation can fail or lose a worker: tests of that have their own limits.
        quarantine_after: NonZeroUsize::MAX,
        max_workers_lost: NonZeroU32::MAX,
        resize_after: Duration::from_millis(300),
        // Tests of pauses have their own limits.
        retry_after: Duration::ZERO,
        retry_after_most: Duration::ZERO,
    }
}

/// A network to train, told from others by its seed.
pub fn network(seed: u64, world_size: u32) -> TrainSpec {
    TrainSpec {
        method: TrainMethod::Deterministic,
        data: DataSpec {
            set: DatasetName::Digits,
            held_out: vec![8, 9],
            train_limit: None,
            test_limit: None,
            allow_subset: false,
            validation: 0,
        },
        model: ModelSpec::WideResNet { depth: 10, widen: 1, variant: WideResNetVariant::Authors },
        recipe: Recipe {
            epochs: 1,
            batch_size: 64,
            // Not exact in binary, so that a log that rounds is noticed.
            lr: 0.1,
            schedule: Schedule::Cosine,
            warmup_epochs: 0.0,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 5e-4,
            clip_norm: None,
            reset_momentum_each_epoch: false,
            precision: Precision::Fp32,
            augmentation: Vec::new(),
        },
        pretrained: None,
        seed,
        world_size,
        min_world_size: None,
        numerics: NUMERICS,
    }
}

/// A trial that evaluates an ensemble of `networks`.
pub fn evaluate(networks: impl IntoIterator<Item = TrainSpec>) -> TrialSpec {
    TrialSpec::Evaluate(EvaluateSpec {
        predictor: Predictor::Direct { samples_per_member: 1 },
        networks: networks.into_iter().collect(),
        ood: Vec::new(),
        shift: None,
        seed: 0,
        batch_size: 64,
        numerics: NUMERICS,
    })
}

/// A plan of `specs`, with a cell for each evaluation, whose trials fail for good after `max_failures`.
pub fn plan_with(max_failures: u32, specs: impl IntoIterator<Item = TrialSpec>) -> Plan {
    let policy = RunPolicy { max_failures, ..RunPolicy::default() };
    let trials: Vec<PlannedTrial> = specs
        .into_iter()
        .enumerate()
        .map(|(i, spec)| PlannedTrial { spec, policy: policy.clone(), label: format!("trial {i}") })
        .collect();
    let evaluations = trials.iter().filter_map(|planned| match planned.spec {
        TrialSpec::Evaluate(_) => Some(planned.spec.key()),
        TrialSpec::Train(_) => None,
    });
    let cells = (0..).zip(evaluations).map(|(seed, trial)| cell(seed, trial)).collect();
    Plan { name: "grid".to_owned(), project: default_project(), priority: 0, trials, cells }
}

/// A cell that reads `trial`.
pub fn cell(seed: u64, trial: TrialKey) -> Cell {
    Cell { data: "digits".into(), model: "wrn-10-1".into(), method: "deterministic".into(), seed, trial }
}
