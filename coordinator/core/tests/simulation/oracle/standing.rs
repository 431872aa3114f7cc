//! Who may run: priorities, projects, pauses, workers in service; and checkpoints that are pinned.

use std::collections::{BTreeMap, BTreeSet};

use common::{AttemptId, ExperimentId, FailureCause, TrialId, WorkerId};
use coordinator_core::{
    Cluster, DropReason, Event, Phase, Placement, QuarantineReason, Session, WaitReason, YieldReason,
};

use super::{Oracle, Stand};
use crate::support::explained::{least, standing};

#[derive(Debug)]
struct Owner {
    project: String,
    priority: i32,
    paused: bool,
}

/// What the log says about who may run.
#[derive(Debug, Default)]
pub struct Standing {
    experiments: BTreeMap<ExperimentId, Owner>,
    paused: BTreeSet<TrialId>,
    barred: BTreeSet<WorkerId>,
    placements: BTreeMap<AttemptId, Placement>,
    pins: BTreeSet<(TrialId, u64)>,
    yields: BTreeMap<AttemptId, YieldReason>,
    members: BTreeSet<WorkerId>,
}

impl Standing {
    pub fn read(&mut self, event: &Event) {
        match event {
            Event::ExperimentSubmitted { experiment, project, priority, .. } => {
                let owner = Owner { project: project.clone(), priority: *priority, paused: false };
                self.experiments.insert(*experiment, owner);
            }
            Event::ExperimentPrioritized { experiment, priority, .. } => {
                self.owner(*experiment).priority = *priority;
            }
            Event::ExperimentPaused { experiment, .. } => self.owner(*experiment).paused = true,
            Event::ExperimentResumed { experiment, .. } | Event::ExperimentCancelled { experiment, .. } => {
                self.owner(*experiment).paused = false;
            }
            Event::TrialPaused { trial, .. } => {
                assert!(self.paused.insert(*trial), "{trial} is paused twice")
            }
            Event::TrialResumed { trial, .. } => assert!(self.paused.remove(trial), "{trial} was not paused"),
            Event::TrialEnded { trial, .. } => {
                self.paused.remove(trial);
            }
            Event::WorkerDrained { worker, .. } => {
                self.barred.insert(*worker);
            }
            Event::WorkerQuarantined { worker, reason, .. } => {
                self.blame(*worker, reason);
                self.barred.insert(*worker);
            }
            Event::YieldRequested { attempt, reason, .. } => {
                self.yields.insert(*attempt, *reason);
            }
            Event::WorkerUndrained { worker, .. } => {
                self.barred.remove(worker);
            }
            Event::WorkerJoined { worker, .. } => {
                self.members.insert(*worker);
            }
            Event::WorkerLost { worker, .. } | Event::WorkerLeft { worker, .. } => {
                self.members.remove(worker);
            }
            Event::AttemptStarted { attempt, placement, .. } => {
                self.placements.insert(*attempt, placement.clone());
            }
            Event::CheckpointPinned { trial, step, .. } => {
                self.pins.insert((*trial, *step));
            }
            Event::CheckpointUnpinned { trial, step, .. } => {
                let pinned = self.pins.remove(&(*trial, *step));
                assert!(pinned, "step {step} of {trial} was not pinned");
            }
            Event::TrialSubmitted { .. }
            | Event::TrialResubmitted { .. }
            | Event::TrialReopened { .. }
            | Event::AttemptFailed { .. }
            | Event::SessionOpened { .. }
            | Event::CheckpointCommitted { .. }
            | Event::CheckpointDropped { .. } => {}
        }
    }

    /// Failures take a worker out of service only if they are of several trials, and enough others stay.
    fn blame(&self, worker: WorkerId, reason: &QuarantineReason) {
        match reason {
            QuarantineReason::Incident { .. } | QuarantineReason::Unhealthy { .. } => {}
            QuarantineReason::Failures { strikes } => {
                let trials = strikes.iter().map(|strike| strike.trial).collect::<BTreeSet<_>>();
                assert!(trials.len() > 1, "{worker} is quarantined for {strikes:?}");
                let others = self.members.iter().filter(|&other| *other != worker);
                let left = others.filter(|other| !self.barred.contains(other)).count();
                assert!(left > 0 && left * 2 >= self.members.len(), "too few are left without {worker}");
            }
        }
    }

    pub fn placement(&self, attempt: AttemptId) -> Option<&Placement> {
        self.placements.get(&attempt)
    }

    fn owner(&mut self, experiment: ExperimentId) -> &mut Owner {
        self.experiments.get_mut(&experiment).unwrap()
    }
}

