//! Trainers as the operating system sees them.

use std::fs;
use std::path::{Path, PathBuf};

/// The process of one rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainerProcess {
    /// Process id.
    pub pid: u32,
    /// Name of the worker whose folder it works in.
    pub worker: String,
    /// Attempt, like `a12`.
    pub attempt: String,
    /// Rank.
    pub rank: u32,
}

impl TrainerProcess {
    /// Whether it was stopped by a signal and did not go on.
    pub fn stands_still(&self) -> bool {
        fields(self.pid).is_some_and(|fields| fields[0] == "T")
    }

    /// Processor time that it has used, in ticks of the system; `None` when it is gone.
    pub fn ticks(&self) -> Option<u64> {
        let fields = fields(self.pid)?;
        Some(fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?)
    }

    /// Trainers that run, from what agents write down for their successors:
    /// `workers/WORKER/attempts/ATTEMPT/rank-RANK.pid`. A command line says less: a trainer may have been started before
    /// there was an attempt for it.
    pub(super) fn all(workers: &Path, seen: impl Fn(&Path) -> PathBuf) -> Vec<Self> {
        let mut found = Vec::new();
        for worker in names(workers) {
            // A worker's folder may be a disk that only the worker has mounted.
            let attempts = seen(&workers.join(&worker)).join("attempts");
            for attempt in names(&attempts) {
                for file in names(&attempts.join(&attempt)) {
                    let rank = file.strip_prefix("rank-").and_then(|rest| rest.strip_suffix(".pid"));
                    let Some(rank) = rank.and_then(|rank| rank.parse().ok()) else { continue };
                    let pid = alive(&attempts.join(&attempt).join(&file));
                    found.extend(pid.map(|pid| Self {
                        pid,
                        worker: worker.clone(),
                        attempt: attempt.clone(),
                        rank,
                    }));
                }
            }
        }
        found
    }
}

/// Names in a folder, in their order. Nothing, if it is gone.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// What the system says of a process, from its state on.
fn fields(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<String> = stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect();
    (fields.len() > 12).then_some(fields)
}

/// The process of a file that holds its number and its start, if it still runs.
fn alive(file: &Path) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    let (pid, start) = text.trim().split_once(' ')?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X" && fields.nth(18)? == start).then(|| pid.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trainer_is_found_by_the_file_of_its_attempt_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = folder.path().join("alpha/attempts/a12");
        fs::create_dir_all(&attempt).unwrap();
        let pid = std::process::id();
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let start = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap();
        fs::write(attempt.join("rank-1.pid"), format!("{pid} {start}\n")).unwrap();
        fs::write(attempt.join("rank-2.pid"), format!("{pid} 1\n")).unwrap();
        fs::write(attempt.join("rank-3.log"), "text").unwrap();
        let expected = TrainerProcess { pid, worker: "alpha".into(), attempt: "a12".into(), rank: 1 };
        assert_eq!(TrainerProcess::all(folder.path(), Path::to_owned), [expected]);
        assert_eq!(TrainerProcess::all(&folder.path().join("nothing"), Path::to_owned), []);
    }
}
