//! Lines of a rank's log that say something about the worker: a broken device, a machine check.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use regex::bytes::RegexSet;

use crate::config::LogPattern;

/// Most bytes of a log that are read at a time; more are read at the next.
const CHUNK: usize = 256 * 1024;

/// Longest part of a line that is looked at and passed on.
const LINE: usize = 1024;

/// Matches of one pattern in one log that are passed on. What is said a thousand times was said.
const MOST: u32 = 3;

/// The patterns of a worker's configuration.
#[derive(Clone, Debug)]
pub struct Patterns {
    set: RegexSet,
    list: Vec<LogPattern>,
}

/// A line that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The rank whose log it stands in.
    pub rank: u32,
    /// Name of the pattern.
    pub pattern: String,
    /// The line.
    pub line: String,
    /// Whether the worker should be given nothing more.
    pub quarantine: bool,
}

impl Patterns {
    /// No patterns.
    pub fn none() -> Self {
        Self { set: RegexSet::empty(), list: Vec::new() }
    }

    /// Compiles the patterns of a configuration.
    ///
    /// # Errors
    ///
    /// The first that is no regular expression.
    pub fn new(list: &[LogPattern]) -> Result<Self, regex::Error> {
        let set = RegexSet::new(list.iter().map(|pattern| &pattern.regex))?;
        Ok(Self { set, list: list.to_vec() })
    }
}

/// Reads a log as it grows.
#[derive(Debug, Default)]
pub struct Follower {
    file: Option<File>,
    offset: u64,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
    counts: Vec<u32>,
}

impl Follower {
    /// Matches in what was added to the log of `rank` since the last call.
    pub fn read(&mut self, log: &Path, patterns: &Patterns, rank: u32) -> Vec<Match> {
        if patterns.list.is_empty() {
            return Vec::new();
        }
        if self.file.is_none() {
            self.file = File::open(log).ok();
        }
        let Some(file) = &self.file else { return Vec::new() };
        let mut chunk = vec![0; CHUNK];
        // What cannot be read now can be read next time.
        let Ok(read) = file.read_at(&mut chunk, self.offset) else { return Vec::new() };
        self.offset += read as u64;
        self.rest.extend_from_slice(&chunk[..read]);
        self.take_lines(patterns, rank)
    }

    fn take_lines(&mut self, patterns: &Patterns, rank: u32) -> Vec<Match> {
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else {
            // A line without an end must not fill the memory.
            self.rest.truncate(LINE);
            return Vec::new();
        };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        self.counts.resize(patterns.list.len(), 0);
        let mut found = Vec::new();
        for line in whole.split(|&byte| byte == b'\n') {
            let line = &line[..line.len().min(LINE)];
            for index in patterns.set.matches(line) {
                self.counts[index] += 1;
                if self.counts[index] <= MOST {
                    let LogPattern { name, quarantine, .. } = &patterns.list[index];
                    let line = String::from_utf8_lossy(line).into_owned();
                    found.push(Match { rank, pattern: name.clone(), line, quarantine: *quarantine });
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn patterns(list: &[(&str, &str)]) -> Patterns {
        let pattern = |&(name, regex): &(&str, &str)| LogPattern {
            name: name.to_owned(),
            regex: regex.to_owned(),
            quarantine: name == "ecc",
        };
        Patterns::new(&list.iter().map(pattern).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_line_is_found_once_also_when_it_is_written_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let patterns = patterns(&[("xid", r"Xid \(PCI[^)]*\): \d+"), ("ecc", "(?i)uncorrectable ecc")]);
        let mut follower = Follower::default();
        assert_eq!(follower.read(&path, &patterns, 1), []);
        let mut file = File::create(&path).unwrap();
        file.write_all(b"fine\nNVRM: Xid (PCI:0000").unwrap();
        assert_eq!(follower.read(&path, &patterns, 1), []);
        file.write_all(b":3b:00): 79, GPU has fallen off the bus\nfine\n").unwrap();
        let found = follower.read(&path, &patterns, 1);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].rank, found[0].pattern.as_str(), found[0].quarantine), (1, "xid", false));
        assert_eq!(found[0].line, "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus");
        file.write_all(b"CUDA error: Uncorrectable ECC error encountered\n").unwrap();
        assert!(follower.read(&path, &patterns, 1)[0].quarantine);
        assert_eq!(follower.read(&path, &patterns, 1), []);
    }

    #[test]
    fn what_is_said_again_and_again_is_passed_on_three_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "bad\n".repeat(1_000)).unwrap();
        let mut follower = Follower::default();
        assert_eq!(follower.read(&path, &patterns(&[("bad", "^bad$")]), 0).len(), MOST as usize);
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "x".repeat(CHUNK * 3)).unwrap();
        let mut follower = Follower::default();
        for _ in 0..4 {
            assert_eq!(follower.read(&path, &patterns(&[("bad", "bad")]), 0), []);
            assert!(follower.rest.len() <= LINE);
        }
    }
}
