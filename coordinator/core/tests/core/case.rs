//! A cluster that checks its invariants, and that its log rebuilds it, after every input.

use std::time::Duration;

use common::plan::Plan;
use common::result::{Checkpoint, TrialResult};
use common::session::{AttemptEnd, AttemptReport, AttemptState, SessionOrder};
use common::spec::TrialSpec;
use common::{AttemptId, Digest, ExperimentId, TrialId, WorkerId};
use coordinator_core::{Cluster, Effect, Event, Input, Millis, Policy, Reject, Snapshot, Step, Traits};

use crate::support::explained::check_explanations;
use crate::support::{network, plan_with, policy};

pub const E1: ExperimentId = ExperimentId(1);
pub const E2: ExperimentId = ExperimentId(2);
pub const T1: TrialId = TrialId(1);
pub const T2: TrialId = TrialId(2);
pub const T3: TrialId = TrialId(3);
pub const A1: AttemptId = AttemptId(1);
pub const A2: AttemptId = AttemptId(2);
pub const A3: AttemptId = AttemptId(3);
pub const W1: WorkerId = WorkerId(1);
pub const W2: WorkerId = WorkerId(2);

pub struct Case {
    pub now: Millis,
    pub policy: Policy,
    pub cluster: Cluster,
    pub log: Vec<Event>,
}

/// A snapshot as it comes back from the disk.
pub fn stored(cluster: &Cluster) -> Snapshot {
    let mut read = Snapshot::default();
    for part in cluster.snapshot().parts() {
        let text = serde_json::to_string(&part).unwrap();
        read.push(serde_json::from_str(&text).unwrap());
    }
    read
}

impl Case {
    pub fn new() -> Self {
        Self::with_policy(policy(), [])
    }

    /// The same under other limits, with connected workers 1, 2, … that offer `slots`.
    pub fn with_policy(policy: Policy, slots: impl IntoIterator<Item = u32>) -> Self {
        let cluster = Cluster::new(policy.clone());
        Self { now: Millis(1_000), policy, cluster, log: Vec::new() }.joined_by(slots)
    }

    /// A cluster with connected workers 1, 2, … that offer `slots`.
    pub fn with_workers(slots: impl IntoIterator<Item = u32>) -> Self {
        Self::with_policy(policy(), slots)
    }

    /// The same, with connected workers 1, 2, … that offer `slots`.
    pub fn joined_by(mut self, slots: impl IntoIterator<Item = u32>) -> Self {
        for (id, slots) in (1..).zip(slots) {
            let _ = self.hello(WorkerId(id), slots, []);
        }
        self
    }

