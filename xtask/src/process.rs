//! Child processes: builds in the foreground, services in the background, and none of them left behind.
//!
//! Services run in process groups of their own, so that Ctrl-C reaches this program alone, which then ends them in
//! order: TERM, a grace, KILL. What they started and left is adopted and ended too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Pause between two looks at a process.
const POLL: Duration = Duration::from_millis(50);

/// Runs a command to its end; a failure names it.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = line_of(command);
    eprintln!("> {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    ensure!(status.success(), "`{line}` failed ({status})");
    Ok(())
}

/// A cargo command in the workspace.
pub fn cargo(workspace: &Path, arguments: &[&str]) -> Command {
    // The cargo that runs this program, hence the same toolchain.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace).args(arguments);
    command
}

/// Where cargo puts release builds: beside the folder that this program was built into.
pub fn release_folder() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let target = own.parent().and_then(Path::parent);
    Ok(target.context("this program does not lie in a target folder")?.join("release"))
}

/// Where cargo puts the programs that are developed and those that are released.
pub fn program_folders() -> anyhow::Result<[PathBuf; 2]> {
    let release = release_folder()?;
    Ok([release.with_file_name("debug"), release])
}

/// Program and arguments, for people.
pub fn line_of(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(name).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Counts the requests of the user to stop: Ctrl-C, TERM, a closed terminal.
pub struct Interrupt {
    requests: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Takes over the signals. By handlers, which a child process does not inherit, and not by blocking, which
    /// it would: a service could then not be asked to end.
    pub fn take_over() -> anyhow::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot handle signals")?;
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        thread::spawn(move || {
            for _ in signals.forever() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { requests })
    }

    /// Number of requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Waits for a child unless the user asks to stop; then the child is killed and there is no status.
pub fn wait(child: &mut Child, interrupt: &Interrupt) -> anyhow::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a process")? {
            return Ok(Some(status));
        }
        if interrupt.requests() > 0 {
            // It may have heard the same Ctrl-C and be gone.
            let _ = child.kill();
            child.wait().context("cannot wait for a process")?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Waits for a child that leads a process group, and kills the group when it takes longer than `limit`; then there is no status.
pub fn wait_within(child: &mut Child, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a process")? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            let id = i32::try_from(child.id()).context("a process id that is no number")?;
            // It may have ended meanwhile.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
            child.wait().context("cannot wait for a process")?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// A program in the background, with a log file.
pub struct Service {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts a program in a process group of its own.
    pub fn start(name: &str, command: &mut Command, log: PathBuf) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt;
        let file = File::create(&log).with_context(|| format!("cannot create `{}`", log.display()))?;
        let second = file.try_clone().context("cannot share a log file")?;
        let line = line_of(command);
        let started = command.process_group(0).stdin(Stdio::null()).stdout(file).stderr(second).spawn();
        let child = started.with_context(|| format!("cannot start `{line}`"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// An error with the end of its log when the service has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let ended = self.child.try_wait().context("cannot look at a process")?;
        let Some(status) = ended else { return Ok(()) };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        anyhow::bail!(
            "the {} ended early ({status}); the end of its log `{}`:\n{tail}",
            self.name,
            self.log.display()
        )
    }

    fn signal(&self, signal: Signal) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            // It fails only when the group is gone, which is what is wanted.
            let _ = killpg(Pid::from_raw(id), signal);
        }
    }

    fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }
}

impl Drop for Service {
    /// Only for a way out that does not come by [`stop`].
    fn drop(&mut self) {
        if !self.has_ended() {
            self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Ends services together: TERM, then KILL after `grace` or at a further request of the user.
pub fn stop(services: &mut Vec<Service>, grace: Duration, interrupt: Option<&Interrupt>) {
    let requests = || interrupt.map_or(0, Interrupt::requests);
    let before = requests();
    let deadline = Instant::now() + grace;
    for service in services.iter_mut().filter_map(|service| (!service.has_ended()).then_some(service)) {
        service.signal(Signal::SIGTERM);
    }
    while !services.iter_mut().all(Service::has_ended) {
        if Instant::now() >= deadline || requests() > before {
            break;
        }
        thread::sleep(POLL);
    }
    // Dropping kills the rest.
    services.clear();
}

/// Makes this process the parent of whatever its descendants leave behind, for [`end_orphans`].
pub fn adopt_orphans() -> anyhow::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("cannot adopt orphaned processes")
}

/// Kills every child that is left, until there is none; returns how many there were.
///
/// Only for a program that waits for no other child any more.
pub fn end_orphans() -> anyhow::Result<usize> {
    let mut ended = 0;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(nix::errno::Errno::ECHILD) => return Ok(ended),
            Err(error) => return Err(error).context("cannot wait for left processes"),
            Ok(WaitStatus::StillAlive) => {
                for child in children()? {
                    let _ = kill(child, Signal::SIGKILL);
                }
                thread::sleep(POLL);
            }
            Ok(_) => ended += 1,
        }
    }
}

/// Processes whose parent is this one.
fn children() -> anyhow::Result<Vec<Pid>> {
    let own = Pid::this();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list /proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between the two looks.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if parent_in(&stat) == Some(own) {
            found.push(Pid::from_raw(id));
        }
    }
    Ok(found)
}

