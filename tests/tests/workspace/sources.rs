//! Rules about our own source files.

use std::fs;
use std::path::{Path, PathBuf};

use system_tests::repository;

/// Lines at which a file surely has more than one subject. We aim for 500; what lies between is only printed.
const MOST_LINES: usize = 700;
const FEW_LINES: usize = 500;

/// The one crate that talks to C.
const FOREIGN: &str = "worker/c10d";

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(repository(), &mut found);
    assert!(found.len() > 100, "only {} source files were found", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                collect(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn shown(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap().display().to_string()
}

/// Code without line comments; a `//` within a string cuts the rest of its line, which hides no keyword in ours.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
}

/// Whether a line opens unsafe code: the word, followed by what can follow it.
fn is_unsafe(line: &str) -> bool {
    line.split("unsafe").skip(1).any(|rest| {
        let rest = rest.trim_start();
        ["{", "fn ", "impl ", "extern ", "trait ", "(no_mangle"].iter().any(|next| rest.starts_with(next))
    })
}

#[test]
fn unsafe_code_is_in_the_foreign_function_crate_alone() {
    let mut found = Vec::new();
    let mut foreign = 0;
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<usize> =
            code(&text).filter(|(_, line)| is_unsafe(line)).map(|(number, _)| number).collect();
        if shown(&path).starts_with(FOREIGN) {
            foreign += lines.len();
        } else if path != repository().join("tests/tests/workspace/sources.rs") {
            found.extend(lines.iter().map(|number| format!("{}:{number}", shown(&path))));
        }
    }
    assert!(found.is_empty(), "unsafe code outside {FOREIGN}: {found:?}");
    assert!(foreign > 0, "the scan does not find the unsafe code that there is");
}

#[test]
fn every_crate_but_the_foreign_one_forbids_unsafe_code() {
    let root = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    assert!(root.contains("unsafe_code = \"forbid\""), "the workspace does not forbid unsafe code");
    let members = root.split_once("\nmembers = [").unwrap().1.split_once(']').unwrap().0;
    let members: Vec<&str> =
        members.split(',').map(|text| text.trim().trim_matches('"')).filter(|m| !m.is_empty()).collect();
    assert!(members.contains(&FOREIGN), "{members:?}");
    for member in members.iter().filter(|member| **member != FOREIGN) {
        let manifest = fs::read_to_string(repository().join(member).join("Cargo.toml")).unwrap();
        let forbids = ["[lints]\nworkspace = true", "\nunsafe_code = \"forbid\""]
            .iter()
            .any(|text| manifest.contains(text));
        assert!(forbids, "{member} does not forbid unsafe code");
    }
}

#[test]
fn no_file_is_so_long_that_it_must_have_several_subjects() {
    let mut lines: Vec<(usize, String)> = sources()
        .iter()
        .map(|path| (fs::read_to_string(path).unwrap().lines().count(), shown(path)))
        .collect();
    lines.sort();
    let long: Vec<_> = lines.iter().filter(|(lines, _)| *lines > FEW_LINES).collect();
    eprintln!("files of more than {FEW_LINES} lines: {long:?}");
    let too_long: Vec<_> = long.iter().filter(|(lines, _)| *lines > MOST_LINES).collect();
    assert!(too_long.is_empty(), "split these: {too_long:?}");
}

#[test]
fn every_module_says_what_it_decides() {
    // Tests say it in the names of their functions.
    let is_test =
        |path: &Path| path.ends_with("tests.rs") || shown(path).split('/').any(|part| part == "tests");
    let undocumented: Vec<String> = sources()
        .iter()
        .filter(|path| !is_test(path))
        .filter(|path| !fs::read_to_string(path).unwrap().trim_start().starts_with("//!"))
        .map(|path| shown(path))
        .collect();
    assert!(undocumented.is_empty(), "these do not open with `//!`: {undocumented:?}");
}
