//! Which faults strike, when, and for how long: a function of a seed alone.

use std::time::Duration;

use crate::draws::Draws;
use crate::proxy::Direction;

/// Workers of a soak.
pub(super) const WORKERS: [&str; 3] = ["alpha", "beta", "gamma"];

/// What a fault hits. Only one fault has it at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// The coordinator's process and its disk.
    Coordinator,
    /// A worker's agent and its disk.
    Agent(usize),
    /// What is between a worker and the coordinator.
    Link(usize),
    /// The process of one rank.
    Rank,
    /// A checkpoint's file.
    Checkpoint,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL of the coordinator; it is started again.
    KillCoordinator,
    /// SIGSTOP of the coordinator, then SIGCONT.
    FreezeCoordinator,
    /// No space on the coordinator's disk for a while.
    FullCoordinatorDisk,
    /// SIGKILL of an agent; it is started again.
    KillAgent,
    /// SIGSTOP of an agent alone, then SIGCONT: a zombie when it was longer than its lease, whose ranks must stand still by
    /// themselves.
    FreezeAgent,
    /// No space on a worker's disk for a while.
    FullWorkerDisk,
    /// SIGKILL of one rank.
    KillRank,
    /// SIGSTOP of one rank, then SIGCONT if it still is.
    FreezeRank,
    /// Every connection of a worker is cut.
    CutLink,
    /// Nothing passes between a worker and the coordinator for a while.
    Partition,
    /// A worker is not heard, but hears.
    Unheard,
    /// A worker is heard, but does not hear.
    Deaf,
    /// A worker's network is slow.
    SlowLink,
    /// An upload breaks in its middle.
    CutUpload,
    /// A flipped bit in a checkpoint that may be needed.
    FlipCheckpoint,
    /// A checkpoint that may be needed loses its end.
    TearCheckpoint,
}

impl Kind {
    /// All, in the order in which they are reported.
    pub const ALL: [Self; 16] = [
        Self::KillCoordinator,
        Self::FreezeCoordinator,
        Self::FullCoordinatorDisk,
        Self::KillAgent,
        Self::FreezeAgent,
        Self::FullWorkerDisk,
        Self::KillRank,
        Self::FreezeRank,
        Self::CutLink,
        Self::Partition,
        Self::Unheard,
        Self::Deaf,
        Self::SlowLink,
        Self::CutUpload,
        Self::FlipCheckpoint,
        Self::TearCheckpoint,
    ];

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillCoordinator => "coordinator killed",
            Self::FreezeCoordinator => "coordinator frozen",
            Self::FullCoordinatorDisk => "coordinator's disk full",
            Self::KillAgent => "agent killed",
            Self::FreezeAgent => "agent frozen alone",
            Self::FullWorkerDisk => "worker's disk full",
            Self::KillRank => "rank killed",
            Self::FreezeRank => "rank frozen",
            Self::CutLink => "connections cut",
            Self::Partition => "partition",
            Self::Unheard => "worker not heard",
            Self::Deaf => "worker hears nothing",
            Self::SlowLink => "slow network",
            Self::CutUpload => "upload cut in its middle",
            Self::FlipCheckpoint => "checkpoint with a flipped bit",
            Self::TearCheckpoint => "checkpoint torn",
        }
    }

    /// Times of 100 draws: ranks and links fail more often than machines.
    fn weight(self) -> u64 {
        match self {
            Self::KillRank | Self::FreezeRank => 12,
            Self::KillCoordinator | Self::KillAgent | Self::CutLink | Self::CutUpload => 8,
            Self::FreezeAgent | Self::Partition | Self::FlipCheckpoint | Self::TearCheckpoint => 6,
            Self::FreezeCoordinator | Self::Unheard | Self::Deaf | Self::SlowLink => 4,
            Self::FullCoordinatorDisk | Self::FullWorkerDisk => 3,
        }
    }

    /// Longest time that it lasts; shorter than a lease and longer come about equally often.
    fn longest(self) -> Duration {
        Duration::from_millis(match self {
            Self::KillCoordinator | Self::FullCoordinatorDisk => 3_000,
            Self::FreezeCoordinator => 6_000,
            Self::FullWorkerDisk | Self::SlowLink | Self::CutUpload => 4_000,
            Self::KillAgent | Self::FreezeAgent | Self::Partition | Self::Unheard | Self::Deaf => 8_000,
            Self::FreezeRank => 9_000,
            Self::KillRank | Self::CutLink | Self::FlipCheckpoint | Self::TearCheckpoint => 1,
        })
    }
}

