//! The two pipes to the agent: commands in, reports out.
//!
//! Decides when the process must leave because the agent is gone. Does not decide what a command means
//! or what is worth a report.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use common::FailureCause;
use common::report::{Command, Report, exit};

use crate::beacon::Beacon;
use crate::fence::{Fence, Wake};

/// Writes reports, one JSON object a line, each flushed at once. Shared by all threads.
pub struct Reporter {
    out: Mutex<Box<dyn Write + Send>>,
    failed: AtomicBool,
}

impl Reporter {
    /// A reporter on standard output, which from then on is its alone: what a library prints there (NCCL its log, for one)
    /// goes to standard error, into the log of the rank.
    ///
    /// # Errors
    ///
    /// When one of the two is closed.
    pub fn stdout() -> io::Result<Arc<Self>> {
        let own = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        nix::unistd::dup2_stdout(io::stderr())?;
        Ok(Self::to(Box::new(own)))
    }

    /// A reporter on `out`.
    pub fn to(out: Box<dyn Write + Send>) -> Arc<Self> {
        Arc::new(Self { out: Mutex::new(out), failed: AtomicBool::new(false) })
    }

    /// Sends `report`. When the agent no longer reads, the process leaves.
    pub fn send(&self, report: &Report) {
        let mut line =
            serde_json::to_vec(report).expect("a report holds only numbers, strings, lists and structs");
        line.push(b'\n');
        // A poisoned lock only means that another thread panicked between two whole lines or within one;
        // the agent skips a torn line, and the failure itself must still be reported.
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            c10d::exit_now(exit::AGENT_LOST);
        }
    }

    /// Reports why the rank cannot go on. Only the first cause is sent: it is the one that the later ones
    /// follow from.
    pub fn fail(&self, cause: FailureCause) {
        if !self.failed.swap(true, Ordering::SeqCst) {
            self.send(&Report::Failed { cause });
        }
    }
}

/// All ways to and from the agent, for one launch.
pub struct Agent {
    /// To the agent.
    pub reporter: Arc<Reporter>,
    /// From the agent.
    pub commands: Rc<Commands>,
    /// Where the agent looks, without being told.
    pub beacon: Rc<Beacon>,
}

/// Commands of the agent, in the order of their arrival.
pub struct Commands {
    receiver: Receiver<Command>,
    fence: Arc<Fence>,
    checkpoint_asked: Cell<bool>,
    yield_asked: Cell<bool>,
}

/// What a warm trainer is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The launch file.
    pub path: PathBuf,
    /// Where standard error goes meanwhile.
    pub log: PathBuf,
}

/// No address of the rendezvous store arrived.
#[derive(Debug, thiserror::Error)]
#[error("the agent named no rendezvous address within {0:?}; rank 0 has probably failed to start")]
pub struct NoRendezvous(Duration);

impl Commands {
    /// Starts to read commands from `input` on a thread of its own, which also makes the process stand still when that is
    /// due. `ended` is called at the end of the input, which means that the agent is gone.
    pub fn listen(
        input: impl Read + AsFd + Send + 'static,
        fence: Arc<Fence>,
        ended: impl FnOnce() + Send + 'static,
    ) -> Rc<Self> {
        let (sender, receiver) = mpsc::channel();
        let span = tracing::Span::current();
        let watched = Arc::clone(&fence);
        thread::spawn(move || {
            let _entered = span.enter();
            read_commands(input, &watched, &sender);
            ended();
        });
        Rc::new(Self { receiver, fence, checkpoint_asked: Cell::new(false), yield_asked: Cell::new(false) })
    }

    /// Until when what runs may compute.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Waits for the next launch. What was said before it was meant for the one before, and is forgotten. `None` when
    /// there will be none.
    pub fn order(&self) -> Option<Order> {
        loop {
            match self.receiver.recv() {
                Ok(Command::Launch { path, log }) => {
                    self.checkpoint_asked.set(false);
                    self.yield_asked.set(false);
                    return Some(Order { path, log });
                }
                Ok(
                    Command::Rendezvous { .. } | Command::Checkpoint | Command::Yield | Command::Lease { .. },
                ) => {}
                Err(mpsc::RecvError) => return None,
            }
        }
    }

