//! Durable state of checkpoints: which are kept, which are pinned, with how many ranks training got there.

use common::result::Checkpoint;
use common::{Digest, TrialId};

use super::{Setbacks, State};
use crate::DropReason;

impl State {
    pub(super) fn apply_checkpoint_committed(&mut self, id: TrialId, checkpoint: &Checkpoint) {
        if let Some(record) = self.trials.get_mut(&id) {
            record.checkpoints.push(checkpoint.clone());
            record.newest_damaged = false;
            record.workers_lost = 0;
            record.setbacks = Setbacks::default();
            self.index.add_blob(checkpoint.digest);
        }
        self.does_well(id);
        self.trained_with(id);
    }

    pub(super) fn apply_checkpoint_dropped(&mut self, id: TrialId, digest: Digest, reason: DropReason) {
        let Some(record) = self.trials.get_mut(&id) else {
            return;
        };
        if let Some(position) = record.checkpoints.iter().position(|held| held.digest == digest) {
            let dropped = record.checkpoints.remove(position);
            record.pins.exclude(&dropped.step);
            record.newest_damaged |= reason == DropReason::Damaged && position == record.checkpoints.len();
            if record.checkpoints.is_empty() {
                record.world_sizes.clear();
            }
            self.index.remove_blob(digest);
        }
    }

    pub(super) fn apply_pinned(&mut self, id: TrialId, step: u64) {
        if let Some(record) = self.trials.get_mut(&id) {
            record.pins.include(step);
        }
    }

    pub(super) fn apply_unpinned(&mut self, id: TrialId, step: u64) {
        if let Some(record) = self.trials.get_mut(&id) {
            record.pins.exclude(&step);
        }
    }

    /// The attempt that runs left something: its number of ranks is part of the trial's history.
    pub(super) fn trained_with(&mut self, id: TrialId) {
        if let Some(record) = self.trials.get_mut(&id) {
            let ranks = record.attempt().map(|attempt| attempt.placement.world_size());
            if let Some(ranks) = ranks.filter(|ranks| record.world_sizes.last() != Some(ranks)) {
                record.world_sizes.push(ranks);
            }
        }
    }
}
