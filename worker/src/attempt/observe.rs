//! What the operating system says of the ranks of an attempt, and what they say in their beacons and logs.
//!
//! Only reads files; what follows from it is decided in `judge` and `gang`. Everything here may block, and so runs on a
//! thread for it: a disk that hangs holds up the observation, not the agent.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use common::beacon::{self, Beacon};

use super::judge::{Activity, Sighting};
use super::patterns::{Follower, Match, Patterns};
use super::{log_file, work_dir};
use crate::proc;

/// A rank to look at.
#[derive(Debug)]
pub struct Observed {
    rank: u32,
    pid: u32,
    beacon: PathBuf,
    log: PathBuf,
    file: Option<File>,
    follower: Follower,
    last: Option<Beacon>,
}

/// What was seen of a rank.
#[derive(Debug)]
pub struct Seen {
    /// What it said and did.
    pub sighting: Sighting,
    /// Its memory.
    pub memory: Memory,
}

/// Resident memory of a process, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub now: u64,
    /// The most so far.
    pub peak: u64,
}

impl Observed {
    /// A rank of the attempt in `folder`, which runs as process `pid`.
    pub fn new(folder: &Path, rank: u32, pid: u32) -> Self {
        Self {
            rank,
            pid,
            beacon: work_dir(folder, rank).join(beacon::FILE),
            log: log_file(folder, rank),
            file: None,
            follower: Follower::default(),
            last: None,
        }
    }

    /// Looks at the rank. `None` when its process is gone.
    pub fn look(&mut self) -> Option<Seen> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let (state, cpu) = state_and_cpu(&stat)?;
        if matches!(state, 'Z' | 'X') {
            return None;
        }
        let beacon = self.beacon();
        // A rank that has just spoken is lively, whatever its threads do at this moment.
        let activity = if beacon == self.last {
            activity(self.pid).unwrap_or(Activity::Waiting)
        } else {
            Activity::Runnable
        };
        self.last = beacon;
        let sighting = Sighting { rank: self.rank, beacon, activity, cpu };
        Some(Seen { sighting, memory: memory(&status) })
    }

    fn beacon(&mut self) -> Option<Beacon> {
        if self.file.is_none() {
            self.file = File::open(&self.beacon).ok();
        }
        let mut record = [0; beacon::BYTES];
        let read = self.file.as_ref()?.read_exact_at(&mut record, 0);
        // A torn record: the one before it still holds.
        read.ok().and_then(|()| Beacon::decode(&record)).or(self.last)
    }

    /// Lines of its log since the last call that match a pattern.
    pub fn matches(&mut self, patterns: &Patterns) -> Vec<Match> {
        self.follower.read(&self.log, patterns, self.rank)
    }

    /// Adds what is known of the rank to the end of its log, for whoever wants to know why it hung.
    pub fn testify(&self, why: &str) -> io::Result<()> {
        let mut log = File::options().append(true).open(&self.log)?;
        let mut text = format!("credence worker: {why}\n");
        match self.last {
            Some(Beacon { step, phase, count, usual }) => text.push_str(&format!(
                "credence worker: rank {}: step {step}, {phase} (beacon {count}; usually {usual:?})\n",
                self.rank
            )),
            None => text.push_str(&format!("credence worker: rank {}: no beacon yet\n", self.rank)),
        }
        for thread in threads(self.pid) {
            text.push_str(&describe(&thread));
        }
        // In one write, because the rank may still write, too.
        log.write_all(text.as_bytes())
    }
}

/// Folders of a process's threads.
fn threads(pid: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    entries.map_or_else(|_| Vec::new(), |entries| entries.flatten().map(|entry| entry.path()).collect())
}

/// The liveliest of a process's threads.
fn activity(pid: u32) -> Option<Activity> {
    let states = threads(pid).into_iter().filter_map(|thread| {
        let stat = fs::read_to_string(thread.join("stat")).ok()?;
        activity_of(state_and_cpu(&stat)?.0)
    });
    states.min()
}

