//! Runs `nvidia-smi`, and never waits for it longer than it may take.
//!
//! A process that waits in the kernel for a driver that hangs does not die when it is killed. It is left, and no other is started
//! while it is there: a driver that hangs must not collect processes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;

use crate::process::signal;

/// Time between two looks at a process that has not ended.
const LOOK: Duration = Duration::from_millis(5);

/// Most of an answer that is read.
const MOST_BYTES: u64 = 4 << 20;

/// Status with which the program says that a GPU is inaccessible.
const FELL_OFF: i32 = 15;

/// Why the driver gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SmiError {
    /// The program is not there, or cannot be started.
    #[error("cannot run `{}`", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("`{}` did not answer within {limit:?}: the driver hangs", program.display())]
    Hangs {
        /// The program.
        program: PathBuf,
        /// How long it may take.
        limit: Duration,
    },
    /// It failed.
    #[error("`{}` failed ({status}): {message}", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        message: String,
    },
    /// It said something that is not understood.
    #[error("`{}` gave an answer that is not understood: `{line}`", program.display())]
    Answer {
        /// The program.
        program: PathBuf,
        /// The line.
        line: String,
    },
}

impl SmiError {
    /// Whether the driver says that a GPU cannot be reached.
    pub fn says_lost(&self) -> bool {
        let Self::Failed { status, message, .. } = self else { return false };
        status.code() == Some(FELL_OFF)
            || ["Unable to determine the device handle", "GPU is lost", "has fallen off the bus"]
                .iter()
                .any(|words| message.contains(words))
    }
}

/// The driver's program.
#[derive(Debug)]
pub struct Smi {
    program: PathBuf,
    limit: Duration,
    /// A process that was killed and did not die.
    stuck: Mutex<Option<Child>>,
}

impl Smi {
    /// One at `program`, or of that name on the `PATH`, that may take so long for an answer.
    pub fn new(program: impl Into<PathBuf>, limit: Duration) -> Self {
        Self { program: program.into(), limit, stuck: Mutex::new(None) }
    }

    /// What it says when it is started with `arguments`. Blocks for as long as it may take.
    ///
    /// # Errors
    ///
    /// [`SmiError`].
    pub fn ask(&self, arguments: &[&str]) -> Result<String, SmiError> {
        let hangs = || SmiError::Hangs { program: self.program.clone(), limit: self.limit };
        let start = |source| SmiError::Start { program: self.program.clone(), source };
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = &mut *stuck
            && matches!(child.try_wait(), Ok(None))
        {
            return Err(hangs());
        }
        *stuck = None;
        // A file in memory: nobody has to read while it writes, and a child of it that lives on holds up nothing.
        let output =
            memfd_create(c"nvidia-smi", MFdFlags::MFD_CLOEXEC).map_err(|error| start(error.into()))?;
        let output = File::from(output);
        let mut child = Command::new(&self.program)
            .args(arguments)
            // Words, not the user's language.
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(start)?)
            .stderr(output.try_clone().map_err(start)?)
            .process_group(0)
            .spawn()
            .map_err(start)?;
        let deadline = Instant::now() + self.limit;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(start)? {
                break status;
            }
            if Instant::now() > deadline {
                signal(child.id(), Signal::SIGKILL);
                *stuck = Some(child);
                return Err(hangs());
            }
            std::thread::sleep(LOOK);
        };
        let length = output.metadata().map_err(start)?.len().min(MOST_BYTES);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        output.read_exact_at(&mut bytes, 0).map_err(start)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status.success() {
            return Ok(text);
        }
        let message = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Err(SmiError::Failed { program: self.program.clone(), status, message })
    }

    /// The lines of a query: of `what`, like `gpu`, the `fields`.
    ///
    /// # Errors
    ///
    /// [`SmiError`], also when a line has another number of fields.
    pub fn query(&self, what: &str, fields: &[&str]) -> Result<Vec<Vec<String>>, SmiError> {
        self.query_with(what, fields, &[])
    }

    /// The same of one GPU.
    ///
    /// # Errors
    ///
    /// [`SmiError`].
    pub fn query_one(&self, what: &str, fields: &[&str], uuid: &str) -> Result<Vec<Vec<String>>, SmiError> {
        self.query_with(what, fields, &[&format!("--id={uuid}")])
    }

    fn query_with(&self, what: &str, fields: &[&str], more: &[&str]) -> Result<Vec<Vec<String>>, SmiError> {
        let query = format!("--query-{what}={}", fields.join(","));
        let text = self.ask(&[&[query.as_str(), "--format=csv,noheader,nounits"], more].concat())?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let rows = lines.map(|line| {
            let row: Vec<String> = super::csv::fields(line).into_iter().map(str::to_owned).collect();
            let answer = || SmiError::Answer { program: self.program.clone(), line: line.to_owned() };
            (row.len() == fields.len()).then_some(row).ok_or_else(answer)
        });
        rows.collect()
    }

    /// The error for a line that is not understood.
    pub fn unclear(&self, line: &str) -> SmiError {
        SmiError::Answer { program: self.program.clone(), line: line.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Driver;
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Smi::new("/no/such/nvidia-smi", Duration::from_secs(1)).ask(&[]).unwrap_err();
        assert_eq!(error.to_string(), "cannot run `/no/such/nvidia-smi`");
    }

    #[test]
    fn a_driver_that_hangs_is_waited_for_no_longer_than_it_may_take_and_asked_again_when_it_is_gone() {
        let driver = Driver::new(1);
        driver.hang("30");
        let smi = driver.smi(Duration::from_millis(300));
        let begun = Instant::now();
        assert!(matches!(smi.ask(&["-L"]), Err(SmiError::Hangs { .. })));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        driver.mend();
        // The killed one is reaped when the next is asked, or soon after.
        while smi.ask(&["-L"]).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20));
        }
    }

    #[test]
    fn what_a_failure_says_is_kept_in_one_line() {
        let driver = Driver::new(1);
        driver.fail(
            9,
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\nMake sure\n",
        );
        let error = driver.smi(Duration::from_secs(10)).ask(&["-L"]).unwrap_err();
        assert!(error.to_string().contains("communicate with the NVIDIA driver. Make sure"), "{error}");
        assert!(!error.says_lost());
    }

    #[test]
    fn a_field_that_the_driver_does_not_know_and_a_line_that_is_cut_are_no_answer() {
        let driver = Driver::new(1);
        let smi = driver.smi(Duration::from_secs(10));
        let error = smi.query("gpu", &["uuid", "no.such.field"]).unwrap_err();
        assert!(matches!(error, SmiError::Failed { .. }), "{error}");
        driver.write("gpu", "uuid,name\nGPU-0\n");
        assert!(matches!(smi.query("gpu", &["uuid", "name"]), Ok(rows) if rows == [["GPU-0", ""]]));
    }
}
