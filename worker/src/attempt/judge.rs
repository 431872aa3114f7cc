//! Which rank hangs, if one does: a judgement on what each rank of a gang said and what its process did, free of clocks and
//! files.
//!
//! A rank is lively when its beacon changes, when one of its threads is runnable, or when it has used processor time. So a
//! rank that is slow, or that waits for a processor which others hold, is never taken for hung. One that is silent *and*
//! does nothing is, once its silence exceeds what its own times make plausible. Where several stand still, the others wait
//! for the one that is behind; and where that one is on another worker, its own agent names it.

use std::collections::BTreeMap;
use std::time::Duration;

use common::beacon::{Beacon, Phase};
use common::timeouts::Timeouts;
use common::timeouts::ranks::{BUSY, DISK, FIRST, LEAST, NO_BEACON, STOPPED, TIMES, TOGETHER, elsewhere};

/// What the threads of a process do, the liveliest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// One computes, or waits for a processor.
    Runnable,
    /// None computes, and one waits for a disk.
    Disk,
    /// All wait for something else.
    Waiting,
    /// All were stopped by a signal or a debugger.
    Stopped,
}

/// A rank at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// The rank.
    pub rank: u32,
    /// What it last said.
    pub beacon: Option<Beacon>,
    /// What its process does.
    pub activity: Activity,
    /// Processor time of the process so far, in ticks of the system.
    pub cpu: u64,
}

/// What is wrong with a gang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A rank hangs.
    Hung {
        /// The rank.
        rank: u32,
        /// The step that it is at.
        step: u64,
        /// What it does; `None` before its first beacon.
        phase: Option<Phase>,
        /// Time since it last said something else.
        silent: Duration,
    },
    /// All ranks here wait for one on another worker, for longer than is plausible.
    Waits {
        /// The rank here that is furthest behind.
        rank: u32,
    },
}

/// Where the ranks of a gang are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// There is only one.
    Alone,
    /// All on this worker.
    Here,
    /// On several workers.
    Workers,
}

#[derive(Clone, Copy, Debug)]
struct History {
    last: Sighting,
    /// Time since the beacon changed.
    silent: Duration,
    /// Time since anything spoke for the rank.
    idle: Duration,
    /// Time since it was seen without a stopping signal.
    stopped: Duration,
    /// Time since a thread of it was seen waiting for a disk.
    off_disk: Duration,
}

/// Judges the ranks of a gang on this worker.
#[derive(Debug)]
pub struct Judge {
    spread: Spread,
    /// How long all may wait for another worker.
    elsewhere: Duration,
    ranks: BTreeMap<u32, History>,
}

impl Judge {
    /// A judge who has seen nothing.
    pub fn new(spread: Spread, timeouts: Timeouts) -> Self {
        Self { spread, elsewhere: elsewhere(timeouts.lease()), ranks: BTreeMap::new() }
    }

    /// Forgets how long ranks were silent: they were not allowed to do anything.
    pub fn forget(&mut self) {
        self.ranks.clear();
    }

    /// Takes note of the ranks that are alive, `elapsed` after the last time, and judges. Time in which nobody looked
    /// must not be counted: who could not look was probably not alone in being held up.
    pub fn see(&mut self, elapsed: Duration, sightings: &[Sighting]) -> Option<Verdict> {
        self.ranks.retain(|rank, _| sightings.iter().any(|sighting| sighting.rank == *rank));
        for sighting in sightings {
            match self.ranks.get_mut(&sighting.rank) {
                Some(history) => history.see(elapsed, *sighting),
                None => drop(self.ranks.insert(sighting.rank, History::new(*sighting))),
            }
        }
        let own_fault = self.ranks.values().filter(|rank| rank.hangs(self.spread));
        own_fault.min_by_key(|rank| rank.place()).map(History::hung).or_else(|| self.all_wait())
    }

    /// The verdict when every rank here waits for others, and has for too long.
    fn all_wait(&self) -> Option<Verdict> {
        let behind = self.ranks.values().min_by_key(|rank| rank.place())?;
        let least = match self.spread {
            Spread::Alone => return None,
            Spread::Here => TOGETHER,
            Spread::Workers => self.elsewhere,
        };
        let waits = |rank: &History| {
            let Some(beacon) = rank.last.beacon else { return false };
            // Who comes late to the rendezvous loads data; that it comes at all is bounded by the ranks themselves.
            let counts = beacon.phase.waits_for_others() && beacon.phase != Phase::Rendezvous;
            counts && rank.idle >= plausible(beacon.usual, least, TIMES)
        };
        if !self.ranks.values().all(waits) {
            return None;
        }
        Some(match self.spread {
            Spread::Alone | Spread::Here => behind.hung(),
            Spread::Workers => Verdict::Waits { rank: behind.last.rank },
        })
    }
}

impl History {
    fn new(first: Sighting) -> Self {
        let zero = Duration::ZERO;
        Self { last: first, silent: zero, idle: zero, stopped: zero, off_disk: zero }
    }

