//! What this rank does, published for the agent: a record in a file, overwritten at each change of phase.
//!
//! Decides how a phase's usual time is known. Does not decide when a rank is hung: the agent does, which also sees
//! whether the process computes.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::beacon::{Beacon as Record, FILE, Phase};

/// Of its longest time, a phase forgets one part in so many each time it ends sooner: a pause of long ago says little of
/// what is usual.
const MEMORY: u32 = 64;

/// Publishes what the rank does. Of the thread that trains, and of no other.
#[derive(Debug)]
pub struct Beacon {
    /// `None` for one that nobody reads.
    file: Option<File>,
    last: Cell<Record>,
    since: Cell<Instant>,
    usual: RefCell<[Duration; Phase::ALL.len()]>,
}

impl Beacon {
    /// A beacon in the folder of a rank. Without a file, which is logged, the agent has only the process to go by.
    pub fn light(folder: &Path) -> Rc<Self> {
        let path = folder.join(FILE);
        let file = File::create(&path)
            .inspect_err(|error| tracing::warn!(%error, "cannot make the beacon `{}`", path.display()));
        let beacon = Self::to(file.ok());
        beacon.enter(Phase::Loading, 0);
        Rc::new(beacon)
    }

    /// A beacon that nobody sees.
    pub fn dark() -> Rc<Self> {
        Rc::new(Self::to(None))
    }

    fn to(file: Option<File>) -> Self {
        let last = Record { step: 0, phase: Phase::Loading, count: 0, usual: Duration::ZERO };
        Self {
            file,
            last: Cell::new(last),
            since: Cell::new(Instant::now()),
            usual: RefCell::new([Duration::ZERO; Phase::ALL.len()]),
        }
    }

    /// The rank begins something else, for the step `step`.
    pub fn enter(&self, phase: Phase, step: u64) {
        let Some(file) = &self.file else { return };
        let (last, now) = (self.last.get(), Instant::now());
        let usual = {
            let mut usual = self.usual.borrow_mut();
            let of_last = &mut usual[last.phase.index()];
            if last.count > 0 {
                *of_last = longest(*of_last, now - self.since.get());
            }
            usual[phase.index()]
        };
        let record = Record { step, phase, count: last.count + 1, usual };
        self.last.set(record);
        self.since.set(now);
        // A record that is not written makes the rank look silent for one phase, and the next is tried anyway.
        if let Err(error) = file.write_all_at(&record.encode(), 0) {
            tracing::debug!(%error, "cannot write the beacon");
        }
    }

    /// Does something of another phase, then goes on in the phase before.
    pub fn during<T>(&self, phase: Phase, body: impl FnOnce() -> T) -> T {
        let before = self.last.get();
        self.enter(phase, before.step);
        let value = body();
        self.enter(before.phase, before.step);
        value
    }
}

/// The longest of the recent times, of which `before` is that of all but the last.
fn longest(before: Duration, last: Duration) -> Duration {
    last.max(before - before / MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &Path) -> Record {
        Record::decode(&std::fs::read(folder.join(FILE)).unwrap()).unwrap()
    }

    #[test]
    fn the_file_holds_the_last_phase_and_what_is_usual_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let beacon = Beacon::light(folder.path());
        assert_eq!((read(folder.path()).phase, read(folder.path()).count), (Phase::Loading, 1));
        beacon.enter(Phase::Forward, 1);
        assert_eq!(read(folder.path()).usual, Duration::ZERO);
        std::thread::sleep(Duration::from_millis(20));
        beacon.during(Phase::Collective, || {
            assert_eq!((read(folder.path()).phase, read(folder.path()).step), (Phase::Collective, 1));
        });
        let record = read(folder.path());
        assert_eq!((record.phase, record.step, record.count), (Phase::Forward, 1, 4));
        assert!(record.usual >= Duration::from_millis(20), "{record:?}");
    }

    #[test]
    fn a_long_pause_is_forgotten() {
        let mut usual = longest(Duration::ZERO, Duration::from_secs(60));
        for _ in 0..500 {
            usual = longest(usual, Duration::from_millis(10));
        }
        assert!(usual < Duration::from_millis(100), "{usual:?}");
    }

    #[test]
    #[ignore = "prints a time: run it alone, with --nocapture"]
    fn time_of_a_change_of_phase() {
        let folder = tempfile::tempdir().unwrap();
        let beacon = Beacon::light(folder.path());
        let started = Instant::now();
        for step in 0..100_000 {
            beacon.enter(Phase::ALL[step as usize % 4 + 2], step);
        }
        eprintln!("{:?} a change of phase", started.elapsed() / 100_000);
    }
}
