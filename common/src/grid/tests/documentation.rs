//! `docs/grid.md` against the reader: the same keys, and the defaults that it says.

use super::*;

const DOCUMENTATION: &str = include_str!("../../../../docs/grid.md");

/// Everything but `[[method]]`, with places for one key each.
const FRAME: &str = r#"
name = "documented"
models = ["wrn-10-1", "resnet-18"]
seeds = { count = 2, SEEDS }
TOP
[data.cifar-10]
DATA
[pretrained.resnet-18]
file = "weights.safetensors"
blake3 = "0000000000000000000000000000000000000000000000000000000000000000"
PRETRAINED
[recipe]
epochs = 10
RECIPE
[evaluate]
EVALUATE
[run]
RUN
[[override]]
where = { seed = 1, WHERE }
slots = 2
OVERRIDE
[[exclude]]
where = { seed = 0, method = "drop" }
EXCLUDE
[[method]]
kind = "deterministic"
label = "drop"
[[method]]
kind = "KIND"
METHOD
"#;

/// Headings of the documentation, and the place and kind of method under which their keys stand.
const SECTIONS: [(&str, &str, &str); 27] = [
    ("Top level", "TOP", "mc-dropout"),
    ("`seeds` as a range", "SEEDS", "mc-dropout"),
    ("`[data.LABEL]`", "DATA", "mc-dropout"),
    ("`[pretrained.MODEL]`", "PRETRAINED", "mc-dropout"),
    ("`[recipe]`", "RECIPE", "mc-dropout"),
    ("`[[method]]`, kind `deterministic`", "METHOD", "deterministic"),
    ("`[[method]]`, kind `mc-dropout`", "METHOD", "mc-dropout"),
    ("`[[method]]`, kind `deep-ensemble`", "METHOD", "deep-ensemble"),
    ("`[[method]]`, kind `batch-ensemble`", "METHOD", "batch-ensemble"),
    ("`[[method]]`, kind `lp-bnn`", "METHOD", "lp-bnn"),
    ("`[[method]]`, kind `mimo`", "METHOD", "mimo"),
    ("`[[method]]`, kind `packed-ensemble`", "METHOD", "packed-ensemble"),
    ("`[[method]]`, kind `masksembles`", "METHOD", "masksembles"),
    ("`[[method]]`, kind `rank-1-bnn`", "METHOD", "rank-1-bnn"),
    ("`[[method]]`, kind `evidential`", "METHOD", "evidential"),
    ("`[[method]]`, kind `duq`", "METHOD", "duq"),
    ("`[[method]]`, kind `sngp`", "METHOD", "sngp"),
    ("`[[method]]`, kind `tradi`", "METHOD", "tradi"),
    ("`[[method]]`, kind `swag`", "METHOD", "swag"),
    ("`[[method]]`, kind `laplace`", "METHOD", "laplace"),
    ("`[[method]]`, kind `snapshot-ensemble`", "METHOD", "snapshot-ensemble"),
    ("`[[method]]`, kind `checkpoint-ensemble`", "METHOD", "checkpoint-ensemble"),
    ("`[[override]]`", "OVERRIDE", "mc-dropout"),
    ("`[[exclude]]`", "EXCLUDE", "mc-dropout"),
    ("`where`", "WHERE", "mc-dropout"),
    ("`[evaluate]`", "EVALUATE", "mc-dropout"),
    ("`[run]`", "RUN", "mc-dropout"),
];

fn file(place: &str, kind: &str, line: &str) -> String {
    let text = FRAME.replace("KIND", kind).replace(&format!("{place}\n"), &format!("{line}\n"));
    let text = text.replace(&format!(", {place} }}"), &format!(", {line} }}"));
    [
        "SEEDS",
        "TOP",
        "DATA",
        "PRETRAINED",
        "RECIPE",
        "EVALUATE",
        "RUN",
        "WHERE",
        "OVERRIDE",
        "EXCLUDE",
        "METHOD",
    ]
    .iter()
    .fold(text, |text, place| {
        text.replace(&format!("{place}\n"), "\n").replace(&format!(", {place} }}"), " }")
    })
}

/// Keys and defaults of the table under a heading.
fn documented(heading: &str) -> Vec<(String, Option<String>)> {
    let text = DOCUMENTATION.split_once(&format!("### {heading}\n")).expect(heading).1;
    let section = text.split("\n### ").next().unwrap();
    let code =
        |cell: &str| cell.trim().strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).map(str::to_owned);
    let mut keys = Vec::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').collect();
        keys.extend(cells[1].split(',').filter_map(code).map(|key| (key, code(cells[3]))));
    }
    keys
}

/// Keys that the reader lists as valid when it meets one that is not.
fn read_by(text: &str) -> BTreeSet<String> {
    let found = problems(text);
    let problem = found.iter().find(|problem| problem.message == "unknown key `zzzzzzzz`").expect(text);
    let hint = problem.hint.as_deref().unwrap();
    hint.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn assert_same_keys(heading: &str, text: &str) {
    let documented: BTreeSet<String> = documented(heading).into_iter().map(|(key, _)| key).collect();
    assert_eq!(documented, read_by(text), "{heading}");
}

#[test]
fn every_key_is_documented_and_every_documented_key_exists() {
    for (heading, place, kind) in SECTIONS {
        assert_same_keys(heading, &file(place, kind, "zzzzzzzz = 1"));
    }
    let step = "schedule = { kind = \"step\", milestones = [2], factor = 0.1, zzzzzzzz = 1 }";
    assert_same_keys("Step schedule", &file("RECIPE", "mc-dropout", step));
    let cyclic = "schedule = { kind = \"cyclic\", cycles = 2, zzzzzzzz = 1 }";
    assert_same_keys("Cyclic schedule", &file("RECIPE", "mc-dropout", cyclic));
    let crop = "augmentation = [{ kind = \"crop\", padding = 1, zzzzzzzz = 1 }]";
    assert_same_keys("Crop", &file("RECIPE", "mc-dropout", crop));
    let cutout = "augmentation = [{ kind = \"cutout\", size = 1, zzzzzzzz = 1 }]";
    assert_same_keys("Cutout", &file("RECIPE", "mc-dropout", cutout));
    let requires = "requires = { memory-mib = 1, zzzzzzzz = 1 }";
    assert_same_keys("Requirements", &file("RUN", "mc-dropout", requires));
    let elastic = "slots = { min = 1, max = 2, zzzzzzzz = 1 }";
    assert_same_keys("Elastic slots", &file("METHOD", "mc-dropout", elastic));
    let source = "ood = [{ set = \"svhn\", zzzzzzzz = 1 }]";
    assert_same_keys("Out-of-distribution source", &file("DATA", "mc-dropout", source));
    let shift = "shift = { source = \"files\", zzzzzzzz = 1 }";
    assert_same_keys("Shift", &file("DATA", "mc-dropout", shift));
}

#[test]
fn writing_a_documented_default_changes_nothing() {
    let mut checked = 0;
    for (heading, place, kind) in SECTIONS {
        let without = parse(&file(place, kind, "")).or_else(|_| parse(&file("", kind, "")));
        let without = without.unwrap_or_else(|errors| panic!("{errors}"));
        for (key, default) in documented(heading) {
            let Some(default) = default else { continue };
            let text = file(place, kind, &format!("{key} = {default}"));
            let with = parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(with, without, "{heading}: {key} = {default}");
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} defaults were found");
}