    fn see(&mut self, elapsed: Duration, now: Sighting) {
        let spoke = now.beacon != self.last.beacon;
        let lively = spoke || now.activity == Activity::Runnable || now.cpu != self.last.cpu;
        let add = |time: Duration, reset: bool| if reset { Duration::ZERO } else { time + elapsed };
        self.silent = add(self.silent, spoke);
        self.idle = add(self.idle, lively);
        self.stopped = add(self.stopped, now.activity != Activity::Stopped);
        self.off_disk = add(self.off_disk, now.activity == Activity::Disk);
        self.last = now;
    }

    /// Whether it hangs by itself, whatever the others do.
    fn hangs(&self, spread: Spread) -> bool {
        if self.stopped >= STOPPED {
            return true;
        }
        let Some(beacon) = self.last.beacon else { return self.idle >= NO_BEACON };
        // However long: the one that it waits for is judged, and collectives have limits of their own.
        if spread != Spread::Alone && beacon.phase.waits_for_others() {
            return false;
        }
        if self.silent >= plausible(beacon.usual, BUSY, 10 * TIMES) {
            return true;
        }
        let limit = plausible(beacon.usual, LEAST, TIMES);
        // A disk that is slow now and then is seen at work in some of the sightings only.
        let limit = if self.off_disk < limit { limit.max(DISK) } else { limit };
        self.idle >= limit
    }

    /// How far it has come: the least is behind.
    fn place(&self) -> (u64, usize, u64) {
        self.last.beacon.map_or((0, 0, 0), |beacon| (beacon.step, beacon.phase.index(), beacon.count))
    }

    fn hung(&self) -> Verdict {
        let beacon = self.last.beacon;
        Verdict::Hung {
            rank: self.last.rank,
            step: beacon.map_or(0, |beacon| beacon.step),
            phase: beacon.map(|beacon| beacon.phase),
            silent: self.silent,
        }
    }
}

