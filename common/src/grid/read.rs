//! A strict reader of TOML with places: every value is asked for by name, what nobody asked for is an
//! unknown key, and reading goes on after an error so that a file's errors are found in one pass.
//!
//! It knows nothing of grids but the names of a recipe's keys, for its hints. What is read is [`Setting`]s that remember where they stood, because whether
//! two settings agree is only known after layers were merged, and the error has to point at the file.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::recipe;
use crate::suggest;

/// A place in the file, and the path of the key that stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub span: Range<usize>,
    pub path: String,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub value: T,
    pub at: At,
}

/// What a file says about one key.
#[derive(Clone, Debug, Default)]
pub(super) enum Setting<T> {
    /// Nothing.
    #[default]
    Unset,
    /// Something that was refused, and reported. What depends on it is not checked, so that one mistake
    /// is one error.
    Bad,
    /// A valid value.
    Is(Located<T>),
}

impl<T> Setting<T> {
    /// The value of the later layer, if it speaks of the key at all.
    pub fn then(self, later: Self) -> Self {
        match later {
            Self::Unset => self,
            Self::Bad | Self::Is(_) => later,
        }
    }

    /// The value, or the default; nothing when what is written is wrong.
    pub fn or(&self, default: T) -> Option<T>
    where
        T: Clone,
    {
        match self {
            Self::Unset => Some(default),
            Self::Bad => None,
            Self::Is(located) => Some(located.value.clone()),
        }
    }

    /// Where the value stands.
    pub fn at(&self) -> Option<&At> {
        match self {
            Self::Unset | Self::Bad => None,
            Self::Is(located) => Some(&located.at),
        }
    }

    /// The value, when it is written and valid.
    pub fn located(self) -> Option<Located<T>> {
        match self {
            Self::Unset | Self::Bad => None,
            Self::Is(located) => Some(located),
        }
    }
}

/// Bounds of a real number.
pub(super) struct Bounds {
    pub text: &'static str,
    pub hold: fn(f64) -> bool,
}

/// Problems that are listed. A file with more has one cause that shows in the first of them, or is no grid file.
const MAX_PROBLEMS: usize = 100;
/// Elements of a list: each axis is far below it.
const MAX_ELEMENTS: usize = 1_000;

/// Collects problems.
pub(super) struct Log<'t> {
    text: &'t str,
    problems: RefCell<Vec<(Range<usize>, Problem)>>,
    warnings: RefCell<Vec<(Range<usize>, Problem)>>,
    left_out: Cell<bool>,
}

impl<'t> Log<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, problems: RefCell::default(), warnings: RefCell::default(), left_out: Cell::new(false) }
    }

    pub fn problem(&self, at: &At, message: impl Display, hint: Option<String>) {
        if self.is_full() {
            self.left_out.set(true);
            return;
        }
        self.add(&self.problems, at, message, hint);
    }

    /// Something that is allowed, and rarely wanted.
    pub fn warning(&self, at: &At, message: impl Display, hint: Option<String>) {
        if self.warnings.borrow().len() < MAX_PROBLEMS {
            self.add(&self.warnings, at, message, hint);
        }
    }

    fn add(
        &self,
        list: &RefCell<Vec<(Range<usize>, Problem)>>,
        at: &At,
        message: impl Display,
        hint: Option<String>,
    ) {
        let (line, column, source, width) = self.locate(&at.span);
        let key = at.path.clone();
        let problem = Problem { line, column, key, message: message.to_string(), hint, source, width };
        let mut list = list.borrow_mut();
        // One mistake in a recipe is seen again in each cell that uses the recipe.
        if !list.iter().any(|(_, known)| *known == problem) {
            list.push((at.span.clone(), problem));
        }
    }

    /// The warnings, in the order of the file.
    pub fn take_warnings(&self) -> Vec<Problem> {
        let mut warnings = self.warnings.take();
        warnings.sort_by_key(|(span, _)| (span.start, span.end));
        warnings.into_iter().map(|(_, warning)| warning).collect()
    }

    fn is_full(&self) -> bool {
        self.problems.borrow().len() >= MAX_PROBLEMS
    }

    pub fn len(&self) -> usize {
        self.problems.borrow().len()
    }

    /// Line of a place, from 1.
    pub fn line(&self, at: &At) -> usize {
        self.locate(&at.span).0
    }

    /// The problems, in the order of the file.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(span, _)| (span.start, span.end));
        let mut problems: Vec<Problem> = problems.into_iter().map(|(_, problem)| problem).collect();
        if let Some(last) = problems.last_mut().filter(|_| self.left_out.get()) {
            let hint = last.hint.take().map_or_else(String::new, |hint| format!("{hint}; "));
            last.hint = Some(format!("{hint}further errors are not listed"));
        }
        problems
    }

    fn locate(&self, span: &Range<usize>) -> (usize, usize, String, usize) {
        let start = self.boundary(span.start);
        let end = self.boundary(span.end).max(start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let source = self.text[line_start..].lines().next().unwrap_or_default();
        let line = self.text[..line_start].matches('\n').count() + 1;
        let column = self.text[line_start..start].chars().count() + 1;
        let line_end = line_start + source.len();
        let width = self.text[start..end.min(line_end).max(start)].chars().count().max(1);
        (line, column, source.to_owned(), width)
    }

    fn boundary(&self, index: usize) -> usize {
        let mut index = index.min(self.text.len());
        while !self.text.is_char_boundary(index) {
            index -= 1;
        }
        index
    }
}

