//! Looks at the ranks of an attempt a few times a second, on a thread where that may block.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::observe::{INTERVAL, Memory, Observed, Seen};
use super::patterns::{Match, Patterns};
use crate::config::LogPattern;

/// What was seen of all ranks at one moment.
#[derive(Debug)]
pub struct Sight {
    /// When.
    pub at: Instant,
    /// Ranks that are alive.
    pub ranks: Vec<Seen>,
    /// Lines of their logs that match a pattern.
    pub matches: Vec<Match>,
}

/// Looks at ranks until it is dropped.
pub struct Watcher {
    shared: Arc<Shared>,
    sights: mpsc::Receiver<Sight>,
    task: JoinHandle<()>,
}

struct Shared {
    ranks: Mutex<Vec<Rank>>,
    patterns: Patterns,
}

struct Rank {
    rank: u32,
    observed: Observed,
    peak: Memory,
    alive: bool,
}

impl Watcher {
    /// Starts to look at the processes of an attempt's ranks.
    pub fn start(folder: &Path, ranks: impl Iterator<Item = (u32, u32)>, patterns: &[LogPattern]) -> Self {
        let ranks = ranks.map(|(rank, pid)| Rank {
            rank,
            observed: Observed::new(folder, rank, pid),
            peak: Memory::default(),
            alive: true,
        });
        // A configuration was validated before; what is none here finds nothing.
        let patterns = Patterns::new(patterns).unwrap_or_else(|error| {
            tracing::error!(%error, "the log patterns are not used");
            Patterns::none()
        });
        let shared = Arc::new(Shared { ranks: Mutex::new(ranks.collect()), patterns });
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
        if let Some(rank) = self.shared.lock().iter_mut().find(|known| known.rank == rank) {
            rank.alive = false;
        }
    }

    /// Writes what is known of each rank to its log.
    pub async fn testify(&self, why: &str) {
        let why = why.to_owned();
        self.blocking(move |shared| {
            for rank in shared.lock().iter().filter(|rank| rank.alive) {
                if let Err(error) = rank.observed.testify(&why) {
                    tracing::warn!(rank = rank.rank, %error, "cannot add to a log");
                }
            }
        })
        .await;
    }

    /// What the logs hold beyond the last sight. Says in the log how much memory each rank took.
    pub async fn last_look(&self) -> Vec<Match> {
        self.blocking(|shared| {
            let mut matches = Vec::new();
            for rank in shared.lock().iter_mut() {
                tracing::info!(rank = rank.rank, peak_mib = rank.peak.peak / 1024, "memory of a rank");
                matches.extend(rank.observed.matches(&shared.patterns));
            }
            matches
        })
        .await
        .unwrap_or_default()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        body: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Option<T> {
        let shared = Arc::clone(&self.shared);
        // It fails only when the agent itself is about to end.
        tokio::task::spawn_blocking(move || body(&shared)).await.ok()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Rank>> {
        // What another thread left half-done is a reading of files, which is done again.
        self.ranks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> Sight {
        let (mut seen, mut matches) = (Vec::new(), Vec::new());
        for rank in self.lock().iter_mut().filter(|rank| rank.alive) {
            if let Some(now) = rank.observed.look() {
                rank.peak = now.memory;
                seen.push(now);
            }
            matches.extend(rank.observed.matches(&self.patterns));
        }
        Sight { at: Instant::now(), ranks: seen, matches }
    }
}

async fn look_on(shared: Arc<Shared>, sights: mpsc::Sender<Sight>) {
    let mut ticks = tokio::time::interval(INTERVAL);
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
