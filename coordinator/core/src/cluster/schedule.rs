//! Turns what a look at the queue came to into attempts, and into reasons.
//!
//! The queue is looked at in the same step in which anything changed that matters to it: a slot that becomes free is
//! filled at once, and there is no tick. Policies are in [`crate::scheduling`].

use std::sync::Arc;

use common::spec::Requirements;
use common::{AttemptId, TrialId, WorkerId};

use super::Cluster;
use crate::scheduling::{
    Ask, Blocked, Claim, Decisions, Depth, Finding, Findings, Pass, Pools, Preemption, Reservation, Start,
    View, awaited, preempt,
};
use crate::{Before, Effect, Event, Millis, Phase, Placement, Step, Trial, WaitReason, Worker, YieldReason};

/// Looks at the queue in one step. One is the rule, and two are enough unless reservations drive out each other.
const MOST_LOOKS: usize = 4;

impl Cluster {
    /// Places queued trials, if anything changed since the last time.
    pub(super) fn schedule(&mut self, now: Millis, step: &mut Step) {
        self.live.findings.take();
        self.live.now = now;
        self.wake(now);
        self.mind_the_time(now);
        if std::mem::take(&mut self.live.changed) {
            self.live.looked = now;
            let asked = self.place_and_ask(now, step);
            self.prefetch(&asked, step);
        }
    }

    /// Starts what can start, and asks attempts to make way for what cannot. Returns who was asked, and for whom.
    fn place_and_ask(&mut self, now: Millis, step: &mut Step) -> Vec<(AttemptId, TrialId)> {
        let mut all = Vec::new();
        self.place_queued(now, step);
        // Whoever could not go on at once has its place in the queue.
        self.live.resuming.clear();
        loop {
            let mut pools = std::mem::take(&mut self.live.pools);
            let Preemption { asks, unfinished } = self.look_for_victims(&mut pools);
            self.live.pools = pools;
            let asked = !asks.is_empty();
            for (attempt, Ask { by, keeps }) in asks {
                let reason = match keeps {
                    0 => YieldReason::Preempted { by },
                    to => YieldReason::Resized { to },
                };
                self.ask_to_yield(now, attempt, reason, step);
                all.push((attempt, by));
            }
            if !asked {
                // Nothing that was done here lets anything else start.
                self.live.changed = unfinished;
                return all;
            }
            // Now it is known when the slots of those that were asked come free, and what may be lent until then.
            let placed = self.place_queued(now, step);
            if unfinished && !placed {
                self.live.changed = true;
                return all;
            }
        }
    }

    /// Starts what the policies let start now. Returns whether anything did.
    fn place_queued(&mut self, now: Millis, step: &mut Step) -> bool {
        let mut any = false;
        for _ in 0..MOST_LOOKS {
            let mut pools = std::mem::take(&mut self.live.pools);
            let Decisions { placed, reservations, findings: _ } = self.look(&mut pools, Depth::Decide);
            self.live.pools = pools;
            any |= !placed.is_empty();
            let before = std::mem::replace(&mut self.live.reservations, reservations);
            let mut goes_on = false;
            for (trial, placement) in placed {
                goes_on |= self.live.resuming.get(&trial) == Some(&placement);
                self.start(now, trial, placement, step);
            }
            // A reservation has its part of a quota. One that had to go may have held up a trial looked at before.
            let quota = |trial| {
                let class = self.state.index.class_of(trial)?;
                self.policy.project(&class.project).quota
            };
            let gone = |trial| self.live.reservations.of(trial).is_none() && quota(trial).is_some();
            // And while an attempt that one awaits goes on in another, what it holds may be lent.
            if !goes_on && !before.iter().any(|(trial, _)| gone(trial)) {
                break;
            }
        }
        any
    }

    fn start(&mut self, now: Millis, trial: TrialId, placement: Placement, step: &mut Step) {
        let attempt = self.state.next_attempt(0);
        self.go_on(trial, attempt, &placement);
        let world_size = placement.world_size();
        let launch = |&share| Effect::Launch { attempt, trial, share, world_size };
        step.effects.extend(placement.shares().iter().map(launch));
        self.emit(Event::AttemptStarted { trial, attempt, placement, at: now }, step);
    }

