//! How trials are run, as far as results do not depend on it: checkpoints, retries, and what a worker must have.

use std::collections::BTreeMap;
use std::time::Duration;

use super::data::DataEntry;
use super::read::{At, Located, Log, Section, Value};
use crate::spec::{Requirements, RunPolicy, Task};

/// Priorities that a file may ask for.
const PRIORITIES: std::ops::RangeInclusive<i64> = -1_000..=1_000;

/// Reads `project`: letters, digits and a little punctuation, since it is a key of the coordinator's configuration.
pub(super) fn project(value: &Value<'_>) -> Option<Located<String>> {
    let name = value.text()?.value;
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 64 || !name.chars().all(letter) {
        let hint = "use up to 64 letters, digits, `-` and `_`".to_owned();
        value.problem("not a name for a project", Some(hint));
        return None;
    }
    Some(value.located(name.to_owned()))
}

/// Reads `priority`.
pub(super) fn priority(value: &Value<'_>) -> Option<Located<i32>> {
    let found = value.signed(PRIORITIES)?;
    Some(Located { value: i32::try_from(found.value).ok()?, at: found.at })
}

/// `[run]`.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// Of every trial; how checkpoints are scored depends on the cell.
    pub policy: RunPolicy,
    /// Where the best checkpoint is asked for, if it is.
    pub keep_best: Option<At>,
}

/// Reads `[run]`.
pub(super) fn read(value: &Value<'_>) -> Option<Run> {
    let default = RunPolicy::default();
    let mut section = value.section()?;
    let steps = section.set("checkpoint-steps", |v| v.or_none(|v| v.integer(1..=u64::from(u32::MAX))));
    let interval = section.set("checkpoint-interval", |v| v.or_none(duration));
    let metrics = section.set("metrics-steps", |v| v.integer(1..=1_000_000));
    let failures = section.set("max-failures", |v| v.integer(1..=1_000));
    let requires = section.set("requires", requires);
    let keep_best = section.set("keep-best", Value::boolean);
    let deterministic = section.set("deterministic", Value::boolean);
    let channels_last = section.set("channels-last", Value::boolean);
    section.finish();
    let policy = RunPolicy {
        checkpoint_steps: steps.or(default.checkpoint_steps)?,
        checkpoint_interval: interval.or(default.checkpoint_interval)?,
        metrics_steps: metrics.or(default.metrics_steps)?,
        max_failures: failures.or(default.max_failures)?,
        requires: requires.or(default.requires)?,
        keep_best: None,
        deterministic: deterministic.or(default.deterministic)?,
        channels_last: channels_last.or(default.channels_last)?,
    };
    let keep_best = keep_best.located().filter(|asked| asked.value).map(|asked| asked.at);
    Some(Run { policy, keep_best })
}

/// Checkpoints are compared by what they make of held-out images, so every data set has to have some.
pub(super) fn check_keep_best(log: &Log<'_>, run: &Run, data: &[DataEntry]) {
    let Some(at) = &run.keep_best else { return };
    for entry in data {
        let (label, Some(content)) = (&entry.label.value, &entry.content) else { continue };
        let (message, hint) = match content.spec.set.task() {
            Task::Regression => (
                format!(
                    "`keep-best` scores the classes of images held out by `validation`, and `{label}` has none"
                ),
                format!("drop `keep-best`, or give `{label}` a grid of its own"),
            ),
            Task::Classification if content.spec.validation == 0 => (
                format!("`keep-best` scores images held out by `validation`, and `{label}` holds out none"),
                format!("set `validation` in `[data.{label}]`, like `validation = 500`, or drop `keep-best`"),
            ),
            Task::Classification => continue,
        };
        log.problem(at, message, Some(hint));
    }
}

fn requires(value: &Value<'_>) -> Option<Located<Requirements>> {
    let mut section = value.section()?;
    let labels = section.set("labels", labels);
    let device = section.set("device", |v| {
        let text = v.text()?;
        Some(Located { value: Some(text.value.to_owned()), at: text.at })
    });
    let memory = section.set("memory-mib", |v| {
        let mib = v.integer(1..=u64::from(u32::MAX))?;
        Some(Located { value: Some(mib.value), at: mib.at })
    });
    section.finish();
    let requirements = Requirements {
        labels: labels.or(BTreeMap::new())?,
        device: device.or(None)?,
        memory_mib: memory.or(None)?,
    };
    Some(value.located(requirements))
}

fn labels(value: &Value<'_>) -> Option<Located<BTreeMap<String, String>>> {
    let section: Section<'_> = value.section()?;
    let mut labels = BTreeMap::new();
    for (key, text) in section.entries() {
        labels.insert(key, text.text()?.value.to_owned());
    }
    Some(value.located(labels))
}

fn duration(value: &Value<'_>) -> Option<Located<Duration>> {
    let text = value.text()?;
    let hint = || Some("write a time like `30s`, `5m` or `1h 30m`, or `none`".to_owned());
    match humantime::parse_duration(text.value) {
        Ok(duration) if duration > Duration::ZERO => Some(value.located(duration)),
        Ok(_) => {
            value.problem("a checkpoint after every step is asked for with `checkpoint-steps = 1`", hint());
            None
        }
        Err(error) => {
            value.problem(format_args!("`{}` is not a time: {error}", text.value), hint());
            None
        }
    }
}
