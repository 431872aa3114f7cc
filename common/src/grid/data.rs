//! The `data` axis: data sets with their splits, and what is out of distribution for each.

use super::read::{At, Located, Log, Section, Value, refuse_repeats};
use crate::spec::{DataSpec, DatasetName, OodSource};
use crate::suggest;

/// One entry of the axis. Its label is known even when the rest is not, so that `where` can name it.
#[derive(Clone, Debug)]
pub(super) struct DataEntry {
    pub label: Located<String>,
    /// Split and out-of-distribution sources; nothing when they were refused.
    pub content: Option<(DataSpec, Vec<OodSource>)>,
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
    let content = set.map(|set| (whole(set.value), Vec::new()));
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

fn read_settings(
    log: &Log<'_>,
    label: &Located<String>,
    mut section: Section<'_>,
) -> Option<(DataSpec, Vec<OodSource>)> {
    let set = match section.take("set") {
        Some(value) => value.choice("data set", &sets()).map(|set| set.value),
        None => set_of_label(log, label),
    };
    let held_out = section.take("held-out");
    let train_limit = section.set("train-limit", |v| v.integer(1..=u32::MAX.into()));
    let test_limit = section.set("test-limit", |v| v.integer(1..=u32::MAX.into()));
    let allow_subset = section.set("allow-subset", Value::boolean);
    let ood = section.take("ood");
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
    let limit = |located: Option<Located<u32>>| located.map(|located| located.value);
    let spec = DataSpec {
        set,
        held_out,
        train_limit: limit(train_limit.located()),
        test_limit: limit(test_limit.located()),
        allow_subset: allow_subset.or(false)?,
    };
    Some((spec, ood))
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
    let mut options = vec![("held-out", OodSource::HeldOut)];
    options.extend(DatasetName::ALL.map(|name| (name.name(), OodSource::Set(name))));
    let elements = value.list()?;
    let list: Vec<Located<OodSource>> =
        elements.iter().filter_map(|v| v.choice("out-of-distribution source", &options)).collect();
    refuse_repeats(log, "source", &list, |source| format!("`{source}`"));
    for source in &list {
        check_source(log, set, held_out, source.value, &source.at);
    }
    Some(list.into_iter().map(|located| located.value).collect())
}

fn check_source(log: &Log<'_>, set: DatasetName, held_out: &[u32], source: OodSource, at: &At) {
    let shape = |set: DatasetName| set.shape().map(|length| length.to_string()).join("×");
    match source {
        OodSource::HeldOut if held_out.is_empty() => {
            let hint = "list the classes, like `held-out = [8, 9]`, or drop the source".to_owned();
            log.problem(at, "no class is held out", Some(hint));
        }
        OodSource::Set(other) if other == set => {
            let hint = "drop it; classes of the set itself are left out with `held-out`".to_owned();
            log.problem(at, format_args!("`{set}` is in distribution here"), Some(hint));
        }
        OodSource::Set(other) if other.shape() != set.shape() => {
            let message =
                format!("images of `{other}` are {}, those of `{set}` are {}", shape(other), shape(set));
            let same =
                DatasetName::ALL.into_iter().filter(|name| *name != set && name.shape() == set.shape());
            let names: Vec<String> = same.map(|name| format!("`{name}`")).collect();
            let hint = match names.as_slice() {
                [] => "no other set has this shape: use `held-out`".to_owned(),
                names => format!("sets of this shape are {}", names.join(", ")),
            };
            log.problem(at, message, Some(hint));
        }
        OodSource::HeldOut | OodSource::Set(_) => {}
    }
}

fn whole(set: DatasetName) -> DataSpec {
    DataSpec { set, held_out: Vec::new(), train_limit: None, test_limit: None, allow_subset: false }
}

fn sets() -> [(&'static str, DatasetName); 6] {
    DatasetName::ALL.map(|set| (set.name(), set))
}
