//! What a rank's process is to be told and the pipe has not taken yet.

use std::collections::VecDeque;
use std::time::Duration;

use common::report::Command;

use crate::clock;

/// Lines for a process, in order. Of the leases only the newest waits, so that one which does not read does not make it grow.
#[derive(Debug)]
pub struct Outbox {
    /// The first is being written.
    lines: VecDeque<Line>,
    /// Bytes of the first line that are written.
    written: usize,
    /// When the process stops itself, as far as it was told.
    told: Option<Duration>,
    closed: bool,
}

#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    lease: Option<Duration>,
}

impl Outbox {
    /// Of a process whose launch says when it stops itself.
    pub fn new(told: Option<Duration>) -> Self {
        Self { lines: VecDeque::new(), written: 0, told, closed: false }
    }

    /// Adds a command.
    pub fn tell(&mut self, command: &Command) {
        self.push(Line { text: line(command), lease: None });
    }

    /// Adds the time at which the process stops itself, in place of one that waits.
    pub fn lease(&mut self, until: Duration) {
        let mut index = 0;
        let written = self.written;
        self.lines.retain(|line| {
            index += 1;
            line.lease.is_none() || (index == 1 && written > 0)
        });
        let text = line(&Command::Lease { until_ns: nanoseconds(until) });
        self.push(Line { text, lease: Some(until) });
    }

    fn push(&mut self, line: Line) {
        if !self.closed {
            self.lines.push_back(line);
        }
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether a line is written in part.
    pub fn is_torn(&self) -> bool {
        self.written > 0
    }

    /// What is to be written next.
    pub fn unwritten(&self) -> &[u8] {
        self.lines.front().map_or(&[], |line| &line.text[self.written..])
    }

    /// So many bytes more are written. Returns whether they said that the process may go on after it may have stopped itself.
    pub fn wrote(&mut self, bytes: usize) -> bool {
        self.written += bytes;
        if self.lines.front().is_none_or(|line| line.text.len() > self.written) {
            return false;
        }
        self.written = 0;
        let Some(until) = self.lines.pop_front().and_then(|line| line.lease) else { return false };
        self.told.replace(until).is_some_and(|before| before <= clock::now())
    }

    /// Nothing will be read any more.
    pub fn close(&mut self) {
        self.closed = true;
        self.lines.clear();
        self.written = 0;
    }
}

/// A time as processes are told it.
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A command as it is written.
pub fn line(command: &Command) -> Vec<u8> {
    let mut line = serde_json::to_vec(command).expect("a command holds only strings and numbers");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(outbox: &mut Outbox) -> String {
        let mut text = Vec::new();
        while !outbox.is_empty() {
            text.extend_from_slice(outbox.unwritten());
            let bytes = outbox.unwritten().len();
            outbox.wrote(bytes);
        }
        String::from_utf8(text).unwrap()
    }

    const fn at(nanoseconds: u64) -> Duration {
        Duration::from_nanos(nanoseconds)
    }

    #[test]
    fn only_the_newest_lease_waits_and_commands_keep_their_order() {
        let mut outbox = Outbox::new(None);
        for until in 1..100 {
            outbox.lease(at(until));
        }
        outbox.tell(&Command::Checkpoint);
        outbox.lease(at(100));
        outbox.tell(&Command::Yield);
        let expected = concat!(
            r#"{"command":"checkpoint"}"#,
            "\n",
            r#"{"command":"lease","until_ns":100}"#,
            "\n",
            r#"{"command":"yield"}"#,
            "\n"
        );
        assert_eq!(text(&mut outbox), expected);
    }

    #[test]
    fn a_line_that_was_begun_is_written_to_its_end() {
        let mut outbox = Outbox::new(None);
        outbox.lease(at(1));
        outbox.wrote(10);
        outbox.lease(at(2));
        outbox.lease(at(3));
        assert!(outbox.is_torn());
        let rest = text(&mut outbox);
        assert_eq!(rest.matches('\n').count(), 2, "{rest}");
        assert!(rest.ends_with("{\"command\":\"lease\",\"until_ns\":3}\n"), "{rest}");
    }

    #[test]
    fn a_process_may_have_stopped_itself_when_what_it_was_told_is_over() {
        let far = clock::now() + Duration::from_secs(3_600);
        let say = |outbox: &mut Outbox, until| {
            outbox.lease(until);
            let bytes = outbox.unwritten().len();
            outbox.wrote(bytes)
        };
        let mut outbox = Outbox::new(None);
        assert!(!say(&mut outbox, at(1)), "it was told of none");
        assert!(say(&mut outbox, far));
        assert!(!say(&mut outbox, far));
        assert!(say(&mut Outbox::new(Some(at(1))), far), "its launch told it");
    }
}
