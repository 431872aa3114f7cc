//! The file of a checkpoint: safetensors with a header and a digest in its metadata.
//!
//! The digest covers the header and every tensor's name, kind, shape and bytes, so a file is whole or
//! refused, also when it came from a disk that lies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::Digest;
use safetensors::SafeTensors;
use safetensors::tensor::View;
use serde::{Deserialize, Serialize};

use super::{Checkpoint, CheckpointError, Difference, FORMAT, Header, Snapshot};
use crate::storage::{self, StorageError};

/// Key of the file's only metadata entry.
const KEY: &str = "checkpoint";

/// The metadata entry, as JSON.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// [`Header`] as JSON: text, because the digest is of its bytes.
    header: String,
    digest: Digest,
}

/// Writes `snapshot` into `folder` and returns the file.
///
/// # Errors
///
/// [`StorageError`] when the file system refuses.
pub fn write(folder: &Path, snapshot: &Snapshot) -> Result<PathBuf, StorageError> {
    let header = serde_json::to_string(&snapshot.header).expect("a header holds only numbers and strings");
    let digest = digest(&header, snapshot.tensors.iter().map(|tensor| (tensor.name(), tensor)));
    let entry = serde_json::to_string(&Entry { header, digest }).expect("an entry holds two strings");
    let name = format!("checkpoint-{:08}.safetensors", snapshot.step());
    storage::write(folder, &name, &snapshot.tensors, (KEY, entry))
}

/// Reads a checkpoint and verifies its digest.
///
/// # Errors
///
/// [`CheckpointError`]; nothing of a damaged file is used.
pub fn read(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let bytes = storage::read(path)?;
    let format = |source| StorageError::Format { path: path.to_owned(), source };
    let no_header = || CheckpointError::NoHeader { path: path.to_owned() };

    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(format)?;
    let entry = metadata.metadata().as_ref().and_then(|pairs| serde_json::from_str(pairs.get(KEY)?).ok());
    let Entry { header, digest: expected } = entry.ok_or_else(no_header)?;

    let file = SafeTensors::deserialize(&bytes).map_err(format)?;
    let found = digest(&header, file.iter());
    if found != expected {
        return Err(CheckpointError::Damaged { path: path.to_owned(), expected, found });
    }
    let header: Header = parse_header(path, &header)?;
    let tensors = file.iter().map(|(name, view)| Ok((name.to_owned(), storage::tensor_of(name, &view)?)));
    let tensors = tensors.collect::<Result<_, StorageError>>()?;
    Ok(Checkpoint { path: path.to_owned(), header, tensors })
}

/// The format number is read first, because a header of another format need not have the other fields.
fn parse_header(path: &Path, text: &str) -> Result<Header, CheckpointError> {
    let no_header = || CheckpointError::NoHeader { path: path.to_owned() };
    let value: serde_json::Value = serde_json::from_str(text).map_err(|_| no_header())?;
    let format = value.get("format").and_then(serde_json::Value::as_u64).ok_or_else(no_header)?;
    if format != u64::from(FORMAT) {
        let found = u32::try_from(format).unwrap_or(u32::MAX);
        let difference = Difference::Format { found };
        return Err(CheckpointError::Incompatible { path: path.to_owned(), difference });
    }
    serde_json::from_value(value).map_err(|_| no_header())
}

/// Digest of a header and of tensors in the order of their names. Every part is preceded by its length,
/// so no two contents run together to the same bytes.
fn digest<'a, V: View>(header: &str, tensors: impl Iterator<Item = (&'a str, V)>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(header.as_bytes());
    let tensors: BTreeMap<&str, V> = tensors.collect();
    for (name, view) in tensors {
        part(name.as_bytes());
        part(format!("{:?} {:?}", view.dtype(), view.shape()).as_bytes());
        part(&view.data());
    }
    Digest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::*;
    use crate::storage::HostTensor;

    fn snapshot() -> Snapshot {
        let header = Header {
            format: FORMAT,
            trial: common::TrialKey(Digest::of(b"trial")),
            numerics: 1,
            step: 10,
            epoch: 1,
            step_in_epoch: 2,
            train_seconds: 1.5,
            computed_on: "cpu".to_owned(),
            final_loss: None,
            peak_device_bytes: None,
        };
        let values: Vec<f32> = (0..256_u16).map(|value| f32::from(value) / 7.0).collect();
        let weight = Tensor::from_slice(&values).reshape([16, 16]);
        let steps = Tensor::from_slice(&[1_i64, 2, 3]);
        let tensors = [("weight", weight), ("steps", steps)];
        let host = |(name, tensor): (&str, Tensor)| HostTensor::copy_of(name.to_owned(), &tensor).unwrap();
        Snapshot { header, tensors: tensors.into_iter().map(host).collect(), score: None }
    }

    fn number(seed: u64, below: usize) -> usize {
        let [a, b, c, d, ..] = Digest::of(&seed.to_le_bytes()).0;
        u32::from_le_bytes([a, b, c, d]) as usize % below
    }

    /// The agent checks the digest of the file before the trainer sees it; this is the second line.
    #[test]
    fn ten_thousand_cut_or_flipped_checkpoints_load_nothing_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), &snapshot()).unwrap();
        let whole = read(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let mut refused = 0;
        for seed in 0..10_000 {
            let mut damaged = bytes.clone();
            if seed % 2 == 0 {
                damaged.truncate(number(seed, bytes.len()));
            } else {
                damaged[number(seed, bytes.len())] ^= 1 << (seed / 2 % 8);
            }
            std::fs::write(&path, damaged).unwrap();
            // A bit of the file's own padding may change nothing that is read.
            let Ok(read) = read(&path) else {
                refused += 1;
                continue;
            };
            assert_eq!(read.header, whole.header, "case {seed}");
            assert_eq!(read.tensors.len(), whole.tensors.len(), "case {seed}");
            for (name, tensor) in &whole.tensors {
                let found = &read.tensors[name];
                assert_eq!(found.kind(), tensor.kind(), "case {seed}: {name}");
                let equal = found.to_kind(Kind::Double).equal(&tensor.to_kind(Kind::Double));
                assert!(equal && found.size() == tensor.size(), "case {seed}: {name}");
            }
        }
        assert!(refused > 9_900, "{refused}");
    }
}
