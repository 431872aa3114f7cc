//! Which keys are valid and what they hold, as the embedded default says it.

use std::collections::BTreeMap;

use config::{Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use crate::suggest;

/// What a key holds, by its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Real,
    Boolean,
    List,
    /// Free keys below.
    Open,
}

impl Kind {
    fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::Integer(_) => Self::Integer,
            DeValue::Float(_) => Self::Real,
            DeValue::Boolean(_) => Self::Boolean,
            DeValue::Array(_) => Self::List,
            DeValue::Table(_) => Self::Open,
            DeValue::String(_) | DeValue::Datetime(_) => Self::Text,
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "a whole number",
            Self::Real => "a number",
            Self::Boolean => "`true` or `false`",
            Self::List => "a list, like `[\"a\", \"b\"]` or `a,b`",
            Self::Open => "a table, like `{ key = \"value\" }`",
        }
    }

    /// Reads the text of a variable or flag.
    pub fn read(self, origin: &Origin, text: &str) -> Result<Value, ConfigError> {
        let wrong =
            || ConfigError::Type { origin: origin.clone(), text: text.to_owned(), expected: self.expected() };
        let uri = origin.to_string();
        let value = |kind: ValueKind| Ok(Value::new(Some(&uri), kind));
        let trimmed = text.trim();
        match self {
            Self::Text => value(ValueKind::String(text.to_owned())),
            Self::Integer => value(ValueKind::I64(trimmed.parse().map_err(|_| wrong())?)),
            Self::Real => value(ValueKind::Float(trimmed.parse().map_err(|_| wrong())?)),
            Self::Boolean => value(ValueKind::Boolean(trimmed.parse().map_err(|_| wrong())?)),
            Self::List if !trimmed.starts_with('[') => {
                let items = trimmed.split(',').map(str::trim).filter(|item| !item.is_empty());
                value(ValueKind::Array(items.map(|item| Value::new(Some(&uri), item)).collect()))
            }
            Self::List | Self::Open => {
                let parsed = DeValue::parse(trimmed).map_err(|_| wrong())?.into_inner();
                if Self::of(&parsed) == self {
                    converted(&uri, &parsed).ok_or_else(wrong)
                } else {
                    Err(wrong())
                }
            }
        }
    }
}

/// Valid keys with dots, and what they hold.
pub(super) struct Schema {
    pub keys: BTreeMap<String, Kind>,
}

impl Schema {
    pub fn of(default: &str) -> Result<Self, ConfigError> {
        let text: String = default.lines().map(|line| uncommented(line).to_owned() + "\n").collect();
        let table = parse(&Origin::Default, &text)?;
        let mut keys = BTreeMap::new();
        collect(&table, "", &mut keys);
        Ok(Self { keys })
    }

    /// What a key holds. Below a free table, text.
    pub fn kind(&self, key: &str) -> Option<Kind> {
        let open = |(prefix, _): (usize, &str)| self.keys.get(&key[..prefix]) == Some(&Kind::Open);
        self.keys.get(key).copied().or_else(|| key.match_indices('.').any(open).then_some(Kind::Text))
    }

    pub fn is_section(&self, key: &str) -> bool {
        self.keys.keys().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    }

    pub fn hint(&self, key: &str) -> String {
        let section = key.rsplit_once('.').map_or("", |(section, _)| section);
        let beside = |known: &&str| {
            section.is_empty() || !self.is_section(section) || known.starts_with(&format!("{section}."))
        };
        suggest::hint(key, self.keys.keys().map(String::as_str).filter(beside))
    }
}

/// A line that holds a key without a default, as if it were set.
fn uncommented(line: &str) -> &str {
    let Some(rest) = line.strip_prefix('#') else {
        return line;
    };
    let key = rest.split('=').next().unwrap_or_default().trim_end();
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if bare && rest.contains('=') { rest } else { line }
}

fn collect(table: &DeTable<'_>, prefix: &str, keys: &mut BTreeMap<String, Kind>) {
    for (name, value) in table.iter() {
        let key = format!("{prefix}{}", name.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => collect(inner, &format!("{key}."), keys),
            value => {
                keys.insert(key, Kind::of(value));
            }
        }
    }
}

pub(super) fn parse<'t>(origin: &Origin, text: &'t str) -> Result<DeTable<'t>, ConfigError> {
    let table = DeTable::parse(text);
    let syntax = |error| ConfigError::Syntax { origin: origin.clone(), source: Box::new(error) };
    table.map(|table| table.into_inner()).map_err(syntax)
}

/// Name of the environment variable of a key.
pub(super) fn variable(prefix: &str, key: &str) -> String {
    format!("{prefix}_{}", key.to_uppercase().replace(['-', '.'], "_"))
}

/// A value with its origin, which the `config` crate names in its errors. `None` when a number does not fit.
pub(super) fn converted(uri: &str, value: &DeValue<'_>) -> Option<Value> {
    let origin = uri.to_owned();
    let kind = match value {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        DeValue::Integer(integer) => {
            ValueKind::I64(i64::from_str_radix(integer.as_str(), integer.radix()).ok()?)
        }
        DeValue::Float(float) => ValueKind::Float(float.as_str().parse().ok()?),
        DeValue::Boolean(value) => ValueKind::Boolean(*value),
        DeValue::Datetime(datetime) => ValueKind::String(datetime.to_string()),
        DeValue::Array(items) => {
            ValueKind::Array(items.iter().map(|item| converted(uri, item.get_ref())).collect::<Option<_>>()?)
        }
        DeValue::Table(table) => ValueKind::Table(
            table
                .iter()
                .map(|(name, value)| Some((name.get_ref().to_string(), converted(uri, value.get_ref())?)))
                .collect::<Option<_>>()?,
        ),
    };
    Some(Value::new(Some(&origin), kind))
}