/// A table that is being read.
pub(super) struct Section<'a> {
    log: &'a Log<'a>,
    table: &'a DeTable<'a>,
    pub at: At,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The whole document.
    pub fn root(log: &'a Log<'a>, table: &'a DeTable<'a>) -> Self {
        Self { log, table, at: At { span: 0..0, path: String::new() }, asked: Vec::new() }
    }

    /// What is written for `key`.
    pub fn take(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        let (name, value) = self.table.get_key_value(key)?;
        Some(self.entry(name, value))
    }

    /// What is written for `key`; nothing is a problem.
    pub fn require(&mut self, key: &'static str, hint: &str) -> Option<Value<'a>> {
        let value = self.take(key);
        if value.is_none() {
            let at = At { span: self.at.span.clone(), path: self.path_of(key) };
            self.log.problem(&at, format_args!("`{key}` is missing"), Some(hint.to_owned()));
        }
        value
    }

    /// Reads a setting that may be left out.
    pub fn set<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value<'a>) -> Option<Located<T>>,
    ) -> Setting<T> {
        match self.take(key) {
            None => Setting::Unset,
            Some(value) => read(&value).map_or(Setting::Bad, Setting::Is),
        }
    }

    /// Entries whose names the file chooses, in its order.
    pub fn entries(&self) -> Vec<(String, Value<'a>)> {
        let mut entries: Vec<_> = self
            .table
            .iter()
            .map(|(name, value)| (name.get_ref().to_string(), self.entry(name, value)))
            .collect();
        entries.sort_by_key(|(_, value)| value.key_at.span.start);
        entries
    }

    /// Reports what nobody asked for.
    pub fn finish(self) {
        for (name, value) in self.table.iter() {
            if !self.asked.iter().any(|asked| asked == name.get_ref()) {
                let at = self.entry(name, value).key_at;
                // A hint compares the name with all valid ones, which nobody would read.
                let hint = if self.log.is_full() { String::new() } else { self.hint(name.get_ref()) };
                self.log.problem(&at, format_args!("unknown key `{}`", name.get_ref()), Some(hint));
            }
        }
    }

    /// Keys of the recipe are the ones that are most often put beside it.
    fn hint(&self, name: &str) -> String {
        let hint = suggest::hint(name, self.asked.iter().copied());
        let own = suggest::nearest(name, self.asked.iter().copied());
        match suggest::nearest(name, recipe::KEYS) {
            Some(key) if own.is_none() => format!("did you mean `{key}` of a recipe? here, {hint}"),
            Some(_) | None => hint,
        }
    }

    fn entry(&self, name: &Spanned<impl AsRef<str>>, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        let path = self.path_of(name.get_ref().as_ref());
        let key_at = At { span: name.span(), path: path.clone() };
        Value { log: self.log, value: value.get_ref(), key_at, at: At { span: value.span(), path } }
    }

    fn path_of(&self, key: &str) -> String {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let key = if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { format!("{key:?}") };
        if self.at.path.is_empty() { key } else { format!("{}.{key}", self.at.path) }
    }
}

/// A value that is being read.
pub(super) struct Value<'a> {
    log: &'a Log<'a>,
    value: &'a DeValue<'a>,
    /// Where its key stands. For an element of an array, where the element stands.
    pub key_at: At,
    /// Where it stands.
    pub at: At,
}

impl<'a> Value<'a> {
    pub fn problem(&self, message: impl Display, hint: Option<String>) {
        self.log.problem(&self.at, message, hint);
    }

    pub fn located<T>(&self, value: T) -> Located<T> {
        Located { value, at: self.at.clone() }
    }

    pub fn is_table(&self) -> bool {
        self.value.is_table()
    }

