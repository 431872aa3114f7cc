//! Logs of ranks: from the store once a rank has ended, from its worker while it runs.

use bytes::Bytes;
use common::{AttemptId, TrialId, WorkerId};
use futures::{StreamExt, TryStreamExt};
use proto::status::to_status;
use proto::v1;

use super::error::RequestError;
use super::{Answer, Messages, Service, lookup};
use crate::driver::View;
use crate::session::to_chunks;

/// Where the log of a rank was or is written.
struct Source {
    attempt: AttemptId,
    worker: WorkerId,
    running: bool,
}

impl Service {
    pub(super) async fn read_log(&self, request: v1::ReadLogRequest) -> Answer<Messages<v1::Chunk>> {
        let v1::ReadLogRequest { trial, attempt, rank, tail_bytes } = request;
        let tail = (tail_bytes > 0).then_some(tail_bytes);
        let Source { attempt, worker, running } =
            self.look(move |view| find(view, &trial, &attempt, rank)).await?;
        // A rank that ended is stored while others of its attempt may still run.
        if let Some(log) = self.stored(move |store| store.log(attempt, rank)).await? {
            let bytes = self.blobs.download_tail(log.digest, tail.unwrap_or(u64::MAX)).await?;
            return Ok(to_chunks(bytes).boxed());
        }
        if !running {
            return Err(RequestError::LogLost { attempt, rank, worker });
        }
        let parts = self.logs.fetch(&self.driver, worker, (attempt, rank), tail).await?;
        let chunk = |data: Bytes| v1::Chunk { data: data.into() };
        Ok(parts.map_ok(chunk).map_err(|error| to_status(&error)).boxed())
    }
}

fn find(view: &View<'_>, trial: &str, attempt: &str, rank: u32) -> Answer<Source> {
    let (trial, _) = lookup::trial(view, trial)?;
    let attempts = view.history.attempts_of(trial);
    let newest = view.history.attempts_of(trial).next_back().ok_or(RequestError::NoAttempt(trial))?;
    let (id, record) = if attempt.is_empty() {
        newest
    } else {
        let wanted = attempt.parse().ok();
        let found = attempts.into_iter().find(|(id, _)| Some(*id) == wanted);
        found.ok_or_else(|| unknown_attempt(view, trial, attempt))?
    };
    let holds =
        |share: &&coordinator_core::Share| (share.first_rank..share.first_rank + share.ranks).contains(&rank);
    let last = record.placement.world_size().saturating_sub(1);
    let unknown = RequestError::UnknownRank { attempt: id, rank, last };
    let share = record.placement.shares().iter().find(holds).ok_or(unknown)?;
    Ok(Source { attempt: id, worker: share.worker, running: record.end.is_none() })
}

fn unknown_attempt(view: &View<'_>, trial: TrialId, attempt: &str) -> RequestError {
    let known: Vec<_> = view.history.attempts_of(trial).map(|(id, _)| id.to_string()).collect();
    RequestError::UnknownAttempt { trial, attempt: attempt.to_owned(), known: known.join(", ") }
}
