//! From what each rank said and how it ended to how the attempt ended on this worker.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use common::FailureCause;
use common::result::{Artifact, TrialResult};
use common::session::AttemptEnd;

use super::uploads::UploadFailed;

/// How ranks ended, as far as is known.
#[derive(Debug, Default)]
pub struct Outcomes {
    metrics: Option<BTreeMap<String, f64>>,
    reported: BTreeMap<u32, FailureCause>,
    /// The cause of the attempt: the first, unless a later one explains it.
    cause: Option<FailureCause>,
    stopped: bool,
    yielded: bool,
}

impl Outcomes {
    /// A rank reported its scores.
    pub fn done(&mut self, metrics: BTreeMap<String, f64>) {
        self.metrics = Some(metrics);
    }

    /// A rank reported why it cannot go on.
    pub fn failed(&mut self, rank: u32, cause: FailureCause) {
        tracing::warn!(rank, %cause, "a trainer failed");
        self.reported.entry(rank).or_insert(cause);
    }

    /// A rank ended early because it was asked to, and nothing is lost.
    pub fn yielded(&mut self) {
        self.yielded = true;
    }

    /// The agent ends the attempt, for a reason that explains whatever ranks say from now on.
    pub fn condemned(&mut self, cause: FailureCause) {
        tracing::warn!(%cause, "the attempt is ended");
        if self.has_no_better_cause(&cause) {
            self.cause = Some(cause);
        }
    }

    /// Whether the cause is known, so that nothing that other ranks may say would explain it better.
    pub fn explained(&self) -> bool {
        !matches!(self.cause, None | Some(FailureCause::CollectiveFailed { .. }))
    }

    /// Whether the scores are there: nothing that is asked from now on keeps the trial from its end.
    pub fn is_done(&self) -> bool {
        self.metrics.is_some()
    }

    /// A rank whose peer died sees a failed collective: an effect, not the cause.
    fn has_no_better_cause(&self, cause: &FailureCause) -> bool {
        match &self.cause {
            None => true,
            Some(FailureCause::CollectiveFailed { .. }) => {
                !matches!(cause, FailureCause::CollectiveFailed { .. })
            }
            Some(_) => false,
        }
    }

    /// The coordinator wanted the attempt to end; what ranks do from now on is no failure of theirs.
    pub fn stopped(&mut self) {
        self.stopped = true;
    }

    /// A rank is gone. Returns whether it failed, so that the others cannot succeed.
    pub fn gone(&mut self, rank: u32, status: io::Result<ExitStatus>) -> bool {
        if self.stopped {
            return true;
        }
        let cause = match (self.reported.remove(&rank), status) {
            (Some(cause), _) => cause,
            (None, Ok(status)) if status.success() => return false,
            (None, Ok(status)) => match (status.signal(), status.code()) {
                (Some(signal), _) => FailureCause::TrainerSignal { signal },
                (None, code) => FailureCause::TrainerExit { code: code.unwrap_or(-1) },
            },
            (None, Err(error)) => FailureCause::LaunchFailed { message: error.to_string() },
        };
        tracing::warn!(rank, %cause, "a trainer is gone");
        if self.has_no_better_cause(&cause) {
            self.cause = Some(cause);
        }
        true
    }

    /// How the attempt ended here. The worker that holds rank 0 needs the scores.
    pub fn into_end(self, holds_rank_0: bool, artifacts: Result<Vec<Artifact>, UploadFailed>) -> AttemptEnd {
        if self.stopped {
            return Err(FailureCause::Preempted);
        }
        if let Some(cause) = self.cause {
            return Err(cause);
        }
        if self.yielded {
            return Err(FailureCause::Preempted);
        }
        let artifacts = artifacts.map_err(UploadFailed::cause)?;
        match (holds_rank_0, self.metrics) {
            (true, Some(metrics)) => Ok(Some(TrialResult { metrics: metrics.into(), artifacts })),
            // Status 0 without scores: something other than our trainer, or one that was cut short.
            (true, None) => Err(FailureCause::TrainerExit { code: 0 }),
            (false, _) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> io::Result<ExitStatus> {
        Ok(ExitStatus::from_raw(code << 8))
    }

    fn killed(signal: i32) -> io::Result<ExitStatus> {
        Ok(ExitStatus::from_raw(signal))
    }

    #[test]
    fn the_death_of_a_rank_explains_the_failed_collective_of_its_peer() {
        let mut outcomes = Outcomes::default();
        outcomes.failed(0, FailureCause::CollectiveFailed { rank: 0 });
        assert!(outcomes.gone(0, exited(1)));
        assert!(outcomes.gone(1, killed(9)));
        assert_eq!(outcomes.into_end(true, Ok(vec![])), Err(FailureCause::TrainerSignal { signal: 9 }));
    }

    #[test]
    fn a_reported_cause_is_more_exact_than_a_status() {
        let mut outcomes = Outcomes::default();
        outcomes.failed(0, FailureCause::NonFiniteLoss { step: 3 });
        outcomes.gone(0, exited(1));
        assert_eq!(outcomes.into_end(true, Ok(vec![])), Err(FailureCause::NonFiniteLoss { step: 3 }));
    }

    #[test]
    fn what_the_agent_found_explains_what_ranks_say_when_they_are_killed() {
        let hung = FailureCause::Hung {
            rank: 1,
            worker: "w".to_owned(),
            step: 3,
            phase: "forward".to_owned(),
            silent_ms: 2_000,
        };
        let mut outcomes = Outcomes::default();
        assert!(!outcomes.explained());
        outcomes.failed(0, FailureCause::CollectiveFailed { rank: 0 });
        assert!(outcomes.gone(0, exited(1)) && !outcomes.explained());
        outcomes.condemned(hung.clone());
        assert!(outcomes.gone(1, killed(9)) && outcomes.explained());
        assert_eq!(outcomes.into_end(true, Ok(vec![])), Err(hung));
    }

    #[test]
    fn success_without_scores_is_no_success() {
        let mut outcomes = Outcomes::default();
        assert!(!outcomes.gone(0, exited(0)));
        assert_eq!(outcomes.into_end(true, Ok(vec![])), Err(FailureCause::TrainerExit { code: 0 }));
    }

    #[test]
    fn what_was_stopped_did_not_fail() {
        let mut outcomes = Outcomes::default();
        outcomes.stopped();
        assert!(outcomes.gone(0, killed(15)));
        assert_eq!(outcomes.into_end(true, Ok(vec![])), Err(FailureCause::Preempted));
    }
}
