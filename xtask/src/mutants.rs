//! `cargo xtask mutants`: breaks the cores of the coordinator and of the agent in known ways, one at a time, and shows which
//! test notices.
//!
//! A mutant is a piece of source and what replaces it, in `coordinator/core/tests/mutants.txt`. It is applied to a copy of
//! the workspace, so that the sources stay as they are. One whose text is not found exactly once, or that does not
//! compile, is an error: it says nothing about the tests.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::process::{self, cargo, line_of};

/// The list.
const LIST: &str = "coordinator/core/tests/mutants.txt";

/// What the last run of the whole list said.
const TABLE: &str = "coordinator/core/tests/MUTANTS.md";

/// Crates whose tests must notice.
const CRATES: [&str; 2] = ["coordinator-core", "worker-core"];

/// A mutant under which the tests run for longer than this is caught: it hangs.
const LIMIT: Duration = Duration::from_secs(600);

/// Tests that are named for a mutant. The first ones say enough.
const NAMED: usize = 3;

/// One way to break the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mutant {
    name: String,
    file: PathBuf,
    old: String,
    new: String,
}

/// What became of a mutant.
enum Verdict {
    /// Names of tests that failed.
    Caught(Vec<String>),
    Hung,
    Survived,
}

/// Runs every mutant whose name holds `only`.
pub fn run(workspace: &Path, only: Option<&str>) -> anyhow::Result<()> {
    let text = fs::read_to_string(workspace.join(LIST)).with_context(|| format!("cannot read `{LIST}`"))?;
    let mutants = parse(&text)?;
    let chosen: Vec<&Mutant> =
        mutants.iter().filter(|mutant| only.is_none_or(|only| mutant.name.contains(only))).collect();
    ensure!(!chosen.is_empty(), "no mutant of `{LIST}` is named so");
    let copy = workspace.join("target/mutants/sources");
    copy_sources(workspace, &copy)?;
    if let Verdict::Caught(_) | Verdict::Hung = test(workspace, &copy)? {
        bail!("the tests fail without any mutant");
    }
    let (mut survived, mut broken, mut rows) = (0, 0, Vec::new());
    for mutant in &chosen {
        let path = copy.join(&mutant.file);
        let source = mutant.apply(&path)?;
        let start = Instant::now();
        let verdict = test(workspace, &copy);
        fs::write(&path, source).with_context(|| format!("cannot restore `{}`", path.display()))?;
        let said = match verdict {
            Ok(Verdict::Caught(tests)) => named(&tests),
            Ok(Verdict::Hung) => format!("the tests run for more than {} s", LIMIT.as_secs()),
            Ok(Verdict::Survived) => {
                survived += 1;
                "SURVIVED".to_owned()
            }
            // The others say something all the same.
            Err(error) => {
                broken += 1;
                format!("BROKEN: {error:#}")
            }
        };
        eprintln!("{:>4} s  {}: {said}", start.elapsed().as_secs(), mutant.name);
        rows.push(format!("| {} | {said} |\n", mutant.name));
    }
    eprintln!("{} mutants, {survived} survived, {broken} broken", chosen.len());
    ensure!(survived == 0 && broken == 0, "{survived} mutants survived, {broken} say nothing");
    if only.is_none() {
        let head = "# Mutants and what catches them\n\nWritten by `cargo xtask mutants`.\n\n| Mutant | Caught by |\n|---|---|\n";
        fs::write(workspace.join(TABLE), format!("{head}{}", rows.concat()))
            .with_context(|| format!("cannot write `{TABLE}`"))?;
    }
    Ok(())
}

fn named(tests: &[String]) -> String {
    let mut text = tests.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more) = tests.len().checked_sub(NAMED).filter(|&more| more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

impl Mutant {
    /// Applies it, and returns what the file held before.
    fn apply(&self, path: &Path) -> anyhow::Result<String> {
        let source =
            fs::read_to_string(path).with_context(|| format!("cannot read `{}`", self.file.display()))?;
        let found = source.matches(&self.old).count();
        ensure!(
            found == 1,
            "mutant `{}`: its text stands {found} times in `{}`, and should once:\n{}",
            self.name,
            self.file.display(),
            self.old
        );
        fs::write(path, source.replacen(&self.old, &self.new, 1))
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(source)
    }
}

/// Reads the list: blocks that begin with `## NAME`, a line `file: PATH`, then `<<<`, the text, `===`, what replaces it,
/// and `>>>`.
fn parse(text: &str) -> anyhow::Result<Vec<Mutant>> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for block in text.split("\n## ").skip(1) {
        let (name, rest) = block.split_once('\n').context("a mutant without a body")?;
        let parts = || {
            let (head, rest) = rest.split_once("<<<\n")?;
            let (old, rest) = rest.split_once("\n===\n")?;
            let (new, _) = rest.split_once(">>>")?;
            let file = head.lines().find_map(|line| line.strip_prefix("file: "))?;
            Some((file, old, new))
        };
        let (file, old, new) = parts().with_context(|| format!("mutant `{name}` is not complete"))?;
        ensure!(!mutants.iter().any(|known| known.name == name), "two mutants are named `{name}`");
        mutants.push(Mutant {
            name: name.to_owned(),
            file: file.trim().into(),
            old: old.to_owned(),
            new: new.trim_end_matches('\n').to_owned(),
        });
    }
    Ok(mutants)
}

