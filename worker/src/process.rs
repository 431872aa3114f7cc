//! One trainer process: started in a process group of its own, spoken to in lines, and ended with SIGTERM, a
//! grace, and SIGKILL, or with SIGKILL at once.
//!
//! What it is told waits here until the pipe has room: one that does not read holds up nobody.

mod outbox;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::task::Poll;
use std::time::Duration;

use common::report::{Command, Report};
use common::timeouts::ranks;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::warm::Idle;
use outbox::{Outbox, line};

pub use outbox::nanoseconds;

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
    /// It is gone, and so is everything that it started; or it did what it was asked, and waits for something else to do.
    /// The last event of a rank.
    Gone(u32, io::Result<ExitStatus>),
}

/// What a rank's process is told.
#[derive(Debug)]
pub enum RankOrder {
    /// A line for its standard input.
    Tell(Command),
    /// End, whatever it does.
    Stop,
    /// End without a word: what it does counts no more, or it cannot hear.
    Kill,
    /// Stand still at this time by itself, unless a later one is told before.
    Lease(Duration),
    /// Stand still, keeping everything.
    Suspend,
    /// Go on.
    Resume,
}

/// How to start the process of one rank.
#[derive(Debug)]
pub struct RankProgram<'a> {
    /// The program.
    pub trainer: &'a Path,
    /// The only argument.
    pub launch_file: &'a Path,
    /// Where its standard error goes.
    pub log: PathBuf,
    /// Rank in the gang.
    pub rank: u32,
    /// Rank on this worker.
    pub local_rank: u32,
    /// Ranks in the gang.
    pub world_size: u32,
    /// Threads of one operation.
    pub threads: u32,
    /// When it stands still by itself unless it hears more, as the launch file says.
    pub lease: Option<Duration>,
    /// Environment beside the agent's own.
    pub environment: &'a [(&'static str, OsString)],
}

/// A trainer's process and both pipes.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: u32,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a trainer in a process group of its own. It is killed when this value is dropped.
    ///
    /// # Errors
    ///
    /// What the operating system says when the program cannot be started.
    pub fn spawn(
        mut command: tokio::process::Command,
        threads: u32,
        stderr: impl Into<Stdio>,
    ) -> io::Result<Self> {
        let mut child = command
            .envs(TUNING.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()))
            .env("OMP_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("the process ended before it had an id"))?;
        let stdin = child.stdin.take().ok_or_else(|| io::Error::other("no standard input"))?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
        Ok(Self { child, pid, stdin, lines: BufReader::new(stdout).lines() })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it says that it can be told a launch. Returns whether it does.
    pub async fn ready(&mut self) -> bool {
        while let Ok(Some(line)) = self.lines.next_line().await {
            if matches!(serde_json::from_str(&line), Ok(Report::Ready)) {
                return true;
            }
        }
        false
    }

    /// Whether it is there.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it, and waits until it is gone.
    pub async fn kill(&mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(pid = self.pid, %error, "cannot end a trainer");
        }
    }

    /// Tells it something.
    ///
    /// # Errors
    ///
    /// When it no longer reads.
    pub async fn tell(&mut self, command: &Command) -> io::Result<()> {
        tell(&mut self.stdin, command).await
    }
}

/// A rank whose process is there.
#[derive(Debug)]
pub struct Started {
    /// Takes orders for it.
    pub orders: mpsc::Sender<RankOrder>,
    /// Its process.
    pub pid: u32,
}

/// Starts the process of one rank. Its events go to `events`.
///
/// # Errors
///
/// What the operating system says when the program cannot be started.
pub fn start(
    program: RankProgram<'_>,
    grace: Duration,
    events: mpsc::Sender<RankEvent>,
) -> io::Result<Started> {
    let log = File::options().create(true).append(true).open(&program.log)?;
    let mut command = tokio::process::Command::new(program.trainer);
    command
        .arg(program.launch_file)
        .env("RANK", program.rank.to_string())
        .env("LOCAL_RANK", program.local_rank.to_string())
        .env("WORLD_SIZE", program.world_size.to_string())
        .envs(program.environment.iter().map(|(name, value)| (name, value)));
    let process = Process::spawn(command, program.threads, log)?;
    Ok(run(process, program.rank, program.lease, grace, events, None))
}

