//! What must be true of the log, and of the answers, seen from outside: knows the rules, not the code.

mod rest;
mod standing;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use common::result::{Checkpoint, Score};
use common::spec::RunPolicy;
use common::{AttemptId, Digest, ExperimentId, FailureCause, TrialId, WorkerId};
use coordinator_core::{
    DropReason, Event, Millis, Outcome, Placement, Policy, QuarantineReason, YieldReason,
};

use standing::Standing;

/// Where a trial stands, according to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Open,
    Running(AttemptId),
    Ended,
}

#[derive(Debug)]
struct Story {
    stand: Stand,
    succeeded: bool,
    needs: Vec<TrialId>,
    /// Failures that count since the trial was opened, and how many are forgiven.
    failures: u32,
    forgiven: u32,
    newest_step: Option<u64>,
    /// Steps of checkpoints by their content.
    steps: BTreeMap<Digest, u64>,
    /// Whether its best checkpoint is to be kept.
    keeps_best: bool,
    /// Scores of checkpoints that were not dropped, by their steps.
    scores: BTreeMap<u64, Score>,
    /// Attempts that lost a worker, since it was opened.
    lost: u32,
    /// Failures in a row that no budget counts, on workers on which it had failed, and until when it rests after the last.
    setbacks: u32,
    lost_in_a_row: u32,
    rests_until: u64,
    failed_on: BTreeSet<WorkerId>,
    /// Experiments that wait for it.
    wanted_by: BTreeSet<ExperimentId>,
}

impl Story {
    fn new(needs: Vec<TrialId>, policy: &RunPolicy) -> Self {
        Self {
            stand: Stand::Open,
            succeeded: false,
            needs,
            failures: 0,
            forgiven: policy.max_failures,
            newest_step: None,
            steps: BTreeMap::new(),
            keeps_best: policy.keep_best.is_some(),
            scores: BTreeMap::new(),
            lost: 0,
            setbacks: 0,
            lost_in_a_row: 0,
            rests_until: 0,
            failed_on: BTreeSet::new(),
            wanted_by: BTreeSet::new(),
        }
    }

    /// Step of the checkpoint that must not make room for another: that with the lowest score, the newest of several.
    fn best(&self) -> Option<u64> {
        let scores = self.scores.iter().filter(|_| self.keeps_best);
        scores.min_by_key(|&(step, score)| (score, Reverse(step))).map(|(&step, _)| step)
    }
}

/// When an attempt was over, in time with a coordinator, and which of its workers were lost then.
#[derive(Debug, Default)]
pub struct End {
    pub at: u64,
    pub lost: BTreeSet<WorkerId>,
}

/// Reads the log as it grows.
#[derive(Debug)]
pub struct Oracle {
    policy: Policy,
    standing: Standing,
    /// Attempts that are over.
    ends: BTreeMap<AttemptId, End>,
    trials: BTreeMap<TrialId, Story>,
    /// Every attempt, and its trial.
    attempts: BTreeMap<AttemptId, TrialId>,
    /// Shares whose ranks all succeeded or stopped at a checkpoint, as the workers know it; and of which rank 0
    /// succeeded.
    finished: BTreeMap<AttemptId, BTreeSet<u32>>,
    done: BTreeSet<AttemptId>,
    /// Shares that were started while their attempt was current.
    started: BTreeSet<(AttemptId, WorkerId)>,
    /// The trial that a client asks to cancel by its name.
    pub cancelling: Option<TrialId>,
    /// Whether the input that is being handled can prove that an attempt is gone.
    pub proves_absence: bool,
    seen: Seen,
}