    pub fn wait(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    pub fn handle(&mut self, input: Input) -> Step {
        let step = self.cluster.handle(self.now, input).unwrap();
        self.log.extend(step.events.iter().cloned());
        self.cluster.check().unwrap();
        check_explanations(&self.cluster);
        let text = serde_json::to_string(&self.log).unwrap();
        let log: Vec<Event> = serde_json::from_str(&text).unwrap();
        let replayed = Cluster::replay(self.policy.clone(), self.now, &log);
        replayed.check().unwrap();
        assert!(replayed.same_durable_state(&self.cluster), "the log does not rebuild the state: {text}");
        for covered in [log.len() / 2, log.len()] {
            let older = Cluster::replay(self.policy.clone(), self.now, &log[..covered]);
            let restored = Cluster::restore(self.policy.clone(), self.now, stored(&older), &log[covered..]);
            restored.check().unwrap();
            assert!(restored.same_durable_state(&self.cluster), "a snapshot of {covered} events: {text}");
        }
        step
    }

    /// Refuses the input, and must not have changed.
    pub fn refuse(&mut self, input: Input) -> Reject {
        let before = self.cluster.clone();
        let reject = self.cluster.handle(self.now, input).unwrap_err();
        assert_eq!(format!("{:?}", self.cluster), format!("{before:?}"), "a refused input changed the state");
        reject
    }

    pub fn restart(&mut self) {
        self.cluster = Cluster::replay(self.policy.clone(), self.now, &self.log);
    }

    pub fn submit(&mut self, specs: impl IntoIterator<Item = TrialSpec>) -> Step {
        self.submit_plan(plan(specs))
    }

    /// Submits for a project at a priority.
    pub fn submit_as(
        &mut self,
        project: &str,
        priority: i32,
        specs: impl IntoIterator<Item = TrialSpec>,
    ) -> Step {
        let project = project.to_owned();
        self.submit_plan(Plan { project, priority, ..plan(specs) })
    }

    /// Why a trial waits.
    pub fn why(&self, trial: TrialId) -> String {
        self.cluster.explain(trial).unwrap().to_string()
    }

    pub fn submit_plan(&mut self, plan: Plan) -> Step {
        self.handle(Input::Submit { plan, grid: "text of the grid".to_owned() })
    }

    pub fn hello(
        &mut self,
        worker: WorkerId,
        slots: u32,
        attempts: impl IntoIterator<Item = AttemptReport>,
    ) -> Step {
        let attempts = attempts.into_iter().collect();
        let traits = Traits::default();
        let (order, name, host) = (SessionOrder::default(), name(worker), name(worker));
        self.handle(Input::Hello { worker, order, name, host, slots, traits, attempts })
    }

    pub fn heartbeat(&mut self, worker: WorkerId, attempts: impl IntoIterator<Item = AttemptReport>) -> Step {
        self.handle(Input::Heartbeat { worker, attempts: attempts.into_iter().collect() })
    }

    pub fn end(&mut self, worker: WorkerId, attempt: AttemptId, end: AttemptEnd) -> Step {
        self.handle(Input::Ended { worker, attempt, end })
    }

    pub fn commit(&mut self, worker: WorkerId, attempt: AttemptId, checkpoint: Checkpoint) -> Step {
        self.handle(Input::CheckpointCommitted { worker, attempt, checkpoint })
    }

    /// Trains with one worker to a good end, leaving `text` as the final checkpoint.
    pub fn finish(&mut self, worker: WorkerId, attempt: AttemptId, text: &str) -> Step {
        let _ = self.commit(worker, attempt, checkpoint(100, text));
        self.end(worker, attempt, success())
    }
}

/// A trial that trains.
pub fn train(seed: u64, world_size: u32) -> TrialSpec {
    TrialSpec::Train(network(seed, world_size))
}

/// A plan whose trials may fail twice.
pub fn plan(specs: impl IntoIterator<Item = TrialSpec>) -> Plan {
    plan_with(2, specs)
}

/// A checkpoint told from others by its text.
pub fn checkpoint(step: u64, text: &str) -> Checkpoint {
    Checkpoint::new(step, Digest::of(text.as_bytes()), 1_000)
}

pub fn name(worker: WorkerId) -> String {
    format!("node-{}", worker.0)
}

/// The end of rank 0's share when all went well.
pub fn success() -> AttemptEnd {
    Ok(Some(result()))
}

pub fn result() -> TrialResult {
    TrialResult { metrics: [("accuracy".to_owned(), 0.93)].into(), artifacts: Vec::new() }
}

/// The attempt runs and reached `step`.
pub fn runs(attempt: AttemptId, step: u64) -> AttemptReport {
    AttemptReport { attempt, state: AttemptState::Running { rendezvous: None, step } }
}

pub fn hosts(attempt: AttemptId, address: &str) -> AttemptReport {
    let rendezvous = Some(address.to_owned());
    AttemptReport { attempt, state: AttemptState::Running { rendezvous, step: 0 } }
}

pub fn ended(attempt: AttemptId, end: AttemptEnd) -> AttemptReport {
    AttemptReport { attempt, state: AttemptState::Ended(end) }
}

pub fn release(worker: WorkerId, attempt: AttemptId) -> Effect {
    Effect::Release { worker, attempt }
}

/// What happened to whom, without the details.
pub fn outline(step: &Step) -> Vec<String> {
    step.events.iter().map(outline_event).collect()
}

fn outline_event(event: &Event) -> String {
    match event {
        Event::TrialSubmitted { trial, .. } => format!("{trial} submitted"),
        Event::TrialResubmitted { trial, .. } => format!("{trial} resubmitted"),
        Event::TrialReopened { trial, .. } => format!("{trial} reopened"),
        Event::ExperimentSubmitted { experiment, .. } => format!("{experiment} submitted"),
        Event::ExperimentPrioritized { experiment, priority, .. } => format!("{experiment} has {priority}"),
        Event::TrialPaused { trial, .. } => format!("{trial} paused"),
        Event::TrialResumed { trial, .. } => format!("{trial} resumed"),
        Event::ExperimentPaused { experiment, .. } => format!("{experiment} paused"),
        Event::ExperimentResumed { experiment, .. } => format!("{experiment} resumed"),
        Event::WorkerDrained { worker, reason, .. } => format!("{worker} drained: {reason}"),
        Event::WorkerQuarantined { worker, .. } => format!("{worker} quarantined"),
        Event::WorkerUndrained { worker, .. } => format!("{worker} undrained"),
        Event::CheckpointPinned { trial, step, .. } => format!("{trial} pinned {step}"),
        Event::CheckpointUnpinned { trial, step, .. } => format!("{trial} unpinned {step}"),
        Event::ExperimentCancelled { experiment, .. } => format!("{experiment} cancelled"),
        Event::WorkerJoined { worker, slots, .. } => format!("{worker} joined with {slots}"),
        Event::SessionOpened { worker, order, .. } => {
            format!("{worker} opened {}.{}", order.start, order.session)
        }
        Event::WorkerLost { worker, .. } => format!("{worker} lost"),
        Event::WorkerLeft { worker, .. } => format!("{worker} left"),
        Event::AttemptStarted { trial, attempt, placement, .. } => {
            let shares = placement.shares().iter().map(|share| format!("{}:{}", share.worker, share.ranks));
            format!("{attempt} of {trial} started on {}", shares.collect::<Vec<_>>().join(" "))
        }
        Event::YieldRequested { attempt, reason, .. } => format!("{attempt} asked to yield: {reason}"),
        Event::AttemptFailed { attempt, cause, .. } => format!("{attempt} failed: {cause}"),
        Event::TrialEnded { trial, outcome, .. } => format!("{trial} {outcome}"),
        Event::CheckpointCommitted { trial, checkpoint, .. } => {
            format!("{trial} committed {}", checkpoint.step)
        }
        Event::CheckpointDropped { trial, reason, .. } => format!("{trial} dropped one: {reason:?}"),
    }
}
