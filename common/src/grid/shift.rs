//! The key `shift` of a data set: which corrupted test images are predicted.

use super::read::{At, Located, Log, Value, refuse_repeats};
use crate::spec::{Corruption, DatasetName, ShiftSource, ShiftSpec};

const SOURCES: [(&str, ShiftSource); 2] =
    [("generated", ShiftSource::Generated), ("files", ShiftSource::Files)];

/// Reads `"generated"`, `"files"` or a table with `source`.
pub(super) fn read(log: &Log<'_>, set: DatasetName, value: &Value<'_>) -> Option<ShiftSpec> {
    if !value.is_table() {
        let source = value.choice("source of corrupted images", &SOURCES)?;
        check_source(log, set, source.value, &source.at)?;
        return Some(ShiftSpec {
            source: source.value,
            corruptions: default_corruptions(source.value),
            severities: ShiftSpec::SEVERITIES.to_vec(),
            limit: None,
        });
    }
    let before = log.len();
    let mut section = value.section()?;
    let source = section.require("source", "`source = \"generated\"` or `source = \"files\"`");
    let corruptions = section.take("corruptions");
    let severities = section.take("severities");
    let limit = section.set("limit", |v| v.integer(1..=u32::MAX.into()));
    section.finish();
    let source = source?.choice("source of corrupted images", &SOURCES)?;
    check_source(log, set, source.value, &source.at)?;
    let corruptions = match corruptions {
        Some(value) => listed_corruptions(log, set, source.value, &value)?,
        None => default_corruptions(source.value),
    };
    let severities = match severities {
        Some(value) => listed_severities(log, &value)?,
        None => ShiftSpec::SEVERITIES.to_vec(),
    };
    let limit = limit.located().map(|limit| limit.value);
    (log.len() == before).then_some(ShiftSpec { source: source.value, corruptions, severities, limit })
}

/// The fifteen main corruptions, or those of them that can be computed.
fn default_corruptions(source: ShiftSource) -> Vec<Corruption> {
    let wanted = |corruption: &Corruption| match source {
        ShiftSource::Generated => corruption.is_generated(),
        ShiftSource::Files => true,
    };
    Corruption::MAIN.into_iter().filter(wanted).collect()
}

fn check_source(log: &Log<'_>, set: DatasetName, source: ShiftSource, at: &At) -> Option<()> {
    match source {
        ShiftSource::Files if !set.has_corrupted_files() => {
            let hint = "there are files for cifar-10 and cifar-100; use `\"generated\"`".to_owned();
            log.problem(at, format_args!("no corrupted images of `{set}` are published"), Some(hint));
            None
        }
        ShiftSource::Generated if !set.is_images() => {
            log.problem(at, format_args!("`{set}` has no images to corrupt"), None);
            None
        }
        ShiftSource::Files | ShiftSource::Generated => Some(()),
    }
}

fn listed_corruptions(
    log: &Log<'_>,
    set: DatasetName,
    source: ShiftSource,
    value: &Value<'_>,
) -> Option<Vec<Corruption>> {
    let options = Corruption::ALL.map(|corruption| (corruption.name(), corruption));
    let elements = value.list()?;
    let list: Vec<Located<Corruption>> =
        elements.iter().filter_map(|v| v.choice("corruption", &options)).collect();
    refuse_repeats(log, "corruption", &list, |corruption| format!("`{corruption}`"));
    for corruption in &list {
        let name = corruption.value;
        if source == ShiftSource::Generated && !name.is_generated() {
            let hint = "it is made of photographs: use `source = \"files\"`, or leave it out".to_owned();
            log.problem(&corruption.at, format_args!("`{name}` cannot be generated"), Some(hint));
        } else if name.needs_colour() && set.shape()[0] == 1 {
            let hint = Some("leave it out".to_owned());
            log.problem(
                &corruption.at,
                format_args!("`{name}` adds a colour, images of `{set}` are grey"),
                hint,
            );
        }
    }
    if elements.is_empty() {
        value.problem("no corruption is listed", Some("drop the key to have all main ones".to_owned()));
    }
    let listed = |corruption: &Corruption| list.iter().any(|located| located.value == *corruption);
    Some(Corruption::ALL.into_iter().filter(listed).collect())
}

fn listed_severities(log: &Log<'_>, value: &Value<'_>) -> Option<Vec<u32>> {
    let elements = value.list()?;
    let list: Vec<Located<u32>> = elements.iter().filter_map(|v| v.integer(1..=5)).collect();
    refuse_repeats(log, "severity", &list, u32::to_string);
    if elements.is_empty() {
        value.problem("no severity is listed", Some("drop the key to have all five".to_owned()));
    }
    let mut severities: Vec<u32> = list.into_iter().map(|located| located.value).collect();
    severities.sort_unstable();
    Some(severities)
}
