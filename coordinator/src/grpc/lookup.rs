//! From what a user typed to the thing that is meant.

use std::collections::BTreeMap;

use common::suggest;
use common::{ExperimentId, TrialId, TrialKey, WorkerId};
use coordinator_core::{Experiment, Trial};

use super::Answer;
use super::error::RequestError;
use crate::driver::View;

/// Names that an error lists: a screen's worth.
const NAMES: usize = 20;

/// An experiment by id or name; of several with one name, the newest.
pub(super) fn experiment<'a>(view: &View<'a>, text: &str) -> Answer<(ExperimentId, &'a Experiment)> {
    let by_id = text.parse().ok().and_then(|id| Some((id, view.cluster.experiment(id)?)));
    let by_name = || view.cluster.experiments().rev().find(|(_, experiment)| experiment.name == text);
    by_id.or_else(by_name).ok_or_else(|| unknown_experiment(view, text))
}

/// A trial by id, key, or the beginning of a key that no other key has.
pub(super) fn trial<'a>(view: &View<'a>, text: &str) -> Answer<(TrialId, &'a Trial)> {
    let unknown = || RequestError::UnknownTrial(text.to_owned());
    let by_id = text.parse().ok().filter(|&id| view.cluster.trial(id).is_some());
    let by_key = || text.parse().ok().and_then(|digest| view.cluster.trial_by_key(TrialKey(digest)));
    let id = match by_id.or_else(by_key) {
        Some(id) => id,
        None => by_prefix(view, text)?.ok_or_else(unknown)?,
    };
    view.cluster.trial(id).map(|trial| (id, trial)).ok_or_else(unknown)
}

/// A worker by id or name, present or held back.
pub(super) fn worker(view: &View<'_>, text: &str) -> Answer<WorkerId> {
    let known = known_workers(view);
    if let Some(id) = text.parse().ok().filter(|id| known.contains_key(id)) {
        return Ok(id);
    }
    let named: Vec<WorkerId> = known.iter().filter(|(_, name)| **name == text).map(|(&id, _)| id).collect();
    match named.as_slice() {
        [id] => Ok(*id),
        [] => {
            let hint = if known.is_empty() {
                "none has connected yet".to_owned()
            } else {
                suggest::hint(text, known.values().copied())
            };
            Err(RequestError::UnknownWorker { name: text.to_owned(), hint })
        }
        several => Err(RequestError::AmbiguousWorker { name: text.to_owned(), count: several.len() }),
    }
}

/// Members, and workers that were taken out of service and may be away.
pub(super) fn known_workers<'a>(view: &View<'a>) -> BTreeMap<WorkerId, &'a str> {
    let members = view.cluster.workers().map(|member| (member.id, member.worker.name.as_str()));
    let held = view.cluster.drained().map(|(id, _)| id).chain(view.cluster.quarantined().map(|(id, _)| id));
    let away = held.map(|id| (id, view.history.worker_name(id).unwrap_or_default()));
    away.chain(members).collect()
}

fn by_prefix(view: &View<'_>, text: &str) -> Answer<Option<TrialId>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let prefix = text.to_ascii_lowercase();
    let matches: Vec<_> =
        view.cluster.trials().filter(|(_, trial)| trial.key.to_string().starts_with(&prefix)).collect();
    match matches.as_slice() {
        [] => Ok(None),
        [(id, _)] => Ok(Some(*id)),
        several => Err(RequestError::AmbiguousKey { prefix, count: several.len() }),
    }
}

fn unknown_experiment(view: &View<'_>, text: &str) -> RequestError {
    let mut names: Vec<&str> = Vec::new();
    for (_, experiment) in view.cluster.experiments().rev() {
        if names.len() < NAMES && !names.contains(&experiment.name.as_str()) {
            names.push(&experiment.name);
        }
    }
    let hint = match names.as_slice() {
        [] => "none was submitted yet".to_owned(),
        names => suggest::hint(text, names.iter().copied()),
    };
    RequestError::UnknownExperiment { name: text.to_owned(), hint }
}
