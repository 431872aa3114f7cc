//! What the ranks of an attempt on one machine do in one tick.

use std::collections::BTreeMap;

use common::result::{Artifact, MetricRow, TrialResult};
use common::session::{AttemptEnd, Launch, Progress};
use common::{AttemptId, Digest, FailureCause, WorkerId};
use worker_core::{AttemptEvent, Input, Note};

use super::World;
use super::machine::stored_log;
use crate::grid::{poison, steps};
use crate::node::{Ranks, Share, Stage};

/// Steps between checkpoints.
const CHECKPOINT: u64 = 4;

/// Ticks without peers after which a collective fails, and how long the first one waits.
const COLLECTIVE: u64 = 5;
const MEETING: u64 = 300;

impl World {
    /// Groups whose ranks have all met, with the step of rank 0.
    pub(super) fn groups(&self) -> BTreeMap<AttemptId, u64> {
        let mut joined: BTreeMap<AttemptId, (u32, u32, u64)> = BTreeMap::new();
        let live = self.nodes.values().filter(|node| node.is_live(self.now));
        for share in live.flat_map(|node| node.shares.values()).filter(|share| share.has_joined()) {
            let Launch { attempt, ranks, world_size, .. } = share.launch;
            let group = joined.entry(attempt).or_insert((0, world_size, 0));
            group.0 += ranks;
            if let (Stage::Training(ranks), true) = (&share.stage, share.leads()) {
                group.2 = ranks.step;
            }
        }
        let whole = joined.into_iter().filter(|(_, (ranks, world_size, _))| ranks == world_size);
        whole.map(|(attempt, (_, _, step))| (attempt, step)).collect()
    }

    pub(super) fn share(&mut self, id: WorkerId, attempt: AttemptId) -> &mut Share {
        self.node(id).shares.get_mut(&attempt).unwrap()
    }

    fn say(&mut self, id: WorkerId, attempt: AttemptId, event: AttemptEvent) {
        self.tell_agent(id, Input::Attempt(attempt, event));
    }

    pub(super) fn tick_share(&mut self, id: WorkerId, attempt: AttemptId, together: Option<u64>) {
        let gone = self.share(id, attempt).gone_at.is_some_and(|at| at <= self.now);
        let asleep = self.nodes[&id].is_asleep(self.now);
        match &self.share(id, attempt).stage {
            // The agent does this.
            Stage::Preparing | Stage::Storing(_) if asleep => {}
            Stage::Preparing if gone => {
                self.say(id, attempt, AttemptEvent::ProcessesGone);
                self.end_share(id, attempt, Err(FailureCause::Preempted), true);
            }
            Stage::Preparing => self.prepare(id, attempt),
            Stage::Training(_) if gone => self.processes_end(id, attempt, Err(FailureCause::Preempted)),
            Stage::Training(_) => self.train(id, attempt, together),
            Stage::Storing(end) => {
                let end = end.clone();
                self.store_rest(id, attempt, end);
            }
        }
    }

    /// Reads what the trial starts from; then its processes start, and rank 0 opens the store.
    fn prepare(&mut self, id: WorkerId, attempt: AttemptId) {
        if !self.reaches(id) || self.chance(0.3) {
            return;
        }
        let launch = self.share(id, attempt).launch.clone();
        let bad = |digest: &Digest| !self.blobs.contains(digest) || self.rotten.contains(digest);
        let message = "damaged".to_owned();
        if let Some(digest) = launch.networks.iter().map(|(_, held)| held.digest).find(bad) {
            self.say(id, attempt, AttemptEvent::Damaged(digest, message.clone()));
            self.say(id, attempt, AttemptEvent::ProcessesGone);
            return self.end_share(id, attempt, Err(FailureCause::LaunchFailed { message }), false);
        }
        let damaged: Vec<Digest> =
            launch.restore.iter().map(|held| held.digest).take_while(|digest| bad(digest)).collect();
        let step = launch.restore.get(damaged.len()).map_or(0, |held| held.step);
        for digest in damaged {
            self.say(id, attempt, AttemptEvent::Damaged(digest, message.clone()));
        }
        let share = self.share(id, attempt);
        share.stage = Stage::Training(Ranks { step, ..Ranks::default() });
        if share.leads() && !share.is_whole() {
            let address = format!("{id}/{attempt}");
            share.rendezvous = Some(address.clone());
            self.say(id, attempt, AttemptEvent::Rendezvous(address));
        }
    }

    fn train(&mut self, id: WorkerId, attempt: AttemptId, together: Option<u64>) {
        let broken = self.now < self.nodes[&id].broken_until;
        let dies = self.fault(if broken { 0.05 } else { 0.002 });
        let hangs = self.fault(0.005);
        let blamed = self.fault(0.0004);
        let now = self.now;
        let share = self.share(id, attempt);
        let still = share.stands_still();
        let stops = share.yield_at.is_some_and(|at| at <= now);
        let last = steps(&share.launch.spec);
        if dies {
            return self.processes_end(id, attempt, Err(FailureCause::TrainerExit { code: 1 }));
        }
        if still {
            return;
        }
        let asleep = self.nodes[&id].is_asleep(now);
        if blamed && !asleep {
            self.blame(id, attempt);
        }
        let ranks = self.share(id, attempt).ranks();
        if !asleep && ranks.named_at.is_some_and(|at| at <= now) {
            let (step, worker) = (ranks.step, format!("node-{id}"));
            let rank = self.share(id, attempt).launch.first_rank;
            let cause = FailureCause::Hung { rank, worker, step, phase: "forward".to_owned(), silent_ms: 20 };
            self.oracle.note("hung and named");
            return self.processes_end(id, attempt, Err(cause));
        }
        if ranks.hung {
            return;
        }
        if ranks.met && ranks.step >= last {
            return self.finish(id, attempt);
        }
        if stops {
            return self.stop(id, attempt);
        }
        self.step(id, attempt, together, hangs);
    }

