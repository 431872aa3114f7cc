//! Each split into crates turns a rule into a missing dependency. This holds the splits.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use system_tests::repository;

/// What a crate of the workspace may use directly, and what it must not reach even through others.
struct Rule {
    krate: &'static str,
    /// `None`: whatever is not forbidden.
    only: Option<&'static [&'static str]>,
    never: &'static [&'static str],
}

const RULES: [Rule; 11] = [
    Rule { krate: "common", only: None, never: &["tokio", "tonic", "prost", "tch", "sled"] },
    Rule { krate: "metrics", only: None, never: &["tokio", "tonic", "prost", "tch", "sled"] },
    // Decisions are reproducible because nothing that could vary is within reach.
    Rule { krate: "coordinator-core", only: Some(&["common", "serde", "thiserror"]), never: &["rand"] },
    Rule { krate: "worker-core", only: Some(&["common", "serde", "thiserror"]), never: &["rand"] },
    Rule { krate: "proto", only: None, never: &["coordinator-core", "coordinator", "worker", "sled", "tch"] },
    Rule { krate: "coordinator", only: None, never: &["tch", "torch-sys", "c10d", "worker"] },
    Rule {
        krate: "worker",
        only: None,
        never: &["tch", "torch-sys", "coordinator-core", "coordinator", "sled"],
    },
    Rule { krate: "c10d", only: None, never: &["tokio", "tonic", "common"] },
    Rule { krate: "datasets", only: None, never: &["tokio", "tonic", "tch", "serde"] },
    Rule { krate: "trainer", only: None, never: &["tokio", "tonic", "prost", "proto", "sled", "worker"] },
    // The client and both services start without libtorch.
    Rule { krate: "cli", only: None, never: &["tch", "torch-sys", "c10d", "trainer"] },
];

/// Crates that may name sled or prost types in their own code.
const DIRECT: [(&str, &[&str]); 2] = [("sled", &["coordinator"]), ("prost", &["proto"])];

/// Direct dependencies by name, of every package that a build of this workspace uses; no test or build dependencies.
struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    fn read() -> Self {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let output = Command::new(cargo)
            .current_dir(repository())
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &host()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let names: BTreeMap<&str, &str> = list(&metadata["packages"])
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let normal =
                list(&node["deps"]).filter(|dep| list(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null()));
            let uses = normal.map(|dep| names[text(&dep["pkg"])].to_owned());
            graph.entry(names[text(&node["id"])].to_owned()).or_default().extend(uses);
        }
        Self(graph)
    }

    fn direct(&self, krate: &str) -> &BTreeSet<String> {
        self.0.get(krate).unwrap_or_else(|| panic!("no crate is named `{krate}`"))
    }

    /// A path from `krate` to `target`, if there is one.
    fn path(&self, krate: &str, target: &str) -> Option<Vec<String>> {
        let mut seen = BTreeSet::new();
        let mut paths = vec![vec![krate.to_owned()]];
        while let Some(path) = paths.pop() {
            let last = path.last().unwrap();
            if last == target {
                return Some(path);
            }
            if seen.insert(last.clone()) {
                paths
                    .extend(self.direct(last).iter().map(|next| [path.clone(), vec![next.clone()]].concat()));
            }
        }
        None
    }
}

fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn no_crate_depends_on_what_it_must_not() {
    let graph = Graph::read();
    let mut broken = Vec::new();
    for Rule { krate, only, never } in &RULES {
        if let Some(only) = only {
            let others = graph.direct(krate).iter().filter(|name| !only.contains(&name.as_str()));
            broken.extend(others.map(|name| format!("{krate} -> {name}, but it may only use {only:?}")));
        }
        broken.extend(
            never.iter().filter_map(|target| graph.path(krate, target)).map(|path| path.join(" -> ")),
        );
    }
    assert!(broken.is_empty(), "forbidden dependencies:\n{}", broken.join("\n"));
}

#[test]
fn the_database_and_the_wire_are_named_by_one_crate_each() {
    let graph = Graph::read();
    for (dependency, owners) in DIRECT {
        let users =
            RULES.iter().map(|rule| rule.krate).filter(|krate| graph.direct(krate).contains(dependency));
        assert_eq!(users.collect::<Vec<_>>(), owners, "crates that use {dependency}");
    }
}

#[test]
fn a_path_through_another_crate_is_found() {
    let graph = Graph::read();
    let path = graph.path("cli", "coordinator-core").unwrap();
    assert_eq!(path, ["cli", "coordinator", "coordinator-core"]);
    assert_eq!(graph.path("common", "cli"), None);
}
