//! The ranks of an attempt on this worker, from their start to the end of the last one.
//!
//! Decides what a report, an order and an observation come to. A gang that failed is fenced: nothing that it still does
//! counts, so its processes are killed at once, without the grace that those get which are only asked to end.

use std::path::PathBuf;

use common::FailureCause;
use common::beacon::{Beacon, Phase};
use common::report::{Command, Report};
use common::result::Score;
use common::session::Progress;
use common::spec::TrialSpec;
use common::timeouts::ranks::{LAST_WORDS, LOOK, TESTIMONY};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use super::devices::{Finding, Gpus};
use super::judge::{Judge, Spread, Verdict};
use super::observe::{Memory, Seen};
use super::outcome::Outcomes;
use super::patterns::Match;
use super::uploads::{Upload, Uploads};
use super::watcher::{Sight, Watcher};
use super::{Attempt, AttemptEvent, AttemptOrder, Files, Note, work_dir};
use crate::leftovers;
use crate::process::{RankEvent, RankOrder, Started};

/// Most of the memory limit that may be used without a warning, in percent.
const SAFE_MEMORY_PERCENT: u64 = 90;

/// The ranks of an attempt on this worker.
pub struct Gang<'a> {
    attempt: &'a Attempt,
    files: Files,
    ranks: Vec<(u32, Started)>,
    outcomes: Outcomes,
    uploads: &'a Uploads,
    watcher: Watcher,
    judge: Judge,
    /// When the last judgement was made; `None` while ranks stand still by order.
    judged: Option<Instant>,
    suspended: bool,
    /// What each rank last said, in the order of `ranks`.
    beacons: Vec<Option<Beacon>>,
    warned_of_memory: bool,
    gpus: Gpus,
}

impl<'a> Gang<'a> {
    /// A gang of processes that were just started.
    pub fn new(attempt: &'a Attempt, files: Files, ranks: Vec<(u32, Started)>, uploads: &'a Uploads) -> Self {
        let launch = &attempt.launch;
        let spread = match (launch.world_size, launch.ranks) {
            (1, _) => Spread::Alone,
            (world, here) if world == here => Spread::Here,
            (_, _) => Spread::Workers,
        };
        let processes = ranks.iter().map(|(rank, started)| (*rank, started.pid));
        let folder = attempt.context.folder(launch.attempt);
        let watcher = Watcher::start(&folder, processes, &attempt.context.config.log_patterns);
        let beacons = vec![None; ranks.len()];
        Self {
            attempt,
            files,
            ranks,
            outcomes: Outcomes::default(),
            uploads,
            watcher,
            judge: Judge::new(spread, attempt.timeouts),
            judged: None,
            suspended: false,
            beacons,
            warned_of_memory: false,
            gpus: Gpus::new(attempt),
        }
    }

