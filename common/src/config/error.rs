//! Why a configuration is refused, with the layer to blame.

use std::fmt;
use std::path::PathBuf;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A layer is not TOML.
    #[error("{origin} is not valid TOML")]
    Syntax {
        /// The layer.
        origin: Origin,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// Keys that do not exist. Never empty.
    #[error("{}", UnknownKey::list(keys))]
    UnknownKeys {
        /// All of them, of all layers.
        keys: Vec<UnknownKey>,
    },
    /// A value that cannot be what its key is.
    #[error("{origin}: `{text}` is not {expected}")]
    Type {
        /// Where it is written.
        origin: Origin,
        /// The value.
        text: String,
        /// What the key expects.
        expected: &'static str,
    },
    /// A value that the program does not accept.
    #[error("{origin}: `{key}` is not valid")]
    Value {
        /// Where it is written.
        origin: Origin,
        /// Its key.
        key: String,
        /// What the program says to it.
        source: Box<config::ConfigError>,
    },
    /// The program and its default do not agree.
    #[error("the embedded default does not fit the program")]
    Incomplete(#[source] Box<config::ConfigError>),
}

/// Where a setting is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the default.
    Default,
    /// In the file.
    File(PathBuf),
    /// In an environment variable.
    Variable(String),
    /// On the command line, for this key.
    CommandLine(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the embedded default"),
            Self::File(path) => write!(f, "the file `{}`", path.display()),
            Self::Variable(name) => write!(f, "the environment variable `{name}`"),
            Self::CommandLine(key) => write!(f, "the command line's `{key}`"),
        }
    }
}

/// A key that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// Where it is written.
    pub origin: Origin,
    /// Line of a file, from 1.
    pub line: Option<usize>,
    /// The key or the variable.
    pub key: String,
    /// The nearest valid one, and all that stand beside it.
    pub hint: String,
}

impl UnknownKey {
    pub(super) fn list(keys: &[Self]) -> String {
        keys.iter().map(Self::to_string).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.line) {
            (Origin::Variable(_), _) => write!(f, "unknown environment variable")?,
            (origin, Some(line)) => write!(f, "{origin}, line {line}: unknown key")?,
            (origin @ (Origin::Default | Origin::File(_)), None) => write!(f, "{origin}: unknown key")?,
            (Origin::CommandLine(_), None) => write!(f, "the command line: unknown key")?,
        }
        write!(f, " `{}`: {}", self.key, self.hint)
    }
}
