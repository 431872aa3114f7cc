//! A cluster that faults strike: each has a beginning and, where it lasts, an end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::schedule::{Fault, Kind, WORKERS};
use crate::cluster::{Cluster, Lease, TrainerProcess};
use crate::disk::{NoDisk, SmallDisk};
use crate::proxy::{Direction, Flow, Proxy};
use crate::view::Experiment;

/// Size of each disk: the files of a soak take a tenth of it.
const DISK_MIB: u64 = 192;

/// Bytes a second of a slow network.
const SLOW: u64 = 20_000;

/// Bytes into what a worker sends at which an upload is cut; its checkpoints are larger.
const INTO_AN_UPLOAD: u64 = 6_000;

/// Lease of the workers.
const LEASE: Duration = Duration::from_secs(4);

/// How long it is watched whether a trainer computes, and what one that waits may use meanwhile.
const WATCHED: Duration = Duration::from_millis(300);
const IDLE_TICKS: u64 = 2;

/// Coordinator, workers, and what is between them.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) cluster: Cluster,
    links: Vec<Proxy>,
    /// Why there are no small disks here, if there are none.
    pub(super) no_disks: Option<NoDisk>,
    /// Whether the coordinator may stop by itself, because it found its disk full.
    may_stop: bool,
    /// Trials one of whose checkpoints was damaged.
    pub(super) damaged: BTreeSet<String>,
}

/// How a fault ends.
#[derive(Debug)]
pub(super) enum Mend {
    StartCoordinator,
    ThawCoordinator,
    FreeCoordinatorDisk,
    StartAgent(usize),
    /// With the time since when it was frozen.
    ThawAgent(usize, Instant),
    FreeAgentDisk(usize),
    ThawRank(TrainerProcess),
    HealLink(usize),
    Nothing,
}

impl Arena {
    pub(super) fn start() -> Self {
        let (mut cluster, no_disks) =
            match Cluster::on_small_disks(Lease::ShortWithStallLimit, &WORKERS, DISK_MIB) {
                Ok(cluster) => (cluster, None),
                Err(why) => (Cluster::with_cores(Lease::ShortWithStallLimit, WORKERS.len()), Some(why)),
            };
        let links: Vec<Proxy> = WORKERS.iter().map(|_| cluster.proxy()).collect();
        for (name, link) in WORKERS.iter().zip(&links) {
            cluster.add_worker_through(name, 1, link);
        }
        WORKERS.iter().for_each(|name| cluster.wait_connected(name));
        Self { cluster, links, no_disks, may_stop: false, damaged: BTreeSet::new() }
    }

    /// Begins a fault; `None` when there is nothing that it could strike.
    pub(super) fn strike(&mut self, fault: &Fault, experiment: Option<&Experiment>) -> Option<Mend> {
        let (index, name) = (fault.worker(), WORKERS[fault.worker()]);
        Some(match fault.kind {
            Kind::KillCoordinator => {
                self.cluster.kill_coordinator();
                Mend::StartCoordinator
            }
            Kind::FreezeCoordinator => {
                self.cluster.signal_coordinator(Signal::SIGSTOP);
                Mend::ThawCoordinator
            }
            Kind::FullCoordinatorDisk => {
                self.cluster.coordinator_disk()?.fill();
                self.may_stop = true;
                Mend::FreeCoordinatorDisk
            }
            Kind::KillAgent => {
                self.cluster.kill_worker(name);
                Mend::StartAgent(index)
            }
            Kind::FreezeAgent => {
                self.cluster.freeze_worker(name);
                Mend::ThawAgent(index, Instant::now())
            }
            Kind::FullWorkerDisk => {
                self.cluster.worker_disk(name)?.fill();
                Mend::FreeAgentDisk(index)
            }
            Kind::KillRank => {
                self.cluster.kill_process_of(&self.rank(fault.which)?);
                Mend::Nothing
            }
            Kind::FreezeRank => {
                let rank = self.rank(fault.which)?;
                self.cluster.freeze_trainer(&rank);
                Mend::ThawRank(rank)
            }
            Kind::FlipCheckpoint | Kind::TearCheckpoint => {
                self.damage(fault, experiment?)?;
                Mend::Nothing
            }
            Kind::CutLink
            | Kind::Partition
            | Kind::Unheard
            | Kind::Deaf
            | Kind::SlowLink
            | Kind::CutUpload => self.disturb(fault, index),
        })
    }

    fn disturb(&self, fault: &Fault, index: usize) -> Mend {
        let link = &self.links[index];
        if let Some(direction) = fault.silent() {
            link.set(direction, Flow::Hold);
            return Mend::HealLink(index);
        }
        match fault.kind {
            Kind::Partition => link.partition(),
            Kind::SlowLink => {
                link.set(Direction::Up, Flow::Throttle(SLOW));
                link.set(Direction::Down, Flow::Delay(Duration::from_millis(200)));
            }
            Kind::CutUpload => link.cut_after(Direction::Up, INTO_AN_UPLOAD),
            Kind::CutLink
            | Kind::Unheard
            | Kind::Deaf
            | Kind::KillCoordinator
            | Kind::FreezeCoordinator
            | Kind::FullCoordinatorDisk
            | Kind::KillAgent
            | Kind::FreezeAgent
            | Kind::FullWorkerDisk
            | Kind::KillRank
            | Kind::FreezeRank
            | Kind::FlipCheckpoint
            | Kind::TearCheckpoint => drop(link.cut()),
        }
        Mend::HealLink(index)
    }

