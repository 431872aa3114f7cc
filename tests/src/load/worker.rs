//! One worker session over gRPC, with trainers that only pretend.
//!
//! It keeps the agent's promises: everything that is open is told again to a new session, rows until they are
//! acknowledged and ends until they are released, and the end of an attempt comes after its rows and its checkpoint.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::v1::worker_session_client::WorkerSessionClient;
use proto::v1::{self, attempt_end, attempt_report, from_worker, to_worker};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::record::{ROW, Record, SCORE, row_value, score};

/// Pause before a session that broke is opened again.
const RECONNECT: Duration = Duration::from_millis(200);

/// Messages that may wait for the network.
const OUTGOING: usize = 256;

/// How long the fake trainers take, and what they report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    /// From launch to end.
    pub(super) duration: Duration,
    /// Metric reports of a train trial.
    pub(super) reports: u32,
    /// Rows in each.
    pub(super) rows: u32,
}

/// What all workers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) script: Script,
    pub(super) record: Record,
    /// The checkpoint that every train trial leaves.
    pub(super) checkpoint: v1::Checkpoint,
    /// Launches up to which a free slot surely has a queued trial; later ones say nothing about dispatch.
    pub(super) backlog: u64,
    pub(super) rows_told: AtomicU64,
    pub(super) sessions: AtomicU64,
}

/// A worker.
#[derive(Debug)]
pub(super) struct FakeWorker {
    id: u64,
    channel: Channel,
    shared: Arc<Shared>,
    held: BTreeMap<u64, Held>,
    /// When a slot became free, oldest first.
    free: VecDeque<Instant>,
    steps: mpsc::Sender<u64>,
    due: mpsc::Receiver<u64>,
    /// Counts the heartbeats of the session.
    beats: u64,
}

/// An attempt until it is released.
#[derive(Debug)]
struct Held {
    key: String,
    trains: bool,
    reported: u32,
    unacknowledged: BTreeMap<u64, Vec<v1::MetricRow>>,
    ended: bool,
}

/// Why a session is over.
enum Over {
    Broken,
    Stopped,
}

impl FakeWorker {
    pub(super) fn new(id: u64, channel: Channel, shared: Arc<Shared>) -> Self {
        let (steps, due) = mpsc::channel(64);
        Self { id, channel, shared, held: BTreeMap::new(), free: VecDeque::new(), steps, due, beats: 0 }
    }

