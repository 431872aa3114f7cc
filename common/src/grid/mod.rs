//! Grid files: what a user submits, and the plan that it comes to.
//!
//! A grid file is strict TOML. Its axes (data sets, models, methods, seeds) span cells; `[recipe]` says how
//! networks are trained, and methods, presets and `[[override]]`s change it for some cells. `docs/grid.md` lists
//! every key. [`parse`] is a function of the text alone: the same text gives the same plan on every machine.
//!
//! All errors of a file are found in one run, as far as its TOML can be read; each says where it is and what
//! would be right. Nothing is guessed and no key is ignored. Whether data is present and slots are offered is
//! not decided here.

mod data;
mod error;
mod expand;
mod file;
mod method;
mod pretrained;
mod read;
mod recipe;
mod run;
mod shift;
mod slots;
#[cfg(test)]
mod tests;

use toml::de::DeTable;

pub use error::{GridErrors, GridWarnings, Problem};
pub use expand::member_seed;

use crate::plan::Plan;
use read::{At, Located, Log, Section};

/// Largest grid file that is read, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Expands the text of a grid file.
///
/// # Errors
///
/// [`GridErrors`] with everything that is wrong. When the text is not TOML, with the errors of its syntax alone,
/// because what a broken line meant cannot be known.
pub fn parse(text: &str) -> Result<Plan, GridErrors> {
    check(text).map(|(plan, _)| plan)
}

/// Expands the text of a grid file, and says what in it is allowed but will probably disappoint.
///
/// # Errors
///
/// As [`parse`].
pub fn check(text: &str) -> Result<(Plan, GridWarnings), GridErrors> {
    let log = Log::new(text);
    let whole = At { span: 0..0, path: String::new() };
    if text.len() > MAX_BYTES {
        log.problem(&whole, format_args!("a grid file has at most {MAX_BYTES} bytes"), None);
        return Err(refused(log));
    }
    let (table, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        let at = At { span: error.span().unwrap_or(0..0), path: String::new() };
        log.problem(&at, error.message(), None);
    }
    if log.len() > 0 {
        return Err(refused(log));
    }
    let file = file::read(&log, Section::root(&log, table.get_ref()));
    let plan = expand::expand(&log, &file);
    if log.len() > 0 {
        return Err(refused(log));
    }
    Ok((plan, GridWarnings { file: None, warnings: log.take_warnings() }))
}

fn refused(log: Log<'_>) -> GridErrors {
    GridErrors { file: None, problems: log.into_problems() }
}

/// Labels are printed in tables and typed in `where`.
fn check_label(log: &Log<'_>, label: &Located<String>) {
    let text = label.value.as_str();
    let plain = !text.is_empty() && text.trim() == text && !text.contains(char::is_control);
    if !plain || text.chars().count() > 64 {
        let hint = "use 1 to 64 characters, no control characters, and no space at the ends".to_owned();
        log.problem(&label.at, "not a label for a table", Some(hint));
    }
}
