//! The logs of a cluster, for a person who looks at a failed test.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of each log that are shown.
const LINES: usize = 60;

/// The end of every log below `folder`.
pub(super) fn of(folder: &Path) -> String {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files.sort();
    let mut text = String::new();
    for file in files {
        let log = String::from_utf8_lossy(&fs::read(&file).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines.len().saturating_sub(LINES);
        let name = file.strip_prefix(folder).unwrap_or(&file).display();
        // Writing into a string cannot fail.
        let _ = writeln!(text, "===== {name} ({} lines)\n{}", lines.len(), lines[shown..].join("\n"));
    }
    text
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            files.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_every_log_is_shown_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("w")).unwrap();
        fs::write(folder.path().join("w/rank-0.log"), "first\n".to_owned() + &"line\n".repeat(LINES))
            .unwrap();
        fs::write(folder.path().join("other"), "not a log").unwrap();
        let text = of(folder.path());
        assert!(text.contains("w/rank-0.log (61 lines)"), "{text}");
        assert!(!text.contains("first") && !text.contains("not a log"), "{text}");
    }
}
