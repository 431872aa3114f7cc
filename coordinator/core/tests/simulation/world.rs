//! The world around the core and the agents: time, faults, and what must hold in every state.

mod driver;
mod faults;
mod link;
mod machine;
mod share;

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use common::result::{Checkpoint, MetricRow};
use common::spec::TrialSpec;
use common::{AttemptId, Digest, WorkerId};
use coordinator_core::{Cluster, Event, Input, Millis, Outcome, Policy, ProjectPolicy, Session};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::grid::steps;
use crate::network::{ConnId, Network};
use crate::node::Node;
use crate::oracle::Oracle;
use crate::support;
use driver::Fate;

/// Slots of the workers. The others hold 6 without [`DEAD`]: not enough for the widest trials.
pub const SLOTS: [u32; 4] = [1, 2, 3, 3];
/// Goes away when the faults stop, and never returns.
pub const DEAD: WorkerId = WorkerId(3);

/// Time with a coordinator for which an attempt that is over may run on where it was not heard of yet.
const GRACE: u64 = 150;

fn policy(rng: &mut SmallRng) -> Policy {
    let weight = |weight, quota| ProjectPolicy { weight: NonZeroU32::new(weight).unwrap(), quota };
    // Short enough for a hung trainer to be found out before some other fault ends it.
    let mut policy = Policy {
        stall: Some(Duration::from_millis(100)),
        resize_after: Duration::from_millis(10),
        retry_after: Duration::from_millis(5),
        retry_after_most: Duration::from_millis(40),
        // Shorter than trials run, so that those that do not stop in time are noticed.
        yield_limit: Duration::from_millis(40),
        ..support::policy()
    };
    policy.projects.insert("alpha".to_owned(), weight(2, None));
    policy.projects.insert("beta".to_owned(), weight(1, Some(rng.random_range(2..6))));
    if rng.random_bool(0.5) {
        policy.quarantine_after = NonZeroUsize::MIN.saturating_add(1);
    }
    if rng.random_bool(0.3) {
        policy.max_workers_lost = NonZeroU32::MIN.saturating_add(3);
    }
    policy
}

/// Rows of an attempt by the report that carried them.
type Reports = BTreeMap<u64, Vec<MetricRow>>;