/// Reads the parent from `/proc/ID/stat`: the second field after the name, which may itself hold parentheses.
fn parent_in(stat: &str) -> Option<Pid> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(1)?.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn exists(id: u32) -> bool {
        kill(Pid::from_raw(i32::try_from(id).unwrap()), None).is_ok()
    }

    /// Waits until `path` has a line, and reads it.
    fn first_line(path: &Path) -> String {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let text = fs::read_to_string(path).unwrap_or_default();
            if let Some((line, _)) = text.split_once('\n') {
                return line.to_owned();
            }
            thread::sleep(POLL);
        }
        panic!("nothing in {} after {PATIENCE:?}", path.display());
    }

    #[test]
    fn a_service_that_ends_at_term_is_not_waited_for_until_the_grace_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::start("sleeper", &mut sh("exec sleep 600"), folder.path().join("log"));
        let mut services = vec![service.unwrap()];
        let id = services[0].child.id();
        let start = Instant::now();
        stop(&mut services, PATIENCE, None);
        assert!(start.elapsed() < PATIENCE);
        assert!(!exists(id));
    }

    #[test]
    fn a_service_that_ignores_term_is_killed_with_its_group_after_the_grace() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = "trap '' TERM; sleep 600 & echo $!; wait";
        let mut services = vec![Service::start("deaf", &mut sh(script), log.clone()).unwrap()];
        let grandchild: u32 = first_line(&log).parse().unwrap();
        let id = services[0].child.id();
        stop(&mut services, Duration::from_millis(100), None);
        assert!(!exists(id));
        // Whoever adopted it reaps it at some time; until then it is a zombie. On a busy machine it dies a moment later.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stat = fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                break;
            }
            assert!(Instant::now() < deadline, "the grandchild is alive: {stat}");
            thread::sleep(POLL);
        }
    }

    #[test]
    fn a_service_that_ends_early_is_told_with_the_end_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = sh("echo no port left; exit 3");
        let mut service = Service::start("coordinator", &mut command, folder.path().join("log")).unwrap();
        service.child.wait().unwrap();
        let text = service.check().unwrap_err().to_string();
        assert!(text.contains("coordinator ended early"), "{text}");
        assert!(text.contains("no port left"), "{text}");
    }

    #[test]
    fn the_parent_is_found_behind_a_name_with_parentheses() {
        assert_eq!(parent_in("12 (a ) b) S 7 12 12 0"), Some(Pid::from_raw(7)));
        assert_eq!(parent_in("12"), None);
    }

    /// Runs the ignored test of this name in a process of its own, because it changes what is shared by all
    /// threads of one: its children, its signals.
    fn in_its_own_process(test: &str) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("process::tests::{test}"), "--ignored", "--test-threads=1"]);
        let output = command.env(OWN_PROCESS, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    const OWN_PROCESS: &str = "XTASK_TEST_OWN_PROCESS";

    #[test]
    fn what_a_service_left_behind_in_another_group_is_ended() {
        in_its_own_process("orphans_are_adopted_and_ended");
    }

    #[test]
    #[ignore = "run by another test, in a process of its own"]
    fn orphans_are_adopted_and_ended() {
        if std::env::var_os(OWN_PROCESS).is_none() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        adopt_orphans().unwrap();
        let script = "setsid sleep 600 & echo $!; wait";
        let mut services = vec![Service::start("parent", &mut sh(script), log.clone()).unwrap()];
        let orphan: u32 = first_line(&log).parse().unwrap();
        stop(&mut services, PATIENCE, None);
        assert!(exists(orphan), "nothing was left behind, so the test shows nothing");
        assert_eq!(end_orphans().unwrap(), 1);
        assert!(!exists(orphan));
    }

    #[test]
    fn a_request_to_stop_ends_the_child_that_is_waited_for_and_children_hear_signals_themselves() {
        in_its_own_process("signals_are_taken_over");
    }

    #[test]
    #[ignore = "run by another test, in a process of its own"]
    fn signals_are_taken_over() {
        if std::env::var_os(OWN_PROCESS).is_none() {
            return;
        }
        let interrupt = Interrupt::take_over().unwrap();
        let mut sleeper = sh("exec sleep 600").spawn().unwrap();
        kill(Pid::from_raw(i32::try_from(sleeper.id()).unwrap()), Signal::SIGTERM).unwrap();
        let status = wait(&mut sleeper, &interrupt).unwrap().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGTERM as i32));

        assert_eq!(interrupt.requests(), 0);
        let mut sleeper = sh("exec sleep 600").spawn().unwrap();
        kill(Pid::this(), Signal::SIGTERM).unwrap();
        assert_eq!(wait(&mut sleeper, &interrupt).unwrap(), None);
    }
}
