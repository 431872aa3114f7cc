//! A cluster under random load, whose attempts take as long as a draw says: the core's estimates are often wrong.

use std::collections::{BTreeMap, BTreeSet};

use common::plan::Plan;
use common::session::{AttemptEnd, SessionOrder};
use common::spec::{Requirements, TrialSpec};
use common::{AttemptId, FailureCause, TrialId, WorkerId};
use coordinator_core::{Cluster, Event, Input, Millis, Policy, Step, Traits};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::case::{checkpoint, result};
use crate::support::explained::check_explanations;
use crate::support::{evaluate, network, plan_with};

/// How an attempt will end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Success,
    Failure,
    Yield,
}

pub struct Arena {
    pub rng: SmallRng,
    pub now: u64,
    pub policy: Policy,
    pub cluster: Cluster,
    pub log: Vec<Event>,
    /// Running attempts by the time of their end.
    pub ends: BTreeSet<(u64, AttemptId, Fate)>,
    seeds: u64,
}

impl Arena {
    pub fn new(seed: u64, policy: Policy) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            now: 1_000,
            cluster: Cluster::new(policy.clone()),
            policy,
            log: Vec::new(),
            ends: BTreeSet::new(),
            seeds: 0,
        }
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    /// Takes an input, checks everything, and draws the ends of what it starts.
    pub fn handle(&mut self, input: Input) -> Step {
        let step = self.cluster.handle(Millis(self.now), input).unwrap();
        self.log.extend(step.events.iter().cloned());
        self.cluster.check().unwrap();
        check_explanations(&self.cluster);
        for event in &step.events {
            if let Event::AttemptStarted { trial, attempt, .. } = event {
                self.draw_end(*trial, *attempt);
            } else if let Event::YieldRequested { attempt, reason, .. } = event {
                let (_, fate) = self.forget(*attempt);
                assert!(fate != Fate::Yield || reason.insists(), "{attempt} was asked twice");
                let end = self.now + self.rng.random_range(1..20);
                self.ends.insert((end, *attempt, Fate::Yield));
            }
        }
        self.ends.retain(|(_, attempt, _)| self.cluster.trial_of(*attempt).is_some());
        step
    }

    fn forget(&mut self, attempt: AttemptId) -> (u64, Fate) {
        let &(end, _, fate) = self.ends.iter().find(|(_, other, _)| *other == attempt).unwrap();
        self.ends.remove(&(end, attempt, fate));
        (end, fate)
    }

    /// The length of the recipe decides the mean. One in ten takes five times as long, and one in ten fails.
    fn draw_end(&mut self, trial: TrialId, attempt: AttemptId) {
        let usual = match self.cluster.trial(trial).unwrap().spec.unseeded() {
            TrialSpec::Train(train) => 10 * u64::from(train.recipe.epochs),
            TrialSpec::Evaluate(_) => 5,
        };
        let mut takes = self.rng.random_range(usual / 2..usual * 2) + 1;
        if self.chance(0.1) {
            takes *= 5;
        }
        let fate = if self.chance(0.1) { Fate::Failure } else { Fate::Success };
        self.ends.insert((self.now + takes, attempt, fate));
    }

    pub fn end_of(&self, attempt: AttemptId) -> u64 {
        self.ends.iter().find(|(_, other, _)| *other == attempt).unwrap().0
    }

    /// Lets time pass until the next attempt ends.
    pub fn end_next(&mut self) -> Option<Step> {
        let (end, attempt, fate) = self.ends.pop_first()?;
        self.now = self.now.max(end);
        let trial = self.cluster.trial_of(attempt).unwrap();
        let record = self.cluster.trial(trial).unwrap();
        let workers = record.attempt().unwrap().placement.shares().iter().map(|share| share.worker);
        let workers = workers.collect::<Vec<_>>();
        let trains = record.spec.trains();
        let newest = record.checkpoints.last().map_or(0, |held| held.step);
        if trains && fate != Fate::Failure {
            let checkpoint = checkpoint(newest + 1, &attempt.to_string());
            let _ = self.handle(Input::CheckpointCommitted { worker: workers[0], attempt, checkpoint });
        }
        let mut all = Step::default();
        for (at, &worker) in workers.iter().enumerate() {
            let end: AttemptEnd = match fate {
                Fate::Success => Ok((at == 0).then(result)),
                Fate::Failure => Err(FailureCause::OutOfMemory),
                Fate::Yield => Err(FailureCause::Preempted),
            };
            all.events.extend(self.handle(Input::Ended { worker, attempt, end }).events);
        }
        Some(all)
    }

    pub fn hello(&mut self, worker: u64, slots: u32, traits: Traits) -> Step {
        let input = hello(WorkerId(worker), slots, traits);
        self.handle(input)
    }

    /// New trials of random widths and lengths, sometimes with an evaluation.
    pub fn plan(&mut self, widest: u32, requires: &[Requirements]) -> Plan {
        let count = self.rng.random_range(1..5);
        let mut specs = Vec::new();
        for _ in 0..count {
            self.seeds += 1;
            let width = if self.chance(0.3) { self.rng.random_range(1..=widest) } else { 1 };
            let mut train = network(self.seeds, width);
            train.recipe.epochs = self.rng.random_range(1..6);
            if width > 1 && self.chance(0.3) {
                train.min_world_size = Some(self.rng.random_range(1..=width));
            }
            specs.push(TrialSpec::Train(train.clone()));
            if self.chance(0.3) {
                specs.push(evaluate([train]));
            }
        }
        let mut plan = plan_with(1_000, specs);
        for planned in &mut plan.trials {
            planned.policy.requires = requires[self.rng.random_range(0..requires.len())].clone();
        }
        plan
    }
}

pub fn hello(worker: WorkerId, slots: u32, traits: Traits) -> Input {
    Input::Hello {
        worker,
        order: SessionOrder::default(),
        name: worker.to_string(),
        host: worker.to_string(),
        slots,
        traits,
        attempts: vec![],
    }
}

pub fn labels<const N: usize>(labels: [(&str, &str); N]) -> BTreeMap<String, String> {
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}
