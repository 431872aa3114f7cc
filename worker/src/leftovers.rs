//! What an agent that was killed left behind: processes that may still hold a slot, and logs.
//!
//! A trainer leaves when its standard input ends, so there is normally nothing alive. One that is stopped or stuck in
//! the kernel does not; its slot is offered again only after it is gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::AttemptId;
use nix::sys::signal::Signal;

use crate::proc;
use crate::process::signal;

/// Remembers the process of a rank.
///
/// # Errors
///
/// When the file cannot be written.
pub fn record(folder: &Path, rank: u32, pid: u32) -> io::Result<()> {
    // Without the start time the process is already gone, and nothing is left to remember.
    let Some(start) = start_time(pid) else { return Ok(()) };
    fs::write(folder.join(format!("rank-{rank}.pid")), format!("{pid} {start}\n"))
}

/// Forgets the process of a rank, which is gone or does something else.
pub fn forget(folder: &Path, rank: u32) {
    // One that is not remembered is forgotten.
    drop(fs::remove_file(folder.join(format!("rank-{rank}.pid"))));
}

/// Folder of the trainers that wait for a launch, below a worker's data folder.
pub fn warm_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("warm")
}

/// Remembers a trainer that waits for a launch.
///
/// # Errors
///
/// When the file cannot be written.
pub fn record_warm(folder: &Path, pid: u32) -> io::Result<()> {
    let Some(start) = start_time(pid) else { return Ok(()) };
    fs::write(folder.join(format!("{pid}.pid")), format!("{pid} {start}\n"))
}

/// Forgets a trainer that waited for a launch.
pub fn forget_warm(folder: &Path, pid: u32) {
    drop(fs::remove_file(folder.join(format!("{pid}.pid"))));
}

/// Ends the trainers that waited for a launch of an earlier agent.
fn sweep_warm(data_dir: &Path, patience: Duration) -> io::Result<()> {
    let folder = warm_folder(data_dir);
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "pid") {
            end(&path, patience)?;
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// An attempt that an earlier agent on this folder ran.
#[derive(Debug)]
pub struct Remains {
    /// The attempt.
    pub attempt: AttemptId,
    /// Logs of its ranks.
    pub logs: Vec<(u32, PathBuf)>,
}

/// Ends what is left of earlier agents' processes, and lists the attempts that they left.
///
/// # Errors
///
/// When a folder cannot be read, or a process does not die.
pub fn sweep(data_dir: &Path, patience: Duration) -> io::Result<Vec<Remains>> {
    sweep_warm(data_dir, patience)?;
    let attempts = data_dir.join("attempts");
    fs::create_dir_all(&attempts)?;
    let mut remains = Vec::new();
    for entry in fs::read_dir(&attempts)? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(attempt) = name.parse() else { continue };
        let mut logs = Vec::new();
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("pid") => end(&path, patience)?,
                Some("log") => logs.extend(rank_of(&path).map(|rank| (rank, path))),
                Some(_) | None => {}
            }
        }
        remains.push(Remains { attempt, logs });
    }
    Ok(remains)
}

fn rank_of(path: &Path) -> Option<u32> {
    path.file_stem()?.to_str()?.strip_prefix("rank-")?.parse().ok()
}

/// Kills the process group that a file names, and waits until it is gone.
fn end(pid_file: &Path, patience: Duration) -> io::Result<()> {
    let text = fs::read_to_string(pid_file)?;
    let mut words = text.split_whitespace();
    let (Some(pid), Some(start)) = (words.next().and_then(|word| word.parse::<u32>().ok()), words.next())
    else {
        return Ok(());
    };
    let deadline = Instant::now() + patience;
    // The start time tells the process from a later one with the same number.
    while start_time(pid).is_some_and(|found| found == start) {
        signal(pid, Signal::SIGKILL);
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("process {pid} of an earlier agent does not die")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Start of a process in clock ticks since boot. `None` for one that is gone or waits to be reaped.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = proc::fields(&stat)?;
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.nth(18).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[test]
    fn a_process_left_behind_is_killed_and_its_log_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = folder.path().join("attempts/a7");
        fs::create_dir_all(&attempt).unwrap();
        fs::write(attempt.join("rank-1.log"), "text").unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        record(&attempt, 1, child.id()).unwrap();
        let remains = sweep(folder.path(), Duration::from_secs(5)).unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(remains[0].attempt, AttemptId(7));
        assert_eq!(remains[0].logs, [(1, attempt.join("rank-1.log"))]);
    }

    #[test]
    fn a_trainer_that_waited_for_a_launch_is_killed_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let warm = warm_folder(folder.path());
        fs::create_dir_all(&warm).unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        record_warm(&warm, child.id()).unwrap();
        sweep(folder.path(), Duration::from_secs(5)).unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(fs::read_dir(&warm).unwrap().count(), 0);
    }

    #[test]
    fn a_process_that_reuses_the_number_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = folder.path().join("attempts/a7");
        fs::create_dir_all(&attempt).unwrap();
        let own = std::process::id();
        fs::write(attempt.join("rank-0.pid"), format!("{own} 1\n")).unwrap();
        sweep(folder.path(), Duration::from_secs(5)).unwrap();
    }
}