    /// Waits for the address of the rendezvous store.
    ///
    /// # Errors
    ///
    /// [`NoRendezvous`] when it does not arrive within `limit`.
    pub fn rendezvous(&self, limit: Duration) -> Result<String, NoRendezvous> {
        loop {
            match self.receiver.recv_timeout(limit) {
                Ok(Command::Rendezvous { address }) => return Ok(address),
                Ok(command) => self.note(&command),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(NoRendezvous(limit));
                }
            }
        }
    }

    /// Whether a checkpoint was asked for since the last call.
    pub fn checkpoint_asked(&self) -> bool {
        self.hear();
        self.checkpoint_asked.take()
    }

    /// Whether the rank was asked to end before its time.
    pub fn yield_asked(&self) -> bool {
        self.hear();
        self.yield_asked.get()
    }

    fn hear(&self) {
        loop {
            match self.receiver.try_recv() {
                Ok(command) => self.note(&command),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn note(&self, command: &Command) {
        match command {
            Command::Checkpoint => self.checkpoint_asked.set(true),
            Command::Yield => self.yield_asked.set(true),
            // The agent tells the address again when it hears it again; a lease was heard when it was read.
            Command::Rendezvous { .. } | Command::Lease { .. } => {}
            Command::Launch { path, .. } => {
                tracing::error!(path = %path.display(), "ignored a launch, because another one runs");
            }
        }
    }
}

/// Standard input, of which nothing is read ahead: what is not read yet can be waited for.
///
/// # Errors
///
/// When it is closed.
pub fn standard_input() -> io::Result<File> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

/// One thread reads and watches the fence, so that it knows what was said before it makes the process stand still.
fn read_commands(mut input: impl Read + AsFd, fence: &Fence, sender: &Sender<Command>) {
    let mut unread = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match fence.wait(input.as_fd()) {
            Wake::Due => fence.stand_still(),
            Wake::Input => match input.read(&mut chunk) {
                Ok(0) => return,
                Ok(bytes) => unread.extend_from_slice(&chunk[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            },
        }
        while let Some(end) = unread.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            hear_line(line.trim_ascii(), fence, sender);
        }
    }
}

fn hear_line(line: &[u8], fence: &Fence, sender: &Sender<Command>) {
    if line.is_empty() {
        return;
    }
    match serde_json::from_slice(line) {
        Ok(Command::Lease { until_ns }) => fence.told(Duration::from_nanos(until_ns)),
        Ok(command) => {
            if let Command::Launch { .. } = command {
                fence.launched();
            }
            // The receiver is dropped only when the rank is about to end by itself.
            drop(sender.send(command));
        }
        Err(error) => {
            let line = String::from_utf8_lossy(line);
            tracing::error!(%error, %line, "ignored a command that is not understood");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, pipe};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An input that says this, and ends.
    fn input(text: &str) -> PipeReader {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        reader
    }

    fn listen(text: &str, ended: impl FnOnce() + Send + 'static) -> Rc<Commands> {
        Commands::listen(input(text), Fence::of_launch(), ended)
    }

    #[test]
    fn only_the_first_cause_of_a_failure_is_reported() {
        let out = Shared::default();
        let reporter = Reporter::to(Box::new(out.clone()));
        reporter.fail(FailureCause::NonFiniteLoss { step: 7 });
        reporter.fail(FailureCause::OutOfMemory);
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let report: Report = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(report, Report::Failed { cause: FailureCause::NonFiniteLoss { step: 7 } });
    }

    #[test]
    fn commands_arrive_in_order_and_the_end_of_input_is_noticed() {
        let input = concat!(
            "not json\n\n",
            r#"{"command":"checkpoint"}"#,
            "\n",
            r#"{"command":"rendezvous","address":"h:1"}"#,
            "\n",
            r#"{"command":"checkpoint"}"#,
            "\n"
        );
        let (ended, end) = mpsc::channel();
        let commands = listen(input, move || ended.send(()).unwrap());
        end.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(commands.rendezvous(Duration::from_secs(1)).unwrap(), "h:1");
        assert!(commands.checkpoint_asked());
        assert!(!commands.checkpoint_asked());
        assert!(!commands.yield_asked());
    }

    #[test]
    fn what_was_said_before_a_launch_does_not_concern_it() {
        let input = concat!(
            r#"{"command":"launch","path":"/1","log":"/l"}"#,
            "\n",
            r#"{"command":"yield"}"#,
            "\n",
            r#"{"command":"checkpoint"}"#,
            "\n",
            r#"{"command":"launch","path":"/2","log":"/l"}"#,
            "\n"
        );
        let commands = listen(input, || {});
        assert_eq!(commands.order().unwrap().path, PathBuf::from("/1"));
        assert_eq!(commands.order().unwrap().path, PathBuf::from("/2"));
        assert!(!commands.checkpoint_asked() && !commands.yield_asked());
        assert_eq!(commands.order(), None);
    }

    #[test]
    fn a_yield_that_comes_while_a_rank_waits_for_the_others_is_kept() {
        let input =
            concat!(r#"{"command":"yield"}"#, "\n", r#"{"command":"rendezvous","address":"h:1"}"#, "\n");
        let commands = listen(input, || {});
        assert_eq!(commands.rendezvous(Duration::from_secs(10)).unwrap(), "h:1");
        assert!(commands.yield_asked() && commands.yield_asked());
    }
}
