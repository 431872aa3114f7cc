//! One trainer process: started in a process group of its own, spoken to in lines, and ended with SIGTERM, a
//! grace, and SIGKILL.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use common::report::{Command, Report};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::mpsc;

/// Environment of every trainer, where the agent's own has no other value.
const TUNING: [(&str, &str); 3] = [
    // OpenMP's threads spin while they wait. Where another process wants the core, they spin against each other: with
    // 4 threads on 2 busy cores a step took 8 times as long as with threads that sleep.
    ("OMP_WAIT_POLICY", "PASSIVE"),
    // glibc gives large blocks back to the system at once, and every step faults them in again: a fifth to a third
    // of the time of a step with four members.
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
    ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
];

/// What a rank's process says, and how it ended.
#[derive(Debug)]
pub enum RankEvent {
    /// A line of its standard output.
    Report(u32, Report),
    /// It is gone, and so is everything that it started. The last event of a rank.
    Gone(u32, io::Result<ExitStatus>),
}

/// What a rank's process is told.
#[derive(Debug)]
pub enum RankOrder {
    /// A line for its standard input.
    Tell(Command),
    /// End, whatever it does.
    Stop,
}

/// How to start the process of one rank.
#[derive(Debug)]
pub struct RankProgram<'a> {
    /// The program.
    pub trainer: &'a Path,
    /// The only argument.
    pub launch_file: &'a Path,
    /// Where its standard error goes.
    pub log: File,
    /// Rank in the gang.
    pub rank: u32,
    /// Rank on this worker.
    pub local_rank: u32,
    /// Ranks in the gang.
    pub world_size: u32,
    /// Threads of one operation.
    pub threads: u32,
}

/// Starts the process of one rank. Its events go to `events`; the returned sender takes orders for it.
///
/// # Errors
///
/// What the operating system says when the program cannot be started.
pub fn start(
    program: RankProgram<'_>,
    grace: Duration,
    events: mpsc::Sender<RankEvent>,
) -> io::Result<(mpsc::Sender<RankOrder>, u32)> {
    let rank = program.rank;
    let mut command = tokio::process::Command::new(program.trainer);
    command.envs(TUNING.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()));
    let mut child = command
        .arg(program.launch_file)
        .env("RANK", rank.to_string())
        .env("LOCAL_RANK", program.local_rank.to_string())
        .env("WORLD_SIZE", program.world_size.to_string())
        .env("OMP_NUM_THREADS", program.threads.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(program.log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().ok_or_else(|| io::Error::other("the process ended before it had an id"))?;
    let stdin = child.stdin.take().ok_or_else(|| io::Error::other("no standard input"))?;
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
    let (orders, inbox) = mpsc::channel(16);
    let reader = tokio::spawn(read_reports(rank, stdout, events.clone()));
    tokio::spawn(async move {
        let status = supervise(&mut child, pid, stdin, inbox, grace).await;
        // All lines come before the end.
        drop(reader.await);
        drop(events.send(RankEvent::Gone(rank, status)).await);
    });
    Ok((orders, pid))
}

async fn read_reports(rank: u32, stdout: ChildStdout, events: mpsc::Sender<RankEvent>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(report) => {
                if events.send(RankEvent::Report(rank, report)).await.is_err() {
                    return;
                }
            }
            // libtorch or a library below it may print; what is not a report is not ours to judge.
            Err(error) => tracing::debug!(rank, line, %error, "not a report"),
        }
    }
}

async fn supervise(
    child: &mut Child,
    pid: u32,
    mut stdin: ChildStdin,
    mut inbox: mpsc::Receiver<RankOrder>,
    grace: Duration,
) -> io::Result<ExitStatus> {
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            order = inbox.recv() => match order {
                Some(RankOrder::Tell(command)) => tell(&mut stdin, &command).await,
                Some(RankOrder::Stop) | None => break stop(child, pid, grace).await,
            },
        }
    };
    // The leader is gone; what it may have started in its group must not hold the slot.
    signal(pid, Signal::SIGKILL);
    status
}