/// Gives a rank to a process that waits for one. `None` when the process is gone, which is nobody's failure.
pub async fn give(
    program: RankProgram<'_>,
    mut idle: Idle,
    grace: Duration,
    events: mpsc::Sender<RankEvent>,
) -> Option<Started> {
    let launch = Command::Launch { path: program.launch_file.to_owned(), log: program.log };
    if let Err(error) = idle.process.tell(&launch).await {
        tracing::warn!(pid = idle.process.pid, %error, "a warm trainer takes no launch");
        return None;
    }
    let (process, home) = idle.leave();
    Some(run(process, program.rank, program.lease, grace, events, home))
}

/// Where a process goes that did what it was asked and can do more.
pub type Home = Box<dyn FnOnce(Process) + Send>;

fn run(
    process: Process,
    rank: u32,
    lease: Option<Duration>,
    grace: Duration,
    events: mpsc::Sender<RankEvent>,
    home: Option<Home>,
) -> Started {
    let Process { child, pid, stdin, lines } = process;
    let (orders, inbox) = mpsc::channel(16);
    let reader = tokio::spawn(read_reports(rank, lines, events.clone()));
    tokio::spawn(async move {
        let outbox = Outbox::new(lease);
        let mut rank_process =
            RankProcess { child, pid, stdin, outbox, grace, suspended: false, wake_again: None };
        let status = match rank_process.supervise(reader, inbox).await {
            Ended::Gone(status) => status,
            Ended::Idle(lines) => {
                let RankProcess { child, pid, stdin, outbox, suspended, .. } = rank_process;
                if suspended {
                    // What stood still has ended, so there is nothing that must.
                    signal(pid, Signal::SIGCONT);
                }
                let mut process = Process { child, pid, stdin, lines };
                match home.filter(|_| !outbox.is_torn()) {
                    Some(home) => home(process),
                    // It did what it was asked; but what it holds it holds until it is gone.
                    None => {
                        signal(pid, Signal::SIGKILL);
                        process.kill().await;
                    }
                }
                Ok(ExitStatus::default())
            }
        };
        drop(events.send(RankEvent::Gone(rank, status)).await);
    });
    Started { orders, pid }
}

/// Passes reports on until the end of the output, or until the process waits for something to do: then the rest of
/// what it will say is returned.
async fn read_reports(
    rank: u32,
    mut lines: Lines<BufReader<ChildStdout>>,
    events: mpsc::Sender<RankEvent>,
) -> Option<Lines<BufReader<ChildStdout>>> {
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Report::Ready) => return Some(lines),
            Ok(report) => {
                if events.send(RankEvent::Report(rank, report)).await.is_err() {
                    return None;
                }
            }
            // libtorch or a library below it may print; what is not a report is not ours to judge.
            Err(error) => tracing::debug!(rank, line, %error, "not a report"),
        }
    }
    None
}

/// How a rank left its process.
enum Ended {
    /// With it.
    Gone(io::Result<ExitStatus>),
    /// Alive.
    Idle(Lines<BufReader<ChildStdout>>),
}

struct RankProcess {
    child: Child,
    pid: u32,
    stdin: ChildStdin,
    outbox: Outbox,
    grace: Duration,
    suspended: bool,
    /// When one that may have stopped itself is woken once more.
    wake_again: Option<Instant>,
}