    /// One look at the queue as it stands.
    pub(super) fn look(&self, pools: &mut Pools, depth: Depth) -> Decisions {
        let connected = |worker| self.live.is_connected(worker);
        Pass::run(self.view(&connected), &self.live.reservations, pools, depth)
    }

    /// Who should stop at a checkpoint for whom, as it was when the queue was looked at last.
    pub(super) fn look_for_victims(&self, pools: &mut Pools) -> Preemption {
        let connected = |worker| self.live.is_connected(worker);
        let view = View { now: self.live.looked, ..self.view(&connected) };
        preempt(view, &self.live.reservations, pools)
    }

    pub(super) fn view<'a>(&'a self, connected: &'a dyn Fn(WorkerId) -> bool) -> View<'a> {
        let (state, policy, live) = (&self.state, &self.policy, &self.live);
        let (resting, resuming) = (&live.resting, &live.resuming);
        View { state, policy, connected, resting, resuming, now: live.now }
    }

    /// Slots that are kept for trials, as they become free, and when each of these can start.
    pub fn reservations(&self) -> impl Iterator<Item = (TrialId, &Reservation, Start)> {
        let start = |reservation: &Reservation| {
            reservation.start(self.live.now, |attempt| self.state.expected_end(attempt))
        };
        self.live
            .reservations
            .iter()
            .map(move |(trial, reservation)| (trial, reservation, start(reservation)))
    }

    /// Why a trial does not run yet; `None` if it runs or ended, or is not known.
    pub fn explain(&self, trial: TrialId) -> Option<WaitReason> {
        let record = self.state.trials.get(&trial)?;
        match record.phase {
            Phase::Waiting => Some(WaitReason::Needs(self.unmet_needs(record))),
            Phase::Queued => Some(self.explain_queued(trial, record)),
            Phase::Paused => {
                let by_name = record.paused.is_some();
                Some(WaitReason::Paused { by_name, experiments: self.paused_with(record) })
            }
            Phase::Running(_) | Phase::Ended { .. } => None,
        }
    }

    fn explain_queued(&self, trial: TrialId, record: &Trial) -> WaitReason {
        let connected = || self.state.workers.keys().filter(|&&worker| self.live.is_connected(worker));
        if connected().next().is_none() {
            return WaitReason::NoWorker;
        }
        if connected().all(|&worker| self.state.is_barred(worker)) {
            return WaitReason::OutOfService(connected().copied().collect());
        }
        if let Some(reason) = self.explain_rest(trial, record) {
            return reason;
        }
        // One look explains every trial, until the next input.
        let findings = self.live.findings.get_or_init(|| {
            let mut pools = self.live.pools.clone();
            let decisions = self.look(&mut pools, Depth::Explain);
            let connected = |worker| self.live.is_connected(worker);
            let awaited = awaited(self.view(&connected), &self.live.reservations, &mut pools);
            Arc::new(Findings::new(decisions.findings, awaited))
        });
        let class = self.state.index.class_of(trial);
        if let (Some(class), Some(attempts)) = (class, findings.awaited(trial)) {
            return WaitReason::Yielding { needs: class.least, attempts: attempts.iter().copied().collect() };
        }
        let Some((finding, ahead)) = class.and_then(|class| findings.of(trial, class)) else {
            return WaitReason::Slots { needs: record.slots(), free: 0 };
        };
        if finding.rank.key.trial != trial && !finding.blocked.is_hopeless() {
            return behind(finding, Before::Older);
        }
        self.reason(trial, finding, ahead)
    }

