//! Fetches what the coordinator says will probably be needed, as long as its session lasts.
//!
//! Best effort throughout: what fails is not tried again, because the launch that needs it fetches it anyhow.

use common::session::Blob;
use tokio::sync::{mpsc, watch};

use crate::blobs::{Blobs, Leash};

/// Blobs that wait. What is told beyond that is passed over.
const WAITING: usize = 256;

/// A task that fetches one blob at a time until this is dropped.
#[derive(Debug)]
pub(crate) struct Prefetcher {
    wanted: mpsc::Sender<Blob>,
    _leash: watch::Sender<()>,
}

impl Prefetcher {
    pub(crate) fn start(blobs: Blobs) -> Self {
        let (wanted, waiting) = mpsc::channel(WAITING);
        let (held, leash) = watch::channel(());
        tokio::spawn(run(blobs, waiting, leash));
        Self { wanted, _leash: held }
    }

    pub(crate) fn want(&self, blobs: Vec<Blob>) {
        for blob in blobs {
            if self.wanted.try_send(blob).is_err() {
                tracing::debug!(digest = %blob.digest, "not prefetched: too much else waits");
            }
        }
    }
}

async fn run(blobs: Blobs, mut waiting: mpsc::Receiver<Blob>, leash: Leash) {
    while let Some(blob) = waiting.recv().await {
        match blobs.fetch_ahead(blob, leash.clone()).await {
            Ok(()) => tracing::debug!(digest = %blob.digest, "prefetched, or not worth it"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(digest = %blob.digest, error, "not prefetched");
            }
        }
    }
}
