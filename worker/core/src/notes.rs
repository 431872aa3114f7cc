//! Warnings and incidents of an attempt: the first ones word for word, of the others the newest and their number.
//!
//! A trainer that warns in a loop says little with its thousandth warning, and must fill neither memory nor the coordinator's disk.
//! Incidents are counted for each pattern, so that one which matches often hides no other.

use std::collections::BTreeMap;

use common::AttemptId;
use common::session::FromWorker;

use crate::Note;
use crate::tally::Tally;

/// Notes of a kind that are kept word for word.
const WHOLE: usize = 100;

impl Note {
    fn message(self, attempt: AttemptId) -> FromWorker {
        match self {
            Self::Warning(message) => FromWorker::Warning { attempt, message },
            Self::Incident { rank, pattern, line, quarantine } => {
                FromWorker::Incident { attempt, rank, pattern, line, quarantine }
            }
        }
    }

    /// It as the newest of several that are not told.
    fn newest_of(mut self, count: u64) -> Self {
        let (Self::Warning(text) | Self::Incident { line: text, .. }) = &mut self;
        text.push_str(&format!(" (the newest of {count} more)"));
        self
    }
}

/// What is counted together: warnings, or the incidents of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Warning,
    Incident(String),
}

/// Notes of one kind.
#[derive(Debug, Default)]
struct Several {
    whole: Vec<Note>,
    /// How many of them the present session was told.
    told: usize,
    newest: Option<Note>,
    more: Tally,
}

/// The notes of an attempt.
#[derive(Debug, Default)]
pub struct Notes {
    kinds: BTreeMap<Kind, Several>,
}

impl Notes {
    /// Takes one more.
    pub fn push(&mut self, note: Note) {
        let kind = match &note {
            Note::Warning(_) => Kind::Warning,
            Note::Incident { pattern, .. } => Kind::Incident(pattern.clone()),
        };
        let several = self.kinds.entry(kind).or_default();
        // A warning that is repeated word for word is shown once, whoever repeats it.
        if matches!(note, Note::Warning(_)) && several.whole.contains(&note) {
            return;
        }
        if several.whole.len() < WHOLE {
            several.whole.push(note);
        } else {
            several.newest = Some(note);
            several.more.add(1);
        }
    }

    /// A session begins, which was told nothing.
    pub fn begin_session(&mut self) {
        for several in self.kinds.values_mut() {
            several.told = 0;
            several.more.begin_session();
        }
    }

    /// Whether there is something to tell.
    pub fn is_due(&self, ended: bool) -> bool {
        self.kinds.values().any(|several| several.told < several.whole.len() || several.more.is_due(ended))
    }

    /// Hands what is to be told to `tell`, until that has no room (false).
    pub fn tell(
        &mut self,
        attempt: AttemptId,
        ended: bool,
        tell: &mut impl FnMut(FromWorker) -> bool,
    ) -> bool {
        for several in self.kinds.values_mut() {
            for note in &several.whole[several.told..] {
                if !tell(note.clone().message(attempt)) {
                    return false;
                }
                several.told += 1;
            }
            if let Some(newest) = several.newest.as_ref().filter(|_| several.more.is_due(ended)) {
                if !tell(newest.clone().newest_of(several.more.count()).message(attempt)) {
                    return false;
                }
                several.more.tell();
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AttemptId = AttemptId(1);

    fn told(notes: &mut Notes, ended: bool) -> Vec<FromWorker> {
        let mut messages = Vec::new();
        notes.tell(A, ended, &mut |message| {
            messages.push(message);
            true
        });
        messages
    }

    fn incident(pattern: &str, line: usize, quarantine: bool) -> Note {
        Note::Incident { rank: 0, pattern: pattern.to_owned(), line: line.to_string(), quarantine }
    }

    #[test]
    fn of_many_warnings_the_first_are_kept_and_the_newest_with_their_number() {
        let mut notes = Notes::default();
        for number in 0..100_000 {
            notes.push(Note::Warning(format!("warning {number}")));
        }
        let messages = told(&mut notes, false);
        assert_eq!(messages.len(), WHOLE + 1);
        let warning = |message: &str| FromWorker::Warning { attempt: A, message: message.to_owned() };
        assert_eq!(messages[0], warning("warning 0"));
        assert_eq!(messages[WHOLE], warning("warning 99999 (the newest of 99900 more)"));
        notes.push(Note::Warning("the last".to_owned()));
        assert_eq!(told(&mut notes, false), []);
        assert_eq!(told(&mut notes, true), [warning("the last (the newest of 99901 more)")]);
        assert!(!notes.is_due(true));
        notes.begin_session();
        assert_eq!(told(&mut notes, false).len(), WHOLE + 1);
    }

    #[test]
    fn a_warning_that_is_repeated_takes_the_place_of_no_other() {
        let mut notes = Notes::default();
        for _ in 0..1_000 {
            notes.push(Note::Warning("again".to_owned()));
        }
        notes.push(Note::Warning("another".to_owned()));
        assert_eq!(told(&mut notes, true).len(), 2);
    }

    #[test]
    fn a_pattern_that_matches_often_hides_no_line_that_asks_for_quarantine() {
        let mut notes = Notes::default();
        for line in 0..1_000 {
            notes.push(incident("xid", line, false));
        }
        notes.push(incident("gpu-lost", 1_000, true));
        notes.push(incident("xid", 1_001, false));
        let quarantine = |message: &FromWorker| matches!(message, FromWorker::Incident { line, quarantine: true, .. } if line == "1000");
        assert_eq!(told(&mut notes, false).iter().filter(|message| quarantine(message)).count(), 1);
    }

    #[test]
    fn what_found_no_room_is_told_next_time() {
        let mut notes = Notes::default();
        for number in 0..WHOLE + 2 {
            notes.push(Note::Warning(number.to_string()));
        }
        let mut room = WHOLE;
        assert!(!notes.tell(A, false, &mut |_| {
            room = room.saturating_sub(1);
            room > 0
        }));
        assert_eq!(told(&mut notes, false).len(), 2);
    }
}