/// Copies what git knows or would take.
fn copy_sources(workspace: &Path, copy: &Path) -> anyhow::Result<()> {
    if copy.exists() {
        fs::remove_dir_all(copy).with_context(|| format!("cannot remove `{}`", copy.display()))?;
    }
    let listed = Command::new("git")
        .current_dir(workspace)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("cannot start `git`, which lists the sources")?;
    ensure!(listed.status.success(), "git does not list the sources of `{}`", workspace.display());
    let files = String::from_utf8(listed.stdout).context("a file name that is not UTF-8")?;
    for file in files.lines() {
        let (from, to) = (workspace.join(file), copy.join(file));
        // A file that was removed and is still in the index.
        if !from.is_file() {
            continue;
        }
        let folder = to.parent().context("a file at the root")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
        fs::copy(&from, &to).with_context(|| format!("cannot copy `{file}`"))?;
    }
    Ok(())
}

/// Builds and runs the tests of the copy.
fn test(workspace: &Path, copy: &Path) -> anyhow::Result<Verdict> {
    let packages = CRATES.iter().flat_map(|name| ["--package", name]);
    let arguments: Vec<&str> = ["test", "--locked"].into_iter().chain(packages).collect();
    let target = workspace.join("target/mutants/target");
    let mut build = cargo(copy, &arguments);
    build.args(["--no-run", "--quiet"]).env("CARGO_TARGET_DIR", &target);
    let built = build.output().with_context(|| format!("cannot start `{}`", line_of(&build)))?;
    ensure!(built.status.success(), "it does not compile:\n{}", String::from_utf8_lossy(&built.stderr));

    let log_path = workspace.join("target/mutants/log");
    let log = fs::File::create(&log_path).context("cannot make the log")?;
    let mut tests = cargo(copy, &arguments);
    // A group of its own, so that a test that hangs can be ended with the cargo that waits for it.
    tests.arg("--no-fail-fast").env("CARGO_TARGET_DIR", &target).process_group(0);
    let second = log.try_clone().context("cannot share the log")?;
    let started = tests.stdin(Stdio::null()).stdout(log).stderr(second).spawn();
    let mut child = started.with_context(|| format!("cannot start `{}`", line_of(&tests)))?;
    let Some(status) = process::wait_within(&mut child, LIMIT)? else { return Ok(Verdict::Hung) };
    if status.success() {
        return Ok(Verdict::Survived);
    }
    let text = fs::read_to_string(&log_path).unwrap_or_default();
    let mut failed: Vec<String> = text.lines().filter_map(failed_test).collect();
    failed.sort();
    failed.dedup();
    ensure!(!failed.is_empty(), "the tests ended with {status}, but none of them failed:\n{text}");
    Ok(Verdict::Caught(failed))
}

/// The name in a line like `test core::x ... FAILED`.
fn failed_test(line: &str) -> Option<String> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "How to read this.\n\n## one thing\nfile: a/b.rs\n<<<\nlet x = 1;\n===\nlet x = 2;\n>>>\n\n## gone\nfile: c.rs\n<<<\nf();\n===\n>>>\n";

    #[test]
    fn the_list_is_read() {
        let mutants = parse(TEXT).unwrap();
        assert_eq!(mutants.len(), 2);
        assert_eq!((mutants[0].name.as_str(), mutants[0].new.as_str()), ("one thing", "let x = 2;"));
        assert_eq!((mutants[1].file.as_path(), mutants[1].new.as_str()), (Path::new("c.rs"), ""));
        assert!(parse("\n## x\nfile: a\n<<<\nold\n").is_err());
        assert!(parse(&format!("{TEXT}\n{TEXT}")).is_err(), "a name that stands twice");
    }

    #[test]
    fn a_mutant_whose_text_is_not_there_once_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.rs");
        let mutant = parse(TEXT).unwrap().remove(0);
        for (text, applies) in [("let x = 1;", true), ("let x = 1; let x = 1;", false), ("let y = 1;", false)]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(mutant.apply(&path).is_ok(), applies, "{text}");
        }
    }

    #[test]
    fn the_committed_mutants_still_apply() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let Ok(text) = fs::read_to_string(workspace.join(LIST)) else { return };
        for mutant in parse(&text).unwrap() {
            let source = fs::read_to_string(workspace.join(&mutant.file)).unwrap();
            assert_eq!(source.matches(&mutant.old).count(), 1, "{}", mutant.name);
        }
    }
}
