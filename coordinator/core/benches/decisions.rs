//! What a decision costs: `cargo bench -p coordinator-core --bench decisions`, with `-- quick` for a tenth
//! of it, and `-- growth` for the second table alone.
//!
//! Two tables. The first: the end of an attempt, and with it the choice of what runs on its slots, in a full cluster of
//! 1,000 workers with 8 slots each and 10,000 trials in the queue. The second: a trial from its submission to its end,
//! with the same number in the queue, as the number of trials that are known grows.

#![expect(clippy::print_stdout, reason = "it prints tables")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails stops")]

#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use common::result::{Checkpoint, Scores, TrialResult};
use common::session::SessionOrder;
use common::spec::{Requirements, TrialSpec};
use common::{AttemptId, Digest, WorkerId};
use coordinator_core::{Cluster, Event, Input, Millis, Placement, Policy, ProjectPolicy, Traits};
use nix::time::{ClockId, clock_gettime};
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// What is in the queue.
#[derive(Clone, Copy, Default)]
struct Mix {
    projects: u32,
    /// Priorities from 0 on.
    priorities: i32,
    /// Lengths of recipes, and so workloads.
    workloads: u32,
    /// One in so many trials takes 2 to 64 slots; 0 for none.
    wide: u32,
    /// Whether a third of the trials require a label that half of the workers have.
    labels: bool,
}

/// A cluster with the attempts that run in it, in the order in which they started.
struct World {
    rng: SmallRng,
    cluster: Cluster,
    now: u64,
    running: VecDeque<(AttemptId, Placement)>,
    seeds: u64,
    mix: Mix,
}

impl World {
    fn new(workers: u64, slots: u32, mix: Mix) -> Self {
        let weight = |project| NonZeroU32::MIN.saturating_add(project % 3);
        let limits = |project| ProjectPolicy { weight: weight(project), quota: None };
        let projects = (0..mix.projects).map(|project| (format!("p{project}"), limits(project)));
        let policy = Policy { projects: projects.collect(), ..support::policy() };
        let rng = SmallRng::seed_from_u64(1);
        let mut world =
            Self { rng, cluster: Cluster::new(policy), now: 1, running: VecDeque::new(), seeds: 0, mix };
        for worker in 0..workers {
            let half = if worker % 2 == 0 { "even" } else { "odd" };
            let labels = BTreeMap::from([("half".to_owned(), half.to_owned())]);
            let traits = Traits { labels, ..Traits::default() };
            let (name, host) = (String::new(), String::new());
            let worker = WorkerId(worker);
            let order = SessionOrder::default();
            world.handle(Input::Hello { worker, order, name, host, slots, traits, attempts: Vec::new() });
        }
        world
    }

    /// Takes an input, and says how long that took.
    fn handle(&mut self, input: Input) -> Duration {
        let start = cpu_time();
        let step = self.cluster.handle(Millis(self.now), input).unwrap();
        let took = cpu_time() - start;
        for event in step.events {
            if let Event::AttemptStarted { attempt, placement, .. } = event {
                self.running.push_back((attempt, placement));
            }
        }
        took
    }

    fn submit(&mut self, trials: u64) -> Duration {
        let Mix { projects, priorities, workloads, wide, labels } = self.mix;
        let specs = (0..trials).map(|_| {
            self.seeds += 1;
            let is_wide = wide > 0 && self.rng.random_range(0..wide) == 0;
            let width = if is_wide { 1 << self.rng.random_range(1..7) } else { 1 };
            let mut train = support::network(self.seeds, width);
            train.recipe.epochs = self.rng.random_range(1..=workloads.max(1));
            TrialSpec::Train(train)
        });
        let mut plan = support::plan_with(3, specs.collect::<Vec<_>>());
        for planned in plan.trials.iter_mut().filter(|_| labels) {
            if self.rng.random_range(0..3) == 0 {
                let labels = BTreeMap::from([("half".to_owned(), "even".to_owned())]);
                planned.policy.requires = Requirements { labels, ..Requirements::default() };
            }
        }
        plan.project = format!("p{}", self.rng.random_range(0..projects.max(1)));
        plan.priority = self.rng.random_range(0..priorities.max(1));
        self.handle(Input::Submit { plan, grid: String::new() })
    }

