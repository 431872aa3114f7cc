//! The file of the posteriors over the members' rank-1 vectors, readable with safetensors and numpy alone.
//!
//! Written for networks whose vectors are drawn: LP-BNN and rank-1 BNN. SIDE is `alpha` (input side) or `gamma`.
//!
//! | tensor | shape | meaning |
//! |---|---|---|
//! | `LAYER/SIDE/mean` | `[J, C]` f32 | mean of each member's vector; the vector itself where it is a parameter |
//! | `LAYER/SIDE/factor` | `[J, C, d]` f32 | of a vector that a VAE decodes: its covariance is factor · factorᵀ, of rank at most d |
//! | `LAYER/SIDE/std` | `[J, C]` f32 | of rank-1 BNN: standard deviation of each entry, all independent |
//! | `LAYER/SIDE/codes` | `[J, C]` f32 | what the VAE encodes |
//!
//! A vector without `factor` and `std` does not vary. With several networks, all names begin with the network's
//! index and a slash. The metadata entry `posterior` is JSON: `format`, `trial` and `spec` (the trial's specification).
//!
//! Mean and covariance of the weights of member j, with the weight W from the network's checkpoint:
//!
//! ```python
//! import numpy as np
//! from safetensors import safe_open
//! file = safe_open("posterior.safetensors", "numpy")
//! weight = safe_open("checkpoint.safetensors", "numpy").get_tensor("model/linear.weight")   # [O, I]
//! def moments(name, j):                                        # mean, and E[v vᵀ], of one vector
//!     mean, keys = file.get_tensor(f"{name}/mean")[j], file.keys()
//!     root = file.get_tensor(f"{name}/factor")[j] if f"{name}/factor" in keys else \
//!         np.diag(file.get_tensor(f"{name}/std")[j]) if f"{name}/std" in keys else np.zeros((len(mean), 1))
//!     return mean, np.outer(mean, mean) + root @ root.T
//! (a, aa), (g, gg) = moments("linear/alpha", 0), moments("linear/gamma", 0)
//! mean = weight * np.outer(g, a)                               # [O, I]
//! w = weight.reshape(-1)                                       # covariance of mean.reshape(-1): [O·I, O·I]
//! covariance = np.outer(w, w) * np.kron(gg, aa) - np.outer(mean, mean)
//! ```
//!
//! For a convolution, take its kernel at one place: `weight[:, :, y, x]`.

use std::path::{Path, PathBuf};

use common::report::Launch;

use crate::model::Network;
use crate::storage::{self, HostTensor, StorageError};
use crate::uq::Spread;

/// Name of the artifact.
pub const POSTERIOR: &str = "posterior.safetensors";

/// Key of the file's only metadata entry.
const KEY: &str = "posterior";

/// Version of the layout above.
const FORMAT: u32 = 1;

/// Tensors of `network`, the one of this index among `networks`; none when its vectors do not vary.
///
/// # Errors
///
/// [`StorageError`] when libtorch refuses.
pub fn tensors(network: &Network, index: usize, networks: usize) -> Result<Vec<HostTensor>, StorageError> {
    let posteriors = network.vector_posteriors();
    let mut tensors = Vec::new();
    if posteriors.iter().all(|posterior| matches!(posterior.spread, Spread::Point)) {
        return Ok(tensors);
    }
    let network = if networks > 1 { format!("{index}/") } else { String::new() };
    for posterior in &posteriors {
        let prefix = format!("{network}{}/{}", posterior.layer, posterior.side.name());
        let spread = match &posterior.spread {
            Spread::Point => None,
            Spread::Independent(std) => Some(("std", std)),
            Spread::LowRank(factor) => Some(("factor", factor)),
        };
        let codes = posterior.codes.as_ref().map(|codes| ("codes", codes));
        for (name, tensor) in [Some(("mean", &posterior.mean)), spread, codes].into_iter().flatten() {
            tensors.push(HostTensor::copy_of(format!("{prefix}/{name}"), tensor)?);
        }
    }
    Ok(tensors)
}

/// Writes what [`tensors`] gave for all networks into `folder`, and returns the file.
///
/// # Errors
///
/// [`StorageError`] when the file system refuses.
pub fn write(folder: &Path, launch: &Launch, tensors: &[HostTensor]) -> Result<PathBuf, StorageError> {
    let metadata =
        serde_json::json!({ "format": FORMAT, "trial": launch.spec.key(), "spec": launch.spec }).to_string();
    storage::write(folder, POSTERIOR, tensors, (KEY, metadata))
}
