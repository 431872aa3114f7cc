//! Published figures beside our own: which belong to a row, and how far apart they are.
//!
//! The figures are data, in `published.toml`, with their source. A row has them only where data set, network and method
//! are the same; what differs all the same (recipe, protocol) is said with the source. A difference is no test: the
//! seeds of a publication are not ours.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::Column;
use super::setup::{Extent, Setup};

/// Where figures were published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Short name.
    pub id: String,
    /// What to cite, and the version that was read.
    pub title: String,
    /// How the figures came about.
    pub protocol: String,
    /// What keeps them from being the same measurement as ours.
    pub caveat: String,
}

/// The figures of one source for one method, beside the row that they belong to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishedLine {
    /// Its source: [`Source::id`].
    pub source: String,
    /// One for each column of the table; `None` where the source has no such figure.
    pub values: Vec<Option<PublishedValue>>,
}

/// A published figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishedValue {
    /// As printed, in percent where the column is.
    pub printed: String,
    /// In the units of the results.
    pub value: f64,
    /// Our mean less the published value; `None` without a mean.
    pub difference: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: Vec<Source>,
    figure: Vec<Figure>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Figure {
    source: String,
    data: String,
    model: String,
    /// Variants of the network that the figure may stand beside, too.
    #[serde(default)]
    also: Vec<String>,
    method: String,
    members: Option<u64>,
    networks: Option<usize>,
    values: BTreeMap<String, String>,
}

static FILE: LazyLock<File> =
    LazyLock::new(|| toml::from_str(include_str!("published.toml")).expect("a test reads the embedded file"));

/// The lines that belong below a row, given what it computes and its means by column.
pub(super) fn lines(setup: &Setup, columns: &[Column], means: &[Option<f64>]) -> Vec<PublishedLine> {
    let figures = FILE.figure.iter().filter(|figure| figure.is_of(setup));
    let lines = figures.map(|figure| {
        let pairs = columns.iter().zip(means);
        let values = pairs.map(|(column, mean)| figure.value(setup, column, *mean)).collect();
        PublishedLine { source: figure.source.clone(), values }
    });
    lines.filter(|line| line.values.iter().any(Option::is_some)).collect()
}

/// The source of that name.
pub(super) fn source(id: &str) -> Option<&'static Source> {
    FILE.source.iter().find(|source| source.id == id)
}

/// What there is to compare with, for a table that nothing matches: data set, network and methods.
pub(super) fn available() -> String {
    let mut methods: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for figure in &FILE.figure {
        let list = methods.entry((&figure.data, &figure.model)).or_default();
        if !list.contains(&figure.method.as_str()) {
            list.push(&figure.method);
        }
    }
    let groups = methods
        .iter()
        .map(|((data, model), methods)| format!("{data} with {model} ({})", methods.join(", ")));
    groups.collect::<Vec<_>>().join("; ")
}

impl Figure {
    fn is_of(&self, setup: &Setup) -> bool {
        setup.extent == Extent::Whole
            && setup.data == self.data
            && (setup.model == self.model || self.also.contains(&setup.model))
            && setup.method == self.method
            && self.members.is_none_or(|members| setup.members == Some(members))
            && self.networks.is_none_or(|networks| setup.networks == networks)
    }

    fn value(&self, setup: &Setup, column: &Column, mean: Option<f64>) -> Option<PublishedValue> {
        let name = column.name();
        let printed = self.values.get(&name).or_else(|| {
            // A column without a set is about the only set, if it is about detection at all.
            let [set] = setup.ood.as_slice() else { return None };
            self.values.get(&format!("{name}/{set}"))
        })?;
        // Read as a fraction at once: a division would leave the last bit wrong.
        let exponent = if column.is_percent() { "e-2" } else { "" };
        let value: f64 = format!("{printed}{exponent}").parse().ok()?;
        Some(PublishedValue { printed: printed.clone(), value, difference: mean.map(|mean| mean - value) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_source_and_reads_as_a_number() {
        for figure in &FILE.figure {
            assert!(source(&figure.source).is_some(), "{}", figure.source);
            for (name, value) in &figure.values {
                let value: f64 = value.parse().unwrap();
                assert!((0.0..=100.0).contains(&value), "{name} = {value}");
            }
        }
        let used = |source: &Source| FILE.figure.iter().any(|figure| figure.source == source.id);
        assert!(FILE.source.iter().all(used), "no source is there in vain");
        let key = |f: &Figure| (f.source.clone(), f.data.clone(), f.model.clone(), f.method.clone());
        let keys: std::collections::BTreeSet<_> = FILE.figure.iter().map(key).collect();
        assert_eq!(keys.len(), FILE.figure.len(), "no figure is there twice");
    }

    #[test]
    fn what_there_is_names_data_network_and_methods() {
        let text = available();
        assert!(
            text.starts_with(
                "cifar-10 with resnet-18-cifar (deterministic, sngp, duq); cifar-10 with wrn-28-10 ("
            ),
            "{text}"
        );
    }
}