    /// Serves until it is told to stop; a session that breaks is opened again.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            match self.session(&mut stop).await {
                Over::Stopped => return,
                Over::Broken => tokio::time::sleep(RECONNECT).await,
            }
        }
    }

    async fn session(&mut self, stop: &mut watch::Receiver<bool>) -> Over {
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        self.beats = 0;
        let mut client = WorkerSessionClient::new(self.channel.clone());
        if tell(&outgoing, from_worker::Message::Hello(self.hello())).await.is_err() {
            return Over::Broken;
        }
        let Ok(response) = client.session(ReceiverStream::new(messages)).await else { return Over::Broken };
        let mut incoming = response.into_inner();
        let Some(heartbeat) = welcome(&mut incoming).await else { return Over::Broken };
        self.shared.sessions.fetch_add(1, Ordering::Relaxed);
        if self.tell_again(&outgoing).await.is_err() {
            return Over::Broken;
        }
        let mut beat = tokio::time::interval(heartbeat);
        loop {
            let told = tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(v1::ToWorker { message: Some(message) })) => { self.hear(message); Ok(()) }
                    Ok(Some(v1::ToWorker { message: None })) => Ok(()),
                    Ok(None) | Err(_) => return Over::Broken,
                },
                Some(attempt) = self.due.recv() => self.step(attempt, &outgoing).await,
                _ = beat.tick() => {
                    let heartbeat = self.heartbeat();
                    tell(&outgoing, from_worker::Message::Heartbeat(heartbeat)).await
                }
                _ = stop.changed() => return Over::Stopped,
            };
            if told.is_err() {
                return Over::Broken;
            }
        }
    }

    fn hello(&self) -> v1::Hello {
        v1::Hello {
            protocol: common::session::PROTOCOL,
            worker_id: self.id,
            name: format!("load-{}", self.id),
            host: "127.0.0.1".to_owned(),
            slots: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            attempts: self.reports(),
            device: "cpu".to_owned(),
            ..v1::Hello::default()
        }
    }

    fn heartbeat(&mut self) -> v1::Heartbeat {
        self.beats += 1;
        v1::Heartbeat { sequence: self.beats, attempts: self.reports(), faults: Vec::new() }
    }

    fn reports(&self) -> Vec<v1::AttemptReport> {
        let report = |(&attempt_id, held): (&u64, &Held)| {
            let state = if held.ended {
                attempt_report::State::Ended(held.end())
            } else {
                let running =
                    v1::AttemptRunning { rendezvous: String::new(), step: held.step(&self.shared.script) };
                attempt_report::State::Running(running)
            };
            v1::AttemptReport { attempt_id, state: Some(state) }
        };
        self.held.iter().map(report).collect()
    }

    async fn tell_again(&self, outgoing: &mpsc::Sender<v1::FromWorker>) -> Result<(), Gone> {
        for (&attempt_id, held) in &self.held {
            for (&sequence, rows) in &held.unacknowledged {
                let rows = rows.clone();
                tell(
                    outgoing,
                    from_worker::Message::Metrics(v1::MetricReport { attempt_id, sequence, rows }),
                )
                .await?;
            }
            if held.ended {
                self.tell_end(attempt_id, held, outgoing).await?;
            }
        }
        Ok(())
    }

    fn hear(&mut self, message: to_worker::Message) {
        match message {
            to_worker::Message::Launch(launch) => self.launch(&launch),
            to_worker::Message::Release(v1::Release { attempt_id }) => drop(self.held.remove(&attempt_id)),
            to_worker::Message::MetricAck(v1::MetricAck { attempt_id, sequence }) => {
                if let Some(held) = self.held.get_mut(&attempt_id) {
                    held.unacknowledged.retain(|&told, _| told > sequence);
                }
            }
            to_worker::Message::Welcome(_)
            | to_worker::Message::Rendezvous(_)
            | to_worker::Message::FetchLog(_)
            | to_worker::Message::HeartbeatAck(_)
            | to_worker::Message::Prefetch(_)
            // Trials of a load run have one priority, and end by themselves soon.
            | to_worker::Message::Preempt(_) => {}
        }
    }

    fn launch(&mut self, launch: &v1::Launch) {
        let attempt = launch.attempt_id;
        if self.held.contains_key(&attempt) {
            return; // The order was repeated, because a heartbeat crossed it.
        }
        let sure = self.shared.record.launches() < self.shared.backlog;
        let free = self.free.pop_front().filter(|_| sure);
        self.shared.record.launched(&launch.trial_key, attempt, free);
        let held = Held {
            key: launch.trial_key.clone(),
            trains: launch.networks.is_empty(),
            reported: 0,
            unacknowledged: BTreeMap::new(),
            ended: false,
        };
        self.held.insert(attempt, held);
        let Script { duration, reports, .. } = self.shared.script;
        let steps = self.steps.clone();
        tokio::spawn(async move {
            for _ in 0..reports {
                tokio::time::sleep(duration / reports).await;
                // A worker that was stopped hears nothing.
                let _ = steps.send(attempt).await;
            }
        });
    }

    /// One part of an attempt's time is over.
    async fn step(&mut self, attempt: u64, outgoing: &mpsc::Sender<v1::FromWorker>) -> Result<(), Gone> {
        let Script { reports, rows, .. } = self.shared.script;
        let Some(held) = self.held.get_mut(&attempt) else { return Ok(()) };
        held.reported += 1;
        if held.trains {
            let sequence = u64::from(held.reported);
            let first = (sequence - 1) * u64::from(rows) + 1;
            let row = |step| v1::MetricRow {
                step,
                name: ROW.to_owned(),
                value: row_value(&held.key, step),
                attempt_id: String::new(),
            };
            let told: Vec<_> = (first..first + u64::from(rows)).map(row).collect();
            held.unacknowledged.insert(sequence, told.clone());
            self.shared.rows_told.fetch_add(told.len() as u64, Ordering::Relaxed);
            let report = v1::MetricReport { attempt_id: attempt, sequence, rows: told };
            tell(outgoing, from_worker::Message::Metrics(report)).await?;
        }
        if held.reported == reports {
            held.ended = true;
            self.shared.record.ended(&held.key, attempt);
            self.free.push_back(Instant::now());
            let held = &self.held[&attempt];
            self.tell_end(attempt, held, outgoing).await?;
        }
        Ok(())
    }

    async fn tell_end(
        &self,
        attempt_id: u64,
        held: &Held,
        outgoing: &mpsc::Sender<v1::FromWorker>,
    ) -> Result<(), Gone> {
        if held.trains {
            let checkpoint = Some(self.shared.checkpoint.clone());
            tell(
                outgoing,
                from_worker::Message::CheckpointStored(v1::CheckpointStored { attempt_id, checkpoint }),
            )
            .await?;
        }
        let end = Some(held.end());
        tell(outgoing, from_worker::Message::AttemptEnded(v1::AttemptEnded { attempt_id, end })).await
    }
}

impl Held {
    fn step(&self, script: &Script) -> u64 {
        u64::from(self.reported * script.rows)
    }

    fn end(&self) -> v1::AttemptEnd {
        let metrics = [(SCORE.to_owned(), score(&self.key))].into();
        let result = Some(v1::TrialResult { metrics, artifacts: Vec::new() });
        v1::AttemptEnd { end: Some(attempt_end::End::Succeeded(v1::ShareSucceeded { result })) }
    }
}

/// The session's stream is gone.
struct Gone;

async fn tell(outgoing: &mpsc::Sender<v1::FromWorker>, message: from_worker::Message) -> Result<(), Gone> {
    outgoing.send(v1::FromWorker { message: Some(message) }).await.map_err(|_| Gone)
}

async fn welcome(incoming: &mut Streaming<v1::ToWorker>) -> Option<Duration> {
    match incoming.message().await.ok()??.message? {
        to_worker::Message::Welcome(welcome) => Some(Duration::from_millis(welcome.heartbeat_ms)),
        to_worker::Message::Launch(_)
        | to_worker::Message::Release(_)
        | to_worker::Message::Rendezvous(_)
        | to_worker::Message::MetricAck(_)
        | to_worker::Message::FetchLog(_)
        | to_worker::Message::HeartbeatAck(_)
        | to_worker::Message::Preempt(_)
        | to_worker::Message::Prefetch(_) => None,
    }
}