    /// Handles what ranks say and do until the last one is gone.
    pub async fn watch(
        mut self,
        inbox: &mut mpsc::Receiver<RankEvent>,
        orders: &mut mpsc::UnboundedReceiver<AttemptOrder>,
    ) -> Outcomes {
        let mut alive = self.ranks.len();
        let mut open = true;
        let mut kill_at = None;
        while alive > 0 {
            let last_words = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(event) = inbox.recv() => match event {
                    RankEvent::Report(rank, report) => self.report(rank, report).await,
                    RankEvent::Gone(rank, status) => {
                        alive -= 1;
                        if self.gone(rank, status) {
                            let patience = if self.outcomes.explained() { Duration::ZERO } else { LAST_WORDS };
                            let at = Instant::now() + patience;
                            kill_at = Some(kill_at.map_or(at, |known: Instant| known.min(at)));
                        }
                    }
                },
                order = orders.recv(), if open => {
                    open = order.is_some();
                    self.obey(order.unwrap_or(AttemptOrder::Stop)).await;
                }
                sight = self.watcher.next() => self.see(sight).await,
                () = last_words => {
                    self.order(|| RankOrder::Kill).await;
                    kill_at = None;
                }
            }
        }
        self.watcher.last_look().await;
        self.gpus.last_look();
        self.tell_incidents().await;
        self.outcomes
    }

    /// Whether the gang cannot succeed any more.
    fn gone(&mut self, rank: u32, status: std::io::Result<std::process::ExitStatus>) -> bool {
        self.watcher.forget(rank);
        let folder = self.attempt.context.folder(self.attempt.launch.attempt);
        leftovers::forget(&folder, rank);
        self.outcomes.gone(rank, status)
    }

    async fn obey(&mut self, order: AttemptOrder) {
        match order {
            AttemptOrder::Rendezvous(address) => self.introduce(&address).await,
            AttemptOrder::Yield => self.give_way().await,
            AttemptOrder::Suspend => self.suspend().await,
            AttemptOrder::Resume => {
                self.suspended = false;
                self.order(|| RankOrder::Resume).await;
            }
            AttemptOrder::Lease(until) => self.tell_lease(until),
            AttemptOrder::Stop => {
                self.outcomes.stopped();
                // What stands still is fenced, and could not hear that it should end.
                if self.suspended {
                    self.order(|| RankOrder::Kill).await;
                } else {
                    self.order(|| RankOrder::Stop).await;
                }
            }
        }
    }

    /// Tells every rank until when it may compute. One that takes orders no longer is about to end, and waiting for it would
    /// hold up the others.
    fn tell_lease(&self, until: Duration) {
        for (_, started) in &self.ranks {
            drop(started.orders.try_send(RankOrder::Lease(until)));
        }
    }

    /// Makes every rank stand still, and keeps that from being taken for hanging.
    pub async fn suspend(&mut self) {
        self.suspended = true;
        self.judged = None;
        self.judge.forget();
        self.order(|| RankOrder::Suspend).await;
    }

    /// Ends early with nothing lost. Where there is nothing to lose, at once; a rank that stands still by order hears of it
    /// when it goes on.
    async fn give_way(&mut self) {
        if self.outcomes.is_done() {
            return;
        }
        let trains = match &self.attempt.launch.spec {
            TrialSpec::Train(_) => true,
            TrialSpec::Evaluate(_) => false,
        };
        let has_begun = |beacon: &Option<Beacon>| match beacon {
            // A trainer of another kind, or one that was not seen yet: it knows best.
            None => true,
            Some(beacon) => !matches!(beacon.phase, Phase::Loading | Phase::Rendezvous),
        };
        if trains && self.beacons.iter().any(has_begun) {
            self.order(|| RankOrder::Tell(Command::Yield)).await;
        } else {
            self.outcomes.stopped();
            self.order(|| RankOrder::Kill).await;
        }
    }

    async fn order(&self, order: impl Fn() -> RankOrder) {
        for (_, started) in &self.ranks {
            // A rank that is gone takes no orders.
            drop(started.orders.send(order()).await);
        }
    }

    /// Tells every rank but 0 where the rendezvous store is.
    pub async fn introduce(&self, address: &str) {
        for (rank, started) in &self.ranks {
            if *rank != 0 {
                let command = Command::Rendezvous { address: address.to_owned() };
                drop(started.orders.send(RankOrder::Tell(command)).await);
            }
        }
    }

    /// Takes note of what was seen of the ranks, and ends the gang if it must.
    async fn see(&mut self, sight: Sight) {
        self.tell_incidents().await;
        for seen in &sight.ranks {
            if let Some(index) = self.ranks.iter().position(|(rank, _)| *rank == seen.sighting.rank) {
                self.beacons[index] = seen.sighting.beacon;
            }
        }
        // Of a gang that stands still by order, or is being ended, nothing more is to be learned.
        if self.suspended || self.outcomes.explained() {
            return;
        }
        self.measure_memory(&sight.ranks).await;
        self.look_at_gpus().await;
        let sightings: Vec<_> = sight.ranks.iter().map(|seen| seen.sighting).collect();
        // When the agent itself was held up, nothing is known of the time between.
        let elapsed = self.judged.map_or(Duration::ZERO, |before| sight.at - before);
        let elapsed = elapsed.min(LOOK * 2);
        self.judged = Some(sight.at);
        if let Some(verdict) = self.judge.see(elapsed, &sightings) {
            self.judge.forget();
            self.sentence(verdict).await;
        }
    }

    async fn sentence(&mut self, verdict: Verdict) {
        let cause = match verdict {
            Verdict::Hung { rank, step, phase, silent } => FailureCause::Hung {
                rank,
                worker: self.attempt.context.config.name.clone(),
                step,
                phase: phase.map_or_else(|| "starting".to_owned(), |phase| phase.to_string()),
                silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
            },
            Verdict::Waits { rank } => FailureCause::CollectiveFailed { rank },
        };
        let message = match verdict {
            Verdict::Hung { .. } => format!("{cause}; what each rank was doing stands at the end of its log"),
            Verdict::Waits { .. } => {
                "all ranks here wait for one on another worker, which does not come".to_owned()
            }
        };
        // Before the end, because then there is nothing left to look at; but a disk that hangs must not delay it.
        let why = cause.to_string();
        let testimony = self.watcher.testify(&why);
        if tokio::time::timeout(TESTIMONY, testimony).await.is_err() {
            tracing::warn!("what the ranks were doing could not be written in time");
        }
        self.condemn(cause, message).await;
    }

    async fn condemn(&mut self, cause: FailureCause, message: String) {
        self.outcomes.condemned(cause);
        // First the end: who waits for the slots should not wait for words.
        self.order(|| RankOrder::Kill).await;
        self.attempt.tell(AttemptEvent::Note(Note::Warning(message))).await;
    }

    /// Ends the gang when a rank has more memory than a slot has, and warns when that is near.
    async fn measure_memory(&mut self, ranks: &[Seen]) {
        let limit_mib = self.attempt.context.config.slot_memory_mib;
        if limit_mib == 0 {
            return;
        }
        for Seen { sighting, memory: Memory { now, .. } } in ranks {
            let (rank, used_mib) = (sighting.rank, now / 1024);
            if used_mib > limit_mib {
                let message = format!(
                    "rank {rank} uses {used_mib} MiB of memory; a slot of this worker has {limit_mib} (`slot-memory-mib`)"
                );
                self.condemn(FailureCause::OutOfMemory, message).await;
                return;
            }
            if used_mib * 100 > limit_mib * SAFE_MEMORY_PERCENT && !self.warned_of_memory {
                self.warned_of_memory = true;
                let message = format!("rank {rank} uses {used_mib} of the {limit_mib} MiB that its slot has");
                self.attempt.tell(AttemptEvent::Note(Note::Warning(message))).await;
            }
        }
    }

    async fn look_at_gpus(&mut self) {
        let processes = self.ranks.iter().map(|(rank, started)| (*rank, started.pid));
        for finding in self.gpus.look(processes) {
            match finding {
                Finding::Broken(message) => {
                    self.condemn(FailureCause::Unhealthy { message: message.clone() }, message).await;
                    return;
                }
                Finding::Large(message) => {
                    self.attempt.tell(AttemptEvent::Note(Note::Warning(message))).await
                }
            }
        }
    }

    async fn tell_incidents(&self) {
        for Match { rank, pattern, line, quarantine } in self.watcher.take_matches() {
            tracing::warn!(rank, pattern, line, "a line of a trainer's log matches a pattern");
            self.attempt.tell(AttemptEvent::Note(Note::Incident { rank, pattern, line, quarantine })).await;
        }
    }

    /// Folder of a rank, from which the paths that it reports start unless they are absolute.
    fn work_dir(&self, rank: u32) -> PathBuf {
        work_dir(&self.attempt.context.folder(self.attempt.launch.attempt), rank)
    }

    async fn report(&mut self, rank: u32, report: Report) {
        match report {
            Report::Rendezvous { address } => {
                self.introduce(&address).await;
                self.attempt.tell(AttemptEvent::Rendezvous(address)).await;
            }
            Report::Progress { step, total_steps, loss, steps_per_second } => {
                let progress = Progress { step, total_steps, loss, steps_per_second };
                self.attempt.tell(AttemptEvent::Progress(progress)).await;
            }
            Report::Metrics { rows } => self.attempt.tell(AttemptEvent::Metrics(rows)).await,
            Report::Checkpoint { step, path, score } => {
                let (path, score) = (self.work_dir(rank).join(path), score.and_then(Score::new));
                self.uploads.push(Upload::Checkpoint { step, path, score });
            }
            Report::Artifact { name, path } => {
                self.uploads.push(Upload::Artifact { name, path: self.work_dir(rank).join(path) });
            }
            Report::Warning { message } => {
                tracing::warn!(rank, message, "a trainer warns");
                self.attempt.tell(AttemptEvent::Note(Note::Warning(message))).await;
            }
            Report::CheckpointRefused { path, message } => {
                let damaged =
                    self.files.restore.iter().find(|(_, file)| *file == path).map(|&(digest, _)| digest);
                if let Some(digest) = damaged {
                    self.attempt.tell(AttemptEvent::Damaged(digest, message)).await;
                }
            }
            Report::Yielded { .. } => self.outcomes.yielded(),
            Report::Failed { cause } => self.outcomes.failed(rank, cause),
            Report::Done { metrics } => self.outcomes.done(metrics),
            // Of the process, which its reader keeps to itself.
            Report::Ready => {}
        }
    }
}