impl RankProcess {
    async fn supervise(
        &mut self,
        mut reader: JoinHandle<Option<Lines<BufReader<ChildStdout>>>>,
        mut inbox: mpsc::Receiver<RankOrder>,
    ) -> Ended {
        let mut reading = true;
        let status = loop {
            tokio::select! {
                // A process that waits for something to do is alive.
                biased;
                read = &mut reader, if reading => {
                    reading = false;
                    if let Ok(Some(lines)) = read {
                        return Ended::Idle(lines);
                    }
                },
                status = self.child.wait() => break status,
                written = self.stdin.write(self.outbox.unwritten()), if !self.outbox.is_empty() => {
                    self.wrote(written);
                }
                () = at(self.wake_again) => {
                    self.wake_again = None;
                    if !self.suspended {
                        signal(self.pid, Signal::SIGCONT);
                    }
                }
                order = inbox.recv() => match order {
                    Some(
                        order @ (RankOrder::Tell(_)
                        | RankOrder::Lease(_)
                        | RankOrder::Suspend
                        | RankOrder::Resume),
                    ) => self.obey(order).await,
                    Some(RankOrder::Kill) => {
                        signal(self.pid, Signal::SIGKILL);
                        break self.child.wait().await;
                    }
                    Some(RankOrder::Stop) | None => break self.stop().await,
                },
            }
        };
        // The leader is gone; what it may have started in its group must not hold the slot.
        signal(self.pid, Signal::SIGKILL);
        if reading {
            // All lines come before the end.
            drop(reader.await);
        }
        Ended::Gone(status)
    }

    async fn obey(&mut self, order: RankOrder) {
        match order {
            RankOrder::Tell(command) => self.outbox.tell(&command),
            RankOrder::Lease(until) => self.outbox.lease(until),
            RankOrder::Suspend => {
                self.suspended = true;
                signal(self.pid, Signal::SIGSTOP);
            }
            RankOrder::Resume => {
                self.suspended = false;
                // It must know for how long it may go on before it does.
                self.write_now().await;
                self.wake();
            }
            RankOrder::Stop | RankOrder::Kill => {}
        }
    }

    /// Writes what the pipe takes at once.
    async fn write_now(&mut self) {
        while !self.outbox.is_empty() {
            let tried = {
                let mut write = pin!(self.stdin.write(self.outbox.unwritten()));
                poll_fn(|context| Poll::Ready(write.as_mut().poll(context))).await
            };
            match tried {
                Poll::Ready(written) => self.wrote(written),
                Poll::Pending => return,
            }
        }
    }

    fn wrote(&mut self, written: io::Result<usize>) {
        let late = match written {
            Ok(bytes) => self.outbox.wrote(bytes),
            Err(error) => {
                // A process that no longer reads is about to be gone, which is reported in its own way.
                tracing::debug!(%error, "a trainer does not read its commands");
                self.outbox.close();
                return;
            }
        };
        // The agent was held up for so long that the rank has stopped itself, but not for so long that the lease is over.
        if late && !self.suspended {
            tracing::info!("a rank that stood still by itself goes on: the lease stands");
            self.wake();
        }
    }

    /// Lets it go on. Once more a little later, because one that was just about to stop itself does so after the first time.
    fn wake(&mut self) {
        signal(self.pid, Signal::SIGCONT);
        self.wake_again = Some(Instant::now() + ranks::WAKE_AGAIN);
    }

    async fn stop(&mut self) -> io::Result<ExitStatus> {
        // What stands still does not hear that it should end.
        if !self.suspended {
            signal(self.pid, Signal::SIGTERM);
            if let Ok(status) = tokio::time::timeout(self.grace, self.child.wait()).await {
                return status;
            }
        }
        signal(self.pid, Signal::SIGKILL);
        self.child.wait().await
    }
}

async fn tell(stdin: &mut ChildStdin, command: &Command) -> io::Result<()> {
    stdin.write_all(&line(command)).await
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Signals a whole process group. One that is gone is no error.
pub fn signal(group: u32, signal: Signal) {
    let Ok(group) = i32::try_from(group) else { return };
    if let Err(error) = killpg(Pid::from_raw(group), signal) {
        tracing::trace!(group, %signal, %error, "no process took the signal");
    }
}
