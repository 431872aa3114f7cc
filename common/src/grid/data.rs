//! The `data` axis: data sets with their splits, and what is out of distribution for each.

use super::read::{At, Located, Log, Section, Setting, Value, refuse_repeats};
use super::shift;
use crate::spec::{DataSpec, DatasetName, OodSource, ShiftSpec};
use crate::suggest;

/// One entry of the axis. Its label is known even when the rest is not, so that `where` can name it.
#[derive(Clone, Debug)]
pub(super) struct DataEntry {
    pub label: Located<String>,
    /// What the entry says; nothing when it was refused.
    pub content: Option<DataContent>,
}

/// The images of a cell: what is trained on, and what is predicted beside the test set.
#[derive(Clone, Debug)]
pub(super) struct DataContent {
    pub spec: DataSpec,
    pub ood: Vec<OodSource>,
    pub shift: Option<ShiftSpec>,
}

/// Reads `data = ["cifar-10"]` or the tables `[data.LABEL]`.
pub(super) fn read(log: &Log<'_>, value: &Value<'_>) -> Vec<DataEntry> {
    let entries = if value.is_table() { read_tables(log, value) } else { read_names(value) };
    if entries.is_empty() && log.len() == 0 {
        value.problem(
            "no data set is listed",
            Some("name at least one, like `data = [\"cifar-10\"]`".to_owned()),
        );
    }
    entries
}

fn read_names(value: &Value<'_>) -> Vec<DataEntry> {
    let elements = value.list().unwrap_or_default();
    elements.iter().filter_map(|element| named(element)).collect()
}

/// A data set with default settings, labelled with its name.
fn named(element: &Value<'_>) -> Option<DataEntry> {
    let text = element.text()?;
    let set = element.choice("data set", &sets());
    let content = set.map(|set| DataContent { spec: whole(set.value), ood: Vec::new(), shift: None });
    Some(DataEntry { label: Located { value: text.value.to_owned(), at: text.at }, content })
}

fn read_tables(log: &Log<'_>, value: &Value<'_>) -> Vec<DataEntry> {
    let Some(section) = value.section() else {
        return Vec::new();
    };
    section.entries().into_iter().map(|(label, value)| read_table(log, label, &value)).collect()
}

fn read_table(log: &Log<'_>, label: String, value: &Value<'_>) -> DataEntry {
    let before = log.len();
    let name = Located { value: label, at: value.key_at.clone() };
    super::check_label(log, &name);
    let content = value.section().and_then(|section| read_settings(log, &name, section));
    DataEntry { label: name, content: content.filter(|_| log.len() == before) }
}

fn read_settings(log: &Log<'_>, label: &Located<String>, mut section: Section<'_>) -> Option<DataContent> {
    let set = match section.take("set") {
        Some(value) => value.choice("data set", &sets()).map(|set| set.value),
        None => set_of_label(log, label),
    };
    let held_out = section.take("held-out");
    let train_limit = section.set("train-limit", |v| v.integer(1..=u32::MAX.into()));
    let test_limit = section.set("test-limit", |v| v.integer(1..=u32::MAX.into()));
    let allow_subset = section.set("allow-subset", Value::boolean);
    let validation = section.set("validation", |v| v.integer(0..=u32::MAX.into()));
    let ood = section.take("ood");
    let shift = section.take("shift");
    section.finish();
    let set = set?;
    let held_out = match held_out {
        Some(value) => classes(log, set, &value)?,
        None => Vec::new(),
    };
    let ood = match ood {
        Some(value) => sources(log, set, &held_out, &value)?,
        None if held_out.is_empty() => Vec::new(),
        None => vec![OodSource::HeldOut],
    };
    let shift = match shift {
        Some(value) => Some(shift::read(log, set, &value)?),
        None => None,
    };
    check_validation(log, &validation, &train_limit);
    let limit = |located: Option<Located<u32>>| located.map(|located| located.value);
    let spec = DataSpec {
        set,
        held_out,
        train_limit: limit(train_limit.located()),
        test_limit: limit(test_limit.located()),
        allow_subset: allow_subset.or(false)?,
        validation: validation.or(0)?,
    };
    Some(DataContent { spec, ood, shift })
}

/// How many training images a set has is known where its files are, so that only limits are compared here.
fn check_validation(log: &Log<'_>, validation: &Setting<u32>, train_limit: &Setting<u32>) {
    let (Setting::Is(validation), Setting::Is(limit)) = (validation, train_limit) else {
        return;
    };
    if validation.value >= limit.value {
        let message = format!(
            "{} of the {} training images cannot be held out for validation",
            validation.value, limit.value
        );
        log.problem(&validation.at, message, Some("they are taken out of `train-limit`".to_owned()));
    }
}

fn set_of_label(log: &Log<'_>, label: &Located<String>) -> Option<DatasetName> {
    let set = label.value.parse().ok();
    if set.is_none() {
        let names = DatasetName::ALL.map(DatasetName::name);
        let hint = format!(
            "set `set = \"…\"`, or label the entry with a name: {}",
            suggest::hint(&label.value, names)
        );
        log.problem(&label.at, format_args!("no data set is named `{}`", label.value), Some(hint));
    }
    set
}