async fn tell(stdin: &mut ChildStdin, command: &Command) {
    let mut line = serde_json::to_vec(command).expect("a command holds only strings");
    line.push(b'\n');
    // A process that no longer reads is about to be gone, which is reported in its own way.
    if let Err(error) = stdin.write_all(&line).await {
        tracing::debug!(%error, "a trainer does not read its commands");
    }
}

async fn stop(child: &mut Child, pid: u32, grace: Duration) -> io::Result<ExitStatus> {
    signal(pid, Signal::SIGTERM);
    match tokio::time::timeout(grace, child.wait()).await {
        Ok(status) => status,
        Err(_elapsed) => {
            signal(pid, Signal::SIGKILL);
            child.wait().await
        }
    }
}

/// Signals a whole process group. One that is gone is no error.
pub fn signal(group: u32, signal: Signal) {
    let Ok(group) = i32::try_from(group) else { return };
    if let Err(error) = killpg(Pid::from_raw(group), signal) {
        tracing::trace!(group, %signal, %error, "no process took the signal");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::path::PathBuf;

    use super::*;

    /// A trainer made of a shell script, whose launch file is `/dev/null`.
    fn start_script(
        folder: &Path,
        body: &str,
        grace: Duration,
    ) -> (mpsc::Sender<RankOrder>, mpsc::Receiver<RankEvent>) {
        use std::os::unix::fs::PermissionsExt as _;
        let script: PathBuf = folder.join("trainer.sh");
        std::fs::write(&script, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (events, inbox) = mpsc::channel(16);
        let program = RankProgram {
            trainer: &script,
            launch_file: Path::new("/dev/null"),
            log: File::create(folder.join("log")).unwrap(),
            rank: 0,
            local_rank: 0,
            world_size: 1,
            threads: 1,
        };
        let (orders, _) = start(program, grace, events).unwrap();
        (orders, inbox)
    }

    async fn gone(inbox: &mut mpsc::Receiver<RankEvent>) -> ExitStatus {
        loop {
            if let RankEvent::Gone(_, status) = inbox.recv().await.unwrap() {
                return status.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn reports_come_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let body = r#"echo noise; echo '{"report":"warning","message":"m"}'; exit 7"#;
        let (_orders, mut inbox) = start_script(folder.path(), body, Duration::from_secs(5));
        let first = inbox.recv().await.unwrap();
        assert!(matches!(first, RankEvent::Report(0, Report::Warning { .. })), "{first:?}");
        assert_eq!(gone(&mut inbox).await.code(), Some(7));
    }

    #[tokio::test]
    async fn a_command_reaches_standard_input() {
        let folder = tempfile::tempdir().unwrap();
        let body = "read line; case $line in *rendezvous*h:1*) exit 0;; esac; exit 1";
        let (orders, mut inbox) = start_script(folder.path(), body, Duration::from_secs(5));
        let command = Command::Rendezvous { address: "h:1".to_owned() };
        orders.send(RankOrder::Tell(command)).await.unwrap();
        assert!(gone(&mut inbox).await.success());
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let body = "trap '' TERM; sleep 1000 & echo $! >\"$(dirname $0)/child\"; echo '{\"report\":\"warning\",\"message\":\"up\"}'; while :; do sleep 1; done";
        let (orders, mut inbox) = start_script(folder.path(), body, Duration::from_millis(200));
        inbox.recv().await.unwrap();
        orders.send(RankOrder::Stop).await.unwrap();
        assert_eq!(gone(&mut inbox).await.signal(), Some(9));
        let child: i32 =
            std::fs::read_to_string(folder.path().join("child")).unwrap().trim().parse().unwrap();
        // The orphan is reaped by init, which may take a moment.
        for _ in 0..200 {
            if nix::sys::signal::kill(Pid::from_raw(child), None).is_err() || is_zombie(child) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the child outlived its group");
    }

    fn is_zombie(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    }
}
