//! An ordered map whose copies share their records until one of them changes a record.
//!
//! A snapshot is taken of a hundred thousand records while the coordinator works: to copy pointers takes
//! milliseconds, to copy records a second and the memory of all of them.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::sync::Arc;

/// An ordered map that is cheap to copy.
#[derive(Clone, Debug, PartialEq)]
pub struct Shared<K, V>(BTreeMap<K, Arc<V>>);

/// Entries of a [`Shared`], in the order of their keys.
type Iter<'a, K, V> =
    std::iter::Map<btree_map::Iter<'a, K, Arc<V>>, fn((&'a K, &'a Arc<V>)) -> (&'a K, &'a V)>;

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, V> Shared<K, V> {
    /// The record of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key).map(Arc::as_ref)
    }

    /// The record of `key`, to change it here and in no copy.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        V: Clone,
    {
        self.0.get_mut(key).map(Arc::make_mut)
    }

    /// Puts a record in the place of the one that was there, if one was.
    pub fn insert(&mut self, key: K, record: V) {
        self.0.insert(key, Arc::new(record));
    }

    /// Whether there is a record of `key`.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every record, in the order of the keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.0.iter().map(|(key, record)| (key, record.as_ref()))
    }

    /// Every key, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.0.keys()
    }

    /// Every record, in the order of the keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.0.values().map(Arc::as_ref)
    }
}

impl<'a, K: Ord, V> IntoIterator for &'a Shared<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_in_no_copy() {
        let mut map = Shared::default();
        map.insert(1, "one".to_owned());
        map.insert(2, "two".to_owned());
        let copy = map.clone();
        map.get_mut(&1).unwrap().push('!');
        assert_eq!(copy.get(&1).unwrap(), "one");
        assert_eq!(map.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["one!", "two"]);
        assert_eq!(copy.len(), 2);
    }
}
