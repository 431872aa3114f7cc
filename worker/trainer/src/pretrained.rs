//! Weights to start from: a file in torchvision's layout, brought into a ResNet.
//!
//! Decides which tensor of the file belongs to which tensor of a network. What all members share is taken as it is;
//! where each member has a tensor of its own (normalisation, biases), each gets the file's. What a method adds (rank-1
//! vectors, codes, VAEs) keeps its initial values, and so does a head for another number of classes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::Digest;
use common::spec::{ModelSpec, Pretrained};
use safetensors::SafeTensors;
use tch::{Tensor, no_grad};

use crate::model::NamedTensor;
use crate::storage::{self, StorageError};

/// Folder of the files in a data folder.
pub const FOLDER: &str = "weights";

/// Names of the head's tensors in files.
const HEAD: [&str; 2] = ["fc.weight", "fc.bias"];

/// Why a network cannot start from a file.
#[derive(Debug, thiserror::Error)]
pub enum PretrainedError {
    /// There are no such files for the model.
    #[error("{0} cannot start from a file of weights: only ResNets can")]
    Model(ModelSpec),
    /// It is missing or no safetensors file.
    #[error(
        "no weights to start from: the worker needs `{}` in its data folder, and gets it from nowhere by itself",
        path.display()
    )]
    File {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong.
        source: StorageError,
    },
    /// It is another file than the one that the grid names.
    #[error(
        "`{}` has BLAKE3 digest {found}, the grid says {expected}: put the right file there, or change `blake3` in the grid",
        path.display()
    )]
    Digest {
        /// Which file.
        path: PathBuf,
        /// Of the specification.
        expected: Digest,
        /// Of the file.
        found: Digest,
    },
    /// Its tensors are not those of the network.
    #[error("the weights in `{}` are not for {model}", path.display())]
    Mismatch {
        /// Which file.
        path: PathBuf,
        /// The network.
        model: ModelSpec,
        /// The first difference.
        source: Mismatch,
    },
}

/// The first tensor of a file that a network cannot start from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The network has it, the file does not.
    #[error("`{0}` is missing: take the state dict of torchvision's network of the same depth, in its names")]
    Missing(String),
    /// The file has it, the network does not.
    #[error(
        "the network has no `{0}`: take the file of a network of the same depth, with nothing else in it"
    )]
    Extra(String),
    /// Another shape.
    #[error(
        "`{name}` is {found:?}, the network's is {expected:?}: the file has another depth, first layer or number of \
         colours, or the method changes the shapes of layers"
    )]
    Shape {
        /// Which.
        name: String,
        /// In the file.
        found: Vec<i64>,
        /// In the network.
        expected: Vec<i64>,
    },
    /// Not floating-point numbers.
    #[error("`{0}` does not hold floating-point numbers: store weights in 16, 32 or 64 bits")]
    Kind(String),
}

/// Overwrites the initial values of a network with those of a file below `data_dir`.
///
/// # Errors
///
/// [`PretrainedError`]; the network is then as it was.
pub fn load(
    data_dir: &Path,
    pretrained: &Pretrained,
    model: ModelSpec,
    network: &[NamedTensor],
) -> Result<(), PretrainedError> {
    match model {
        ModelSpec::ResNet { .. } => {}
        ModelSpec::WideResNet { .. } | ModelSpec::Mlp { .. } => return Err(PretrainedError::Model(model)),
    }
    let path = data_dir.join(FOLDER).join(&pretrained.file);
    let file = read(&path, pretrained.digest)?;
    let outcome = assign(&file, network);
    outcome.map_err(|source| PretrainedError::Mismatch { path, model, source })
}

/// Tensors of a file by name, on the host.
fn read(path: &Path, expected: Digest) -> Result<BTreeMap<String, Tensor>, PretrainedError> {
    let unusable = |source| PretrainedError::File { path: path.to_owned(), source };
    let bytes = storage::read(path).map_err(unusable)?;
    let found = Digest::of(&bytes);
    if found != expected {
        return Err(PretrainedError::Digest { path: path.to_owned(), expected, found });
    }
    let format = |source| unusable(StorageError::Format { path: path.to_owned(), source });
    let file = SafeTensors::deserialize(&bytes).map_err(format)?;
    let tensors = file.iter().map(|(name, view)| Ok((name.to_owned(), storage::tensor_of(name, &view)?)));
    tensors.collect::<Result<_, StorageError>>().map_err(unusable)
}

/// Overwrites the tensors of a network that `file` has, when it has exactly those that a ResNet has.
pub(crate) fn assign(file: &BTreeMap<String, Tensor>, network: &[NamedTensor]) -> Result<(), Mismatch> {
    let mut pairs = Vec::new();
    for named in network {
        let Some(name) = name_in_file(&named.name) else { continue };
        let values = file.get(&name).ok_or_else(|| Mismatch::Missing(name.clone()))?;
        if !values.is_floating_point() {
            return Err(Mismatch::Kind(name));
        }
        pairs.push((name, values, &named.tensor));
    }
    let ignored = |name: &str| name.ends_with(".num_batches_tracked") || HEAD.contains(&name);
    let known = |name: &str| pairs.iter().any(|(known, ..)| known == name);
    if let Some(extra) = file.keys().find(|name| !ignored(name) && !known(name)) {
        return Err(Mismatch::Extra(extra.clone()));
    }
    if pairs.iter().any(|(name, values, tensor)| HEAD.contains(&name.as_str()) && !fits(values, tensor)) {
        pairs.retain(|(name, ..)| !HEAD.contains(&name.as_str()));
    }
    if let Some((name, values, tensor)) = pairs.iter().find(|(_, values, tensor)| !fits(values, tensor)) {
        return Err(Mismatch::Shape { name: name.clone(), found: values.size(), expected: tensor.size() });
    }
    no_grad(|| {
        for (_, values, tensor) in pairs {
            // Copying converts kind and device, and repeats the values for each member.
            tensor.shallow_clone().copy_(values);
        }
    });
    Ok(())
}

/// Whether a tensor has the shape of `values`, or a row of that shape for each member.
fn fits(values: &Tensor, tensor: &Tensor) -> bool {
    let [values, tensor] = [values.size(), tensor.size()];
    tensor == values || (tensor.len() == values.len() + 1 && tensor[1..] == values)
}

/// Name in torchvision's layout of a tensor of a ResNet; `None` for what only a method has.
pub(crate) fn name_in_file(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let in_block = |group: &str, block: &str, rest: &str| {
        let group: u32 = group.parse().ok()?;
        Some(format!("layer{}.{block}.{rest}", group + 1))
    };
    match parts.as_slice() {
        ["stem", "weight"] => Some("conv1.weight".to_owned()),
        ["bn", kind] => Some(format!("bn1.{kind}")),
        ["groups", group, block, "shortcut", "weight"] => in_block(group, block, "downsample.0.weight"),
        ["groups", group, block, "bn_shortcut", kind] => {
            in_block(group, block, &format!("downsample.1.{kind}"))
        }
        ["groups", group, block, layer @ ("conv1" | "conv2" | "conv3"), "weight"] => {
            in_block(group, block, &format!("{layer}.weight"))
        }
        ["groups", group, block, layer @ ("bn1" | "bn2" | "bn3"), kind] => {
            in_block(group, block, &format!("{layer}.{kind}"))
        }
        ["linear", kind @ ("weight" | "bias")] => Some(format!("fc.{kind}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