    /// The ranks of a share make a step with their peers, or wait for them.
    fn step(&mut self, id: WorkerId, attempt: AttemptId, together: Option<u64>, hangs: bool) {
        let named = self.chance(0.5);
        let now = self.now;
        let share = self.share(id, attempt);
        let last = steps(&share.launch.spec);
        let (trains, rank) = (share.trains(), share.launch.first_rank);
        let ranks = share.ranks();
        // The coordinator finds out what hangs by the steps that it reported before.
        let named = named || !trains || !ranks.met;
        let Some(step) = together else {
            ranks.alone += 1;
            if ranks.alone > if ranks.met { COLLECTIVE } else { MEETING } {
                self.processes_end(id, attempt, Err(FailureCause::CollectiveFailed { rank }));
            }
            return;
        };
        (ranks.met, ranks.alone, ranks.hung) = (true, 0, hangs);
        if hangs {
            ranks.named_at = named.then_some(now + 20);
            return;
        }
        // One that went on from its last checkpoint has no step left to make.
        ranks.step = (step + 1).min(last);
        if ranks.step > step {
            self.after_step(id, attempt, step + 1);
        }
    }

    fn after_step(&mut self, id: WorkerId, attempt: AttemptId, step: u64) {
        let share = self.share(id, attempt);
        let (leads, trains, spec) = (share.leads(), share.trains(), share.launch.spec.clone());
        if poison(&spec) == Some(step) {
            return self.processes_end(id, attempt, Err(FailureCause::NonFiniteLoss { step }));
        }
        if !leads {
            return;
        }
        if trains {
            let row = MetricRow { step, name: "loss".to_owned(), value: step as f64 / 8.0 };
            self.measured.entry(attempt).or_default().push(row.clone());
            self.say(id, attempt, AttemptEvent::Metrics(vec![row]));
            let progress = Progress { step, ..Progress::default() };
            self.say(id, attempt, AttemptEvent::Progress(progress));
            if step.is_multiple_of(CHECKPOINT) || step == steps(&spec) {
                self.save(id, attempt, step);
            }
        }
        self.upload(id, attempt);
    }

    /// A line of a log says that the worker is broken.
    fn blame(&mut self, id: WorkerId, attempt: AttemptId) {
        self.oracle.note("incident");
        let rank = self.share(id, attempt).launch.first_rank;
        let (pattern, line) = ("ecc".to_owned(), "uncorrectable ECC error".to_owned());
        let quarantine = self.chance(0.4);
        self.say(id, attempt, AttemptEvent::Note(Note::Incident { rank, pattern, line, quarantine }));
    }

    /// Stops at a checkpoint.
    fn stop(&mut self, id: WorkerId, attempt: AttemptId) {
        let share = self.share(id, attempt);
        let (leads, step) = (share.leads(), share.ranks().step);
        let first = !std::mem::replace(&mut share.ranks().stopping, true);
        if first && leads && step > 0 {
            self.save(id, attempt, step);
        }
        // Processes do not end all at once.
        if self.chance(0.3) {
            self.oracle.note("stopped at a checkpoint");
            self.processes_end(id, attempt, Err(FailureCause::Preempted));
        }
    }

    /// All steps are made.
    fn finish(&mut self, id: WorkerId, attempt: AttemptId) {
        if !self.share(id, attempt).leads() {
            if self.chance(0.1) {
                self.processes_end(id, attempt, Ok(None));
            }
            return;
        }
        let digest = Digest::of(format!("predictions of {attempt}").as_bytes());
        let artifacts = vec![Artifact { name: "predictions".to_owned(), digest, bytes: 10 }];
        let shares = self.oracle.placement(attempt).unwrap().shares().len();
        let metrics = [("attempt", attempt.0 as f64), ("shares", shares as f64)];
        let metrics = metrics.map(|(name, value)| (name.to_owned(), value)).into();
        self.processes_end(id, attempt, Ok(Some(TrialResult { metrics, artifacts })));
    }

    /// The last process is gone, so the slots are free. What it left is still to be stored.
    fn processes_end(&mut self, id: WorkerId, attempt: AttemptId, end: AttemptEnd) {
        self.share(id, attempt).stage = Stage::Storing(end);
        self.say(id, attempt, AttemptEvent::ProcessesGone);
    }

    fn store_rest(&mut self, id: WorkerId, attempt: AttemptId, end: AttemptEnd) {
        self.upload(id, attempt);
        if self.share(id, attempt).upload.is_some() {
            return;
        }
        if let Ok(Some(TrialResult { artifacts, .. })) = &end {
            if !self.reaches(id) || self.fault(0.3) {
                return;
            }
            for artifact in artifacts {
                self.store(artifact.digest);
            }
        }
        // Who leaves takes what runs there along.
        let unharmed = self.nodes[&id].leaving || !self.share(id, attempt).harmed;
        self.say(id, attempt, stored_log(attempt));
        self.end_share(id, attempt, end, unharmed);
    }

    /// The attempt is over here. `unharmed`: no work was lost by it.
    fn end_share(&mut self, id: WorkerId, attempt: AttemptId, end: AttemptEnd, unharmed: bool) {
        // An agent that had only waited for this one's processes may have ended meanwhile.
        let Some(share) = self.node(id).shares.remove(&attempt) else { return };
        if end.is_ok() || (end == Err(FailureCause::Preempted) && unharmed) {
            self.oracle.share_finished(attempt, share.launch.first_rank, end.is_ok());
        }
        self.say(id, attempt, AttemptEvent::Ended(end));
    }
}
