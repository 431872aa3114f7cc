//! How long trials take, learned from those that succeeded.
//!
//! Part of the durable state, because it depends on the order of the log. It is small whatever the log holds:
//! of each workload and world size the last few durations are kept, and only so many of those.

use std::collections::BTreeMap;
use std::time::Duration;

use common::spec::Workload;
use serde::{Deserialize, Serialize};

/// Durations kept of one class: enough that one odd trial does not rule the median.
const RECENT: usize = 8;

/// Classes kept. Beyond it the one that was learned from the longest ago is forgotten.
const CLASSES: usize = 4_096;

/// How long a trial will take, going by others of its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Estimate {
    /// Half of the recent ones took no longer: for what runs.
    pub(crate) typical: Duration,
    /// None of the recent ones took longer: for what must be over in time.
    pub(crate) longest: Duration,
}

/// What was learned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Durations {
    classes: BTreeMap<Workload, BTreeMap<u32, Recent>>,
    /// Durations learned ever.
    learned: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Recent {
    /// In milliseconds, oldest first.
    millis: Vec<u64>,
    /// The median and the largest of them.
    typical: u64,
    longest: u64,
    /// [`Durations::learned`] when this class was last learned from.
    last: u64,
}

impl Durations {
    /// A trial of this workload took `duration` on `ranks` ranks, from its start to its success.
    pub(crate) fn learn(&mut self, workload: Workload, ranks: u32, duration: Duration) {
        self.learned += 1;
        let last = self.learned;
        let class = self.classes.entry(workload).or_default();
        let recent =
            class.entry(ranks).or_insert_with(|| Recent { millis: Vec::new(), typical: 0, longest: 0, last });
        recent.last = last;
        if recent.millis.len() == RECENT {
            recent.millis.remove(0);
        }
        recent.millis.push(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        let mut sorted = recent.millis.clone();
        sorted.sort_unstable();
        recent.typical = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        recent.longest = sorted.last().copied().unwrap_or_default();
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        if self.classes.len() <= CLASSES {
            return;
        }
        let newest = |ranks: &BTreeMap<u32, Recent>| ranks.values().map(|recent| recent.last).max();
        let oldest =
            self.classes.iter().min_by_key(|(_, ranks)| newest(ranks)).map(|(&workload, _)| workload);
        if let Some(oldest) = oldest {
            self.classes.remove(&oldest);
        }
    }

    /// How long a trial will take; `None` as long as none of its class has succeeded.
    pub(crate) fn estimate(&self, workload: Workload, ranks: u32) -> Option<Estimate> {
        let recent = self.classes.get(&workload)?.get(&ranks)?;
        let (typical, longest) =
            (Duration::from_millis(recent.typical), Duration::from_millis(recent.longest));
        Some(Estimate { typical, longest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Workload = Workload(1);

    #[test]
    fn the_last_few_decide() {
        let mut durations = Durations::default();
        assert_eq!(durations.estimate(ONE, 1), None);
        for seconds in [900, 10, 20, 30, 40, 50, 60, 70, 80] {
            durations.learn(ONE, 1, Duration::from_secs(seconds));
        }
        let seconds = Duration::from_secs;
        let expected = Estimate { typical: seconds(50), longest: seconds(80) };
        assert_eq!(durations.estimate(ONE, 1), Some(expected));
        assert_eq!(durations.estimate(ONE, 2), None, "of another world size nothing is known");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_stays() {
        let mut durations = Durations::default();
        for workload in 0..10_000 {
            durations.learn(Workload(workload), 1, Duration::from_secs(1));
        }
        assert_eq!(durations.classes.len(), CLASSES);
        assert!(durations.estimate(Workload(9_999), 1).is_some());
        assert!(durations.estimate(Workload(0), 1).is_none());
    }
}