impl Oracle {
    /// A checkpoint goes: it is not one that a user wants kept, unless it is of no use.
    pub(super) fn drop_step(&mut self, trial: TrialId, step: u64, reason: DropReason) {
        let pinned = self.standing.pins.remove(&(trial, step));
        assert!(!pinned || reason != DropReason::Superseded, "step {step} of {trial} was pinned, and went");
    }

    /// An attempt that the scheduler asked to stop has stopped at a checkpoint, at least in part: that another one
    /// goes first costs no work.
    pub(super) fn may_preempt(&self, attempt: AttemptId) {
        let insists = self.standing.yields.get(&attempt).is_none_or(|reason| reason.insists());
        let stopped = self.finished.get(&attempt).is_some_and(|shares| !shares.is_empty());
        assert!(insists || stopped, "{attempt} was stopped without a checkpoint");
    }

    /// An attempt that has stopped to go on with another number of ranks goes on at once; what had its slots instead is more
    /// urgent.
    pub fn check_resized(&mut self, cluster: &Cluster, events: &[Event]) {
        for event in events {
            let Event::AttemptFailed { trial, attempt, cause: FailureCause::Preempted, .. } = event else {
                continue;
            };
            let Some(&YieldReason::Resized { to }) = self.standing.yields.get(attempt) else { continue };
            let record = cluster.trial(*trial).unwrap();
            if record.attempt().is_some() {
                self.note("resumed at once");
            }
            let (priority, project) = standing(cluster, record);
            let limited = self.policy.project(&project).quota.is_some();
            if record.phase != Phase::Queued || limited {
                continue;
            }
            // The first ranks stay where they are.
            let shares = self.standing.placements[attempt].shares().iter();
            let kept = shares.filter(|share| share.first_rank < to);
            let kept = kept.map(|share| (share.worker, share.ranks.min(to - share.first_rank)));
            let kept = kept.collect::<BTreeMap<_, _>>();
            let there = kept.keys().all(|worker| {
                cluster.worker(*worker).is_some_and(|view| {
                    let in_service = view.drain.is_none() && view.quarantine.is_none();
                    in_service && view.session == Session::Connected
                })
            });
            let taken = events.iter().filter_map(|event| {
                let Event::AttemptStarted { trial, placement, .. } = event else { return None };
                Some((trial, placement))
            });
            // Those that started there and are not more urgent.
            let others = taken.filter(|_| there).filter(|(other, placement)| {
                let urgent = standing(cluster, cluster.trial(**other).unwrap()).0 > priority;
                !urgent && placement.shares().iter().any(|share| kept.contains_key(&share.worker))
            });
            let others = others.collect::<Vec<_>>();
            // More urgent ones may have left too little for it, and what is left is anybody's.
            let enough = kept.iter().all(|(&worker, &ranks)| {
                let view = cluster.worker(worker).unwrap();
                let taken = others.iter().filter_map(|(_, placement)| placement.share_of(worker));
                view.worker.slots - view.used + taken.map(|share| share.ranks).sum::<u32>() >= ranks
            });
            assert!(
                others.is_empty() || !enough,
                "{:?} have slots of {trial}, which was to go on with {to} ranks",
                others.iter().map(|(other, _)| other).collect::<Vec<_>>()
            );
        }
    }

    /// A worker's lease is over, and so is whatever had a share there.
    pub(super) fn lose(&mut self, worker: WorkerId) {
        self.note("worker lost");
        let placed = self.standing.placements.iter();
        for (attempt, _) in placed.filter(|(_, placement)| placement.share_of(worker).is_some()) {
            if let Some(end) = self.ends.get_mut(attempt) {
                end.lost.insert(worker);
            }
        }
    }

    /// A trial starts that somebody wants now, where work is taken, within its project's quota.
    pub(super) fn may_start(&self, trial: TrialId, placement: &Placement) {
        let wanted_by = &self.trials[&trial].wanted_by;
        let wanted = wanted_by.is_empty() || wanted_by.iter().any(|id| !self.standing.experiments[id].paused);
        assert!(wanted && !self.standing.paused.contains(&trial), "{trial} started and is paused");
        for share in placement.shares() {
            let barred = self.standing.barred.contains(&share.worker);
            assert!(!barred, "{trial} started on {}, which is out of service", share.worker);
        }
        let project = self.project(trial);
        if let Some(quota) = project.and_then(|project| self.policy.project(project).quota) {
            let running = self.trials.iter().filter(|&(&id, _)| self.project(id) == project);
            let slots = running.filter_map(|(_, story)| match story.stand {
                Stand::Running(attempt) => Some(self.standing.placements[&attempt].world_size()),
                Stand::Open | Stand::Ended => None,
            });
            let used = slots.sum::<u32>();
            assert!(used <= quota, "with {trial} {project:?} has {used} slots of {quota}");
        }
    }