/// One fault of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Time since the fault before.
    pub(super) after: Duration,
    pub(super) kind: Kind,
    pub(super) lasts: Duration,
    /// Which of several: worker, rank, checkpoint.
    pub(super) which: u64,
}

impl Fault {
    pub(super) fn worker(&self) -> usize {
        (self.which % WORKERS.len() as u64) as usize
    }

    pub(super) fn target(&self) -> Target {
        match self.kind {
            Kind::KillCoordinator | Kind::FreezeCoordinator | Kind::FullCoordinatorDisk => {
                Target::Coordinator
            }
            Kind::KillAgent | Kind::FreezeAgent | Kind::FullWorkerDisk => Target::Agent(self.worker()),
            Kind::KillRank | Kind::FreezeRank => Target::Rank,
            Kind::CutLink
            | Kind::Partition
            | Kind::Unheard
            | Kind::Deaf
            | Kind::SlowLink
            | Kind::CutUpload => Target::Link(self.worker()),
            Kind::FlipCheckpoint | Kind::TearCheckpoint => Target::Checkpoint,
        }
    }

    /// The direction that a link loses.
    pub(super) fn silent(&self) -> Option<Direction> {
        match self.kind {
            Kind::Unheard => Some(Direction::Up),
            Kind::Deaf => Some(Direction::Down),
            Kind::KillCoordinator
            | Kind::FreezeCoordinator
            | Kind::FullCoordinatorDisk
            | Kind::KillAgent
            | Kind::FreezeAgent
            | Kind::FullWorkerDisk
            | Kind::KillRank
            | Kind::FreezeRank
            | Kind::CutLink
            | Kind::Partition
            | Kind::SlowLink
            | Kind::CutUpload
            | Kind::FlipCheckpoint
            | Kind::TearCheckpoint => None,
        }
    }
}

/// Endless: the run decides when it has had enough.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    draws: Draws,
    /// Kinds that are still due before any comes again, so that a short run sees all.
    due: Vec<Kind>,
    mean_gap: Duration,
}

impl Schedule {
    pub(super) fn new(seed: u64, mean_gap: Duration) -> Self {
        Self { draws: Draws::new(seed), due: Vec::new(), mean_gap }
    }

    /// Each kind once in random order, then by weight, in turns of as many.
    fn kind(&mut self) -> Kind {
        if self.due.is_empty() {
            self.due = Kind::ALL.to_vec();
            for _ in 0..Kind::ALL.len() {
                let drawn = self.weighted();
                self.due.push(drawn);
            }
        }
        let choice = self.draws.below(self.due.len() as u64) as usize;
        self.due.swap_remove(choice)
    }

    fn weighted(&mut self) -> Kind {
        let mut left = self.draws.below(Kind::ALL.iter().map(|kind| kind.weight()).sum());
        for kind in Kind::ALL {
            match left.checked_sub(kind.weight()) {
                Some(rest) => left = rest,
                None => return kind,
            }
        }
        Kind::KillRank
    }

    fn below(&mut self, limit: Duration) -> Duration {
        Duration::from_millis(self.draws.below(limit.as_millis() as u64 + 1))
    }
}

impl Iterator for Schedule {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let kind = self.kind();
        let after = self.below(self.mean_gap * 2);
        let lasts = self.below(kind.longest());
        Some(Fault { after, kind, lasts, which: self.draws.bits() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const GAP: Duration = Duration::from_secs(2);

    #[test]
    fn a_seed_repeats_its_faults_and_another_has_others() {
        let faults = |seed| Schedule::new(seed, GAP).take(100).collect::<Vec<_>>();
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
    }

    #[test]
    fn every_kind_comes_within_the_first_turns() {
        for seed in 0..50 {
            let kinds: BTreeSet<Kind> =
                Schedule::new(seed, GAP).take(2 * Kind::ALL.len()).map(|fault| fault.kind).collect();
            assert_eq!(kinds.len(), Kind::ALL.len(), "seed {seed}");
        }
    }

    #[test]
    fn faults_follow_each_other_at_the_pace_that_was_asked_for() {
        let total: Duration = Schedule::new(1, GAP).take(1_000).map(|fault| fault.after).sum();
        assert!((1_900..2_100).contains(&total.as_secs()), "{total:?}");
    }
}
