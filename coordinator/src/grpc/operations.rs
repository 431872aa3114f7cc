//! What changes which trials run, and where.

use common::{ExperimentId, TrialId};
use coordinator_core::{Input, Phase, YieldReason};
use proto::v1;
use proto::v1::{pause_request, resume_request};

use super::error::RequestError;
use super::workers::attempts_on;
use super::{Answer, Service, lookup, message};
use crate::driver::View;

/// What a client named.
#[derive(Clone, Copy)]
enum Target {
    Experiment(ExperimentId),
    Trial(TrialId),
}

/// Trials of a target that a pause holds back.
struct Held {
    /// Do not run.
    paused: u32,
    /// Run until they have written a checkpoint.
    yielding: u32,
}

impl Held {
    fn all(&self) -> u32 {
        self.paused + self.yielding
    }
}

fn held(view: &View<'_>, target: Target) -> Held {
    let trials = match target {
        Target::Experiment(id) => {
            view.cluster.experiment(id).map(|found| found.trials.clone()).unwrap_or_default()
        }
        Target::Trial(id) => vec![id],
    };
    let mut held = Held { paused: 0, yielding: 0 };
    for trial in trials.into_iter().filter_map(|id| view.cluster.trial(id)) {
        match &trial.phase {
            Phase::Paused => held.paused += 1,
            Phase::Running(attempt) => {
                let paused = attempt.yielding.is_some_and(|yielding| yielding.reason == YieldReason::Paused);
                held.yielding += u32::from(paused);
            }
            Phase::Waiting | Phase::Queued | Phase::Ended { .. } => {}
        }
    }
    held
}

impl Service {
    pub(super) async fn pause(&self, request: v1::PauseRequest) -> Answer<v1::PauseResponse> {
        let target = request.target.ok_or(RequestError::NoTarget("pause"))?;
        let target = self
            .look(move |view| match target {
                pause_request::Target::Experiment(name) => experiment(view, &name),
                pause_request::Target::Trial(name) => trial(view, &name),
            })
            .await?;
        let input = match target {
            Target::Experiment(experiment) => Input::PauseExperiment { experiment },
            Target::Trial(trial) => Input::PauseTrial { trial },
        };
        self.driver.apply(input).await?;
        let Held { paused, yielding } = self.look(move |view| Ok(held(view, target))).await?;
        Ok(v1::PauseResponse { paused: paused + yielding, yielding })
    }

    pub(super) async fn resume(&self, request: v1::ResumeRequest) -> Answer<v1::ResumeResponse> {
        let target = request.target.ok_or(RequestError::NoTarget("resume"))?;
        let target = self
            .look(move |view| match target {
                resume_request::Target::Experiment(name) => experiment(view, &name),
                resume_request::Target::Trial(name) => trial(view, &name),
            })
            .await?;
        let before = self.look(move |view| Ok(held(view, target))).await?;
        let input = match target {
            Target::Experiment(experiment) => Input::ResumeExperiment { experiment },
            Target::Trial(trial) => Input::ResumeTrial { trial },
        };
        self.driver.apply(input).await?;
        let after = self.look(move |view| Ok(held(view, target))).await?;
        Ok(v1::ResumeResponse { resumed: before.all().saturating_sub(after.all()) })
    }

    pub(super) async fn set_priority(
        &self,
        request: v1::SetPriorityRequest,
    ) -> Answer<v1::SetPriorityResponse> {
        let v1::SetPriorityRequest { experiment, priority } = request;
        let experiment = self.look(move |view| Ok(lookup::experiment(view, &experiment)?.0)).await?;
        self.driver.apply(Input::SetPriority { experiment, priority }).await?;
        Ok(v1::SetPriorityResponse {})
    }

    pub(super) async fn explain(&self, request: v1::ExplainRequest) -> Answer<v1::ExplainResponse> {
        self.look(move |view| {
            let (id, record) = lookup::trial(view, &request.trial)?;
            let trial = Some(message::trial(view, id, record));
            Ok(v1::ExplainResponse { trial, reasons: message::explanation(view, id, record) })
        })
        .await
    }

    pub(super) async fn pin_checkpoint(
        &self,
        request: v1::PinCheckpointRequest,
    ) -> Answer<v1::PinCheckpointResponse> {
        let v1::PinCheckpointRequest { trial, step, pinned } = request;
        let trial = self.look(move |view| Ok(lookup::trial(view, &trial)?.0)).await?;
        let input = if pinned {
            Input::PinCheckpoint { trial, step }
        } else {
            Input::UnpinCheckpoint { trial, step }
        };
        self.driver.apply(input).await?;
        Ok(v1::PinCheckpointResponse {})
    }

    pub(super) async fn drain(&self, request: v1::DrainRequest) -> Answer<v1::DrainResponse> {
        let v1::DrainRequest { worker, now, reason } = request;
        let worker = self.look(move |view| lookup::worker(view, &worker)).await?;
        self.driver.apply(Input::Drain { worker, now, reason }).await?;
        self.look(move |view| Ok(v1::DrainResponse { attempts: attempts_on(view, worker) })).await
    }

    pub(super) async fn undrain(&self, request: v1::UndrainRequest) -> Answer<v1::UndrainResponse> {
        let worker = self.look(move |view| lookup::worker(view, &request.worker)).await?;
        self.driver.apply(Input::Undrain { worker }).await?;
        Ok(v1::UndrainResponse {})
    }
}

fn experiment(view: &View<'_>, name: &str) -> Answer<Target> {
    lookup::experiment(view, name).map(|(id, _)| Target::Experiment(id))
}

fn trial(view: &View<'_>, name: &str) -> Answer<Target> {
    lookup::trial(view, name).map(|(id, _)| Target::Trial(id))
}
