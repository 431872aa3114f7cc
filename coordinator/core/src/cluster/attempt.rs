//! Running attempts: rendezvous, progress, ends.
//!
//! A gang dies together: the first share that fails ends the attempt everywhere.

use common::session::AttemptEnd;
use common::{AttemptId, FailureCause, WorkerId};

use super::Cluster;
use super::live::{Progress, Verdict};
use crate::{Effect, Event, Millis, Outcome, Reject, Step, Trial};

impl Cluster {
    /// Fence: `attempt` must be current on `worker`.
    pub(super) fn current(&self, worker: WorkerId, attempt: AttemptId) -> Result<(), Reject> {
        if self.state.is_current(attempt, worker) { Ok(()) } else { Err(Reject::StaleAttempt(attempt)) }
    }

    /// A worker reports ranks that run.
    pub(super) fn share_runs(
        &mut self,
        now: Millis,
        worker: WorkerId,
        attempt: AttemptId,
        rendezvous: Option<String>,
        reached: u64,
        step: &mut Step,
    ) {
        if self.current(worker, attempt).is_err() {
            step.effects.push(Effect::Release { worker, attempt });
            return;
        }
        match (self.is_leader(worker, attempt), rendezvous) {
            (true, Some(address)) => self.rendezvous_opened(worker, attempt, address, step),
            (true, None) => {}
            (false, _) => self.rendezvous_again(worker, attempt, step),
        }
        self.progress(now, attempt, reached, step);
        self.still_runs(now, worker, attempt, step);
    }

    /// Only rank 0 hosts the store: from any other worker the address is an echo.
    pub(super) fn rendezvous_opened(
        &mut self,
        worker: WorkerId,
        attempt: AttemptId,
        address: String,
        step: &mut Step,
    ) {
        let Some((_, running)) = self.state.running(attempt) else {
            return;
        };
        let gang = self.live.gang(attempt);
        if running.placement.leader() != Some(worker) || gang.rendezvous.as_ref() == Some(&address) {
            return;
        }
        gang.rendezvous = Some(address.clone());
        let peers = running.placement.shares().iter().filter(|share| share.worker != worker);
        step.effects.extend(peers.map(|share| Effect::Rendezvous {
            worker: share.worker,
            attempt,
            address: address.clone(),
        }));
    }

    /// A worker need not say what it was told, so it is told until the first step proves that the ranks met.
    fn rendezvous_again(&self, worker: WorkerId, attempt: AttemptId, step: &mut Step) {
        let gang = self.live.gangs.get(&attempt).filter(|gang| gang.progress.is_none());
        if let Some(address) = gang.and_then(|gang| gang.rendezvous.clone()) {
            step.effects.push(Effect::Rendezvous { worker, attempt, address });
        }
    }

    fn is_leader(&self, worker: WorkerId, attempt: AttemptId) -> bool {
        self.state.running(attempt).is_some_and(|(_, running)| running.placement.leader() == Some(worker))
    }

    /// Judged when a report comes, never by the clock alone: while nobody hears a worker, it may be training.
    fn progress(&mut self, now: Millis, attempt: AttemptId, reached: u64, step: &mut Step) {
        let gang = self.live.gang(attempt);
        let before = gang.progress.map_or(0, |progress| progress.step);
        if reached > before {
            gang.progress = Some(Progress { step: reached, since: now });
        }
        let idle = gang.progress.map(|progress| now.since(progress.since));
        if let (Some(limit), Some(idle)) = (self.policy.stall, idle)
            && idle >= limit
        {
            // Of several workers nobody knows which one the others wait for.
            let alone =
                self.state.running(attempt).filter(|(_, running)| running.placement.shares().len() == 1);
            let worker = alone.and_then(|(_, running)| running.placement.leader());
            self.fail_on(now, attempt, worker, FailureCause::Stalled, step);
        }
    }

    /// A share ended. One of an old attempt is acknowledged, so that its worker forgets it, and changes nothing.
    pub(super) fn share_ended(
        &mut self,
        now: Millis,
        worker: WorkerId,
        attempt: AttemptId,
        end: AttemptEnd,
        step: &mut Step,
    ) {
        if self.current(worker, attempt).is_err() {
            step.effects.push(Effect::Release { worker, attempt });
            return;
        }
        let echo = match &end {
            Ok(_) => None,
            // The others are on their way to the same end, rank 0 perhaps with its checkpoint still to store.
            Err(FailureCause::Preempted) if self.is_yielding(attempt) => None,
            Err(cause) if is_echo(cause) => Some(cause.clone()),
            Err(cause) => {
                let culprit = self.culprit(worker, attempt, cause);
                self.fail_on(now, attempt, Some(culprit), cause.clone(), step);
                return;
            }
        };
        let due = now + self.policy.lease;
        let gang = self.live.gang(attempt);
        gang.ends.insert(worker, end);
        if let Some(cause) = echo {
            gang.verdict.get_or_insert(Verdict { cause, due });
        }
        self.conclude(now, attempt, step);
    }

