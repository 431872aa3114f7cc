//! What users ask meanwhile, and how long they wait for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::v1::credence_client::CredenceClient;
use proto::v1::{
    GetExperimentRequest, GetTableRequest, GetTrialRequest, ListTrialsRequest, SubmitRequest, TableFormat,
};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::figures::Latency;
use crate::draws::Draws;

/// Answers may be as large as the command line accepts.
const LARGEST: usize = 256 << 20;

/// A client.
pub(super) type Client = CredenceClient<Channel>;

pub(super) fn client(channel: Channel) -> Client {
    CredenceClient::new(channel).max_decoding_message_size(LARGEST)
}

/// Times of answers by kind of request.
#[derive(Debug, Default)]
pub(super) struct Times(Mutex<BTreeMap<&'static str, Vec<Duration>>>);

impl Times {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Vec<Duration>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, kind: &'static str, times: impl IntoIterator<Item = Duration>) {
        self.lock().entry(kind).or_default().extend(times);
    }

    /// Waits for an answer and keeps how long it took.
    ///
    /// # Panics
    ///
    /// When the coordinator refuses: nothing that a load run asks is wrong.
    pub(super) async fn of<T>(
        &self,
        kind: &'static str,
        request: impl Future<Output = Result<Response<T>, Status>>,
    ) -> T {
        let start = Instant::now();
        let answer = request.await.unwrap_or_else(|status| panic!("{kind}: {status}"));
        self.add(kind, [start.elapsed()]);
        answer.into_inner()
    }

    pub(super) fn latencies(&self) -> BTreeMap<&'static str, Latency> {
        let times = self.lock();
        times.iter().filter_map(|(&kind, times)| Some((kind, Latency::of(times.clone())?))).collect()
    }
}

/// Experiments that were accepted so far.
#[derive(Debug, Default)]
pub(super) struct Accepted(Mutex<Vec<String>>);

impl Accepted {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, experiment: String) {
        self.lock().push(experiment);
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn draw(&self, draws: &mut Draws) -> Option<String> {
        let all = self.lock();
        (!all.is_empty()).then(|| draws.one_of(&all).clone())
    }
}

/// Submits a grid; returns the experiment and its number of trials.
pub(super) async fn submit(client: &mut Client, grid: String, times: &Times) -> (String, u32) {
    let request = SubmitRequest { grid, client_version: "load".to_owned(), dry_run: false };
    let answer = times.of("submit", client.submit(request)).await;
    (answer.experiment_id, answer.new_trials)
}

/// Asks one kind of question after the other, at this pace, about experiments drawn at random.
pub(super) async fn ask_meanwhile(
    mut client: Client,
    accepted: Arc<Accepted>,
    times: Arc<Times>,
    pace: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let mut draws = Draws::new(1);
    let mut turn = tokio::time::interval(pace);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turn.tick() => {}
            _ = stop.changed() => return,
        }
        let Some(name) = accepted.draw(&mut draws) else { continue };
        let request = GetExperimentRequest { experiment: name.clone() };
        times.of("status of an experiment", client.get_experiment(request)).await;
        let request = ListTrialsRequest { experiment: name.clone() };
        let trials = times.of("list of its trials", client.list_trials(request)).await.trials;
        let request = GetTrialRequest { trial: draws.one_of(&trials).id.clone() };
        times.of("status of a trial", client.get_trial(request)).await;
        let request = GetTableRequest {
            experiment: name,
            format: TableFormat::Json.into(),
            ..GetTableRequest::default()
        };
        times.of("table", client.get_table(request)).await;
    }
}
