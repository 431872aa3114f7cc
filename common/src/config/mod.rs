//! Layered configuration: embedded default < file < environment < command line.
//!
//! The default is a commented TOML file inside the executable. It is the documentation, and it defines what is valid:
//! a key that does not stand in it is refused by name, wherever it comes from. Three rules make that possible:
//!
//! * a key without a default stands there commented out, with no space after the `#`: `#advertise = "10.0.0.1:7400"`;
//! * below an empty inline table, `labels = {}`, every key is valid, in the file and on the command line;
//! * the variable of a key is the prefix and the key in capitals, with `_` for `-` and `.`:
//!   `log.format` of `CREDENCE_COORDINATOR` is `CREDENCE_COORDINATOR_LOG_FORMAT`.
//!
//! The variable `PREFIX_CONFIG` is left to the caller: it names the file. Rules between settings are checked by the
//! caller, too; here a value only has to have the right type.

mod error;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use config::{Map, Source, Value};
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

pub use error::{ConfigError, Origin, UnknownKey};

use crate::suggest;
use schema::{Schema, converted, parse, variable};

/// Where settings come from, the weakest layer first.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// Commented TOML with every key; see the [module](self).
    pub default: &'static str,
    /// A TOML file. `None` for none; one that is named has to exist.
    pub file: Option<&'a Path>,
    /// Prefix of environment variables, without the last `_`.
    pub env_prefix: &'a str,
    /// Dotted keys and values of the command line. A value is read as the type that the key has.
    pub overrides: &'a [(&'a str, String)],
}

/// Reads the layers and merges them.
///
/// # Errors
///
/// [`ConfigError`]; unknown keys of all layers are reported together.
pub fn load<T: DeserializeOwned>(layers: Layers<'_>) -> Result<T, ConfigError> {
    // A variable that is not text belongs to somebody else, or its name does not match anyway.
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    };
    load_from(layers, std::env::vars_os().filter_map(text))
}

fn load_from<T: DeserializeOwned>(
    layers: Layers<'_>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let schema = Schema::of(layers.default)?;
    let mut merged = Merge { schema: &schema, unknown: Vec::new(), layers: Vec::new() };
    merged.document(&Origin::Default, layers.default)?;
    if let Some(path) = layers.file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        merged.document(&Origin::File(path.to_owned()), &text)?;
    }
    merged.environment(layers.env_prefix, variables)?;
    merged.command_line(layers.overrides)?;
    merged.finish()
}

/// One layer, in the form in which the `config` crate merges it.
#[derive(Clone, Debug, Default)]
struct Layer {
    values: Map<String, Value>,
    origins: BTreeMap<String, Origin>,
}

impl Layer {
    fn set(&mut self, key: &str, origin: &Origin, value: Value) {
        self.values.insert(key.to_owned(), value);
        self.origins.insert(key.to_owned(), origin.clone());
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.values.clone())
    }
}

struct Merge<'s> {
    schema: &'s Schema,
    unknown: Vec<UnknownKey>,
    layers: Vec<Layer>,
}

impl Merge<'_> {
    fn document(&mut self, origin: &Origin, text: &str) -> Result<(), ConfigError> {
        let table = parse(origin, text)?;
        let mut layer = Layer::default();
        self.flatten(origin, text, "", &table, &mut layer)?;
        self.layers.push(layer);
        Ok(())
    }

    fn flatten(
        &mut self,
        origin: &Origin,
        text: &str,
        prefix: &str,
        table: &DeTable<'_>,
        layer: &mut Layer,
    ) -> Result<(), ConfigError> {
        for (name, value) in table.iter() {
            let key = format!("{prefix}{}", name.get_ref());
            match (value.get_ref(), self.schema.kind(&key)) {
                (value, Some(_)) => {
                    let wrong = || ConfigError::Type {
                        origin: origin.clone(),
                        text: key.clone(),
                        expected: "a number that fits into 64 bits",
                    };
                    layer.set(&key, origin, converted(&origin.to_string(), value).ok_or_else(wrong)?);
                }
                (DeValue::Table(inner), None) if self.schema.is_section(&key) => {
                    self.flatten(origin, text, &format!("{key}."), inner, layer)?;
                }
                (_, None) if self.schema.is_section(&key) => {
                    return Err(ConfigError::Type { origin: origin.clone(), text: key, expected: "a table" });
                }
                (_, None) => {
                    let line = text[..name.span().start].matches('\n').count() + 1;
                    let hint = self.schema.hint(&key);
                    self.unknown.push(UnknownKey { origin: origin.clone(), line: Some(line), key, hint });
                }
            }
        }
        Ok(())
    }

    fn environment(
        &mut self,
        prefix: &str,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let names: BTreeMap<String, &str> =
            self.schema.keys.keys().map(|key| (variable(prefix, key), key.as_str())).collect();
        debug_assert_eq!(names.len(), self.schema.keys.len(), "two keys have the same variable");
        let own = format!("{prefix}_");
        let mut layer = Layer::default();
        for (name, text) in
            variables.filter(|(name, _)| name.starts_with(&own) && *name != format!("{own}CONFIG"))
        {
            let origin = Origin::Variable(name.clone());
            match names.get(&name).and_then(|key| Some((*key, self.schema.kind(key)?))) {
                Some((key, kind)) => {
                    layer.set(key, &origin, kind.read(&origin, &text)?);
                }
                None => {
                    let hint = suggest::hint(&name, names.keys().map(String::as_str));
                    self.unknown.push(UnknownKey { origin, line: None, key: name, hint });
                }
            }
        }
        self.layers.push(layer);
        Ok(())
    }

    fn command_line(&mut self, overrides: &[(&str, String)]) -> Result<(), ConfigError> {
        let mut layer = Layer::default();
        for (key, text) in overrides {
            let origin = Origin::CommandLine((*key).to_owned());
            match self.schema.kind(key) {
                Some(kind) => {
                    layer.set(key, &origin, kind.read(&origin, text)?);
                }
                None => {
                    let hint = self.schema.hint(key);
                    self.unknown.push(UnknownKey { origin, line: None, key: (*key).to_owned(), hint });
                }
            }
        }
        self.layers.push(layer);
        Ok(())
    }

    fn finish<T: DeserializeOwned>(self) -> Result<T, ConfigError> {
        if !self.unknown.is_empty() {
            return Err(ConfigError::UnknownKeys { keys: self.unknown });
        }
        let layers = self.layers;
        let builder = layers.iter().fold(config::Config::builder(), |b, layer| b.add_source(layer.clone()));
        let merged = builder.build().and_then(config::Config::try_deserialize);
        merged.map_err(|error| invalid(error, &layers))
    }
}

/// The `config` crate names the key of every value that is refused, but the layer of few.
fn invalid(error: config::ConfigError, layers: &[Layer]) -> ConfigError {
    let key = match &error {
        config::ConfigError::Type { key: Some(key), .. } | config::ConfigError::At { key: Some(key), .. } => {
            key
        }
        _ => return ConfigError::Incomplete(Box::new(error)),
    };
    let key = key.split('[').next().unwrap_or_default().to_owned();
    let above =
        |known: &str| key == known || key.strip_prefix(known).is_some_and(|rest| rest.starts_with('.'));
    let layer = layers.iter().rev().find_map(|layer| {
        layer.values.keys().find(|known| above(known)).and_then(|known| layer.origins.get(known)).cloned()
    });
    match layer {
        Some(origin) => ConfigError::Value { origin, key, source: Box::new(error) },
        None => ConfigError::Incomplete(Box::new(error)),
    }
}
