//! What the state of the GPUs means for an attempt whose ranks run there.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::Attempt;
use crate::devices::{Seat, Sight};

/// Something that a look at the GPUs shows.
#[derive(Debug, PartialEq, Eq)]
pub enum Finding {
    /// A rank cannot go on, or should not.
    Broken(String),
    /// A rank holds more memory than its slot has.
    Large(String),
}

/// The GPUs of an attempt's ranks.
#[derive(Debug)]
pub struct Gpus {
    seats: Vec<Seat>,
    sights: watch::Receiver<Arc<Sight>>,
    /// Whether the newest sight was looked at since these ranks run.
    seen: bool,
    /// The most memory that each rank was seen with, in MiB.
    peaks: Vec<u64>,
    warned: BTreeSet<u32>,
    first_rank: u32,
}

impl Gpus {
    /// Those of an attempt.
    pub fn new(attempt: &Attempt) -> Self {
        Self::of(attempt.seats.clone(), attempt.launch.first_rank, attempt.context.gpus.clone())
    }

    fn of(seats: Vec<Seat>, first_rank: u32, sights: watch::Receiver<Arc<Sight>>) -> Self {
        let peaks = vec![0; seats.len()];
        Self { seats, sights, seen: false, peaks, warned: BTreeSet::new(), first_rank }
    }

    /// What is new for the ranks, whose processes are given in their order.
    pub fn look(&mut self, processes: impl Iterator<Item = (u32, u32)>) -> Vec<Finding> {
        let changed = self.sights.has_changed().unwrap_or(false);
        if self.seen && !changed {
            return Vec::new();
        }
        self.seen = true;
        let sight = Arc::clone(&self.sights.borrow_and_update());
        let mut findings = Vec::new();
        for ((rank, pid), (seat, peak)) in processes.zip(self.seats.iter().zip(&mut self.peaks)) {
            let Some(device) = &seat.device else { continue };
            let ends = sight.faults.iter().filter(|fault| fault.ends_ranks);
            let of_device = ends.filter(|fault| fault.gpu.as_ref().is_none_or(|gpu| *gpu == device.gpu));
            findings
                .extend(of_device.map(|fault| Finding::Broken(format!("rank {rank}: {}", fault.message))));
            let Some(&mib) = sight.memory.get(&pid) else { continue };
            *peak = mib.max(*peak);
            let share = seat.memory_mib().unwrap_or(u64::MAX);
            if seat.fraction.is_some() && mib > share && self.warned.insert(rank) {
                findings.push(Finding::Large(format!(
                    "rank {rank} holds {mib} MiB of {device}, of which its slot has {share} (`slots-per-device`)"
                )));
            }
        }
        findings
    }

    /// Says how much memory each rank was seen with.
    pub fn last_look(&self) {
        for (rank, (seat, peak_mib)) in (self.first_rank..).zip(self.seats.iter().zip(&self.peaks)) {
            if let Some(device) = &seat.device {
                tracing::info!(rank, %device, peak_mib, "memory of a rank on its GPU");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{Device, Fault};

    fn seat(gpu: &str, fraction: Option<f64>) -> Seat {
        let device = Device {
            index: 0,
            uuid: gpu.to_owned(),
            gpu: gpu.to_owned(),
            name: String::new(),
            memory_mib: 80_000,
            bus: String::new(),
        };
        Seat { slot: 0, place: 0, device: Some(device), fraction }
    }

    fn fault(gpu: Option<&str>, ends_ranks: bool) -> Fault {
        Fault { gpu: gpu.map(str::to_owned), message: "it is lost".to_owned(), ends_ranks }
    }

    fn ranks() -> impl Iterator<Item = (u32, u32)> {
        [(4, 104), (5, 105)].into_iter()
    }

    #[test]
    fn only_a_fault_that_ends_ranks_and_is_of_their_gpu_ends_them_once() {
        let (sender, sights) = watch::channel(Arc::new(Sight::default()));
        let mut gpus = Gpus::of(vec![seat("GPU-0", None), seat("GPU-1", None)], 4, sights);
        assert_eq!(gpus.look(ranks()), []);
        let tell = |faults: Vec<Fault>| sender.send(Arc::new(Sight { faults, ..Sight::default() })).unwrap();
        tell(vec![fault(Some("GPU-7"), true), fault(Some("GPU-1"), false), fault(None, false)]);
        assert_eq!(gpus.look(ranks()), []);
        tell(vec![fault(Some("GPU-1"), true)]);
        assert_eq!(gpus.look(ranks()), [Finding::Broken("rank 5: it is lost".to_owned())]);
        assert_eq!(gpus.look(ranks()), []);
    }

    #[test]
    fn what_was_wrong_before_the_ranks_started_ends_them_too() {
        let broken = Sight { faults: vec![fault(Some("GPU-0"), true)], ..Sight::default() };
        let (_sender, mut sights) = watch::channel(Arc::new(broken));
        sights.mark_unchanged();
        let mut gpus = Gpus::of(vec![seat("GPU-0", None)], 4, sights);
        assert_eq!(gpus.look(ranks()).len(), 1);
    }

    #[test]
    fn a_rank_that_holds_more_than_its_share_is_named_once_and_its_peak_is_kept() {
        let (sender, sights) = watch::channel(Arc::new(Sight::default()));
        let mut gpus = Gpus::of(vec![seat("GPU-0", Some(0.25)), seat("GPU-0", Some(0.25))], 4, sights);
        for (mib, findings) in [(20_000, 0), (30_000, 1), (25_000, 0)] {
            let memory = [(104, 10), (105, mib)].into();
            sender.send(Arc::new(Sight { memory, ..Sight::default() })).unwrap();
            let found = gpus.look(ranks());
            assert_eq!(found.len(), findings, "{found:?}");
            for finding in found {
                let text = "rank 5 holds 30000 MiB of GPU 0 (GPU-0), of which its slot has 20000 (`slots-per-device`)";
                assert_eq!(finding, Finding::Large(text.to_owned()));
            }
        }
        assert_eq!(gpus.peaks, [10, 30_000]);
    }
}
