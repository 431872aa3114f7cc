//! Files of tensors, for comparison to the last bit.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensors};

/// A tensor as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Kind of its elements.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// Elements, little-endian.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for StoredTensor {
    /// Without the bytes: a difference names the tensor, not a million numbers.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {:?}", self.dtype, self.shape)
    }
}

/// Tensors of a safetensors file by name. What the file says about itself, like the time it took, is left out.
///
/// # Panics
///
/// When it is not a safetensors file.
pub fn tensors_of(file: &[u8]) -> BTreeMap<String, StoredTensor> {
    let tensors = SafeTensors::deserialize(file).expect("a whole safetensors file");
    tensors
        .iter()
        .map(|(name, view)| {
            let tensor = StoredTensor {
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            };
            (name.to_owned(), tensor)
        })
        .collect()
}