    /// What the first trial of a class waits for, given the findings on those that go before it.
    fn reason(&self, trial: TrialId, finding: &Finding, ahead: &[Finding]) -> WaitReason {
        let class = &finding.class;
        let (needs, project, requires) = (class.least, class.project.clone(), class.requires.clone());
        match finding.blocked {
            Blocked::NoMatch => {
                let meets = |record: &Worker| record.traits.meet(&requires);
                let barred = self.state.workers.iter().filter(|(_, record)| meets(record));
                let barred = barred.map(|(&worker, _)| worker).collect::<Vec<_>>();
                if barred.is_empty() {
                    WaitReason::NoMatch { requires }
                } else {
                    WaitReason::OutOfService(barred)
                }
            }
            Blocked::TooWide { offered } => WaitReason::TooWide { needs, offered, requires },
            Blocked::OverQuota { quota } => WaitReason::OverQuota { needs, project, quota },
            Blocked::Quota { quota, used, reserved } => {
                WaitReason::Quota { needs, project, quota, used, reserved }
            }
            Blocked::Stopped { by } => match ahead.iter().find(|other| other.rank.key.trial == by) {
                Some(other) => behind(other, before(other, finding)),
                None => WaitReason::Behind { trial: by, needs, before: Before::Older },
            },
            Blocked::Held { by, refusal } => {
                let free = self.free_for(&class.requires);
                WaitReason::Held { needs, free, by, refusal }
            }
            Blocked::Slots { free } => {
                if let Some(reservation) = self.live.reservations.of(trial) {
                    return self.reserved(needs, free, reservation);
                }
                match ahead.iter().find(|other| self.compete(other, finding)) {
                    Some(other) => behind(other, before(other, finding)),
                    None => WaitReason::Slots { needs, free },
                }
            }
        }
    }

    fn reserved(&self, needs: u32, free: u32, reservation: &Reservation) -> WaitReason {
        let starts_in = match reservation.start(self.live.now, |attempt| self.state.expected_end(attempt)) {
            Start::Due | Start::Unknown => None,
            Start::About(start) => Some(start.since(self.live.now)),
        };
        let slots = reservation.slots.iter().map(|(&worker, &slots)| (worker, slots)).collect();
        WaitReason::Reserved { needs, free, slots, starts_in }
    }

    /// Whether a worker can be told what to do, and is given anything new.
    pub(super) fn in_service(&self, worker: WorkerId) -> bool {
        let connected = |worker| self.live.is_connected(worker);
        self.view(&connected).in_service(worker)
    }

    /// Free slots on workers in service that are as required.
    pub(super) fn free_for(&self, requires: &Requirements) -> u32 {
        let free = self.state.index.free.iter().filter(|(worker, _)| self.in_service(**worker));
        let meets =
            |worker| self.state.workers.get(worker).is_some_and(|record| record.traits.meet(requires));
        free.filter(|(worker, _)| meets(worker)).map(|(_, &slots)| slots).sum()
    }

    /// Whether a trial that goes first waits for slots, too, and for some that the later one could use.
    fn compete(&self, first: &Finding, later: &Finding) -> bool {
        let waits = match first.blocked {
            Blocked::Slots { .. } | Blocked::Held { .. } => true,
            Blocked::NoMatch
            | Blocked::TooWide { .. }
            | Blocked::OverQuota { .. }
            | Blocked::Quota { .. }
            | Blocked::Stopped { .. } => false,
        };
        let (one, other) = (&first.class.requires, &later.class.requires);
        waits
            && self.state.workers.values().any(|record| record.traits.meet(one) && record.traits.meet(other))
    }

    fn unmet_needs(&self, trial: &Trial) -> Vec<TrialId> {
        let mut unmet = Vec::new();
        for &need in &trial.needs {
            let met = self.state.trials.get(&need).is_some_and(Trial::has_succeeded);
            if !met && !unmet.contains(&need) {
                unmet.push(need);
            }
        }
        unmet
    }
}

fn behind(other: &Finding, before: Before) -> WaitReason {
    WaitReason::Behind { trial: other.rank.key.trial, needs: other.class.least, before }
}

/// What puts `first` before `later`.
fn before(first: &Finding, later: &Finding) -> Before {
    if first.rank.priority != later.rank.priority {
        Before::Priority(first.rank.priority.0)
    } else if (first.rank.claim, later.rank.claim) == (Claim::Reserved, Claim::Open) {
        Before::Reserved
    } else if first.rank.usage != later.rank.usage {
        Before::Share { project: first.class.project.clone() }
    } else if first.rank.key.submission == later.rank.key.submission
        && first.rank.key.kind != later.rank.key.kind
    {
        Before::Evaluation
    } else {
        Before::Older
    }
}