fn activity_of(state: char) -> Option<Activity> {
    match state {
        'R' => Some(Activity::Runnable),
        'D' => Some(Activity::Disk),
        'T' | 't' => Some(Activity::Stopped),
        'Z' | 'X' => None,
        // Sleeping, idle, parked.
        _ => Some(Activity::Waiting),
    }
}

/// State and processor time of a process or thread, from its `stat`.
fn state_and_cpu(stat: &str) -> Option<(char, u64)> {
    let mut fields = proc::fields(stat)?;
    let state = fields.next()?.chars().next()?;
    let mut times = fields.skip(10).map(|field| field.parse::<u64>().ok());
    Some((state, times.next()?? + times.next()??))
}

fn memory(status: &str) -> Memory {
    let field = |name| proc::kib(status, name).unwrap_or(0);
    Memory { now: field("VmRSS:"), peak: field("VmHWM:") }
}

/// One line on a thread, and its stack in the kernel where that may be read.
fn describe(thread: &Path) -> String {
    let read = |name: &str| fs::read_to_string(thread.join(name)).unwrap_or_default();
    let stat = read("stat");
    let (state, cpu) = state_and_cpu(&stat).unwrap_or(('?', 0));
    let name = read("comm");
    let id = thread.file_name().unwrap_or_default().to_string_lossy();
    let wchan = read("wchan");
    let wchan = if matches!(wchan.as_str(), "" | "0") { "?" } else { &wchan };
    let mut text = format!(
        "credence worker:   thread {id} ({}): state {state}, {cpu} ticks, waits in {wchan}\n",
        name.trim_end()
    );
    for frame in read("stack").lines() {
        text.push_str(&format!("credence worker:     {frame}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn state_and_times_are_found_behind_a_name_with_parentheses() {
        let stat = "71 (a) b) T 1 71 71 0 -1 4194304 9 0 0 0 12 3 0 0 20 0 1 0 555 0 0";
        assert_eq!(state_and_cpu(stat), Some(('T', 15)));
        assert_eq!(state_and_cpu("71 (a"), None);
    }

    #[test]
    fn memory_is_read_in_kibibytes() {
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(memory(status), Memory { now: 1024, peak: 2048 });
        assert_eq!(memory("Name:\tkernel\n"), Memory::default());
    }

    #[test]
    fn a_process_is_seen_with_its_beacon_and_testified_of() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(work_dir(folder.path(), 3)).unwrap();
        File::create(log_file(folder.path(), 3)).unwrap();
        let mut observed = Observed::new(folder.path(), 3, std::process::id());
        let first = observed.look().unwrap();
        assert_eq!(first.sighting.beacon, None);
        assert!(first.memory.now > 0 && first.memory.peak >= first.memory.now);
        let said =
            Beacon { step: 7, phase: beacon::Phase::Backward, count: 28, usual: Duration::from_millis(3) };
        fs::write(work_dir(folder.path(), 3).join(beacon::FILE), said.encode()).unwrap();
        assert_eq!(observed.look().unwrap().sighting.beacon, Some(said));
        // Another layout is no reason to forget what was known.
        fs::write(work_dir(folder.path(), 3).join(beacon::FILE), [0; beacon::BYTES]).unwrap();
        assert_eq!(observed.look().unwrap().sighting.beacon, Some(said));

        observed.testify("rank 3 is asked").unwrap();
        let log = fs::read_to_string(log_file(folder.path(), 3)).unwrap();
        assert!(log.contains("rank 3 is asked") && log.contains("step 7, backward"), "{log}");
        assert!(log.contains("state R"), "this thread runs: {log}");
    }

    #[test]
    fn a_process_that_is_gone_is_not_seen() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let folder = tempfile::tempdir().unwrap();
        assert!(Observed::new(folder.path(), 0, pid).look().is_none());
    }
}
