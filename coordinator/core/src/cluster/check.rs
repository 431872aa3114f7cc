//! The invariants, checked against the records themselves rather than the lookups.

use std::collections::{BTreeMap, BTreeSet};

use common::{AttemptId, TrialId, WorkerId};

use super::Cluster;
use crate::scheduling::{Decisions, Depth, Pools};
use crate::state::Index;
use crate::{Attempt, Phase, Share, Trial};

/// An invariant that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// More slots are placed on a worker than it offers.
    #[error("worker {0} is oversubscribed")]
    Oversubscribed(WorkerId),
    /// A trial runs on a worker that is not a member.
    #[error("trial {0} runs on a worker that is gone")]
    Orphan(TrialId),
    /// Two trials share an attempt, or an attempt's id was never given out.
    #[error("attempt {0} is not unique")]
    SharedAttempt(AttemptId),
    /// A trial runs with a number of slots that it does not allow.
    #[error("trial {0} is not placed whole")]
    PartialGang(TrialId),
    /// A trial goes on after more failures than its policy allows.
    #[error("trial {0} failed too often to go on")]
    OverBudget(TrialId),
    /// A trial waits or is paused though it could run, or could run, or runs, though it must wait or is paused.
    #[error("trial {0} does not wait for what it needs")]
    WrongWait(TrialId),
    /// A trial waits for one that ended without success.
    #[error("trial {0} waits for a trial that ended without success")]
    HopelessWait(TrialId),
    /// A trial is open though no experiment wants it, or wanted though it ended.
    #[error("trial {0} is open and unwanted, or wanted and ended")]
    WrongWant(TrialId),
    /// A train trial that succeeded does not have its last checkpoint.
    #[error("trial {0} succeeded and does not hold its network")]
    NoNetwork(TrialId),
    /// A trial that could run, or runs, lacks a checkpoint that it reads.
    #[error("trial {0} lacks a network that it reads")]
    LostNetwork(TrialId),
    /// A checkpoint that a user wants kept is not.
    #[error("trial {0} does not hold a pinned checkpoint")]
    LostPin(TrialId),
    /// An attempt was placed on a worker that was drained or quarantined.
    #[error("trial {0} was started on a worker that is out of service")]
    OutOfService(TrialId),
    /// A trial keeps more checkpoints than the policy says, or not in the order of their steps.
    #[error("trial {0} keeps the wrong checkpoints")]
    WrongCheckpoints(TrialId),
    /// A worker is a member without a lease, or has a lease and is none.
    #[error("worker {0} is a member without a lease, or has a lease without being one")]
    WrongLease(WorkerId),
    /// Something is remembered about an attempt that is not current.
    #[error("attempt {0} is over and not forgotten")]
    Remembered(AttemptId),
    /// Slots are kept for a trial that has no claim to them, or not for one that has.
    #[error("the slots reserved for trial {0} are wrong")]
    WrongReservation(TrialId),
    /// An attempt should make way for a trial and was not asked to.
    #[error("attempt {0} was not asked to make way")]
    NotAsked(AttemptId),
    /// A trial that the policies would place waits.
    #[error("trial {0} could run and does not")]
    NotPlaced(TrialId),
    /// The derived lookups differ from what the records say.
    #[error("the lookups differ from the records")]
    StaleIndex,
}

impl Cluster {
    /// Checks every invariant that must hold between two inputs.
    ///
    /// Takes time in proportion to the whole state: for tests, and once after a replay.
    ///
    /// # Errors
    ///
    /// The first [`Violation`] found.
    pub fn check(&self) -> Result<(), Violation> {
        self.check_attempts()?;
        for (&id, trial) in &self.state.trials {
            self.check_trial(id, trial)?;
        }
        self.check_live()?;
        if Index::of(&self.state) != self.state.index {
            return Err(Violation::StaleIndex);
        }
        self.check_queue()
    }

    /// What one more look at the queue would come to: nothing new.
    fn check_queue(&self) -> Result<(), Violation> {
        let Decisions { placed, reservations, findings: _ } =
            self.look(&mut Pools::default(), Depth::Explain);
        if let Some(&(trial, _)) = placed.first() {
            return Err(Violation::NotPlaced(trial));
        }
        let asks = self.look_for_victims(&mut Pools::default()).asks;
        if let (Some((&attempt, _)), false) = (asks.first_key_value(), self.live.changed) {
            return Err(Violation::NotAsked(attempt));
        }
        let kept = |trial| (self.live.reservations.of(trial), reservations.of(trial));
        let both = self.live.reservations.iter().chain(reservations.iter());
        let differs = both.map(|(trial, _)| trial).find(|&trial| kept(trial).0 != kept(trial).1);
        match differs {
            Some(trial) => Err(Violation::WrongReservation(trial)),
            None => Ok(()),
        }
    }

