//! `credence watch`

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use proto::v1::{WatchRequest, WatchUpdate};
use serde::Serialize;
use tonic::Code;

use crate::args::{ClientArguments, WatchArguments};
use crate::client::Client;
use crate::error::Failure;
use crate::view::{Experiment, Trial};
use crate::{out, text};

/// How long a coordinator may be away, as when it is restarted, before the watch gives up.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Update {
    experiment: Experiment,
    running: Vec<Trial>,
    ended: Vec<Trial>,
    slots_used: u32,
    slots_total: u32,
    seconds_left: Option<f64>,
    notes: Vec<String>,
}

impl From<WatchUpdate> for Update {
    fn from(wire: WatchUpdate) -> Self {
        Self {
            experiment: wire.experiment.unwrap_or_default().into(),
            running: wire.running.into_iter().map(Into::into).collect(),
            ended: wire.ended.into_iter().map(Into::into).collect(),
            slots_used: wire.slots_used,
            slots_total: wire.slots_total,
            seconds_left: wire.seconds_left,
            notes: wire.notes,
        }
    }
}

pub async fn run(client: &ClientArguments, arguments: WatchArguments) -> Result<ExitCode, Failure> {
    let mut screen = Screen::new(arguments.json);
    let (mut known, mut lost_at) = (false, None);
    loop {
        let mut heard = false;
        let failure = match follow(client, &arguments.experiment, &mut screen, &mut heard).await {
            Ok(state) => {
                let code = if state == "succeeded" { ExitCode::SUCCESS } else { ExitCode::FAILURE };
                return Ok(code);
            }
            Err(failure) => failure,
        };
        if heard {
            // However long nothing had changed before: the coordinator is away from now on.
            (known, lost_at) = (true, None);
        }
        let since = *lost_at.get_or_insert_with(tokio::time::Instant::now);
        // A coordinator that was there comes back, and what it answered is not lost.
        let passing = matches!(failure, Failure::Unreachable { .. } | Failure::Refused(_));
        if !known || !passing || since.elapsed() > PATIENCE {
            return Err(failure);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Follows one stream. Returns the state that the experiment ended in. `heard` becomes true with the first update.
async fn follow(
    client: &ClientArguments,
    experiment: &str,
    screen: &mut Screen,
    heard: &mut bool,
) -> Result<&'static str, Failure> {
    let mut client = Client::connect(client).await?;
    let response = client.api.watch(WatchRequest { experiment: experiment.to_owned() }).await;
    let mut updates = client.answer(response)?;
    let mut state = "active";
    loop {
        match updates.message().await {
            Ok(Some(update)) => {
                let update = Update::from(update);
                state = update.experiment.state;
                *heard = true;
                screen.show(&update)?;
            }
            Ok(None) if state != "active" => return Ok(state),
            Ok(None) => return Err(Failure::Refused("the coordinator ended the watch".to_owned())),
            Err(status) if status.code() == Code::NotFound => return Err(client.failure(&status)),
            Err(status) => {
                return Err(Failure::Refused(format!("the watch broke: {}", status.message())));
            }
        }
    }
}

/// Where updates are shown: drawn over on a terminal, appended elsewhere.
struct Screen {
    json: bool,
    redraws: bool,
    drawn_lines: usize,
    last_summary: String,
}

impl Screen {
    fn new(json: bool) -> Self {
        let redraws = !json && std::io::stdout().is_terminal();
        Self { json, redraws, drawn_lines: 0, last_summary: String::new() }
    }

    fn show(&mut self, update: &Update) -> Result<(), Failure> {
        if self.json {
            return out::json_line(update);
        }
        let mut page = String::new();
        if self.redraws && self.drawn_lines > 0 {
            // Up over what was drawn last, and clear to the end of the screen.
            page.push_str(&format!("\x1b[{}A\x1b[J", self.drawn_lines));
        }
        for trial in &update.ended {
            page.push_str(&ended_line(trial));
            page.push('\n');
        }
        let summary = summary_line(update);
        if self.redraws {
            let mut live = vec![summary];
            live.extend(update.running.iter().map(running_line));
            live.extend(update.notes.iter().map(|note| format!("  {note}")));
            self.drawn_lines = live.len();
            page.push_str(&live.join("\n"));
            page.push('\n');
        } else {
            // A log file wants a line when something changed, not one a frame.
            let counts = format!("{:?}", update.experiment.trials);
            if !update.ended.is_empty() || counts != self.last_summary {
                page.push_str(&summary);
                page.push('\n');
                for note in &update.notes {
                    page.push_str(&format!("  {note}\n"));
                }
            }
            self.last_summary = counts;
        }
        out::write(page.as_bytes())
    }
}

fn summary_line(update: &Update) -> String {
    let trials = &update.experiment.trials;
    let mut line = format!(
        "{} {}  {} {}/{} done  {} running  {} queued  {} waiting",
        update.experiment.id,
        update.experiment.name,
        text::bar(trials.ended().into(), trials.total().into(), 20),
        trials.ended(),
        trials.total(),
        trials.running,
        trials.queued,
        trials.waiting,
    );
    if trials.failed > 0 {
        line.push_str(&format!("  {} failed", trials.failed));
    }
    line.push_str(&format!("  slots {}/{}", update.slots_used, update.slots_total));
    match update.seconds_left {
        Some(left) if update.experiment.state == "active" && left.is_finite() => {
            line.push_str(&format!(
                "  about {} left",
                text::duration(Duration::from_secs_f64(left.max(0.0)))
            ));
        }
        Some(_) | None => {}
    }
    line
}

fn running_line(trial: &Trial) -> String {
    let mut line = format!("  {:<5} {:<44}", trial.id, trial.label);
    if let Some(progress) = &trial.progress {
        if progress.total_steps > 0 {
            let bar = text::bar(progress.step, progress.total_steps, 12);
            line.push_str(&format!(" {bar} {}/{}", progress.step, progress.total_steps));
        }
        if let Some(rate) = progress.steps_per_second {
            line.push_str(&format!("  {rate:.1} steps/s"));
        }
        if let Some(loss) = progress.loss {
            line.push_str(&format!("  loss {loss:.4}"));
        }
    }
    line
}

fn ended_line(trial: &Trial) -> String {
    let time = text::between(trial.started_at_ms, trial.ended_at_ms);
    let how = if trial.reason.is_empty() { String::new() } else { format!(": {}", trial.reason) };
    format!("{:<5} {:<44} {} {time}{how}", trial.id, trial.label, trial.state)
}
