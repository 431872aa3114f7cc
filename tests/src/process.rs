//! Long-running processes, and the search for those that should be gone.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::wait::until;

/// How to start a [`Service`].
#[derive(Debug)]
pub struct ServiceCommand<'a> {
    /// The program.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where standard output and standard error go; appended to.
    pub log: PathBuf,
}

/// A process in a process group of its own, killed when it is dropped.
#[derive(Debug)]
pub struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts it, without any setting of ours from the environment of the test.
    ///
    /// # Panics
    ///
    /// When the program cannot be started.
    pub fn start(command: ServiceCommand<'_>) -> Self {
        let ServiceCommand { program, arguments, log } = command;
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        let errors = file.try_clone().expect("a second handle of the log file");
        let child = clean(program)
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{}`: {error}", program.display()));
        Self { child, log }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal to the process alone, as Ctrl-C of a shell without job control or an operator would.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Kills the process alone, at once, and reaps it. What it started is left to itself.
    ///
    /// # Panics
    ///
    /// When it ended by itself before.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        let status = self.child.wait().expect("the process is our child");
        assert_eq!(status.signal(), Some(9), "it had ended before it was killed; its log:\n{}", self.log());
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end within `patience`.
    pub fn wait(mut self, patience: Duration) -> ExitStatus {
        let what = format!("process {} ends; its log is {}", self.pid(), self.log.display());
        until(&what, patience, || self.child.try_wait().expect("the process is our child"))
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the process is our child").is_none()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let group = i32::try_from(self.pid()).map(Pid::from_raw);
            // It may end on its own at this very moment.
            let _ = group.map(|group| killpg(group, Signal::SIGKILL));
            let _ = self.child.wait();
        }
    }
}

/// A command that inherits no setting of ours: a developer's own cluster must not change what is tested.
pub(crate) fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CREDENCE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Signals a process that may be gone.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    // One that is gone needs no signal.
    let _ = kill(pid, signal);
}

/// Processes with `path` in their command line: id and command line. Not those that only wait to be reaped.
pub fn processes_naming(path: &Path) -> Vec<(u32, String)> {
    let needle = path.to_string_lossy().into_owned();
    let own = std::process::id();
    let entries = fs::read_dir("/proc").expect("/proc, which only Linux has");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| pid != own)
        .filter_map(|pid| {
            let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&raw).trim_end_matches('\0').replace('\0', " ");
            line.contains(&needle).then_some((pid, line))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> Service {
        let marker = folder.join("marker").display().to_string();
        // The shell keeps its arguments in its command line as long as it waits for its child.
        // Not SIGINT: a shell cannot trap what was ignored when it started, as it is in a background job.
        let script = "trap 'exit 5' TERM; echo started; while :; do sleep 0.05; done".to_owned();
        let arguments = vec!["-c".to_owned(), script, marker];
        Service::start(ServiceCommand { program: Path::new("/bin/sh"), arguments, log: folder.join("log") })
    }

    /// A child that the shell had just forked bears its command line, and whoever adopted it reaps it a moment later.
    fn wait_gone(folder: &Path) {
        until("nothing is left", Duration::from_secs(10), || {
            processes_naming(folder).is_empty().then_some(())
        });
    }

    #[test]
    fn a_process_is_found_by_a_path_of_its_command_line_until_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let service = sleeper(folder.path());
        let pid = service.pid();
        until("the process is found", Duration::from_secs(10), || {
            processes_naming(folder.path()).iter().find(|(found, _)| *found == pid).map(drop)
        });
        service.kill();
        wait_gone(folder.path());
    }

    #[test]
    fn a_dropped_service_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        drop(sleeper(folder.path()));
        wait_gone(folder.path());
    }

    #[test]
    fn a_service_keeps_its_log_and_its_exit_status() {
        let folder = tempfile::tempdir().unwrap();
        let service = sleeper(folder.path());
        until("its first line", Duration::from_secs(10), || service.log().contains("started").then_some(()));
        service.signal(Signal::SIGTERM);
        assert_eq!(service.wait(Duration::from_secs(10)).code(), Some(5));
    }
}
