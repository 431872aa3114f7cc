//! A disk that takes no writes: everybody is told why, and the driver goes on when it takes them again.
//!
//! What the driver holds in memory is then ahead of the disk, so it is dropped: nothing is decided or shown
//! until the log was read again. Workers lose their sessions, train on, and dial until they are heard.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use coordinator_core::{Cluster, Millis, Policy};
use proto::status::chain;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info};

use super::command::{Command, Turn};
use super::recovery::{Recovered, recover};
use super::task::Driver;
use super::{DriverError, History, SessionEnd};
use crate::store::{Batch, Reader, Store, StoreError};

/// Time between the first two tries; then it doubles.
const FIRST_TRY: Duration = Duration::from_millis(200);

/// The longest time between two tries.
const LAST_TRY: Duration = Duration::from_secs(5);

/// A disk that has no more than this is still full: a turn may write as much.
const PROBE_BYTES: usize = 1 << 20;

/// File that is written to see whether the disk takes writes.
const PROBE_FILE: &str = "probe";

impl Driver {
    /// Refuses everything until the disk takes writes again, then reads the state from it. `None` when it is
    /// stopped meanwhile.
    pub(super) async fn pause(
        &mut self,
        turn: Turn,
        failure: StoreError,
        reader: &Reader,
        inbox: &mut mpsc::Receiver<Command>,
    ) -> Result<Option<Store>, Arc<StoreError>> {
        error!(error = &failure as &dyn std::error::Error, "cannot write the log: the coordinator is paused");
        let cause = Arc::new(failure);
        self.news.pauses.send_replace(Some(cause.clone()));
        self.live.sessions.end_all(&SessionEnd::Paused(chain(cause.as_ref())));
        self.live.progress.clear();
        let stop = turn.stop;
        turn.fail(&DriverError::Paused(cause.clone()));
        self.cluster = Cluster::new(self.limits.policy.clone());
        self.history = History::default();
        self.snapshots.stop().await;
        if stop {
            return Ok(None);
        }

        let mut wait = FIRST_TRY;
        let mut next = Instant::now() + wait;
        let store = loop {
            tokio::select! {
                biased;
                command = inbox.recv() => match command {
                    None | Some(Command::Stop) => return Ok(None),
                    Some(command) => refuse(command, &cause),
                },
                () = sleep_until(next) => match self.reopen(reader).await {
                    Ok((store, recovered)) => {
                        self.take_over(recovered);
                        break store;
                    }
                    Err(failure) if is_worth_another_try(&failure) => {
                        debug!(error = &failure as &dyn std::error::Error, "the disk takes no writes yet");
                        wait = LAST_TRY.min(wait * 2);
                        next = Instant::now() + wait;
                    }
                    Err(failure) => return Err(self.give_up(Turn::default(), failure)),
                },
            }
        };
        self.logs = store.reader().log_blobs()?.into_iter().collect();
        self.lenient_until = Millis(0);
        self.news.pauses.send_replace(None);
        self.news.notify.send_modify(|version| *version += 1);
        info!("the disk takes writes again: the coordinator goes on");
        Ok(Some(store))
    }

    async fn reopen(&self, reader: &Reader) -> Result<(Store, Recovered), StoreError> {
        let (reader, policy, now) = (reader.clone(), self.limits.policy.clone(), self.now());
        let open = move || open(&reader, &policy, now);
        tokio::task::spawn_blocking(open).await.unwrap_or(Err(StoreError::Abnormal))
    }
}

fn open(reader: &Reader, policy: &Policy, now: Millis) -> Result<(Store, Recovered), StoreError> {
    let folder = reader.folder().to_owned();
    // First in a file of its own: a database that fails has to be opened again.
    probe(&folder).map_err(|source| StoreError::of_folder(&folder, source))?;
    let mut store = Store::open_for(reader.clone(), &folder)?;
    store.commit(&Batch::default())?;
    let recovered = recover(&store, policy, now)?;
    Ok((store, recovered))
}

fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join(PROBE_FILE);
    let written = fs::File::create(&path).and_then(|mut file| {
        // Not zeros, which some file systems do not store.
        file.write_all(&vec![0xA5; PROBE_BYTES])?;
        file.sync_all()
    });
    // Also what was half written.
    let removed = fs::remove_file(&path);
    written.and(removed)
}

fn is_worth_another_try(failure: &StoreError) -> bool {
    // Whoever reads a long answer lets go of the database in a moment.
    failure.may_pass() || matches!(failure, StoreError::Locked { .. })
}

/// Answers why nothing is done. Whoever only tells something is told by the end of its session.
fn refuse(command: Command, cause: &Arc<StoreError>) {
    let paused = || DriverError::Paused(cause.clone());
    match command {
        Command::Apply { reply, .. } => drop(reply.send(Err(paused()))),
        Command::OpenSession { reply, .. } => drop(reply.send(Err(paused()))),
        Command::Send { reply, .. } => drop(reply.send(false)),
        // Who waits for the look notices that nobody will look, and finds out why.
        Command::Read(look) => drop(look),
        Command::FromWorker { .. } | Command::SessionClosed { .. } | Command::Collect(_) | Command::Stop => {}
    }
}
