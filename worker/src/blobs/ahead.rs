//! Downloads that nobody waits for yet.
//!
//! There is one at a time. It stands still while an attempt downloads anything, and an attempt that needs the very blob takes over
//! what came of it so far: it waits for the other only to close its file, and not for the network.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::Digest;
use common::session::Blob;
use tokio::sync::{Mutex as Turns, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;

use super::{BlobError, Blobs, Pause, blocking};

/// Purpose of its part file.
const PURPOSE: &str = "ahead";

/// How long it may take, so that one that is stuck does not hold up those behind it for ever.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// How long an attempt waits for its file to be closed.
const HANDOVER: Duration = Duration::from_secs(1);

/// Ends what is fetched ahead of time when the other end is dropped.
pub(crate) type Leash = watch::Receiver<()>;

/// What is being downloaded on this worker, and for whom.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Downloads that attempts wait for.
    urgent: watch::Sender<usize>,
    turns: Turns<()>,
    ahead: Mutex<Option<Ahead>>,
}

/// The download that nobody waits for.
#[derive(Clone, Debug)]
struct Ahead {
    digest: Digest,
    taken: watch::Sender<bool>,
    /// Closed when its file is.
    open: watch::Receiver<()>,
}

/// How much a download matters.
pub(super) enum Haste {
    /// An attempt waits for it.
    Urgent,
    Ahead(Idle),
}

/// When a download that nobody waits for goes on, and when it stops.
pub(super) struct Idle {
    urgent: watch::Receiver<usize>,
    taken: watch::Receiver<bool>,
    leash: Leash,
    until: Instant,
}

impl Haste {
    /// Waits for the next part of a download, or until it is to stop where it stands.
    pub(super) async fn next<T>(
        &mut self,
        part: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        match self {
            Self::Urgent => part.await,
            Self::Ahead(Idle { urgent, taken, leash, until }) => {
                let turn = async {
                    // Not closed while there is a client.
                    let _ = urgent.wait_for(|&urgent| urgent == 0).await;
                    part.await
                };
                let stop = async {
                    tokio::select! {
                        _ = taken.wait_for(|&taken| taken) => {}
                        () = over(leash) => {}
                        () = sleep_until(*until) => {}
                    }
                };
                tokio::select! {
                    biased;
                    () = stop => Err(Status::cancelled("not wanted any more")),
                    part = turn => part,
                }
            }
        }
    }
}

/// Waits until nothing is to be fetched ahead of time any more.
async fn over(leash: &mut Leash) {
    while leash.changed().await.is_ok() {}
}

/// A download that an attempt waits for, until this is dropped.
pub(super) struct Urgent<'a>(&'a Traffic);

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.urgent.send_modify(|urgent| *urgent -= 1);
    }
}

impl Traffic {
    pub(super) fn urgent(&self) -> Urgent<'_> {
        self.urgent.send_modify(|urgent| *urgent += 1);
        Urgent(self)
    }

    /// Stops the download of `digest` that nobody waits for. Returns whether there was one; then it is over, and its file closed.
    async fn stop(&self, digest: Digest) -> bool {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Ahead { taken, mut open, .. }) = ahead.filter(|ahead| ahead.digest == digest) else {
            return false;
        };
        taken.send_replace(true);
        timeout(HANDOVER, over(&mut open)).await.is_ok()
    }

    fn set(&self, ahead: Option<Ahead>) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
    }
}

impl Blobs {
    /// Puts what came of a download that nobody waited for where the attempt's download goes on. Returns whether there was one.
    pub(super) async fn take_over(&self, digest: Digest, part: &Path) -> bool {
        let stopped = self.traffic.stop(digest).await;
        if stopped {
            // It may be whole by now, and in the cache; or another attempt was faster.
            let _ = tokio::fs::rename(self.cache.part(&digest, PURPOSE), part).await;
        }
        stopped
    }

    /// Brings a blob into the cache if it is not there and pushes out nothing of use. Tries once, and gives up when `leash` ends.
    ///
    /// # Errors
    ///
    /// Whatever kept it from being fetched.
    pub(crate) async fn fetch_ahead(&self, blob: Blob, mut leash: Leash) -> Result<(), AheadError> {
        let turn = tokio::select! {
            turn = self.traffic.turns.lock() => turn,
            () = over(&mut leash) => return Err(AheadError::Over),
        };
        let Blob { digest, bytes } = blob;
        let (taken, is_taken) = watch::channel(false);
        let (closed, open) = watch::channel(());
        self.traffic.set(Some(Ahead { digest, taken, open }));
        let urgent = self.traffic.urgent.subscribe();
        let idle = Idle { urgent, taken: is_taken.clone(), leash, until: Instant::now() + LIMIT };
        let fetched = self.fetch_idly(digest, bytes, idle).await;
        if fetched.is_err() && !*is_taken.borrow() {
            let _ = tokio::fs::remove_file(self.cache.part(&digest, PURPOSE)).await;
        }
        self.traffic.set(None);
        drop((closed, turn));
        fetched
    }

    async fn fetch_idly(&self, digest: Digest, bytes: u64, idle: Idle) -> Result<(), AheadError> {
        let cache = self.cache.clone();
        let wanted = blocking(move || Ok(!cache.refresh(&digest)? && cache.can_spare(bytes)?)).await;
        if !wanted.map_err(AheadError::Cache)? {
            return Ok(());
        }
        let part = self.cache.part(&digest, PURPOSE);
        self.download(digest, &part, &mut Pause::default(), &mut Haste::Ahead(idle)).await??;
        let cache = self.cache.clone();
        blocking(move || cache.adopt(&part, &digest)).await.map_err(AheadError::Cache)
    }
}

/// Why a blob was not fetched ahead of time. Nothing depends on it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AheadError {
    /// Nothing is wanted any more.
    #[error("the session is over")]
    Over,
    /// The cache cannot be read or written.
    #[error("cannot use the cache")]
    Cache(#[source] std::io::Error),
    /// The blob cannot be had.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The download broke, or stopped.
    #[error("the download ended: {}", .0.message())]
    Ended(#[from] Status),
}
