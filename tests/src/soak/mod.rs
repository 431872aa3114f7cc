//! A grid on a cluster of real processes, while everything that can fail does.
//!
//! A run without faults says what the grid comes to. Then the same grid runs again and again, each time on a new cluster
//! and with the faults of the next seed, and must come to the same: no cell lost, no result twice, every bit of the
//! table, of each trial's scores and of each metric row.

mod arena;
mod outcome;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Lease};
use crate::disk::NoDisk;
use crate::grid::Grid;
use crate::view::Experiment;
use crate::wait::until;
use arena::{Arena, Mend};
use outcome::{Effort, Outcome};
use schedule::{Schedule, Target};

pub use schedule::Kind;

/// Name of the experiment.
const NAME: &str = "soak";

/// Mean time between two faults.
const GAP: Duration = Duration::from_millis(1_200);

/// How long a grid may take when nothing disturbs it any more.
const CALM: Duration = Duration::from_secs(600);

/// Axes of the grid.
#[derive(Clone, Copy, Debug)]
pub struct Axes {
    /// Settings of each method.
    pub settings: u32,
    /// Seeds of each cell.
    pub seeds: u32,
}

impl Axes {
    /// 10 settings × 3 methods × 3 seeds.
    pub const FULL: Self = Self { settings: 10, seeds: 3 };

    /// Three methods, one of which trains on two ranks.
    fn grid(self) -> Grid {
        let seeds: Vec<u64> = (0..u64::from(self.seeds)).collect();
        let mut grid = Grid::new(NAME)
            .model("mlp-1-16")
            .seeds(&seeds)
            .data("[data.digits]\nheld-out = [8, 9]\ntrain-limit = 512\ntest-limit = 128")
            .recipe("epochs = 120\nlr = 0.02\nclip-norm = 1.0\naugmentation = [{ kind = \"crop\", padding = 1 }]")
            .run(
                "checkpoint-steps = 240\ncheckpoint-interval = \"none\"\nmetrics-steps = 120\nmax-failures = 1000",
            );
        for setting in 1..=self.settings {
            let decay = format!("[method.recipe]\nweight-decay = {setting}e-4");
            let methods = [
                format!("kind = \"deterministic\"\nlabel = \"plain-{setting}\""),
                format!(
                    "kind = \"mc-dropout\"\nlabel = \"dropout-{setting}\"\nrate = 0.2\nsamples = 2\nslots = 2"
                ),
                format!(
                    "kind = \"lp-bnn\"\nlabel = \"lp-bnn-{setting}\"\npreset = \"official\"\nmembers = 2"
                ),
            ];
            for method in methods {
                grid = grid.method(format!("{method}\n{decay}"));
            }
        }
        grid
    }
}

/// How often a soak runs its grid under faults.
#[derive(Clone, Copy, Debug)]
pub enum Rounds {
    /// Once, with faults until it ends.
    One,
    /// Again and again; after this time no round begins and no fault strikes.
    For(Duration),
}

/// What to do to a grid.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// Repeats the schedule of faults.
    pub seed: u64,
    /// The grid.
    pub axes: Axes,
    /// How often the grid is run.
    pub rounds: Rounds,
    /// Faults of one round at most: so that a test is bounded.
    pub faults: usize,
}

/// What a soak survived.
#[derive(Clone, Debug, Default)]
pub struct Survived {
    /// Faults by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Times that the grid was run under faults.
    pub rounds: u64,
    /// Cells that came out the same, to the bit.
    pub cells: u64,
    /// Trials behind them.
    pub trials: u64,
    /// Attempts that they took.
    pub attempts: u64,
    /// Those that failed, by cause.
    pub causes: BTreeMap<String, u64>,
    /// Kinds that this machine does not allow, and why.
    pub skipped: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Survived {
    fn add(&mut self, Effort { cells, trials, attempts, causes }: Effort) {
        self.rounds += 1;
        self.cells += cells;
        self.trials += trials;
        self.attempts += attempts;
        for (cause, count) in causes {
            *self.causes.entry(cause).or_default() += count;
        }
    }

    /// Faults in all.
    pub fn total(&self) -> u64 {
        self.faults.values().sum()
    }
}

impl fmt::Display for Survived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, cells, trials, attempts, took, .. } = self;
        writeln!(
            f,
            "{} faults survived in {rounds} rounds and {} s: {cells} cells, {trials} trials, {attempts} attempts",
            self.total(),
            took.as_secs()
        )?;
        for kind in Kind::ALL {
            writeln!(f, "  {:<32}{:>6}", kind.name(), self.faults.get(&kind).copied().unwrap_or_default())?;
        }
        writeln!(f, "attempts that failed, by cause:")?;
        for (cause, count) in &self.causes {
            writeln!(f, "  {cause:<32}{count:>6}")?;
        }
        if let Some(why) = &self.skipped {
            writeln!(f, "  full disks are skipped, because this machine allows none of limited size: {why}")?;
        }
        write!(f, "0 cells lost, 0 results doubled, tables, scores and metric rows equal to the bit")
    }
}