    /// Ends one of the older attempts. Says how long the step took that freed its slots.
    fn end_one(&mut self) -> Duration {
        let older = self.running.len().div_ceil(2);
        let at = self.rng.random_range(0..older);
        let (attempt, placement) = self.running.swap_remove_back(at).unwrap();
        if self.cluster.trial_of(attempt).is_none() {
            return Duration::ZERO;
        }
        self.now += 1;
        let leader = placement.leader().unwrap();
        let digest = Digest::of(&attempt.0.to_le_bytes());
        let checkpoint = Checkpoint::new(attempt.0, digest, 1);
        self.handle(Input::CheckpointCommitted { worker: leader, attempt, checkpoint });
        let mut took = Duration::ZERO;
        for share in placement.shares() {
            let result = TrialResult { metrics: Scores::default(), artifacts: Vec::new() };
            let end = Ok((share.worker == leader).then_some(result));
            took = took.max(self.handle(Input::Ended { worker: share.worker, attempt, end }));
        }
        took
    }
}

/// Time that this thread computed: on a busy machine others do not count.
fn cpu_time() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
}

/// Median, 99th percentile and maximum.
fn spread(mut times: Vec<Duration>) -> (Duration, Duration, Duration) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 1_000).min(times.len() - 1)];
    (at(500), at(990), at(1_000))
}

fn micros(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e6)
}

fn full_cluster(name: &str, mix: Mix, ends: u64) {
    let mut world = World::new(1_000, 8, mix);
    // A hundred trials a submission, as grids are.
    for _ in 0..180 {
        world.submit(100);
    }
    let mut times = Vec::new();
    for end in 0..ends {
        if end % 100 == 0 {
            world.submit(100);
        }
        times.push(world.end_one());
    }
    let (median, p99, worst) = spread(times);
    println!("{name:<44} {:>9} {:>9} {:>9}", micros(median), micros(p99), micros(worst));
}

fn growth(sizes: &[u64]) {
    let mix = Mix { projects: 4, workloads: 20, ..Mix::default() };
    let mut world = World::new(1_000, 8, mix);
    for _ in 0..180 {
        world.submit(100);
    }
    let mut known = 18_000;
    for &size in sizes {
        let (mut submits, mut ends) = (Vec::new(), Vec::new());
        let start = cpu_time();
        let before = known;
        while known < size {
            submits.push(world.submit(100) / 100);
            known += 100;
            ends.extend((0..100).map(|_| world.end_one()));
        }
        let all = (cpu_time() - start) / u32::try_from(known - before).unwrap();
        let ((submit, _, _), (median, p99, worst)) = (spread(submits), spread(ends));
        let cells = [all, submit, median, p99, worst].map(micros);
        let [all, submit, median, p99, worst] = cells;
        println!("{size:>9} {all:>9} {submit:>9} {median:>9} {p99:>9} {worst:>9}");
    }
}

fn main() {
    let is_asked = |word| std::env::args().any(|argument| argument == word);
    let quick = is_asked("quick");
    let ends = if quick { 2_000 } else { 20_000 };
    let mixes = [
        ("one project, width 1", Mix::default()),
        ("100 workloads", Mix { workloads: 100, ..Mix::default() }),
        ("8 projects", Mix { projects: 8, workloads: 20, ..Mix::default() }),
        ("one in 20 wide", Mix { workloads: 20, wide: 20, ..Mix::default() }),
        ("labels", Mix { workloads: 20, wide: 20, labels: true, ..Mix::default() }),
        ("5 priorities: preemption", Mix { priorities: 5, workloads: 20, ..Mix::default() }),
        ("all of it", Mix { projects: 8, priorities: 5, workloads: 100, wide: 20, labels: true }),
    ];
    if !is_asked("growth") {
        println!("end of an attempt, 10,000 queued, 1,000 x 8 slots (us)   median       p99     worst");
        for (name, mix) in mixes {
            full_cluster(name, mix, ends);
        }
    }
    println!("\n trials  us a trial    submit       end   end p99 end worst");
    let sizes: &[u64] = if quick { &[20_000, 40_000] } else { &[20_000, 100_000, 300_000, 1_000_000] };
    growth(sizes);
}
