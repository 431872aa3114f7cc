//! Stored numbers, in the precision and ownership that they come in.
//!
//! Widening to `f64` happens on reading, so that nobody copies a file's worth of `f32` first.

use std::borrow::Cow;

/// Numbers as they were stored, borrowed or owned, in either precision.
#[derive(Debug, Clone, PartialEq)]
pub enum Values<'a> {
    /// Single precision, as a trainer emits them.
    F32(Cow<'a, [f32]>),
    /// Double precision.
    F64(Cow<'a, [f64]>),
}

impl Values<'_> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    /// Copies `to.len()` values from `start` on, widened to `f64`.
    pub(crate) fn read(&self, start: usize, to: &mut [f64]) {
        let range = start..start + to.len();
        match self {
            Self::F32(values) => {
                for (to, &from) in to.iter_mut().zip(&values[range]) {
                    *to = f64::from(from);
                }
            }
            Self::F64(values) => to.copy_from_slice(&values[range]),
        }
    }

    /// The value at `index`, widened to `f64`.
    pub(crate) fn get(&self, index: usize) -> f64 {
        match self {
            Self::F32(values) => f64::from(values[index]),
            Self::F64(values) => values[index],
        }
    }
}

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(Cow::Borrowed(values))
    }
}

impl<'a> From<&'a [f64]> for Values<'a> {
    fn from(values: &'a [f64]) -> Self {
        Self::F64(Cow::Borrowed(values))
    }
}

impl From<Vec<f32>> for Values<'_> {
    fn from(values: Vec<f32>) -> Self {
        Self::F32(Cow::Owned(values))
    }
}

impl From<Vec<f64>> for Values<'_> {
    fn from(values: Vec<f64>) -> Self {
        Self::F64(Cow::Owned(values))
    }
}
