//! A grid file as it is written: axes, methods and layers, before cells are made of them.

use super::data::{self, DataEntry};
use super::method::{self, Kind, MethodEntry};
use super::pretrained;
use super::read::{At, Located, Log, Section, Setting, Value, refuse_repeats};
use super::recipe::RecipeLayer;
use super::run::{self, Run};
use super::slots::{self, Slots};
use crate::plan::default_project;
use crate::spec::{ModelSpec, Pretrained};
use crate::{ExperimentId, suggest};

/// Seeds are exact in every language that reads the results as JSON numbers.
pub(super) const MAX_SEED: u64 = (1 << 53) - 1;
const MAX_SEEDS: u64 = 1_000;
const DEFAULT_EVALUATION_BATCH: u32 = 128;

/// What a grid file says.
#[derive(Debug)]
pub(super) struct GridFile {
    pub name: Option<String>,
    pub data: Vec<DataEntry>,
    pub models: Vec<ModelEntry>,
    pub seeds: Vec<u64>,
    pub recipe: RecipeLayer,
    pub methods: Vec<MethodEntry>,
    pub overrides: Vec<Override>,
    pub excludes: Vec<Condition>,
    pub run: Run,
    pub project: String,
    pub priority: i32,
    /// Images per forward pass and member of evaluations.
    pub evaluation_batch: u32,
}

/// One entry of the `models` axis, as written.
#[derive(Debug)]
pub(super) struct ModelEntry {
    pub name: String,
    pub model: Option<ModelSpec>,
    /// Weights to start from.
    pub pretrained: Option<Pretrained>,
}

/// One `[[override]]`.
#[derive(Debug)]
pub(super) struct Override {
    pub condition: Condition,
    pub recipe: RecipeLayer,
    pub slots: Setting<Slots>,
}

/// `where`: which cells are meant. An axis that is not named does not restrict.
#[derive(Debug)]
pub(super) struct Condition {
    pub at: At,
    /// Labels.
    pub method: Option<Vec<String>>,
    pub data: Option<Vec<String>>,
    pub model: Option<Vec<String>>,
    pub seed: Option<Vec<u64>>,
}

impl Condition {
    pub fn holds(&self, data: &str, model: &str, method: &str, seed: u64) -> bool {
        let meant = |list: &Option<Vec<String>>, name: &str| {
            list.as_ref().is_none_or(|list| list.iter().any(|listed| listed == name))
        };
        meant(&self.method, method)
            && meant(&self.data, data)
            && meant(&self.model, model)
            && self.seed.as_ref().is_none_or(|list| list.contains(&seed))
    }
}

/// Reads a document, and reports what is wrong in it.
pub(super) fn read(log: &Log<'_>, mut root: Section<'_>) -> GridFile {
    let name = root.require("name", "name the experiment, like `name = \"quickstart\"`");
    let project = root.set("project", run::project);
    let priority = root.set("priority", run::priority);
    let data = root.require("data", "name a data set, like `data = [\"cifar-10\"]` or `[data.digits]`");
    let models = root.require("models", "list networks, like `models = [\"wrn-28-10\"]`");
    let seeds = root.require("seeds", "list seeds, like `seeds = [0, 1, 2]`");
    let pretrained = root.take("pretrained");
    let recipe = root.take("recipe");
    let methods =
        root.require("method", "add a method: `[[method]]` and below it `kind = \"deterministic\"`");
    let overrides = root.take("override");
    let excludes = root.take("exclude");
    let evaluate = root.take("evaluate");
    let run = root.take("run");
    root.finish();

    let mut file = GridFile {
        name: name.and_then(|value| experiment_name(&value)),
        data: data.map(|value| data::read(log, &value)).unwrap_or_default(),
        models: models.map(|value| read_models(log, &value)).unwrap_or_default(),
        seeds: seeds.and_then(|value| read_seeds(log, &value)).unwrap_or_default(),
        recipe: recipe.map(|value| RecipeLayer::read(&value)).unwrap_or_default(),
        methods: methods.map(|value| read_methods(log, &value)).unwrap_or_default(),
        overrides: Vec::new(),
        excludes: Vec::new(),
        run: run.and_then(|value| run::read(&value)).unwrap_or_default(),
        project: project.or(default_project()).unwrap_or_default(),
        priority: priority.or(0).unwrap_or_default(),
        evaluation_batch: evaluate
            .and_then(|value| read_evaluate(&value))
            .unwrap_or(DEFAULT_EVALUATION_BATCH),
    };
    run::check_keep_best(log, &file.run, &file.data);
    if let Some(value) = pretrained {
        pretrained::read(log, &mut file.models, &value);
    }
    for value in elements(overrides) {
        file.overrides.extend(read_override(log, &file, &value));
    }
    for value in elements(excludes) {
        file.excludes.extend(read_exclude(log, &file, &value));
    }
    file
}

fn elements<'a>(value: Option<Value<'a>>) -> Vec<Value<'a>> {
    value.and_then(|value| value.list()).unwrap_or_default()
}