    /// Ends an attempt all of whose shares ended.
    fn conclude(&mut self, now: Millis, attempt: AttemptId, step: &mut Step) {
        let Some((trial, running)) = self.state.running(attempt) else {
            return;
        };
        let gang = self.live.gang(attempt);
        if gang.ends.len() < running.placement.shares().len() {
            return;
        }
        let leader = running.placement.leader().and_then(|leader| gang.ends.remove(&leader));
        let verdict = gang.verdict.take();
        let yielded = gang.has_yielded() || matches!(leader, Some(Err(FailureCause::Preempted)));
        let complete = self.state.trials.get(&trial).is_some_and(leaves_what_it_must);
        match (verdict, leader) {
            (Some(verdict), _) if !yielded => self.fail(now, attempt, verdict.cause, step),
            // What rank 0 has done all ranks have done, also one that was asked to stop on its way out.
            (None, Some(Ok(Some(result)))) if complete => {
                self.release(attempt, step);
                self.end(now, trial, Outcome::Succeeded { result }, step);
                self.drop_surplus(now, trial, step);
            }
            _ if yielded => self.fail(now, attempt, FailureCause::Preempted, step),
            // It claims success without a result, or without the network that it trained.
            (_, _) => self.fail(now, attempt, FailureCause::TrainerExit { code: 0 }, step),
        }
    }

    /// Takes failures at their word for which no better explanation came.
    pub(super) fn judge(&mut self, now: Millis, step: &mut Step) {
        let verdicts = self.live.gangs.iter().filter_map(|(&attempt, gang)| {
            let verdict = gang.verdict.as_ref().filter(|verdict| verdict.due <= now)?;
            let cause = if gang.has_yielded() { FailureCause::Preempted } else { verdict.cause.clone() };
            Some((attempt, cause))
        });
        for (attempt, cause) in verdicts.collect::<Vec<_>>() {
            self.fail(now, attempt, cause, step);
        }
    }

    /// The worker whose ranks failed: of a rank that hangs, another one than that which says so.
    fn culprit(&self, worker: WorkerId, attempt: AttemptId, cause: &FailureCause) -> WorkerId {
        let FailureCause::Hung { rank, .. } = cause else {
            return worker;
        };
        let shares =
            self.state.running(attempt).into_iter().flat_map(|(_, running)| running.placement.shares());
        let mut of_rank =
            shares.filter(|share| (share.first_rank..share.first_rank + share.ranks).contains(rank));
        of_rank.next().map_or(worker, |share| share.worker)
    }

    /// Ends an attempt on every worker, for a cause that no one of them is known for.
    pub(super) fn fail(&mut self, now: Millis, attempt: AttemptId, cause: FailureCause, step: &mut Step) {
        self.fail_on(now, attempt, None, cause, step);
    }

    /// Ends an attempt on every worker because of what happened on one. Its trial runs again while its budgets last.
    pub(super) fn fail_on(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        worker: Option<WorkerId>,
        cause: FailureCause,
        step: &mut Step,
    ) {
        let Some(trial) = self.state.trial_of(attempt) else {
            return;
        };
        self.release(attempt, step);
        let own = self.own_slots(attempt, &cause);
        self.emit(Event::AttemptFailed { trial, attempt, cause: cause.clone(), worker, at: now }, step);
        self.may_go_on(trial, own);
        if let Some(worker) = worker {
            self.suspect(now, worker, step);
        }
        self.rest(trial);
        let Some(record) = self.state.trials.get(&trial) else {
            return;
        };
        if !cause.retryable() || record.counted_failures > record.policy.max_failures {
            self.end(now, trial, Outcome::Failed { cause }, step);
        } else if record.workers_lost >= self.policy.max_workers_lost.get() {
            self.end(now, trial, Outcome::LostWorkers { attempts: record.workers_lost }, step);
        }
    }
}

/// Whether a failure may only be the echo of another one.
///
/// When a worker dies, its peers see their collective fail long before its lease ends. To take that for the
/// cause would charge the trial for a lost worker, so it waits for a better explanation, at most one lease.
fn is_echo(cause: &FailureCause) -> bool {
    match cause {
        FailureCause::CollectiveFailed { .. } => true,
        FailureCause::WorkerLost
        | FailureCause::Preempted
        | FailureCause::TrainerExit { .. }
        | FailureCause::TrainerSignal { .. }
        | FailureCause::LaunchFailed { .. }
        | FailureCause::OutOfMemory
        | FailureCause::Stalled
        | FailureCause::Hung { .. }
        | FailureCause::StorageFull { .. }
        | FailureCause::Unhealthy { .. }
        | FailureCause::NonFiniteLoss { .. }
        | FailureCause::SpecRejected { .. }
        | FailureCause::DataMissing { .. }
        | FailureCause::CheckpointIncompatible { .. } => false,
    }
}

/// Whether a trial that claims success has left what others read: its final network, if it trained one.
fn leaves_what_it_must(trial: &Trial) -> bool {
    !trial.spec.trains() || (!trial.checkpoints.is_empty() && !trial.newest_damaged)
}
