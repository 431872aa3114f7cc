//! Checkpoints: which exist, which are kept, and which blobs nobody refers to any more.

use std::collections::BTreeSet;

use common::result::Checkpoint;
use common::{AttemptId, Digest, FailureCause, TrialId, WorkerId};

use super::Cluster;
use crate::state::artifacts;
use crate::{DropReason, Effect, Event, Millis, Reject, Step, Trial};

impl Cluster {
    pub(super) fn checkpoint_committed(
        &mut self,
        now: Millis,
        worker: WorkerId,
        attempt: AttemptId,
        checkpoint: Checkpoint,
        step: &mut Step,
    ) -> Result<(), Reject> {
        self.current(worker, attempt)?;
        let trial = self.state.trial_of(attempt).ok_or(Reject::StaleAttempt(attempt))?;
        let newest = self.state.trials.get(&trial).and_then(|record| record.checkpoints.last());
        if newest == Some(&checkpoint) {
            return Ok(()); // Sent again, because the answer was lost.
        }
        if let Some(newest) = newest.filter(|newest| newest.step >= checkpoint.step) {
            return Err(Reject::StaleCheckpoint { trial, step: checkpoint.step, newest: newest.step });
        }
        self.emit(Event::CheckpointCommitted { trial, attempt, checkpoint, at: now }, step);
        self.drop_surplus(now, trial, step);
        Ok(())
    }

    /// A damaged checkpoint of a trial that runs is passed over for the one before it. One of a trial that
    /// had succeeded takes its success back: it runs again, and those that need it wait for it.
    pub(super) fn checkpoint_damaged(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        digest: Digest,
        step: &mut Step,
    ) -> Result<(), Reject> {
        let (trial, _) = self.state.running(attempt).ok_or(Reject::StaleAttempt(attempt))?;
        let needs = self.state.trials.get(&trial).map(|record| record.needs.clone()).unwrap_or_default();
        let given = std::iter::once(trial).chain(needs.iter().copied());
        let owners = given.filter(|&owner| self.holds(owner, digest)).collect::<BTreeSet<_>>();
        if owners.is_empty() {
            return Err(Reject::UnknownCheckpoint { attempt, digest });
        }
        for owner in owners {
            self.drop_checkpoint(now, owner, digest, DropReason::Damaged, step);
            self.reopen(now, owner, step);
        }
        Ok(())
    }

    fn holds(&self, trial: TrialId, digest: Digest) -> bool {
        let held = |record: &Trial| record.checkpoints.iter().any(|held| held.digest == digest);
        self.state.trials.get(&trial).is_some_and(held)
    }

    /// Takes back the success of a trial, if it had any, and the slots of those that run because of it.
    fn reopen(&mut self, now: Millis, trial: TrialId, step: &mut Step) {
        let Some(outcome) = self.state.trials.get(&trial).and_then(Trial::outcome) else {
            return;
        };
        if !outcome.is_success() {
            return;
        }
        let left = artifacts(outcome).collect::<Vec<_>>();
        self.emit(Event::TrialReopened { trial, at: now }, step);
        for digest in left {
            self.delete_unreferenced(digest, step);
        }
        let dependents = self.state.index.dependents_of(trial);
        let running = dependents.filter_map(|dependent| self.state.trials.get(&dependent)?.attempt());
        for attempt in running.map(|attempt| attempt.id).collect::<Vec<_>>() {
            self.fail(now, attempt, FailureCause::Preempted, step);
        }
    }

    pub(super) fn pin(
        &mut self,
        now: Millis,
        trial: TrialId,
        at: u64,
        step: &mut Step,
    ) -> Result<(), Reject> {
        if !self.pinnable(trial, at)?.pins.contains(&at) {
            self.emit(Event::CheckpointPinned { trial, step: at, at: now }, step);
        }
        Ok(())
    }

    /// What is not pinned any more is kept only if it would have been kept anyway.
    pub(super) fn unpin(
        &mut self,
        now: Millis,
        trial: TrialId,
        at: u64,
        step: &mut Step,
    ) -> Result<(), Reject> {
        if self.pinnable(trial, at)?.pins.contains(&at) {
            self.emit(Event::CheckpointUnpinned { trial, step: at, at: now }, step);
            self.drop_surplus(now, trial, step);
        }
        Ok(())
    }

    fn pinnable(&self, trial: TrialId, at: u64) -> Result<&Trial, Reject> {
        let record = self.state.trials.get(&trial).ok_or(Reject::UnknownTrial(trial))?;
        let kept = record.checkpoints.iter().any(|checkpoint| checkpoint.step == at);
        if kept { Ok(record) } else { Err(Reject::NoSuchCheckpoint { trial, step: at }) }
    }

    /// Drops what the policy does not keep of a trial.
    pub(super) fn drop_surplus(&mut self, now: Millis, trial: TrialId, step: &mut Step) {
        let Some(record) = self.state.trials.get(&trial) else {
            return;
        };
        let old =
            record.surplus(self.policy.checkpoints).map(|checkpoint| checkpoint.digest).collect::<Vec<_>>();
        for digest in old.into_iter().rev() {
            self.drop_checkpoint(now, trial, digest, DropReason::Superseded, step);
        }
    }

    /// Drops every checkpoint of a trial whose trainer cannot read them, also those that are pinned: it would be
    /// handed them again.
    pub(super) fn drop_unreadable(&mut self, now: Millis, trial: TrialId, step: &mut Step) {
        let held = self.state.trials.get(&trial).into_iter().flat_map(|record| &record.checkpoints);
        for digest in held.map(|checkpoint| checkpoint.digest).collect::<Vec<_>>() {
            self.drop_checkpoint(now, trial, digest, DropReason::Incompatible, step);
        }
    }

    /// First the record, then the blob.
    fn drop_checkpoint(
        &mut self,
        now: Millis,
        trial: TrialId,
        digest: Digest,
        reason: DropReason,
        step: &mut Step,
    ) {
        self.emit(Event::CheckpointDropped { trial, digest, reason, at: now }, step);
        self.delete_unreferenced(digest, step);
    }

    fn delete_unreferenced(&self, digest: Digest, step: &mut Step) {
        let effect = Effect::DeleteBlob { digest };
        if !self.is_referenced(digest) && !step.effects.contains(&effect) {
            step.effects.push(effect);
        }
    }
}
