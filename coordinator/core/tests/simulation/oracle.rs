//! What must be true of the log, and of the answers, seen from outside: knows the rules, not the code.

use std::collections::{BTreeMap, BTreeSet};

use common::spec::TrialSpec;
use common::{AttemptId, ExperimentId, FailureCause, TrialId, WorkerId};
use coordinator_core::{Cluster, Event, Outcome, Phase, Session, Trial, WaitReason, place};

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
    /// Experiments that wait for it.
    wanted_by: BTreeSet<ExperimentId>,
}

impl Story {
    fn new(needs: Vec<TrialId>, forgiven: u32) -> Self {
        Self {
            stand: Stand::Open,
            succeeded: false,
            needs,
            failures: 0,
            forgiven,
            newest_step: None,
            wanted_by: BTreeSet::new(),
        }
    }
}

/// Reads the log as it grows.
#[derive(Debug, Default)]
pub struct Oracle {
    trials: BTreeMap<TrialId, Story>,
    attempts: BTreeSet<AttemptId>,
    /// Attempts all of whose ranks succeeded, as the workers know it.
    finished: BTreeMap<AttemptId, BTreeSet<u32>>,
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
    const ALL: [&'static str; 17] = [
        "attempt failed: charged",
        "attempt failed: free",
        "cancelled",
        "checkpoint damaged",
        "checkpoint superseded",
        "coordinator crashed after persisting",
        "coordinator crashed before persisting",
        "failed",
        "gang of several workers",
        "late message",
        "need failed",
        "reopened",
        "resubmitted",
        "stalled",
        "succeeded",
        "worker left",
        "worker lost",
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

    /// The ranks of a share, named by its first, all succeeded.
    pub fn share_finished(&mut self, attempt: AttemptId, first_rank: u32) {
        self.finished.entry(attempt).or_default().insert(first_rank);
    }

    pub fn read(&mut self, event: &Event) {
        match event {
            Event::TrialSubmitted { trial, needs, policy, .. } => {
                let story = Story::new(needs.clone(), policy.max_failures);
                assert!(self.trials.insert(*trial, story).is_none(), "{trial} was submitted twice");
            }
            Event::TrialResubmitted { trial, policy, .. } => {
                self.open(*trial);
                self.trials.get_mut(trial).unwrap().forgiven = policy.max_failures;
                self.note("resubmitted");
            }
            Event::TrialReopened { trial, .. } => {
                assert!(self.trials[trial].succeeded, "{trial} was reopened without having succeeded");
                self.open(*trial);
                self.want_reopened(*trial);
                self.note("reopened");
            }
            Event::AttemptStarted { trial, attempt, placement, .. } => {
                self.start(*trial, *attempt);
                if placement.shares().len() > 1 {
                    self.note("gang of several workers");
                }
            }
            Event::AttemptFailed { trial, attempt, cause, .. } => self.fail(*trial, *attempt, cause),
            Event::TrialEnded { trial, outcome, .. } => self.end(*trial, outcome),
            Event::CheckpointCommitted { trial, attempt, checkpoint, .. } => {
                let story = self.trials.get_mut(trial).unwrap();
                assert_eq!(story.stand, Stand::Running(*attempt), "{attempt} is stale and committed");
                assert!(story.newest_step < Some(checkpoint.step), "{trial} went back to {checkpoint:?}");
                story.newest_step = Some(checkpoint.step);
            }
            Event::CheckpointDropped { trial, reason, .. } => {
                let damaged = *reason == coordinator_core::DropReason::Damaged;
                if damaged {
                    self.trials.get_mut(trial).unwrap().newest_step = None;
                }
                self.note(if damaged { "checkpoint damaged" } else { "checkpoint superseded" });
            }
            Event::WorkerLost { .. } => self.note("worker lost"),
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
            | Event::ExperimentPrioritized { .. }
            | Event::YieldRequested { .. } => {}
        }
    }

    fn fail(&mut self, trial: TrialId, attempt: AttemptId, cause: &FailureCause) {
        let story = self.trials.get_mut(&trial).unwrap();
        assert_eq!(story.stand, Stand::Running(attempt), "{attempt} failed without running");
        story.stand = Stand::Open;
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
        story.failures = 0;
    }

    fn start(&mut self, trial: TrialId, attempt: AttemptId) {
        assert!(self.attempts.insert(attempt), "{attempt} was given out twice");
        let story = &self.trials[&trial];
        assert_eq!(story.stand, Stand::Open, "{trial} started and was not queued");
        for need in &story.needs {
            assert!(self.trials[need].succeeded, "{trial} started before {need} succeeded");
        }
        self.trials.get_mut(&trial).unwrap().stand = Stand::Running(attempt);
    }

    fn end(&mut self, trial: TrialId, outcome: &Outcome) {
        let story = &self.trials[&trial];
        assert_ne!(story.stand, Stand::Ended, "{trial} ended twice");
        match outcome {
            Outcome::Succeeded { result } => {
                let attempt = AttemptId(result.metrics["attempt"] as u64);
                assert_eq!(story.stand, Stand::Running(attempt), "{trial} has a result of an old attempt");
                let shares = result.metrics["shares"] as usize;
                let finished = self.finished.get(&attempt).map_or(0, BTreeSet::len);
                assert_eq!(finished, shares, "{trial} succeeded before all its ranks had");
                self.note("succeeded");
            }
            Outcome::Failed { cause } => {
                assert_eq!(story.stand, Stand::Open, "{trial} ended with its attempt running");
                let spent = story.failures > story.forgiven;
                assert!(spent || !cause.retryable(), "{trial} was given up too soon: {cause}");
                self.note("failed");
            }
            Outcome::LostWorkers { .. } => panic!("{trial} was given up though no worker is lost so often"),
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

/// Every waiting trial is told the truth.
pub fn check_explanations(cluster: &Cluster) {
    let queued = |(_, trial): &(TrialId, &Trial)| trial.phase == Phase::Queued;
    let mut queue: Vec<(TrialId, &Trial)> = cluster.trials().filter(queued).collect();
    queue.sort_by_key(|(id, trial)| (trial.queued_by, matches!(trial.spec, TrialSpec::Train(_)), *id));
    let offered: u32 = cluster.workers().map(|view| view.worker.slots).sum();
    let connected = cluster.workers().filter(|view| view.session == Session::Connected);
    let free: BTreeMap<_, _> = connected.map(|view| (view.id, view.worker.slots - view.used)).collect();
    let next = queue.iter().find(|(_, trial)| trial.slots() <= offered);
    if let Some((id, trial)) = next {
        assert_eq!(place(&free, trial.slots()), None, "{id} fits and does not run");
    }
    for (id, trial) in cluster.trials() {
        let needs = trial.slots();
        let expected = match &trial.phase {
            Phase::Running(_) | Phase::Ended { .. } => None,
            Phase::Waiting => {
                let unmet = |need: &TrialId| !cluster.trial(*need).unwrap().has_succeeded();
                let mut unmet: Vec<TrialId> = trial.needs.iter().copied().filter(unmet).collect();
                unmet.dedup();
                Some(WaitReason::Needs(unmet))
            }
            Phase::Paused => panic!("nobody pauses {id}"),
            Phase::Queued if free.is_empty() => Some(WaitReason::NoWorker),
            Phase::Queued if needs > offered => Some(WaitReason::TooWide { needs, offered }),
            Phase::Queued => match next {
                Some(&(next, _)) if next == id => {
                    Some(WaitReason::Slots { needs, free: free.values().sum() })
                }
                Some(&(next, older)) => Some(WaitReason::Behind { trial: next, needs: older.slots() }),
                None => panic!("{id} is queued and narrow enough, and nothing is next"),
            },
        };
        assert_eq!(cluster.explain(id), expected, "of {id}");
    }
}
