//! The two pipes to the agent: commands in, reports out.
//!
//! Decides when the process must leave because the agent is gone. Does not decide what a command means
//! or what is worth a report.

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use common::FailureCause;
use common::report::{Command, Report, exit};

/// Writes reports, one JSON object a line, each flushed at once. Shared by all threads.
pub struct Reporter {
    out: Mutex<Box<dyn Write + Send>>,
    failed: AtomicBool,
}

impl Reporter {
    /// A reporter on standard output.
    pub fn stdout() -> Arc<Self> {
        Self::to(Box::new(io::stdout()))
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

/// Both pipes.
pub struct Agent {
    /// To the agent.
    pub reporter: Arc<Reporter>,
    /// From the agent.
    pub commands: Commands,
}

/// Commands of the agent, in the order of their arrival.
pub struct Commands {
    receiver: Receiver<Command>,
}

/// No address of the rendezvous store arrived.
#[derive(Debug, thiserror::Error)]
#[error("the agent named no rendezvous address within {0:?}; rank 0 has probably failed to start")]
pub struct NoRendezvous(Duration);

impl Commands {
    /// Starts to read commands from `input` on a thread of its own. `ended` is called at the end of the
    /// input, which means that the agent is gone.
    pub fn listen(input: impl BufRead + Send + 'static, ended: impl FnOnce() + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        let span = tracing::Span::current();
        thread::spawn(move || {
            let _entered = span.enter();
            read_commands(input, &sender);
            ended();
        });
        Self { receiver }
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
                // Nothing is trained yet, so there is nothing to keep.
                Ok(Command::Checkpoint | Command::Yield) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(NoRendezvous(limit));
                }
            }
        }
    }

    /// Whether a checkpoint was asked for since the last call.
    pub fn checkpoint_asked(&self) -> bool {
        let mut asked = false;
        loop {
            match self.receiver.try_recv() {
                Ok(Command::Checkpoint | Command::Yield) => asked = true,
                Ok(Command::Rendezvous { .. }) => {}
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return asked,
            }
        }
    }
}

fn read_commands(input: impl BufRead, sender: &Sender<Command>) {
    for line in input.lines() {
        let Ok(line) = line else { return };
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(&line) {
            // The receiver is dropped only when the rank is about to end by itself.
            Ok(command) => drop(sender.send(command)),
            Err(error) => tracing::error!(%error, line, "ignored a command that is not understood"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

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
        let commands = Commands::listen(Cursor::new(input), move || ended.send(()).unwrap());
        end.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(commands.rendezvous(Duration::from_secs(1)).unwrap(), "h:1");
        assert!(commands.checkpoint_asked());
        assert!(!commands.checkpoint_asked());
    }
}
