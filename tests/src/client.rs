//! One run of the command line.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::process::clean;
use crate::wait::within;

/// How a command ended, and what it printed.
#[derive(Clone, Debug)]
pub struct Finished {
    command: String,
    /// Exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output of a command that succeeded.
    ///
    /// # Panics
    ///
    /// When it did not.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        self.stdout
    }

    /// The JSON that a command printed.
    ///
    /// # Panics
    ///
    /// When it failed or printed something else.
    pub fn json<T: DeserializeOwned>(self) -> T {
        let command = self.command.clone();
        let text = self.ok();
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("`{command}` printed no such JSON: {error}\n{text}"))
    }

    /// Standard error of a command that failed as it should.
    ///
    /// # Panics
    ///
    /// When it ended with another status, or if a panic reached the user.
    pub fn failed_with(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
        self.stderr
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, code, stdout, stderr } = self;
        write!(f, "`{command}` ended with {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// Runs `program` to its end.
pub(crate) fn run(program: &Path, arguments: &[&str], patience: Duration) -> Finished {
    // Files, not pipes: a large output must not block the command while nobody reads.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [out, err] = ["out", "err"].map(|name| folder.path().join(name));
    let command = format!("credence {}", arguments.join(" "));
    let mut child = clean(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(File::create(&out).expect("a file for standard output"))
        .stderr(File::create(&err).expect("a file for standard error"))
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start `{}`: {error}", program.display()));
    let Some(status) = within(patience, || child.try_wait().expect("the process is our child")) else {
        // It may end on its own at this very moment.
        let _ = child.kill();
        let _ = child.wait();
        panic!("`{command}` did not end within {patience:?}");
    };
    let read = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    Finished { command, code: status.code(), stdout: read(&out), stderr: read(&err) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Finished {
        run(Path::new("/bin/sh"), &["-c", script], Duration::from_secs(10))
    }

    #[test]
    fn output_and_status_of_a_command_are_kept_apart() {
        let finished = shell("echo out; echo err >&2; exit 3");
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(finished.failed_with(3), "err\n");
    }

    #[test]
    #[should_panic(expected = "ended with Some(1)")]
    fn a_failure_that_was_not_expected_fails_the_test() {
        shell("exit 1").ok();
    }
}
