//! Looks at the ranks of an attempt a few times a second, on a thread where that may block.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::timeouts::ranks::LOOK;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::observe::{Memory, Observed, Seen};
use super::patterns::{Match, Patterns};
use crate::config::LogPattern;

/// What was seen of all ranks at one moment.
#[derive(Debug)]
pub struct Sight {
    /// When.
    pub at: Instant,
    /// Ranks that are alive.
    pub ranks: Vec<Seen>,
}

/// Looks at ranks until it is dropped.
pub struct Watcher {
    shared: Arc<Shared>,
    sights: mpsc::Receiver<Sight>,
    task: JoinHandle<()>,
}

struct Shared {
    /// Locked while files are read, so never by the agent's own threads.
    ranks: Mutex<Vec<Rank>>,
    /// Whether a rank still runs.
    alive: BTreeMap<u32, AtomicBool>,
    patterns: Patterns,
    /// Lines that match a pattern and were not taken yet. Not a part of a sight: a line is read once, and a sight may
    /// be on its way when the last rank ends.
    matches: Mutex<Vec<Match>>,
}

struct Rank {
    rank: u32,
    observed: Observed,
    peak: Memory,
}

impl Watcher {
    /// Starts to look at the processes of an attempt's ranks.
    pub fn start(folder: &Path, ranks: impl Iterator<Item = (u32, u32)>, patterns: &[LogPattern]) -> Self {
        let ranks: Vec<_> = ranks
            .map(|(rank, pid)| Rank {
                rank,
                observed: Observed::new(folder, rank, pid),
                peak: Memory::default(),
            })
            .collect();
        let alive = ranks.iter().map(|rank| (rank.rank, AtomicBool::new(true))).collect();
        // A configuration was validated before; what is none here finds nothing.
        let patterns = Patterns::new(patterns).unwrap_or_else(|error| {
            tracing::error!(%error, "the log patterns are not used");
            Patterns::none()
        });
        let shared =
            Arc::new(Shared { ranks: Mutex::new(ranks), alive, patterns, matches: Mutex::default() });
        let (sender, sights) = mpsc::channel(1);
        let task = tokio::spawn(look_on(Arc::clone(&shared), sender));
        Self { shared, sights, task }
    }

    /// The next sight. Never, when there will be none.
    pub async fn next(&mut self) -> Sight {
        match self.sights.recv().await {
            Some(sight) => sight,
            None => std::future::pending().await,
        }
    }

    /// A rank's process is gone, or belongs to another attempt from now on.
    pub fn forget(&self, rank: u32) {
        if let Some(alive) = self.shared.alive.get(&rank) {
            alive.store(false, Ordering::Release);
        }
    }

    /// Writes what is known of each rank to its log.
    pub async fn testify(&self, why: &str) {
        let why = why.to_owned();
        self.blocking(move |shared| {
            for rank in lock(&shared.ranks).iter().filter(|rank| shared.is_alive(rank.rank)) {
                if let Err(error) = rank.observed.testify(&why) {
                    tracing::warn!(rank = rank.rank, %error, "cannot add to a log");
                }
            }
        })
        .await;
    }

    /// Lines of the ranks' logs that match a pattern and were not taken before.
    pub fn take_matches(&self) -> Vec<Match> {
        std::mem::take(&mut *lock(&self.shared.matches))
    }

    /// Reads what the logs hold beyond the last sight. Says in the log how much memory each rank took.
    pub async fn last_look(&self) {
        self.blocking(|shared| {
            for rank in lock(&shared.ranks).iter_mut() {
                tracing::info!(rank = rank.rank, peak_mib = rank.peak.peak / 1024, "memory of a rank");
                shared.read_log(rank);
            }
        })
        .await;
    }

    async fn blocking(&self, body: impl FnOnce(&Shared) + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        // It fails only when the agent itself is about to end.
        drop(tokio::task::spawn_blocking(move || body(&shared)).await);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What another thread left half-done is a reading of files, which is done again.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn is_alive(&self, rank: u32) -> bool {
        self.alive.get(&rank).is_some_and(|alive| alive.load(Ordering::Acquire))
    }

    fn read_log(&self, rank: &mut Rank) {
        let found = rank.observed.matches(&self.patterns);
        lock(&self.matches).extend(found);
    }

    fn look(&self) -> Sight {
        let mut seen = Vec::new();
        for rank in lock(&self.ranks).iter_mut().filter(|rank| self.is_alive(rank.rank)) {
            if let Some(now) = rank.observed.look() {
                rank.peak = now.memory;
                seen.push(now);
            }
            self.read_log(rank);
        }
        Sight { at: Instant::now(), ranks: seen }
    }
}

async fn look_on(shared: Arc<Shared>, sights: mpsc::Sender<Sight>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let shared = Arc::clone(&shared);
        let Ok(sight) = tokio::task::spawn_blocking(move || shared.look()).await else { return };
        if sights.send(sight).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::log_file;
    use super::*;

    #[tokio::test]
    async fn a_line_of_a_sight_that_nobody_saw_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let log = log_file(folder.path(), 0);
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        std::fs::write(&log, "fell off the bus\n").unwrap();
        let pattern =
            LogPattern { name: "bus".to_owned(), regex: "off the bus".to_owned(), quarantine: false };
        let watcher = Watcher::start(folder.path(), [(0, std::process::id())].into_iter(), &[pattern]);
        // A sight waits to be seen: the line was read.
        while watcher.sights.is_empty() {
            tokio::time::sleep(LOOK / 25).await;
        }
        watcher.last_look().await;
        let lines: Vec<_> = watcher.take_matches().into_iter().map(|found| found.line).collect();
        assert_eq!(lines, ["fell off the bus"]);
    }
}