    fn check_attempts(&self) -> Result<(), Violation> {
        let mut used: BTreeMap<WorkerId, u32> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (&id, trial) in &self.state.trials {
            let Some(running) = trial.attempt() else {
                continue;
            };
            self.check_barred(id, running)?;
            let Attempt { id: attempt, placement, started: _, expected_end: _, yielding: _ } = running;
            if !seen.insert(*attempt) || attempt.0 > self.state.last_attempt {
                return Err(Violation::SharedAttempt(*attempt));
            }
            if !trial.spec.allows(placement.world_size()) {
                return Err(Violation::PartialGang(id));
            }
            for share in placement.shares() {
                *used.entry(share.worker).or_default() += share.ranks;
                if !self.state.workers.contains_key(&share.worker) {
                    return Err(Violation::Orphan(id));
                }
            }
        }
        let over = |(worker, used): &(WorkerId, u32)| *used > self.state.workers[worker].slots;
        match used.into_iter().find(over) {
            Some((worker, _)) => Err(Violation::Oversubscribed(worker)),
            None => Ok(()),
        }
    }

    fn check_trial(&self, id: TrialId, trial: &Trial) -> Result<(), Violation> {
        let open = !trial.has_ended();
        if open && trial.counted_failures > trial.policy.max_failures {
            return Err(Violation::OverBudget(id));
        }
        if open == trial.wanted_by.is_empty() {
            return Err(Violation::WrongWant(id));
        }
        let (met, held) = (self.state.needs_met(trial), self.state.is_held(trial));
        let wrong = match trial.phase {
            Phase::Waiting => met || held,
            Phase::Queued => !met || held,
            Phase::Paused => !held,
            Phase::Running(ref attempt) => !met || (held && attempt.yielding.is_none()),
            Phase::Ended { .. } => false,
        };
        if wrong {
            return Err(Violation::WrongWait(id));
        }
        let hopeless = |need: &TrialId| {
            self.state.trials.get(need).is_none_or(|need| need.has_ended() && !need.has_succeeded())
        };
        if open && trial.needs.iter().any(hopeless) {
            return Err(Violation::HopelessWait(id));
        }
        self.check_checkpoints(id, trial)
    }

    fn check_checkpoints(&self, id: TrialId, trial: &Trial) -> Result<(), Violation> {
        let trained = trial.spec.trains() && trial.has_succeeded();
        if trained && trial.checkpoints.is_empty() {
            return Err(Violation::NoNetwork(id));
        }
        let rising = trial.checkpoints.windows(2).all(|pair| pair[0].step < pair[1].step);
        if !rising || trial.surplus(self.policy.checkpoints).next().is_some() {
            return Err(Violation::WrongCheckpoints(id));
        }
        let kept = |pin: &u64| trial.checkpoints.iter().any(|held| held.step == *pin);
        if !trial.pins.iter().all(kept) {
            return Err(Violation::LostPin(id));
        }
        let reads = match trial.phase {
            Phase::Queued | Phase::Running(_) => true,
            Phase::Waiting | Phase::Paused | Phase::Ended { .. } => false,
        };
        if reads && self.networks(id).count() != trial.needs.len() {
            return Err(Violation::LostNetwork(id));
        }
        Ok(())
    }

    /// Nothing starts on a worker that is out of service.
    fn check_barred(&self, id: TrialId, attempt: &Attempt) -> Result<(), Violation> {
        let since = |worker: WorkerId| {
            let drained = self.state.drained.get(&worker).map(|drain| drain.since);
            let quarantined = self.state.quarantined.get(&worker).map(|quarantine| quarantine.since);
            drained.into_iter().chain(quarantined).min()
        };
        let late = |share: &Share| since(share.worker).is_some_and(|since| attempt.started > since);
        if attempt.placement.shares().iter().any(late) { Err(Violation::OutOfService(id)) } else { Ok(()) }
    }

    fn check_live(&self) -> Result<(), Violation> {
        let members = self.state.workers.keys().copied().collect::<BTreeSet<_>>();
        let leased = self.live.leases.keys().copied().collect::<BTreeSet<_>>();
        if let Some(&worker) = members.symmetric_difference(&leased).next() {
            return Err(Violation::WrongLease(worker));
        }
        match self.live.gangs.keys().find(|&&attempt| self.state.trial_of(attempt).is_none()) {
            Some(&attempt) => Err(Violation::Remembered(attempt)),
            None => Ok(()),
        }
    }
}
