//! Lists and sets that mostly hold one element or none, in as much memory as that takes.
//!
//! A trial has nine of these, and there may be a hundred thousand trials: a set of the standard library takes the
//! room of eleven elements for its first, a list that of four.

use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize};

/// A list of few elements. What adds or removes one takes time in proportion to them all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Few<T>(Box<[T]>);

impl<T> Few<T> {
    /// Adds an element at the end.
    pub(super) fn push(&mut self, element: T) {
        self.change(|list| {
            list.reserve_exact(1);
            list.push(element);
        });
    }

    /// Takes out the element at `position`, which there must be.
    pub(super) fn remove(&mut self, position: usize) -> T {
        self.change(|list| list.remove(position))
    }

    /// Takes out all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn change<R>(&mut self, change: impl FnOnce(&mut Vec<T>) -> R) -> R {
        let mut list = std::mem::take(&mut self.0).into_vec();
        let result = change(&mut list);
        self.0 = list.into_boxed_slice();
        result
    }
}

/// As a set, in ascending order.
impl<T: Ord> Few<T> {
    /// Adds an element, unless it is there.
    pub(super) fn include(&mut self, element: T) {
        if let Err(position) = self.0.binary_search(&element) {
            self.change(|list| {
                list.reserve_exact(1);
                list.insert(position, element);
            });
        }
    }

    /// Takes out an element, if it is there.
    pub(super) fn exclude(&mut self, element: &T) {
        if let Ok(position) = self.0.binary_search(element) {
            self.remove(position);
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(list: Vec<T>) -> Self {
        Self(list.into_boxed_slice())
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        elements.into_iter().collect::<Vec<_>>().into()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_its_order_and_a_set_is_in_order() {
        let mut list = Few::default();
        for element in [3, 1, 2] {
            list.push(element);
        }
        assert_eq!(*list, [3, 1, 2]);
        assert_eq!(list.remove(0), 3);
        assert_eq!(*list, [1, 2]);
        list.clear();
        assert!(list.is_empty());

        let mut set = Few::default();
        for element in [3, 1, 2, 3] {
            set.include(element);
        }
        assert_eq!(*set, [1, 2, 3]);
        set.exclude(&2);
        set.exclude(&7);
        assert_eq!(*set, [1, 3]);
    }
}