fn experiment_name(value: &Value<'_>) -> Option<String> {
    let name = value.text()?.value;
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let plain =
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(letter) && name.len() <= 64;
    if !plain {
        let hint = "use up to 64 letters, digits, `-`, `_` and `.`, with a letter or digit first".to_owned();
        value.problem("not a name for an experiment", Some(hint));
        return None;
    }
    if name.parse::<ExperimentId>().is_ok() {
        let hint = "choose another, so that commands can take either".to_owned();
        value.problem(format_args!("`{name}` looks like the id of an experiment"), Some(hint));
        return None;
    }
    Some(name.to_owned())
}

fn read_models(log: &Log<'_>, value: &Value<'_>) -> Vec<ModelEntry> {
    let names: Vec<Located<String>> = value
        .list()
        .unwrap_or_default()
        .iter()
        .filter_map(|element| element.text())
        .map(|text| Located { value: text.value.to_owned(), at: text.at })
        .collect();
    if names.is_empty() && log.len() == 0 {
        value.problem("no model is listed", Some("list at least one, like `wrn-28-10`".to_owned()));
    }
    refuse_repeats(log, "model", &names, |name| format!("`{name}`"));
    names.into_iter().map(|name| read_model(log, name)).collect()
}

fn read_model(log: &Log<'_>, name: Located<String>) -> ModelEntry {
    let parsed = name.value.parse::<ModelSpec>();
    if let Err(error) = &parsed {
        log.problem(&name.at, error, None);
    }
    let model = parsed.ok();
    // `wrn-028-10` is read, too: what is shown and compared is the one name that the model has.
    let canonical = model.map(|model| model.to_string());
    if let Some(canonical) = canonical.filter(|canonical| *canonical != name.value) {
        log.problem(&name.at, format_args!("`{}` is written `{canonical}`", name.value), None);
    }
    ModelEntry { name: name.value, model, pretrained: None }
}

fn read_seeds(log: &Log<'_>, value: &Value<'_>) -> Option<Vec<u64>> {
    if value.is_table() {
        return read_seed_range(log, value);
    }
    let elements = value.list()?;
    if elements.is_empty() {
        value.problem("no seed is listed", Some("list at least one; three or more give a spread".to_owned()));
    }
    let seeds: Vec<Located<u64>> = elements.iter().filter_map(|v| v.integer(0..=MAX_SEED)).collect();
    refuse_repeats(log, "seed", &seeds, u64::to_string);
    Some(seeds.into_iter().map(|seed| seed.value).collect())
}

fn read_seed_range(log: &Log<'_>, value: &Value<'_>) -> Option<Vec<u64>> {
    let mut section = value.section()?;
    let first = section.set("first", |v| v.integer(0..=MAX_SEED));
    let count = section.require("count", "how many seeds, like `{ first = 0, count = 3 }`");
    section.finish();
    let first: u64 = first.or(0)?;
    let count: Located<u64> = count?.integer(1..=MAX_SEEDS)?;
    if first + (count.value - 1) > MAX_SEED {
        log.problem(&count.at, format_args!("seeds end at {MAX_SEED}"), None);
        return None;
    }
    Some((first..first + count.value).collect())
}

fn read_methods(log: &Log<'_>, value: &Value<'_>) -> Vec<MethodEntry> {
    let before = log.len();
    let elements = value.list().unwrap_or_default();
    let methods: Vec<MethodEntry> =
        elements.iter().filter_map(|element| method::read(log, element)).collect();
    if methods.is_empty() && log.len() == before {
        value.problem("no method is listed", Some("add one: `[[method]]` with a `kind`".to_owned()));
    }
    let labels: Vec<Located<String>> =
        methods.iter().map(|m| m.label.clone()).filter(|label| !label.value.is_empty()).collect();
    for (index, label) in labels.iter().enumerate() {
        if labels[..index].iter().any(|first| first.value == label.value) {
            let hint = "give each entry a `label` of its own: it names a row of the table".to_owned();
            log.problem(&label.at, format_args!("two methods are labelled `{}`", label.value), Some(hint));
        }
    }
    for method in &methods {
        check_against_kinds(log, method);
        check_baseline(log, method, &methods);
    }
    methods
}

/// In `where`, the name of a kind means all its entries, so no other entry may be labelled with it.
fn check_against_kinds(log: &Log<'_>, method: &MethodEntry) {
    let other = Kind::ALL.into_iter().find(|kind| kind.name() == method.label.value);
    if let (Some(other), Some(own)) = (other, method.kind)
        && other != own
    {
        let message =
            format!("a {} cannot be labelled `{}`, which is another kind", own.name(), other.name());
        log.problem(&method.label.at, message, Some("choose another label".to_owned()));
    }
}

