//! `credence status`

use std::process::ExitCode;

use proto::v1::{GetExperimentRequest, GetTrialRequest, ListTrialsRequest};
use serde::Serialize;

use super::names_trial;
use crate::args::{ClientArguments, StatusArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::view::{Checkpoint, Experiment, Trial, TrialDetail};
use crate::{out, text};

#[derive(Serialize)]
struct ExperimentStatus {
    #[serde(flatten)]
    experiment: Experiment,
    grid: String,
    all_trials: Vec<Trial>,
}

pub async fn run(client: &ClientArguments, arguments: StatusArguments) -> Result<ExitCode, Failure> {
    let mut client = Client::connect(client).await?;
    if names_trial(&arguments.target) {
        trial(&mut client, arguments).await
    } else {
        experiment(&mut client, arguments).await
    }
}

async fn experiment(client: &mut Client, arguments: StatusArguments) -> Result<ExitCode, Failure> {
    let name = arguments.target;
    let response = client.api.get_experiment(GetExperimentRequest { experiment: name.clone() }).await;
    let found = client.answer(response)?;
    let response = client.api.list_trials(ListTrialsRequest { experiment: name }).await;
    let trials: Vec<Trial> = client.answer(response)?.trials.into_iter().map(Into::into).collect();
    let experiment: Experiment = found.experiment.unwrap_or_default().into();
    if arguments.json {
        return out::json(&ExperimentStatus { experiment, grid: found.grid, all_trials: trials });
    }
    let now = text::now_ms();
    let rows: Vec<_> = trials.iter().map(|trial| trial_row(trial, now)).collect();
    out::line(&format!("{} {}: {}", experiment.id, experiment.name, experiment.state))?;
    out::line(&text::columns(["ID", "STATE", "TRIAL", "ATTEMPTS", "TIME", "NOTE"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn trial_row(trial: &Trial, now: u64) -> [String; 6] {
    let end = if trial.ended_at_ms == 0 { now } else { trial.ended_at_ms };
    let note = match &trial.progress {
        Some(progress) if progress.total_steps > 0 => {
            format!("step {}/{}", progress.step, progress.total_steps)
        }
        Some(_) | None => trial.reason.clone(),
    };
    [
        trial.id.clone(),
        trial.state.to_owned(),
        trial.label.clone(),
        trial.attempts.to_string(),
        text::between(trial.started_at_ms, end),
        note,
    ]
}

/// A checkpoint, and why it is kept if not for being new: `40 (pinned, best with 0.4127)`.
fn kept(detail: &TrialDetail, checkpoint: &Checkpoint) -> String {
    let step = checkpoint.step;
    let pinned = detail.pinned_steps.contains(&step).then(|| "pinned".to_owned());
    let best = checkpoint.score.filter(|_| detail.best_step == Some(step));
    let why: Vec<_> = pinned.into_iter().chain(best.map(|score| format!("best with {score:.4}"))).collect();
    if why.is_empty() { step.to_string() } else { format!("{step} ({})", why.join(", ")) }
}

async fn trial(client: &mut Client, arguments: StatusArguments) -> Result<ExitCode, Failure> {
    let response = client.api.get_trial(GetTrialRequest { trial: arguments.target }).await;
    let detail: TrialDetail = client.answer(response)?.into();
    if arguments.json {
        return out::json(&detail);
    }
    let trial = &detail.trial;
    let mut page = format!("{} {}: {}\n", trial.id, trial.label, trial.state);
    if !trial.reason.is_empty() {
        page.push_str(&format!("  {}\n", trial.reason));
    }
    page.push_str(&format!("  key          {}\n", trial.key));
    let slots = if trial.min_slots < trial.slots {
        format!("{} to {}", trial.min_slots, trial.slots)
    } else {
        trial.slots.to_string()
    };
    page.push_str(&format!("  slots        {slots}\n"));
    if !detail.checkpoints.is_empty() {
        let steps: Vec<_> = detail.checkpoints.iter().map(|checkpoint| kept(&detail, checkpoint)).collect();
        page.push_str(&format!("  checkpoints  steps {}\n", steps.join(", ")));
    }
    for attempt in &detail.history {
        let end = if attempt.ended_at_ms == 0 { text::now_ms() } else { attempt.ended_at_ms };
        let time = text::between(attempt.started_at_ms, end);
        let how = match (attempt.failure.as_str(), attempt.yielding.as_str()) {
            ("", "") => String::new(),
            ("", why) => format!(", writes a checkpoint and ends: {why}"),
            (failure, _) => format!(": {failure}"),
        };
        page.push_str(&format!(
            "  attempt {} on {} for {time}{how}\n",
            attempt.id,
            attempt.workers.join(", ")
        ));
    }
    for warning in &detail.warnings {
        page.push_str(&format!("  warning: {warning}\n"));
    }
    for (name, value) in &detail.metrics {
        page.push_str(&format!("  {name:<28} {value}\n"));
    }
    for artifact in &detail.artifacts {
        page.push_str(&format!("  artifact {} ({})\n", artifact.name, text::bytes(artifact.bytes)));
    }
    out::line(&page)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use proto::v1;

    use super::*;

    #[test]
    fn checkpoints_are_listed_with_why_they_are_kept() {
        let checkpoint = |step, score| v1::Checkpoint { step, score, bytes: 1, ..v1::Checkpoint::default() };
        let detail: TrialDetail = v1::GetTrialResponse {
            checkpoints: vec![checkpoint(5, None), checkpoint(10, Some(0.41273)), checkpoint(15, Some(0.5))],
            pinned_steps: vec![5, 10],
            best_step: Some(10),
            ..v1::GetTrialResponse::default()
        }
        .into();
        let listed: Vec<_> = detail.checkpoints.iter().map(|held| kept(&detail, held)).collect();
        assert_eq!(listed, ["5 (pinned)", "10 (pinned, best with 0.4127)", "15"]);
        let json = serde_json::to_value(&detail).unwrap();
        assert_eq!((&json["best_step"], &json["checkpoints"][1]["score"]), (&10.into(), &0.41273.into()));
    }
}
