//! One trial in full.

use common::{AttemptId, TrialId};
use proto::v1;

use super::{Answer, Service, lookup, message};
use crate::driver::{AttemptOutcome, AttemptRecord, View};

impl Service {
    pub(super) async fn get_trial(&self, request: v1::GetTrialRequest) -> Answer<v1::GetTrialResponse> {
        let (id, mut response) = self.look(move |view| details(view, &request.trial)).await?;
        let warnings = self.stored(move |store| store.warnings(id)).await?;
        response.warnings = warnings.into_iter().map(|warning| warning.message).collect();
        Ok(response)
    }
}

fn details(view: &View<'_>, name: &str) -> Answer<(TrialId, v1::GetTrialResponse)> {
    let (id, record) = lookup::trial(view, name)?;
    let attempts = view.history.attempts_of(id);
    let response = v1::GetTrialResponse {
        trial: Some(message::trial(view, id, record)),
        spec_json: record.spec.to_spec().to_json(),
        attempts: attempts.map(|(id, attempt)| attempt_message(view, id, attempt)).collect(),
        checkpoints: record.checkpoints.iter().cloned().map(Into::into).collect(),
        result: record.result().cloned().map(Into::into),
        warnings: Vec::new(),
        pinned_steps: view.cluster.pinned(id).map(|checkpoint| checkpoint.step).collect(),
        best_step: record.best().map(|checkpoint| checkpoint.step),
    };
    Ok((id, response))
}

fn attempt_message(view: &View<'_>, id: AttemptId, record: &AttemptRecord) -> v1::Attempt {
    let shares = record.placement.shares().iter().map(|share| v1::Share {
        worker_id: share.worker.to_string(),
        worker_name: view.history.worker_name(share.worker).unwrap_or_default().to_owned(),
        slots: share.ranks,
    });
    let end = record.end.as_ref();
    let failure = end.map(|end| match &end.how {
        AttemptOutcome::Succeeded => String::new(),
        AttemptOutcome::Failed(cause) => cause.to_string(),
        AttemptOutcome::Cancelled => "cancelled".to_owned(),
    });
    v1::Attempt {
        id: id.to_string(),
        placement: shares.collect(),
        started_at_ms: record.started.0,
        ended_at_ms: end.map_or(0, |end| end.at.0),
        failure: failure.unwrap_or_default(),
        world_size: record.placement.world_size(),
        yielding: yielding(view, id),
    }
}

/// Why a running attempt was asked to write a checkpoint and end; empty otherwise.
fn yielding(view: &View<'_>, id: AttemptId) -> String {
    let running = view.cluster.trial_of(id).and_then(|trial| view.cluster.trial(trial)?.attempt());
    running
        .and_then(|attempt| attempt.yielding)
        .map(|yielding| yielding.reason.to_string())
        .unwrap_or_default()
}