fn check_baseline(log: &Log<'_>, method: &MethodEntry, methods: &[MethodEntry]) {
    let deterministic: Vec<&str> = methods
        .iter()
        .filter(|entry| entry.kind == Some(Kind::Deterministic))
        .map(|entry| entry.label.value.as_str())
        .collect();
    match &method.baseline {
        Some(label) if !deterministic.contains(&label.value.as_str()) => {
            let message = format!("no deterministic method is labelled `{}`", label.value);
            log.problem(&label.at, message, Some(suggest::hint(&label.value, deterministic)));
        }
        None if method.kind.is_some_and(Kind::has_baseline) && deterministic.len() > 1 => {
            let hint = "set `baseline` to the label of the one whose networks are meant".to_owned();
            log.problem(&method.at, "the grid has several deterministic methods", Some(hint));
        }
        Some(_) | None => {}
    }
}

fn read_override(log: &Log<'_>, file: &GridFile, value: &Value<'_>) -> Option<Override> {
    let mut section = value.section()?;
    let condition = read_condition(log, file, &mut section);
    let recipe = section.take("recipe");
    let slots = section.set("slots", slots::read);
    section.finish();
    if recipe.is_none() && matches!(slots, Setting::Unset) {
        value.problem(
            "this override changes nothing",
            Some("set `slots`, or keys of `[override.recipe]`".to_owned()),
        );
    }
    let recipe = recipe.map(|value| RecipeLayer::read(&value)).unwrap_or_default();
    Some(Override { condition: condition?, recipe, slots })
}

fn read_exclude(log: &Log<'_>, file: &GridFile, value: &Value<'_>) -> Option<Condition> {
    let mut section = value.section()?;
    let condition = read_condition(log, file, &mut section);
    section.finish();
    condition
}

fn read_condition(log: &Log<'_>, file: &GridFile, section: &mut Section<'_>) -> Option<Condition> {
    let before = log.len();
    let value = section.require("where", "which cells, like `where = { method = \"lp-bnn\", seed = 0 }`")?;
    let mut inner = value.section()?;
    let keys = [inner.take("method"), inner.take("data"), inner.take("model"), inner.take("seed")];
    inner.finish();
    if keys.iter().all(Option::is_none) && log.len() == before {
        let hint =
            "name a `method`, `data`, `model` or `seed`; what holds everywhere belongs into `[recipe]`"
                .to_owned();
        value.problem("this `where` means every cell", Some(hint));
    }
    let methods = method_names(file);
    let data: Vec<&str> = file.data.iter().map(|entry| entry.label.value.as_str()).collect();
    let models: Vec<&str> = file.models.iter().map(|entry| entry.name.as_str()).collect();
    let [method, set, model, seed] = keys;
    let condition = Condition {
        at: value.at.clone(),
        method: method.map(|value| labels_of(file, read_names(&value, "method", &methods))),
        data: set.map(|value| read_names(&value, "data set", &data)),
        model: model.map(|value| read_names(&value, "model", &models)),
        seed: seed.map(|value| read_listed_seeds(log, file, &value)),
    };
    (log.len() == before).then_some(condition)
}

/// What `method` in a `where` may say: labels, and kinds that have an entry.
fn method_names(file: &GridFile) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for entry in &file.methods {
        for name in [entry.label.value.as_str(), entry.kind.map_or("", Kind::name)] {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// The labels that names in a `where` stand for: an entry that is so labelled, or else all of that kind.
fn labels_of(file: &GridFile, names: Vec<String>) -> Vec<String> {
    let labelled = |name: &String| file.methods.iter().any(|entry| entry.label.value == *name);
    let (mut labels, kinds): (Vec<String>, Vec<String>) = names.into_iter().partition(labelled);
    let of_kind =
        |entry: &&MethodEntry| entry.kind.is_some_and(|kind| kinds.iter().any(|name| name == kind.name()));
    labels.extend(file.methods.iter().filter(of_kind).map(|entry| entry.label.value.clone()));
    labels
}

fn read_names(value: &Value<'_>, axis: &str, known: &[&str]) -> Vec<String> {
    let mut names = Vec::new();
    for element in value.one_or_more() {
        let Some(text) = element.text() else {
            continue;
        };
        if known.contains(&text.value) {
            names.push(text.value.to_owned());
        } else {
            let hint = suggest::hint(text.value, known.iter().copied());
            element.problem(format_args!("no {axis} of this grid is named `{}`", text.value), Some(hint));
        }
    }
    names
}

fn read_listed_seeds(log: &Log<'_>, file: &GridFile, value: &Value<'_>) -> Vec<u64> {
    let elements = value.one_or_more();
    let seeds: Vec<Located<u64>> = elements.iter().filter_map(|v| v.integer(0..=MAX_SEED)).collect();
    for seed in seeds.iter().filter(|seed| !file.seeds.contains(&seed.value)) {
        log.problem(&seed.at, format_args!("{} is not one of the grid's `seeds`", seed.value), None);
    }
    seeds.into_iter().map(|seed| seed.value).collect()
}

fn read_evaluate(value: &Value<'_>) -> Option<u32> {
    let mut section = value.section()?;
    let batch = section.set("batch-size", |v| v.integer(1..=1_000_000));
    section.finish();
    batch.or(DEFAULT_EVALUATION_BATCH)
}