    /// Ends a fault.
    pub(super) fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::StartCoordinator => self.cluster.start_coordinator(),
            Mend::ThawCoordinator => self.cluster.signal_coordinator(Signal::SIGCONT),
            Mend::FreeCoordinatorDisk => {
                self.cluster.coordinator_disk().into_iter().for_each(SmallDisk::free);
            }
            Mend::StartAgent(index) => {
                self.cluster.add_worker_through(WORKERS[index], 1, &self.links[index]);
            }
            Mend::ThawAgent(index, since) => {
                if since.elapsed() > LEASE {
                    self.assert_nothing_computes(WORKERS[index]);
                }
                self.cluster.thaw_worker(WORKERS[index]);
            }
            Mend::FreeAgentDisk(index) => {
                self.cluster.worker_disk(WORKERS[index]).into_iter().for_each(SmallDisk::free);
                if self.cluster.bury_worker(WORKERS[index]) {
                    self.cluster.add_worker_through(WORKERS[index], 1, &self.links[index]);
                }
            }
            Mend::ThawRank(rank) => {
                // Its number may be another process's by now.
                if self.cluster.trainers().contains(&rank) {
                    self.cluster.thaw_trainer(&rank);
                }
            }
            Mend::HealLink(index) => self.links[index].heal(),
            Mend::Nothing => {}
        }
    }

    /// Of a worker whose agent was frozen for longer than its lease: others may compute what it did.
    fn assert_nothing_computes(&self, worker: &str) {
        let trainers = self.cluster.trainers().into_iter().filter(|trainer| trainer.worker == worker);
        let before: Vec<_> = trainers.filter_map(|trainer| Some((trainer.ticks()?, trainer))).collect();
        thread::sleep(WATCHED);
        for (ticks, trainer) in before {
            let used = trainer.ticks().map_or(0, |now| now - ticks);
            assert!(
                used <= IDLE_TICKS,
                "{trainer:?} computes, though its agent is frozen for longer than its lease"
            );
        }
    }

    /// Starts the coordinator again if it stopped because its disk was full; it takes a moment to end its connections.
    ///
    /// Not to be called while a fault has the coordinator.
    ///
    /// # Panics
    ///
    /// When it ended for another reason.
    pub(super) fn tend(&mut self) {
        if self.cluster.revive_coordinator() {
            assert!(
                self.may_stop,
                "the coordinator ended by itself; its log:\n{}",
                self.cluster.coordinator_log()
            );
            self.may_stop = false;
        }
    }

    fn rank(&self, which: u64) -> Option<TrainerProcess> {
        let mut trainers = self.cluster.trainers();
        trainers.sort_by_key(|trainer| trainer.pid);
        let count = trainers.len() as u64;
        (count > 0).then(|| trainers.swap_remove((which % count) as usize))
    }

    /// Damages a checkpoint of a network that is not evaluated yet: one that somebody still needs.
    fn damage(&mut self, fault: &Fault, experiment: &Experiment) -> Option<()> {
        let networks = experiment.all_trials.iter().filter(|trial| trial.label.starts_with("train"));
        let needed: Vec<_> =
            networks.filter(|trial| trial.state == "running" || trial.state == "succeeded").collect();
        let start = fault.which as usize % needed.len().max(1);
        let (before, from) = needed.split_at(start.min(needed.len()));
        from.iter().chain(before).find_map(|trial| {
            if trial.state == "succeeded" && !evaluation_is_open(experiment, &trial.label) {
                return None;
            }
            let files = self.cluster.checkpoint_files(&trial.id);
            let (_, file) = files.last()?;
            damage(file, fault.kind)?;
            self.damaged.insert(trial.id.clone());
            Some(())
        })
    }
}

/// Whether the evaluation of a network has not ended. Both labels end in model, data and seed, and begin with what is
/// done with which method; the method of a network is not always the label of its row, so that all with the same end count.
fn evaluation_is_open(experiment: &Experiment, label: &str) -> bool {
    let words: Vec<&str> = label.split(' ').collect();
    let end = words[words.len().saturating_sub(4)..].join(" ");
    let of_the_same =
        |trial: &&crate::view::Trial| trial.label.starts_with("evaluate") && trial.label.ends_with(&end);
    experiment.all_trials.iter().filter(of_the_same).any(|trial| !trial.has_ended())
}

/// `None` when the file is gone meanwhile.
fn damage(file: &Path, kind: Kind) -> Option<()> {
    let mut bytes = fs::read(file).ok().filter(|bytes| bytes.len() > 1)?;
    let middle = bytes.len() / 2;
    if kind == Kind::TearCheckpoint {
        bytes.truncate(middle);
    } else {
        bytes[middle] ^= 0x10;
    }
    fs::write(file, bytes).ok()
}
