//! An experiment as it changes: a snapshot at once, then one after each change, until the experiment ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{ExperimentId, TrialId};
use coordinator_core::{Experiment, Session, WaitReason};
use futures::{StreamExt, stream};
use proto::status::to_status;
use proto::v1;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::error::RequestError;
use super::{Answer, Messages, Service, eta, lookup, message};
use crate::driver::{Handle, View};

/// At most four updates a second, however much happens.
const INTERVAL: Duration = Duration::from_millis(250);

/// Reasons in one update, and trials that each names.
const NOTES: usize = 8;

impl Service {
    pub(super) async fn watch(&self, request: v1::WatchRequest) -> Answer<Messages<v1::WatchUpdate>> {
        let id = self.look(move |view| Ok(lookup::experiment(view, &request.experiment)?.0)).await?;
        let watcher = Watcher {
            driver: self.driver.clone(),
            changes: self.driver.changes(),
            experiment: id,
            ended: None,
            shown: None,
            next: Instant::now(),
        };
        Ok(stream::try_unfold(Some(watcher), Watcher::next).boxed())
    }
}

/// One client's view.
struct Watcher {
    driver: Handle,
    changes: watch::Receiver<u64>,
    experiment: ExperimentId,
    /// Trials that had ended when the last update was made.
    ended: Option<BTreeSet<TrialId>>,
    /// The last update, without what changes by time alone.
    shown: Option<v1::WatchUpdate>,
    /// When the next update may be sent.
    next: Instant,
}

struct Snapshot {
    update: v1::WatchUpdate,
    ended: BTreeSet<TrialId>,
    over: bool,
}

impl Watcher {
    async fn next(watcher: Option<Self>) -> Result<Option<(v1::WatchUpdate, Option<Self>)>, Status> {
        let Some(mut watcher) = watcher else { return Ok(None) };
        loop {
            sleep_until(watcher.next).await;
            // Before the look: what happens after it wakes us again.
            watcher.changes.mark_unchanged();
            let Snapshot { update, ended, over } = watcher.look().await?;
            watcher.next = Instant::now() + INTERVAL;
            let timeless = v1::WatchUpdate { seconds_left: None, ..update.clone() };
            if over || watcher.shown.as_ref() != Some(&timeless) {
                watcher.shown = Some(timeless);
                watcher.ended = Some(ended);
                return Ok(Some((update, (!over).then_some(watcher))));
            }
            if watcher.changes.changed().await.is_err() {
                let stopping = RequestError::from(crate::driver::DriverError::Stopping);
                return Err(to_status(&stopping));
            }
        }
    }

    async fn look(&self) -> Result<Snapshot, Status> {
        let (id, before) = (self.experiment, self.ended.clone());
        let snapshot = self.driver.read(move |view| snapshot(view, id, before.as_ref())).await;
        snapshot
            .map_err(RequestError::from)
            .and_then(|snapshot| {
                let name = id.to_string();
                snapshot.ok_or(RequestError::UnknownExperiment { name, hint: "it is gone".to_owned() })
            })
            .map_err(|error| to_status(&error))
    }
}

fn snapshot(view: &View<'_>, id: ExperimentId, before: Option<&BTreeSet<TrialId>>) -> Option<Snapshot> {
    let record = view.cluster.experiment(id)?;
    let trials = record.trials.iter().filter_map(|&id| Some((id, view.cluster.trial(id)?)));
    let mut running = Vec::new();
    let mut ended = BTreeSet::new();
    let mut just_ended = Vec::new();
    for (id, trial) in trials {
        if trial.attempt().is_some() {
            running.push(message::trial(view, id, trial));
        } else if trial.has_ended() {
            ended.insert(id);
            if before.is_some_and(|before| !before.contains(&id)) {
                just_ended.push(message::trial(view, id, trial));
            }
        }
    }
    let counts = view.cluster.counts(id).unwrap_or_default();
    let state = message::experiment_state(record, counts);
    let connected = || view.cluster.workers().filter(|member| member.session == Session::Connected);
    let update = v1::WatchUpdate {
        experiment: Some(message::experiment(view, id, record)),
        running,
        slots_total: connected().map(|member| member.worker.slots).sum(),
        slots_used: connected().map(|member| member.used).sum(),
        seconds_left: eta::seconds_left(view, record),
        ended: just_ended,
        notes: notes(view, record),
    };
    Some(Snapshot { update, ended, over: state != v1::ExperimentState::Active })
}

/// Why trials that could run do not, one note for each reason. That a trial waits for another one of the same
/// experiment is how things should be, and is not said.
fn notes(view: &View<'_>, experiment: &Experiment) -> Vec<String> {
    let mut reasons: BTreeMap<String, (TrialId, usize)> = BTreeMap::new();
    for &id in &experiment.trials {
        let reason = match view.cluster.explain(id) {
            None | Some(WaitReason::Needs(_)) => continue,
            Some(reason) => reason.to_string(),
        };
        reasons.entry(reason).or_insert((id, 0)).1 += 1;
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, (first, _))| *first);
    reasons
        .into_iter()
        .take(NOTES)
        .map(|(reason, (first, count))| match count {
            1 => format!("{first}: {reason}"),
            more => format!("{first} and {} more: {reason}", more - 1),
        })
        .collect()
}