    /// The project of the most urgent experiment that wants a trial, of those that are not paused if there are any.
    fn project(&self, trial: TrialId) -> Option<&str> {
        let owners = self.trials[&trial].wanted_by.iter().map(|id| &self.standing.experiments[id]);
        // Of equals `max_by_key` takes the last.
        let owner = owners.rev().max_by_key(|owner| (!owner.paused, owner.priority))?;
        Some(&owner.project)
    }

    /// Whether a project's quota leaves less than `needs`, counting what is kept for its trials.
    fn is_spent(&self, cluster: &Cluster, project: &str, needs: u32) -> bool {
        let Some(quota) = self.policy.project(project).quota else {
            return false;
        };
        let charged = |id| standing(cluster, cluster.trial(id).unwrap()).1 == project;
        let running = cluster.trials().filter_map(|(id, record)| Some((id, record.attempt()?)));
        let used = running.filter(|&(id, _)| charged(id)).map(|(_, attempt)| attempt.placement.world_size());
        let kept = cluster.reservations().filter(|&(id, _, _)| charged(id));
        let kept = kept.flat_map(|(_, reservation, _)| reservation.slots.values().copied());
        used.chain(kept).sum::<u32>() + needs > quota
    }

    /// Nothing was started with slots on which a more urgent trial would have fitted.
    pub fn check_priorities(&self, cluster: &Cluster, events: &[Event]) {
        let mut started = Vec::new();
        for event in events {
            if let Event::AttemptStarted { trial, placement, .. } = event {
                let record = cluster.trial(*trial).unwrap();
                started.push((standing(cluster, record).0, placement));
            }
        }
        if started.is_empty() {
            return;
        }
        for (id, record) in cluster.trials().filter(|(_, record)| record.phase == Phase::Queued) {
            let (priority, project) = standing(cluster, record);
            if self.is_spent(cluster, &project, least(record)) {
                continue;
            }
            let takes_work = |worker| {
                cluster.worker(worker).is_some_and(|view| {
                    let in_service = view.drain.is_none() && view.quarantine.is_none();
                    let meets = view.worker.traits.meet(&record.policy.requires);
                    view.session == Session::Connected && in_service && meets
                })
            };
            let taken = |worker| {
                let less = started.iter().filter(|(other, _)| *other < priority);
                less.filter_map(|(_, placement)| placement.share_of(worker))
                    .map(|share| share.ranks)
                    .sum::<u32>()
            };
            let open = cluster.workers().filter(|view| takes_work(view.id)).map(|view| {
                let most = view.worker.slots - view.used + taken(view.id);
                most.saturating_sub(kept(cluster, view.id, id, priority))
            });
            let any = cluster.workers().any(|view| taken(view.id) > 0 && takes_work(view.id));
            let fits = any && open.sum::<u32>() >= least(record);
            let reason = cluster.explain(id);
            let passed_over = fits && !is_held_back(reason.as_ref());
            assert!(!passed_over, "{id} of priority {priority} was passed over for {started:?}: {reason:?}");
        }
    }
}

/// Slots of a worker that are kept for another trial that is no less urgent.
fn kept(cluster: &Cluster, worker: WorkerId, than: TrialId, priority: i32) -> u32 {
    let others = cluster.reservations().filter(|&(holder, _, _)| {
        holder != than && standing(cluster, cluster.trial(holder).unwrap()).0 >= priority
    });
    others.filter_map(|(_, reservation, _)| reservation.slots.get(&worker)).sum()
}

/// Whether a trial waits for something other than slots that are free.
fn is_held_back(reason: Option<&WaitReason>) -> bool {
    match reason {
        // More urgent trials have the slots, or what is left of the project's quota.
        Some(
            WaitReason::Held { .. }
            | WaitReason::Behind { .. }
            | WaitReason::Yielding { .. }
            | WaitReason::Resting { .. },
        ) => true,
        Some(
            WaitReason::Needs(_)
            | WaitReason::NoWorker
            | WaitReason::Paused { .. }
            | WaitReason::OutOfService(_)
            | WaitReason::Quota { .. }
            | WaitReason::OverQuota { .. }
            | WaitReason::NoMatch { .. }
            | WaitReason::TooWide { .. }
            | WaitReason::Slots { .. }
            | WaitReason::Reserved { .. },
        )
        | None => false,
    }
}
