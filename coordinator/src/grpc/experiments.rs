//! Submitting, listing and cancelling experiments.

use common::grid;
use common::plan::{Plan, PlannedTrial};
use coordinator_core::{Input, Trial};
use proto::v1;
use tracing::info;

use super::error::RequestError;
use super::{Answer, Service, lookup, message};

impl Service {
    pub(super) async fn submit(&self, request: v1::SubmitRequest) -> Answer<v1::SubmitResponse> {
        let v1::SubmitRequest { grid, client_version, dry_run } = request;
        let (plan, grid) = expand(grid).await?;
        let mut response = v1::SubmitResponse {
            experiment_id: String::new(),
            name: plan.name.clone(),
            trials: plan.trials.iter().map(planned).collect(),
            cells: count(plan.cells.len()),
            new_trials: 0,
            reused_trials: 0,
        };
        let total = count(plan.trials.len());
        if dry_run {
            response.new_trials = self
                .look(move |view| {
                    let unknown =
                        |trial: &&PlannedTrial| view.cluster.trial_by_key(trial.spec.key()).is_none();
                    Ok(count(plan.trials.iter().filter(unknown).count()))
                })
                .await?;
        } else {
            info!(name = plan.name, trials = total, client_version, "a grid is submitted");
            let applied = self.driver.apply(Input::Submit { plan, grid }).await?;
            response.new_trials = applied.new_trials;
            response.experiment_id = applied.experiment.map(|id| id.to_string()).unwrap_or_default();
        }
        response.reused_trials = total.saturating_sub(response.new_trials);
        Ok(response)
    }

    pub(super) async fn list_experiments(&self) -> Answer<v1::ListExperimentsResponse> {
        self.look(|view| {
            let experiments = view.cluster.experiments();
            let experiments = experiments.map(|(id, record)| message::experiment(view, id, record)).collect();
            Ok(v1::ListExperimentsResponse { experiments })
        })
        .await
    }

    pub(super) async fn get_experiment(
        &self,
        request: v1::GetExperimentRequest,
    ) -> Answer<v1::GetExperimentResponse> {
        self.look(move |view| {
            let (id, record) = lookup::experiment(view, &request.experiment)?;
            let cells = record.cells.iter().map(|cell| {
                let trial = view.cluster.trial_by_key(cell.trial);
                let state = trial.and_then(|id| view.cluster.trial(id)).map(message::trial_state);
                v1::Cell {
                    data: cell.data.to_string(),
                    model: cell.model.to_string(),
                    method: cell.method.to_string(),
                    seed: cell.seed,
                    trial_id: trial.map(|id| id.to_string()).unwrap_or_default(),
                    state: state.unwrap_or(v1::TrialState::Unspecified).into(),
                }
            });
            Ok(v1::GetExperimentResponse {
                experiment: Some(message::experiment(view, id, record)),
                grid: record.grid.clone(),
                cells: cells.collect(),
            })
        })
        .await
    }

    pub(super) async fn cancel(&self, request: v1::CancelRequest) -> Answer<v1::CancelResponse> {
        use v1::cancel_request::Target;
        let input = match request.target.ok_or(RequestError::NoTarget("cancel"))? {
            Target::Experiment(name) => {
                let experiment = self.look(move |view| Ok(lookup::experiment(view, &name)?.0)).await?;
                Input::CancelExperiment { experiment }
            }
            Target::Trial(name) => {
                let trial = self.look(move |view| Ok(lookup::trial(view, &name)?.0)).await?;
                Input::CancelTrial { trial }
            }
        };
        let applied = self.driver.apply(input).await?;
        Ok(v1::CancelResponse { cancelled: applied.cancelled })
    }

    pub(super) async fn list_trials(&self, request: v1::ListTrialsRequest) -> Answer<v1::ListTrialsResponse> {
        self.look(move |view| {
            let show = |(id, record): (_, &Trial)| message::trial(view, id, record);
            let trials = if request.experiment.is_empty() {
                view.cluster.trials().map(show).collect()
            } else {
                let (_, experiment) = lookup::experiment(view, &request.experiment)?;
                let known = |&id| Some((id, view.cluster.trial(id)?));
                experiment.trials.iter().filter_map(known).map(show).collect()
            };
            Ok(v1::ListTrialsResponse { trials })
        })
        .await
    }
}

/// A grid may expand to many thousand trials, each with a digest: not on a thread that serves others.
async fn expand(text: String) -> Answer<(Plan, String)> {
    let expanded = tokio::task::spawn_blocking(move || grid::parse(&text).map(|plan| (plan, text))).await;
    match expanded {
        Ok(plan) => plan.map_err(|errors| RequestError::Grid(Box::new(errors))),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn planned(trial: &PlannedTrial) -> v1::PlannedTrial {
    v1::PlannedTrial {
        key: trial.spec.key().to_string(),
        label: trial.label.clone(),
        slots: trial.spec.slots(),
        needs: trial.spec.needs().iter().map(ToString::to_string).collect(),
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