/// Runs a soak.
///
/// # Panics
///
/// When anything is lost, doubled or different, or a grid does not end.
pub fn run(soak: Soak) -> Survived {
    let start = Instant::now();
    let grid = soak.axes.grid();
    let expected = undisturbed(&grid);
    let mut survived = Survived::default();
    for round in 0.. {
        let seed = soak.seed + round;
        eprintln!("[{:>5} s] round {round}, seed {seed}", start.elapsed().as_secs());
        let until = match soak.rounds {
            Rounds::One => Instant::now() + CALM,
            Rounds::For(time) => start + time,
        };
        Round { seed, until, faults: soak.faults, start }.run(&grid, &expected, &mut survived);
        match soak.rounds {
            Rounds::For(time) if start.elapsed() < time => {}
            Rounds::For(_) | Rounds::One => break,
        }
    }
    survived.took = start.elapsed();
    survived
}

fn undisturbed(grid: &Grid) -> Outcome {
    let cluster = Cluster::with_workers(Lease::Long, &["calm", "quiet"]);
    cluster.submit(grid);
    until("the undisturbed grid ends", CALM, || (cluster.experiment(NAME).state != "active").then_some(()));
    let (outcome, Effort { trials, attempts, .. }) = Outcome::of(&cluster, NAME, &BTreeSet::new());
    assert_eq!(attempts, trials, "the run that should be undisturbed was not");
    cluster.stop();
    outcome
}

/// One run of the grid under faults.
struct Round {
    seed: u64,
    until: Instant,
    faults: usize,
    start: Instant,
}

/// A fault that lasts.
struct Lasting {
    target: Target,
    ends: Instant,
    mend: Mend,
}

impl Round {
    fn run(&self, grid: &Grid, expected: &Outcome, survived: &mut Survived) {
        let mut arena = Arena::start();
        arena.cluster.submit(grid);
        let mut lasting: Vec<Lasting> = Vec::new();
        let mut struck = 0;
        let mut next = Instant::now();
        for fault in Schedule::new(self.seed, GAP) {
            next += fault.after;
            self.wait(next, &mut arena, &mut lasting);
            if Instant::now() >= self.until || struck == self.faults {
                break;
            }
            let target = fault.target();
            if lasting.iter().any(|other| other.target == target) {
                continue;
            }
            let reachable = lasting.iter().all(|other| other.target != Target::Coordinator);
            if reachable {
                arena.tend();
            }
            let experiment = if reachable { look(&arena) } else { None };
            if experiment.as_ref().is_some_and(|experiment| experiment.state != "active") {
                break;
            }
            if let Some(mend) = arena.strike(&fault, experiment.as_ref()) {
                eprintln!(
                    "[{:>5} s] {} for {:?}",
                    self.start.elapsed().as_secs(),
                    fault.kind.name(),
                    fault.lasts
                );
                *survived.faults.entry(fault.kind).or_default() += 1;
                struck += 1;
                lasting.push(Lasting { target, ends: Instant::now() + fault.lasts, mend });
            }
        }
        lasting.into_iter().for_each(|fault| arena.mend(fault.mend));
        self.finish(arena, expected, survived);
    }

    /// Waits, and ends what is due meanwhile.
    fn wait(&self, next: Instant, arena: &mut Arena, lasting: &mut Vec<Lasting>) {
        loop {
            let due = lasting.iter().enumerate().min_by_key(|(_, fault)| fault.ends);
            let due = due.map(|(index, fault)| (index, fault.ends)).filter(|&(_, ends)| ends <= next);
            let wake = due.map_or(next, |(_, ends)| ends);
            std::thread::sleep(wake.saturating_duration_since(Instant::now()));
            match due {
                Some((index, _)) => arena.mend(lasting.swap_remove(index).mend),
                None => return,
            }
        }
    }

    fn finish(&self, mut arena: Arena, expected: &Outcome, survived: &mut Survived) {
        until(&format!("the grid ends after the faults of seed {}", self.seed), CALM, || {
            arena.tend();
            look(&arena).filter(|experiment| experiment.state != "active")
        });
        let Arena { cluster, damaged, no_disks, .. } = &arena;
        let (outcome, effort) = Outcome::of(cluster, NAME, damaged);
        expected.assert_same(&outcome);
        survived.add(effort);
        survived.skipped = no_disks.as_ref().map(|NoDisk(why)| why.clone());
        arena.cluster.stop();
    }
}

/// The experiment, unless the coordinator does not answer at this moment.
fn look(arena: &Arena) -> Option<Experiment> {
    let answer = arena.cluster.run(&["status", NAME, "--json"]);
    (answer.code == Some(0)).then(|| answer.json())
}