/// The longest plausible time for what usually takes `usual`; zero when it is not known.
fn plausible(usual: Duration, least: Duration, times: u32) -> Duration {
    let least = if usual.is_zero() { least.max(FIRST) } else { least };
    least.max(usual.saturating_mul(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(250);

    fn millis(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn beacon(step: u64, phase: Phase, usual: u64) -> Beacon {
        let count = step * 10 + phase.index() as u64;
        Beacon { step, phase, count, usual: millis(usual) }
    }

    fn seen(rank: u32, beacon: Beacon, activity: Activity, cpu: u64) -> Sighting {
        Sighting { rank, beacon: Some(beacon), activity, cpu }
    }

    /// Shows the same sightings until there is a verdict, for an hour at most. Returns when it came.
    fn until_verdict(spread: Spread, of: impl Fn(u32) -> Vec<Sighting>) -> Option<(Duration, Verdict)> {
        let mut judge = Judge::new(spread, Timeouts::default());
        (0..4 * 3_600).find_map(|tick| judge.see(TICK, &of(tick)).map(|verdict| (TICK * tick, verdict)))
    }

    #[test]
    fn a_stopped_rank_is_named_within_two_seconds_though_its_peer_waits_for_it() {
        let (when, verdict) = until_verdict(Spread::Here, |_| {
            vec![
                seen(0, beacon(12, Phase::Backward, 50), Activity::Waiting, 70),
                seen(1, beacon(12, Phase::Forward, 30), Activity::Stopped, 70),
            ]
        })
        .unwrap();
        assert!(when <= millis(2_000), "{when:?}");
        let silent = STOPPED;
        assert_eq!(verdict, Verdict::Hung { rank: 1, step: 12, phase: Some(Phase::Forward), silent });
    }

    #[test]
    fn a_rank_that_is_stopped_before_its_first_beacon_is_named() {
        let sighting = Sighting { rank: 0, beacon: None, activity: Activity::Stopped, cpu: 3 };
        let (when, verdict) = until_verdict(Spread::Alone, |_| vec![sighting]).unwrap();
        assert!(when <= millis(2_000), "{when:?}");
        assert!(matches!(verdict, Verdict::Hung { rank: 0, step: 0, phase: None, .. }), "{verdict:?}");
    }

    #[test]
    fn a_rank_that_does_nothing_is_named_when_its_own_times_make_that_implausible() {
        for (usual, least, most) in [(10, 2_000, 2_500), (3_000, 12_000, 12_500)] {
            let (when, verdict) = until_verdict(Spread::Alone, |_| {
                vec![seen(0, beacon(5, Phase::Batch, usual), Activity::Waiting, 9)]
            })
            .unwrap();
            assert!(when >= millis(least) && when <= millis(most), "{when:?} for steps of {usual} ms");
            assert!(matches!(verdict, Verdict::Hung { rank: 0, step: 5, phase: Some(Phase::Batch), .. }));
        }
    }

    /// Two processes for one processor, and a hundred: each tick the rank is runnable or has computed a little.
    #[test]
    fn a_rank_that_waits_for_a_processor_is_not_named() {
        for starved in [2, 100] {
            let verdict = until_verdict(Spread::Alone, |tick| {
                let step = u64::from(tick / 40);
                let (activity, cpu) = match tick % 3 {
                    0 => (Activity::Waiting, u64::from(tick)),
                    _ => (Activity::Runnable, u64::from(tick / starved)),
                };
                vec![seen(0, beacon(step, Phase::Forward, 20), activity, cpu)]
            });
            assert_eq!(verdict, None);
        }
    }

    #[test]
    fn ranks_that_wait_for_a_slow_one_are_not_named_and_neither_is_it() {
        let verdict = until_verdict(Spread::Here, |tick| {
            // A step a minute, after steps of 50 ms.
            let step = u64::from(tick / 240);
            vec![
                seen(0, beacon(step, Phase::Backward, 50), Activity::Waiting, 9),
                seen(1, beacon(step, Phase::Forward, 50), Activity::Runnable, u64::from(tick)),
            ]
        });
        assert_eq!(verdict, None);
    }

    #[test]
    fn of_two_ranks_that_stand_still_the_one_behind_is_named() {
        let (_, verdict) = until_verdict(Spread::Here, |_| {
            vec![
                seen(0, beacon(8, Phase::Collective, 50), Activity::Waiting, 9),
                seen(1, beacon(7, Phase::Update, 50), Activity::Waiting, 9),
            ]
        })
        .unwrap();
        assert!(matches!(verdict, Verdict::Hung { rank: 1, step: 7, phase: Some(Phase::Update), .. }));
    }

    #[test]
    fn a_collective_in_which_all_stand_still_is_named() {
        let (when, verdict) = until_verdict(Spread::Here, |_| {
            vec![
                seen(0, beacon(8, Phase::Backward, 50), Activity::Waiting, 9),
                seen(1, beacon(7, Phase::Backward, 50), Activity::Waiting, 9),
            ]
        })
        .unwrap();
        assert!(when >= TOGETHER && when <= TOGETHER + TICK * 2, "{when:?}");
        assert!(matches!(verdict, Verdict::Hung { rank: 1, step: 7, phase: Some(Phase::Backward), .. }));
    }

    #[test]
    fn ranks_that_wait_for_another_worker_leave_it_the_time_to_name_its_own() {
        let (when, verdict) = until_verdict(Spread::Workers, |_| {
            vec![seen(2, beacon(8, Phase::Backward, 50), Activity::Waiting, 9)]
        })
        .unwrap();
        let elsewhere = elsewhere(Timeouts::default().lease());
        assert!(when >= elsewhere && when <= elsewhere + TICK * 2, "{when:?}");
        assert_eq!(verdict, Verdict::Waits { rank: 2 });
    }

    #[test]
    fn a_rank_that_waits_for_the_others_to_start_is_not_named() {
        let verdict = until_verdict(Spread::Here, |_| {
            vec![
                seen(0, beacon(0, Phase::Rendezvous, 0), Activity::Waiting, 9),
                seen(1, beacon(0, Phase::Rendezvous, 0), Activity::Waiting, 9),
            ]
        });
        assert_eq!(verdict, None);
    }

    #[test]
    fn the_first_time_of_a_phase_and_a_busy_disk_are_given_longer() {
        let idle = |usual, activity: fn(u32) -> Activity| {
            let of = |tick| vec![seen(0, beacon(1, Phase::Loading, usual), activity(tick), 9)];
            until_verdict(Spread::Alone, of).unwrap().0
        };
        assert!(idle(0, |_| Activity::Waiting) >= FIRST);
        // In the disk's queue at every fourth sighting.
        assert!(idle(50, |tick| if tick % 4 == 0 { Activity::Disk } else { Activity::Waiting }) >= DISK);
    }

    #[test]
    fn a_rank_that_computes_without_a_beacon_is_named_in_the_end() {
        let (when, _) = until_verdict(Spread::Alone, |tick| {
            vec![seen(0, beacon(3, Phase::Forward, 50), Activity::Runnable, u64::from(tick))]
        })
        .unwrap();
        assert!(when >= BUSY, "{when:?}");
    }

    #[test]
    fn time_in_which_ranks_were_not_allowed_to_go_on_does_not_count() {
        let mut judge = Judge::new(Spread::Alone, Timeouts::default());
        let stopped = [seen(0, beacon(3, Phase::Forward, 50), Activity::Stopped, 9)];
        for _ in 0..5 {
            assert_eq!(judge.see(TICK, &stopped), None);
        }
        judge.forget();
        for _ in 0..5 {
            assert_eq!(judge.see(TICK, &stopped), None);
        }
    }

    #[test]
    fn a_rank_that_is_gone_is_judged_no_more() {
        let mut judge = Judge::new(Spread::Here, Timeouts::default());
        let stopped = [seen(0, beacon(3, Phase::Forward, 50), Activity::Stopped, 9)];
        for _ in 0..5 {
            assert_eq!(judge.see(TICK, &stopped), None);
        }
        assert_eq!(judge.see(TICK * 10, &[]), None);
    }
}