/// What happened, so that a simulation in which nothing happens is noticed.
#[derive(Clone, Debug, Default)]
pub struct Seen(BTreeMap<&'static str, u32>);

impl Seen {
    const ALL: [&'static str; 67] = [
        "agent crashed",
        "agent frozen alone",
        "attempt failed: charged",
        "attempt failed: free",
        "best outlived a newer one",
        "cancelled",
        "checkpoint damaged",
        "checkpoint lost",
        "checkpoint pinned",
        "checkpoint superseded",
        "checkpoint unpinned",
        "connection broke",
        "connection refused",
        "coordinator crashed after persisting",
        "coordinator crashed before persisting",
        "coordinator frozen",
        "experiment paused",
        "experiment resumed",
        "failed",
        "gang of several workers",
        "hello held up",
        "hello overtaken",
        "hello overtaken over a restart",
        "hung and named",
        "hung up",
        "incident",
        "late message",
        "lost too many workers",
        "machine frozen",
        "message dropped",
        "message lost",
        "messages held up",
        "need failed",
        "partition",
        "preempted",
        "prefetch told",
        "prefetched",
        "priority changed",
        "quarantined for an incident",
        "quarantined for failures",
        "remains",
        "reopened",
        "rested",
        "resubmitted",
        "rank fenced itself",
        "resumed at once",
        "rows kept from a full disk",
        "rows put on disk",
        "stalled",
        "stopped at a checkpoint",
        "succeeded",
        "trial paused",
        "trial resumed",
        "withdrawn",
        "worker cut off",
        "worker deaf",
        "worker drained",
        "worker fenced itself",
        "worker left",
        "worker lost",
        "worker mute",
        "worker undrained",
        "yield for a drain",
        "yield for a pause",
        "yield for another",
        "yield to grow",
        "yield to shrink",
    ];

    pub fn note(&mut self, what: &'static str) {
        assert!(Self::ALL.contains(&what), "{what}");
        *self.0.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    pub fn assert_all(&self) {
        for what in Self::ALL {
            assert!(self.0.contains_key(what), "never happened: {what}; only {:?}", self.0);
        }
    }
}

impl Oracle {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            standing: Standing::default(),
            ends: BTreeMap::new(),
            trials: BTreeMap::new(),
            attempts: BTreeMap::new(),
            finished: BTreeMap::new(),
            done: BTreeSet::new(),
            started: BTreeSet::new(),
            cancelling: None,
            proves_absence: false,
            seen: Seen::default(),
        }
    }

    /// How an attempt that is not current any more ended.
    pub fn end_of(&self, attempt: AttemptId) -> &End {
        &self.ends[&attempt]
    }

    /// Where an attempt was placed.
    pub fn placement(&self, attempt: AttemptId) -> Option<&Placement> {
        self.standing.placement(attempt)
    }

    /// Every attempt of a trial.
    pub fn attempts_of(&self, trial: TrialId) -> impl Iterator<Item = AttemptId> {
        self.attempts.iter().filter(move |&(_, &other)| other == trial).map(|(&attempt, _)| attempt)
    }

    /// First rank of the share that a worker has of an attempt.
    pub fn first_rank(&self, attempt: AttemptId, worker: WorkerId) -> Option<u32> {
        Some(self.placement(attempt)?.share_of(worker)?.first_rank)
    }

    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    pub fn note(&mut self, what: &'static str) {
        self.seen.note(what);
    }

    pub fn share_started(&mut self, attempt: AttemptId, worker: WorkerId) {
        let first = self.started.insert((attempt, worker));
        assert!(first, "{attempt} was started on {worker} a second time");
    }

    /// The ranks of a share, named by its first, all succeeded or stopped at a checkpoint.
    pub fn share_finished(&mut self, attempt: AttemptId, first_rank: u32, succeeded: bool) {
        if succeeded && first_rank == 0 {
            self.done.insert(attempt);
        }
        self.finished.entry(attempt).or_default().insert(first_rank);
    }

    pub fn read(&mut self, now: u64, event: &Event) {
        self.standing.read(event);
        self.note_new(event);
        match event {
            Event::TrialSubmitted { trial, needs, policy, .. } => {
                let story = Story::new(needs.clone(), policy);
                assert!(self.trials.insert(*trial, story).is_none(), "{trial} was submitted twice");
            }
            Event::TrialResubmitted { trial, policy, .. } => {
                self.open(*trial);
                let story = self.trials.get_mut(trial).unwrap();
                story.forgiven = policy.max_failures;
                story.keeps_best = policy.keep_best.is_some();
                self.note("resubmitted");
            }
            Event::TrialReopened { trial, .. } => {
                assert!(self.trials[trial].succeeded, "{trial} was reopened without having succeeded");
                self.open(*trial);
                self.want_reopened(*trial);
                self.note("reopened");
            }
            Event::AttemptStarted { trial, attempt, placement, at } => {
                self.start(*trial, *attempt, *at);
                self.may_start(*trial, placement);
                if placement.shares().len() > 1 {
                    self.note("gang of several workers");
                }
            }
            Event::AttemptFailed { trial, attempt, cause, worker, at } => {
                self.note_setback(*trial, *attempt, cause, *worker, *at);
                self.fail(now, *trial, *attempt, cause);
            }
            Event::TrialEnded { trial, outcome, .. } => self.end(now, *trial, outcome),
            Event::CheckpointCommitted { trial, attempt, checkpoint, .. } => {
                self.commit(*trial, *attempt, checkpoint);
            }
            Event::CheckpointDropped { trial, digest, reason, .. } => {
                self.drop_checkpoint(*trial, *digest, *reason)
            }
            Event::WorkerLost { worker, .. } => self.lose(*worker),
            Event::WorkerLeft { .. } => self.note("worker left"),
            Event::ExperimentSubmitted { experiment, trials, .. } => self.want(*experiment, trials),
            Event::ExperimentCancelled { experiment, .. } => {
                for story in self.trials.values_mut() {
                    story.wanted_by.remove(experiment);
                }
            }
            Event::TrialPaused { .. }
            | Event::TrialResumed { .. }
            | Event::ExperimentPaused { .. }
            | Event::ExperimentResumed { .. }
            | Event::WorkerDrained { .. }
            | Event::WorkerQuarantined { .. }
            | Event::WorkerUndrained { .. }
            | Event::CheckpointPinned { .. }
            | Event::CheckpointUnpinned { .. }
            | Event::WorkerJoined { .. }
            | Event::SessionOpened { .. }
            | Event::ExperimentPrioritized { .. }
            | Event::YieldRequested { .. } => {}
        }
    }

    fn commit(&mut self, trial: TrialId, attempt: AttemptId, checkpoint: &Checkpoint) {
        let story = self.trials.get_mut(&trial).unwrap();
        assert_eq!(story.stand, Stand::Running(attempt), "{attempt} is stale and committed");
        assert!(story.newest_step < Some(checkpoint.step), "{trial} went back to {checkpoint:?}");
        story.newest_step = Some(checkpoint.step);
        story.steps.insert(checkpoint.digest, checkpoint.step);
        (story.setbacks, story.lost_in_a_row) = (0, 0);
        story.scores.extend(checkpoint.score.map(|score| (checkpoint.step, score)));
    }

    fn drop_checkpoint(&mut self, trial: TrialId, digest: Digest, reason: DropReason) {
        let story = self.trials.get_mut(&trial).unwrap();
        let (step, damaged) = (story.steps[&digest], reason == DropReason::Damaged);
        if damaged {
            story.newest_step = None;
        }
        let best = story.best();
        story.scores.remove(&step);
        if reason == DropReason::Superseded {
            assert_ne!(best, Some(step), "step {step} of {trial} was the best, and went");
            if best.is_some_and(|best| best < step) {
                self.note("best outlived a newer one");
            }
        }
        self.drop_step(trial, step, reason);
        self.note(if damaged { "checkpoint damaged" } else { "checkpoint superseded" });
    }

    /// Takes note of what nothing else here looks at.
    fn note_new(&mut self, event: &Event) {
        let what = match event {
            Event::TrialPaused { .. } => "trial paused",
            Event::TrialResumed { .. } => "trial resumed",
            Event::ExperimentPaused { .. } => "experiment paused",
            Event::ExperimentResumed { .. } => "experiment resumed",
            Event::ExperimentPrioritized { .. } => "priority changed",
            Event::WorkerDrained { .. } => "worker drained",
            Event::WorkerQuarantined { reason: QuarantineReason::Incident { .. }, .. } => {
                "quarantined for an incident"
            }
            Event::WorkerQuarantined { reason: QuarantineReason::Unhealthy { .. }, .. } => {
                "quarantined for what it said of itself"
            }
            Event::WorkerQuarantined { reason: QuarantineReason::Failures { .. }, .. } => {
                "quarantined for failures"
            }
            Event::WorkerUndrained { .. } => "worker undrained",
            Event::CheckpointPinned { .. } => "checkpoint pinned",
            Event::CheckpointUnpinned { .. } => "checkpoint unpinned",
            Event::YieldRequested { reason: YieldReason::Preempted { .. }, .. } => "yield for another",
            Event::YieldRequested { reason: YieldReason::Paused, .. } => "yield for a pause",
            Event::YieldRequested { reason: YieldReason::Draining { .. }, .. } => "yield for a drain",
            Event::YieldRequested { attempt, reason: YieldReason::Resized { to }, .. } => {
                let has = self.placement(*attempt).unwrap().world_size();
                assert_ne!(*to, has, "{attempt} is to go on with what it has");
                if *to < has { "yield to shrink" } else { "yield to grow" }
            }
            Event::AttemptFailed { cause: FailureCause::Preempted, .. } => "preempted",
            Event::TrialSubmitted { .. }
            | Event::TrialResubmitted { .. }
            | Event::TrialReopened { .. }
            | Event::ExperimentSubmitted { .. }
            | Event::ExperimentCancelled { .. }
            | Event::WorkerJoined { .. }
            | Event::SessionOpened { .. }
            | Event::WorkerLost { .. }
            | Event::WorkerLeft { .. }
            | Event::AttemptStarted { .. }
            | Event::AttemptFailed { .. }
            | Event::TrialEnded { .. }
            | Event::CheckpointCommitted { .. }
            | Event::CheckpointDropped { .. } => return,
        };
        self.note(what);
    }

    fn fail(&mut self, now: u64, trial: TrialId, attempt: AttemptId, cause: &FailureCause) {
        if *cause == FailureCause::Preempted {
            self.may_preempt(attempt);
        }
        let story = self.trials.get_mut(&trial).unwrap();
        assert_eq!(story.stand, Stand::Running(attempt), "{attempt} failed without running");
        story.stand = Stand::Open;
        self.ends.insert(attempt, End { at: now, lost: BTreeSet::new() });
        story.lost += u32::from(matches!(cause, FailureCause::WorkerLost | FailureCause::Unhealthy { .. }));
        story.failures += u32::from(cause.counts());
        assert!(story.failures <= story.forgiven + 1, "{trial} went on after too many failures");
        let lost = *cause == FailureCause::WorkerLost;
        assert!(!lost || self.proves_absence, "silence about {attempt} was taken for its absence");
        // Trainers here never claim what is not so; but what was damaged after all counts as not left.
        let doubted = *cause == FailureCause::TrainerExit { code: 0 };
        let complete = story.newest_step.is_some() || !story.needs.is_empty();
        assert!(!(doubted && complete), "{attempt} left all that it must and was not believed");
        self.note(if cause.counts() { "attempt failed: charged" } else { "attempt failed: free" });
        if *cause == FailureCause::Stalled {
            self.note("stalled");
        }
    }

    fn want(&mut self, experiment: ExperimentId, trials: &[TrialId]) {
        for trial in trials {
            let story = self.trials.get_mut(trial).unwrap();
            if story.stand != Stand::Ended {
                story.wanted_by.insert(experiment);
            }
        }
    }

    fn open(&mut self, trial: TrialId) {
        let story = self.trials.get_mut(&trial).unwrap();
        assert_eq!(story.stand, Stand::Ended, "{trial} was opened while it was open");
        story.stand = Stand::Open;
        story.succeeded = false;
        story.lost = 0;
        story.failures = 0;
    }

    fn start(&mut self, trial: TrialId, attempt: AttemptId, at: Millis) {
        self.has_rested(trial, at);
        assert!(self.attempts.insert(attempt, trial).is_none(), "{attempt} was given out twice");
        let story = &self.trials[&trial];
        assert_eq!(story.stand, Stand::Open, "{trial} started and was not queued");
        for need in &story.needs {
            assert!(self.trials[need].succeeded, "{trial} started before {need} succeeded");
        }
        self.trials.get_mut(&trial).unwrap().stand = Stand::Running(attempt);
    }

    fn end(&mut self, now: u64, trial: TrialId, outcome: &Outcome) {
        let story = &self.trials[&trial];
        assert_ne!(story.stand, Stand::Ended, "{trial} ended twice");
        if let Stand::Running(attempt) = story.stand {
            self.ends.insert(attempt, End { at: now, lost: BTreeSet::new() });
        }
        match outcome {
            Outcome::Succeeded { result } => {
                let attempt = AttemptId(result.metrics["attempt"] as u64);
                assert_eq!(story.stand, Stand::Running(attempt), "{trial} has a result of an old attempt");
                let shares = result.metrics["shares"] as usize;
                let finished = self.finished.get(&attempt).map_or(0, BTreeSet::len);
                assert_eq!(finished, shares, "{trial} succeeded before all its ranks had");
                assert!(self.done.contains(&attempt), "{trial} succeeded and its rank 0 did not");
                self.note("succeeded");
            }
            Outcome::Failed { cause } => {
                assert_eq!(story.stand, Stand::Open, "{trial} ended with its attempt running");
                let spent = story.failures > story.forgiven;
                assert!(spent || !cause.retryable(), "{trial} was given up too soon: {cause}");
                self.note("failed");
            }
            Outcome::LostWorkers { .. } => {
                let limit = self.policy.max_workers_lost.get();
                assert!(story.lost >= limit, "{trial} was given up after {} lost workers", story.lost);
                self.note("lost too many workers");
            }
            Outcome::Cancelled => {
                let asked = self.cancelling == Some(trial) || story.wanted_by.is_empty();
                assert!(asked, "{trial} was cancelled and {:?} want it", story.wanted_by);
                self.note("cancelled");
            }
            Outcome::NeedFailed { need } => {
                let need_ended = &self.trials[need];
                assert!(need_ended.stand == Stand::Ended && !need_ended.succeeded, "{need} has not failed");
                self.note("need failed");
            }
        }
        let story = self.trials.get_mut(&trial).unwrap();
        (story.setbacks, story.lost_in_a_row, story.rests_until) = (0, 0, 0);
        story.stand = Stand::Ended;
        story.succeeded = outcome.is_success();
        story.wanted_by.clear();
    }

    /// Who waits for one that reads its checkpoint waits for it.
    fn want_reopened(&mut self, trial: TrialId) {
        let readers = self.trials.values().filter(|story| story.needs.contains(&trial));
        let wanted_by = readers.flat_map(|story| story.wanted_by.iter().copied()).collect();
        self.trials.get_mut(&trial).unwrap().wanted_by = wanted_by;
    }
}
