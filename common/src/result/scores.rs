//! Scores by name.

use std::collections::BTreeMap;
use std::ops::Index;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Scores and costs by name, in the order of the names. Written and read as a map.
///
/// Names and values are apart, because results of one kind have the same names: whoever keeps many of them can let
/// them share the names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Ascending, each once.
    names: Arc<[String]>,
    /// As many as names.
    values: Box<[f64]>,
}

impl Scores {
    /// Scores with their names, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.names.iter().map(String::as_str).zip(self.values.iter().copied())
    }

    /// The same as a map.
    pub fn to_map(&self) -> BTreeMap<String, f64> {
        self.iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The names, in order.
    pub fn names(&self) -> &Arc<[String]> {
        &self.names
    }

    /// Shares `names`, if they are its own.
    pub fn share_names(&mut self, names: &Arc<[String]>) {
        if self.names == *names {
            self.names = Arc::clone(names);
        }
    }
}

impl From<BTreeMap<String, f64>> for Scores {
    fn from(scores: BTreeMap<String, f64>) -> Self {
        let (names, values): (Vec<_>, Vec<_>) = scores.into_iter().unzip();
        Self { names: names.into(), values: values.into() }
    }
}

impl<const N: usize> From<[(String, f64); N]> for Scores {
    fn from(scores: [(String, f64); N]) -> Self {
        Self::from(BTreeMap::from(scores))
    }
}

impl FromIterator<(String, f64)> for Scores {
    fn from_iter<I: IntoIterator<Item = (String, f64)>>(scores: I) -> Self {
        Self::from(scores.into_iter().collect::<BTreeMap<_, _>>())
    }
}

impl Index<&str> for Scores {
    type Output = f64;

    /// # Panics
    ///
    /// When there is no such score.
    fn index(&self, name: &str) -> &f64 {
        let position = self.names.iter().position(|known| known == name);
        &self.values[position.unwrap_or_else(|| panic!("no score is named `{name}`"))]
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Scores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_the_map_and_read_back_as_one() {
        let map = BTreeMap::from([("nll".to_owned(), 0.25), ("accuracy".to_owned(), 0.5)]);
        let scores = Scores::from(map.clone());
        assert_eq!((scores["nll"], scores["accuracy"]), (0.25, 0.5));
        assert_eq!(scores.to_map(), map);
        let text = serde_json::to_string(&scores).unwrap();
        assert_eq!(text, r#"{"accuracy":0.5,"nll":0.25}"#);
        assert_eq!(serde_json::from_str::<Scores>(&text).unwrap(), scores);
    }

    #[test]
    fn only_equal_names_are_shared() {
        let one = Scores::from([("nll".to_owned(), 0.25)]);
        let mut same = Scores::from([("nll".to_owned(), 0.75)]);
        same.share_names(one.names());
        assert!(Arc::ptr_eq(same.names(), one.names()));
        assert_eq!(same["nll"], 0.75);
        let mut other = Scores::from([("ece".to_owned(), 0.1)]);
        other.share_names(one.names());
        assert_eq!(other["ece"], 0.1);
    }
}
