//! What is wrong with a grid file, said the way a compiler says it: all of it at once, each with its place.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Everything that is wrong with one grid file, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridErrors {
    /// The file, as the user named it, when the caller said so (see [`GridErrors::in_file`]).
    pub file: Option<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong, and the way out of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Full path of the key, like `method[2].recipe.lr`. Empty for an error of TOML's own syntax.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be right, when that can be said.
    pub hint: Option<String>,
    /// The line itself.
    pub source: String,
    /// Characters of the line that are meant, from `column` on; at least 1.
    pub width: usize,
}

impl GridErrors {
    /// The same errors, with the name of the file in front of each line number.
    pub fn in_file(self, file: impl Into<String>) -> Self {
        Self { file: Some(file.into()), ..self }
    }
}

impl std::error::Error for GridErrors {}

/// What is allowed in a grid file but will probably disappoint, in the order of the file; may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridWarnings {
    /// The file, as the user named it, when the caller said so (see [`GridWarnings::in_file`]).
    pub file: Option<String>,
    /// What is doubtful.
    pub warnings: Vec<Problem>,
}

impl GridWarnings {
    /// The same warnings, with the name of the file in front of each line number.
    pub fn in_file(self, file: impl Into<String>) -> Self {
        Self { file: Some(file.into()), ..self }
    }
}

impl fmt::Display for GridWarnings {
    /// One paragraph a warning, as those of [`GridErrors`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().unwrap_or("grid");
        self.warnings.iter().try_for_each(|warning| {
            warning.write(f, "warning", file)?;
            writeln!(f)
        })
    }
}

impl fmt::Display for GridErrors {
    /// One paragraph a problem, as `rustc` prints them, and a last line that counts them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().unwrap_or("grid");
        for problem in &self.problems {
            problem.write(f, "error", file)?;
            writeln!(f)?;
        }
        match self.problems.len() {
            1 => write!(f, "`{file}` is refused because of the error above"),
            count => write!(f, "`{file}` is refused because of the {count} errors above"),
        }
    }
}

impl fmt::Display for Problem {
    /// One line, for logs: `12:1: recipe.epoch: unknown key (did you mean …)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

impl Problem {
    fn write(&self, f: &mut fmt::Formatter<'_>, severity: &str, file: &str) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        // A tab would push the carets to where they do not belong.
        let source = self.source.replace('\t', " ");
        let carets = " ".repeat(self.column - 1) + &"^".repeat(self.width);
        writeln!(f, "{severity}: {}", self.message)?;
        writeln!(f, "{gutter}--> {file}:{}:{}", self.line, self.column)?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {source}")?;
        if self.key.is_empty() {
            writeln!(f, "{gutter} | {carets}")?;
        } else {
            writeln!(f, "{gutter} | {carets} {}", self.key)?;
        }
        self.hint.iter().try_for_each(|hint| writeln!(f, "{gutter} = help: {hint}"))
    }
}
