//! Identifiers. Each is a distinct type, so one cannot be passed for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An identifier that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: expected `{prefix}` and a number, like `{prefix}7`")]
pub struct ParseIdError {
    text: String,
    what: &'static str,
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix)
                    .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
                    .and_then(|digits| digits.parse().ok())
                    .map(Self)
                    .ok_or_else(|| ParseIdError { text: text.to_owned(), what: $what, prefix: $prefix })
            }
        }
    };
}

id!(
    /// What a user submitted: one grid file.
    ExperimentId, "e", "an experiment id"
);
id!(
    /// One cell of a grid with one seed. Short name of a [`crate::TrialKey`].
    TrialId, "t", "a trial id"
);
id!(
    /// One execution of a trial. Never reused, so it fences stale messages.
    AttemptId, "a", "an attempt id"
);
id!(
    /// A node agent that offers slots. Made once by the agent and kept in its data folder.
    WorkerId, "w", "a worker id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_printed() {
        assert_eq!(AttemptId(12).to_string(), "a12");
        assert_eq!("a12".parse(), Ok(AttemptId(12)));
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        for text in ["t12", "12", "a", "a+1", "a-1", "a1x", ""] {
            assert!(text.parse::<AttemptId>().is_err(), "{text}");
        }
    }
}