    pub fn text(&self) -> Option<Located<&'a str>> {
        match self.value.as_str() {
            Some(text) => Some(self.located(text)),
            None => self.wrong_type("text in quotes"),
        }
    }

    pub fn boolean(&self) -> Option<Located<bool>> {
        match self.value.as_bool() {
            Some(value) => Some(self.located(value)),
            None => self.wrong_type("`true` or `false`"),
        }
    }

    pub fn integer<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Option<Located<T>> {
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        let Some(integer) = self.value.as_integer() else {
            return self.wrong_type(&expected());
        };
        let value = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        match value.filter(|value| range.contains(value)).and_then(|value| T::try_from(value).ok()) {
            Some(value) => Some(self.located(value)),
            None => {
                self.problem(
                    format_args!("{integer} is out of range"),
                    Some(format!("expected {}", expected())),
                );
                None
            }
        }
    }

    /// A whole number that may be negative.
    pub fn signed(&self, range: RangeInclusive<i64>) -> Option<Located<i64>> {
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        let Some(integer) = self.value.as_integer() else {
            return self.wrong_type(&expected());
        };
        let value = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let found = value.filter(|value| range.contains(value));
        if found.is_none() {
            self.problem(format_args!("{integer} is out of range"), Some(format!("expected {}", expected())));
        }
        Some(self.located(found?))
    }

    pub fn real(&self, bounds: &Bounds) -> Option<Located<f64>> {
        let written = match self.value {
            DeValue::Float(float) => float.as_str().to_owned(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().to_owned(),
            _ => return self.wrong_type(bounds.text),
        };
        // Adding 0 turns -0 into 0: the two are equal, and have to give one trial key.
        let value = written.parse::<f64>().ok().map(|value| value + 0.0);
        match value.filter(|value| value.is_finite() && (bounds.hold)(*value)) {
            Some(value) => Some(self.located(value)),
            None => {
                let hint = format!("expected {}", bounds.text);
                self.problem(format_args!("{written} is out of range"), Some(hint));
                None
            }
        }
    }

    /// One of several words.
    pub fn choice<T: Copy>(&self, what: &str, options: &[(&'static str, T)]) -> Option<Located<T>> {
        let names = || options.iter().map(|(name, _)| *name);
        let Some(text) = self.value.as_str() else {
            return self.wrong_type(&format!("one of {}", names().collect::<Vec<_>>().join(", ")));
        };
        match options.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Some(self.located(*value)),
            None => {
                self.problem(format_args!("no {what} is named `{text}`"), Some(suggest::hint(text, names())));
                None
            }
        }
    }

    /// A value, or the word `"none"` for no limit.
    pub fn or_none<T>(&self, read: impl FnOnce(&Self) -> Option<Located<T>>) -> Option<Located<Option<T>>> {
        match self.value.as_str() {
            Some("none") => Some(self.located(None)),
            _ => read(self).map(|located| Located { value: Some(located.value), at: located.at }),
        }
    }

    /// The elements of an array.
    pub fn list(&self) -> Option<Vec<Value<'a>>> {
        let Some(array) = self.value.as_array() else {
            return self.wrong_type("a list in square brackets");
        };
        if array.len() > MAX_ELEMENTS {
            self.problem(
                format_args!("a list of {} elements", array.len()),
                Some(format!("at most {MAX_ELEMENTS} are read")),
            );
            return None;
        }
        let element = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| {
            let at = At { span: value.span(), path: format!("{}[{index}]", self.at.path) };
            Value { log: self.log, value: value.get_ref(), key_at: at.clone(), at }
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// The elements of an array, or the value itself as the only one.
    pub fn one_or_more(&self) -> Vec<Value<'a>> {
        if self.value.is_array() {
            return self.list().unwrap_or_default();
        }
        vec![Value { log: self.log, value: self.value, key_at: self.key_at.clone(), at: self.at.clone() }]
    }

    pub fn section(&self) -> Option<Section<'a>> {
        match self.value.as_table() {
            Some(table) => Some(Section { log: self.log, table, at: self.at.clone(), asked: Vec::new() }),
            None => self.wrong_type("a table"),
        }
    }

    fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        let found = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "`true` or `false`",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.problem(format_args!("expected {expected}, found {found}"), None);
        None
    }
}

/// Reports each element that equals one before it.
pub(super) fn refuse_repeats<T: PartialEq>(
    log: &Log<'_>,
    what: &str,
    list: &[Located<T>],
    name: impl Fn(&T) -> String,
) {
    for (index, later) in list.iter().enumerate() {
        if let Some(first) = list[..index].iter().find(|first| first.value == later.value) {
            let hint = format!("the first one stands on line {}", log.line(&first.at));
            log.problem(&later.at, format_args!("{what} {} is listed twice", name(&later.value)), Some(hint));
        }
    }
}