pub struct World {
    policy: Policy,
    pub rng: SmallRng,
    pub cluster: Cluster,
    pub nodes: BTreeMap<WorkerId, Node>,
    pub oracle: Oracle,
    network: Network,
    /// Newest session of each worker.
    sessions: BTreeMap<WorkerId, ConnId>,
    now: u64,
    /// Time for which the coordinator was there.
    up: u64,
    log: Vec<Event>,
    /// Metric rows that are durable, and those that were measured.
    rows: BTreeMap<AttemptId, Reports>,
    measured: BTreeMap<AttemptId, Vec<MetricRow>>,
    /// Stored blobs, those of them whose bytes are wrong, and those that wait for a record.
    blobs: BTreeSet<Digest>,
    rotten: BTreeSet<Digest>,
    fresh: BTreeSet<Digest>,
    /// The coordinator is down, until then.
    down_until: Option<u64>,
    /// The coordinator stands still until then, and what is sent to it waits.
    frozen_until: u64,
    /// How long what is being sent waits for a slow disk.
    flush: u64,
    faults: bool,
    crashes: u32,
    traces: bool,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let policy = policy(&mut rng);
        let nodes = (0..).zip(SLOTS).map(|(id, slots)| {
            let rate = rng.random_range(0.95..1.05);
            (WorkerId(id), Node::new(slots, rate))
        });
        Self {
            nodes: nodes.collect(),
            rng,
            cluster: Cluster::new(policy.clone()),
            oracle: Oracle::new(policy.clone()),
            policy,
            network: Network::default(),
            sessions: BTreeMap::new(),
            now: 0,
            up: 0,
            log: Vec::new(),
            rows: BTreeMap::new(),
            measured: BTreeMap::new(),
            blobs: BTreeSet::new(),
            rotten: BTreeSet::new(),
            fresh: BTreeSet::new(),
            down_until: None,
            frozen_until: 0,
            flush: 0,
            faults: true,
            crashes: 0,
            traces: std::env::var_os("SIM_TRACE").is_some(),
        }
    }

    /// Says what happens, if `SIM_TRACE` is set.
    #[expect(clippy::print_stdout, reason = "for whoever reads why a seed fails")]
    fn trace(&self, what: &impl std::fmt::Debug) {
        if self.traces {
            println!("{} {what:?}", self.now);
        }
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    fn fault(&mut self, probability: f64) -> bool {
        self.faults && self.chance(probability)
    }

    pub fn is_idle(&self) -> bool {
        self.cluster.trials().all(|(_, trial)| trial.has_ended())
    }

    /// The queue and the workers, for whoever reads why a seed fails.
    pub fn scene(&self) -> String {
        let open = self.cluster.trials().filter(|(_, trial)| !trial.has_ended()).map(|(id, trial)| {
            let (least, most) = (trial.spec.min_slots(), trial.slots());
            let (priority, project) = support::explained::standing(&self.cluster, trial);
            let labels = &trial.policy.requires.labels;
            let reason = self.cluster.explain(id);
            let phase = &trial.phase;
            format!(
                "\n{id} of {project} at {priority}, {least} to {most} slots {labels:?}: {phase:?}, {reason:?}"
            )
        });
        let kept = self.cluster.reservations().map(|reservation| format!("\n{reservation:?}"));
        let members = self.cluster.workers().map(|view| format!("\n{view:?}"));
        let nodes = self.nodes.values().map(|node| format!("\n{node:?}"));
        open.chain(kept).chain(members).chain(nodes).collect()
    }

    /// Whether the coordinator does anything.
    fn is_up(&self) -> bool {
        self.down_until.is_none() && self.now >= self.frozen_until
    }

    fn node(&mut self, id: WorkerId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    /// A client's call. It fails if the coordinator is down; the client does not insist.
    pub fn client(&mut self, input: Input) {
        if self.is_up() {
            if let Input::CancelTrial { trial } = input {
                self.oracle.cancelling = Some(trial);
            }
            let _ = self.handle(input);
            self.oracle.cancelling = None;
        }
    }

    pub fn tick(&mut self) {
        self.now += 1;
        self.break_things();
        let now = self.now;
        for node in self.nodes.values_mut() {
            node.watch_leases(now);
            let mut still = node.shares.values().filter(|share| share.fenced && !share.suspended);
            if still.next().is_some() && node.is_live(now) {
                self.oracle.note("rank fenced itself");
            }
        }
        let together = self.groups();
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.tick_node(id, &together);
        }
        self.up += u64::from(self.is_up());
        if self.now >= self.frozen_until && self.fault(0.2) {
            self.clock_strikes();
        }
        self.deliver();
        self.clock_strikes();
        self.check_nodes();
    }

    fn clock_strikes(&mut self) {
        let now = self.now;
        if self.is_up() && self.cluster.next_deadline().is_some_and(|due| due.0 <= now) {
            let crashed = self.handle(Input::Tick) == Fate::Crashed;
            let deadline = self.cluster.next_deadline();
            assert!(crashed || deadline.is_none_or(|due| due.0 > now), "a tick left a deadline in the past");
        }
    }

    /// No worker runs more than it has slots for. What computes is current; where it is not any more, a worker that was
    /// lost has stopped it before, and any other one hears of it soon.
    fn check_nodes(&self) {
        for (&id, node) in &self.nodes {
            assert!(node.used() <= node.slots, "{id} runs more than it has slots for: {node:?}");
            if !node.is_live(self.now) {
                continue;
            }
            let computing = node.shares.iter().filter(|(_, share)| share.computes());
            for (&attempt, _) in computing.filter(|&(&attempt, _)| !self.cluster.is_current(attempt, id)) {
                let end = self.oracle.end_of(attempt);
                assert!(!end.lost.contains(&id), "{attempt} runs on {id}, which was lost");
                let over = self.up - end.at;
                assert!(over <= GRACE, "{attempt} still runs on {id}, and is over for {over}");
            }
        }
    }

    fn check(&mut self, events: &[Event]) {
        let violation = self.cluster.check().err();
        assert!(violation.is_none(), "{violation:?} at {} after {events:?}: {}", self.now, self.scene());
        let replayed = Cluster::replay(self.policy.clone(), Millis(self.now), &self.log);
        assert!(replayed.same_durable_state(&self.cluster), "the log does not rebuild the state");
        for event in events {
            self.oracle.read(self.up, event);
            self.check_rows(event);
        }
        self.oracle.check_priorities(&self.cluster, events);
        self.oracle.check_resized(&self.cluster, events);
        crate::support::explained::check_explanations(&self.cluster);
        for view in self.cluster.workers().filter(|view| view.session == Session::Connected) {
            let node = &self.nodes[&view.id];
            let same = node.open && node.link == self.sessions.get(&view.id).copied();
            assert!(!same || node.slots == view.worker.slots, "{} has other slots", view.id);
        }
        for (id, trial) in self.cluster.trials() {
            if trial.spec.trains() && trial.has_succeeded() {
                let is_last = |held: &Checkpoint| held.step == steps(&trial.spec.to_spec());
                let others = trial
                    .checkpoints
                    .iter()
                    .filter(|held| !trial.is_pinned(held) && trial.best() != Some(held) || is_last(held));
                let last = others.map(|held| held.step).collect::<Vec<_>>();
                assert_eq!(
                    last,
                    [steps(&trial.spec.to_spec())],
                    "{id} succeeded with another network than its last"
                );
            }
            let artifacts = trial.result().into_iter().flat_map(|result| &result.artifacts);
            let named = artifacts.map(|artifact| artifact.digest);
            for digest in named.chain(trial.checkpoints.iter().map(|held| held.digest)) {
                assert!(self.blobs.contains(&digest), "a blob of {id} was deleted");
            }
        }
    }

    /// When a checkpoint is committed, the rows before it are stored, for nobody would measure them again. When a trial has its
    /// result, every row that the attempt measured is, once and in order, and its attempts together left one for each step.
    fn check_rows(&self, event: &Event) {
        if let Event::CheckpointCommitted { trial, attempt, checkpoint, .. } = event {
            let before = |row: &&MetricRow| row.step <= checkpoint.step;
            let measured = self.measured.get(attempt).into_iter().flatten().filter(before);
            let stored = self.stored(*attempt).filter(before);
            assert!(stored.eq(measured), "rows of {attempt} before {checkpoint:?} of {trial}");
        }
        if let Event::TrialEnded { trial, outcome: Outcome::Succeeded { result }, .. } = event {
            let attempt = AttemptId(result.metrics["attempt"] as u64);
            let measured = self.measured.get(&attempt).into_iter().flatten();
            assert!(self.stored(attempt).eq(measured), "rows of {attempt}, which made the result of {trial}");
            let spec = &self.cluster.trial(*trial).unwrap().spec.to_spec();
            if let TrialSpec::Train(_) = spec {
                let attempts = self.oracle.attempts_of(*trial);
                let left: BTreeSet<u64> =
                    attempts.flat_map(|attempt| self.stored(attempt)).map(|row| row.step).collect();
                assert!(left.into_iter().eq(1..=steps(spec)), "{trial} left a curve with a gap");
            }
        }
    }

    /// Durable rows of an attempt, in order.
    fn stored(&self, attempt: AttemptId) -> impl Iterator<Item = &MetricRow> {
        self.rows.get(&attempt).into_iter().flat_map(|reports| reports.values().flatten())
    }
}