fn classes(log: &Log<'_>, set: DatasetName, value: &Value<'_>) -> Option<Vec<u32>> {
    let elements = value.list()?;
    let highest = u64::from(set.classes() - 1);
    let list: Vec<Located<u32>> = elements.iter().filter_map(|v| v.integer(0..=highest)).collect();
    refuse_repeats(log, "class", &list, u32::to_string);
    let left = u64::from(set.classes()).saturating_sub(elements.len() as u64);
    if left < 2 {
        value.problem(
            format_args!("{left} of the {} classes of `{set}` are left to train on", set.classes()),
            Some("keep at least two".to_owned()),
        );
        return None;
    }
    let mut classes: Vec<u32> = list.into_iter().map(|located| located.value).collect();
    classes.sort_unstable();
    Some(classes)
}

fn sources(log: &Log<'_>, set: DatasetName, held_out: &[u32], value: &Value<'_>) -> Option<Vec<OodSource>> {
    let elements = value.list()?;
    let list: Vec<Located<OodSource>> =
        elements.iter().filter_map(|element| source(log, set, held_out, element)).collect();
    refuse_repeats(log, "source", &list, |source| format!("`{source}`"));
    Some(list.into_iter().map(|located| located.value).collect())
}

/// One source: a name, or `{ set = "textures", resize = true }`.
fn source(
    log: &Log<'_>,
    set: DatasetName,
    held_out: &[u32],
    value: &Value<'_>,
) -> Option<Located<OodSource>> {
    let mut options = vec![
        ("held-out", OodSource::HeldOut),
        ("two-moons-far", OodSource::TwoMoonsFar),
        ("cubic-far", OodSource::CubicFar),
    ];
    options.extend(DatasetName::ALL.map(|name| (name.name(), OodSource::Set(name))));
    let (source, resize) = if value.is_table() {
        let mut section = value.section()?;
        let named = section.require("set", "which source, like `set = \"textures\"`");
        let resize = section.set("resize", Value::boolean);
        section.finish();
        (named?.choice("out-of-distribution source", &options)?, resize.or(false)?)
    } else {
        (value.choice("out-of-distribution source", &options)?, false)
    };
    check_source(log, set, held_out, source.value, &source.at, resize);
    let value = match source.value {
        // A set of the same shape is used as it is, so that equal results have one name.
        OodSource::Set(other) if resize && other.shape() != set.shape() => OodSource::Resized(other),
        source => source,
    };
    Some(Located { value, at: source.at })
}

fn check_source(log: &Log<'_>, set: DatasetName, held_out: &[u32], source: OodSource, at: &At, resize: bool) {
    match source {
        OodSource::HeldOut if held_out.is_empty() => {
            let hint = "list the classes, like `held-out = [8, 9]`, or drop the source".to_owned();
            log.problem(at, "no class is held out", Some(hint));
        }
        OodSource::Set(other) | OodSource::Resized(other) if other == set => {
            let hint = "drop it; classes of the set itself are left out with `held-out`".to_owned();
            log.problem(at, format_args!("`{set}` is in distribution here"), Some(hint));
        }
        OodSource::Set(other) | OodSource::Resized(other)
            if other.shape() != set.shape() && !(resize && other.is_images() && set.is_images()) =>
        {
            other_shape(log, set, other, at);
        }
        OodSource::TwoMoonsFar if set != DatasetName::TwoMoons => {
            log.problem(at, format_args!("`two-moons-far` is far from `two-moons`, not from `{set}`"), None);
        }
        OodSource::CubicFar if set != DatasetName::Cubic => {
            log.problem(at, format_args!("`cubic-far` is far from `cubic`, not from `{set}`"), None);
        }
        OodSource::Set(other) if other.task() != set.task() => {
            let hint = "its own are `cubic-far`, or `two-moons-far`".to_owned();
            log.problem(at, format_args!("`{other}` and `{set}` are different tasks"), Some(hint));
        }
        OodSource::HeldOut
        | OodSource::Set(_)
        | OodSource::Resized(_)
        | OodSource::TwoMoonsFar
        | OodSource::CubicFar => {}
    }
}

fn other_shape(log: &Log<'_>, set: DatasetName, other: DatasetName, at: &At) {
    let shape = |set: DatasetName| set.shape().map(|length| length.to_string()).join("×");
    let message = format!("images of `{other}` are {}, those of `{set}` are {}", shape(other), shape(set));
    let same = DatasetName::ALL.into_iter().filter(|name| *name != set && name.shape() == set.shape());
    let names: Vec<String> = same.map(|name| format!("`{name}`")).collect();
    let mut hint = match names.as_slice() {
        [] => "no other set has this shape: use `held-out`".to_owned(),
        names => format!("sets of this shape are {}", names.join(", ")),
    };
    if other.is_images() && set.is_images() {
        hint += &format!("; to have it resized, write `{{ set = \"{other}\", resize = true }}`");
    }
    log.problem(at, message, Some(hint));
}

fn whole(set: DatasetName) -> DataSpec {
    DataSpec {
        set,
        held_out: Vec::new(),
        train_limit: None,
        test_limit: None,
        allow_subset: false,
        validation: 0,
    }
}

fn sets() -> [(&'static str, DatasetName); DatasetName::ALL.len()] {
    DatasetName::ALL.map(|set| (set.name(), set))
}
