//! Pauses after failures that no budget counts.

use common::{AttemptId, FailureCause, TrialId, WorkerId};
use coordinator_core::Millis;

use super::Oracle;

impl Oracle {
    /// An attempt failed, and its trial may have to rest.
    pub(super) fn note_setback(
        &mut self,
        trial: TrialId,
        attempt: AttemptId,
        cause: &FailureCause,
        worker: Option<WorkerId>,
        at: Millis,
    ) {
        if *cause == FailureCause::Preempted {
            return;
        }
        let gang = self.placement(attempt).unwrap().shares().iter().map(|share| share.worker);
        let to_blame = gang.filter(|other| worker.is_none_or(|worker| worker == *other)).collect::<Vec<_>>();
        let story = self.trials.get_mut(&trial).unwrap();
        let again = to_blame.iter().any(|worker| story.failed_on.contains(worker));
        let first_lost = *cause == FailureCause::WorkerLost && story.lost_in_a_row == 0;
        let lost = matches!(cause, FailureCause::WorkerLost | FailureCause::Unhealthy { .. });
        story.lost_in_a_row += u32::from(lost);
        story.failed_on.extend(to_blame);
        if cause.counts() {
            story.setbacks = 0;
        } else if again && !first_lost {
            story.setbacks += 1;
            let pause = self.policy.retry_after * 2_u32.pow(story.setbacks.min(20) - 1);
            story.rests_until = (at + pause.min(self.policy.retry_after_most)).0;
            self.note("rested");
        }
    }

    /// A trial starts that has rested.
    pub(super) fn has_rested(&self, trial: TrialId, at: Millis) {
        let until = self.trials[&trial].rests_until;
        assert!(at.0 >= until, "{trial} started at {} and was to rest until {until}", at.0);
    }
}
