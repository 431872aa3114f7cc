//! The file of an evaluation's predictions, readable with safetensors and numpy alone.
//!
//! | tensor | shape | meaning |
//! |---|---|---|
//! | `id/probabilities` | `[J, N, K]` f32 | of each member, test images of the known classes |
//! | `id/labels` | `[N]` i64 | index into the K outputs |
//! | `id/ids` | `[N]` i64 | position in the official file |
//! | `ood/NAME/probabilities`, `…/labels`, `…/ids` | the same | for each out-of-distribution set; labels are the set's own |
//!
//! The metadata entry `predictions` is JSON: `format`, `trial`, `classes` (the original class of each output), `ood`
//! (names, in the order of the specification) and `spec` (the trial's specification). Tables score the mean of
//! the probabilities over J:
//!
//! ```python
//! f = safetensors.safe_open("predictions.safetensors", "numpy")
//! accuracy = (f.get_tensor("id/probabilities").mean(0).argmax(-1) == f.get_tensor("id/labels")).mean()
//! ```

use std::path::{Path, PathBuf};

use common::report::Launch;
use common::spec::EvaluateSpec;
use tch::Tensor;

use super::predict::Predicted;
use crate::data;
use crate::storage::{self, HostTensor, StorageError};

/// Name of the artifact.
pub const PREDICTIONS: &str = "predictions.safetensors";

/// Key of the file's only metadata entry.
const KEY: &str = "predictions";

/// Version of the layout above.
const FORMAT: u32 = 1;

/// Writes the predictions into `folder` and returns the file.
///
/// # Errors
///
/// [`StorageError`] when the file system refuses.
pub fn write(
    folder: &Path,
    launch: &Launch,
    spec: &EvaluateSpec,
    sets: &[Predicted],
) -> Result<PathBuf, StorageError> {
    let mut tensors = Vec::new();
    for set in sets {
        let prefix = set.name.as_ref().map_or_else(|| "id".to_owned(), |name| format!("ood/{name}"));
        let metrics::Shape { members, samples, classes } = set.shape;
        let shape = [members, samples, classes].map(|axis| axis as i64);
        let probabilities = Tensor::from_slice(&set.probabilities).view(shape);
        let ids: Vec<i64> = set.ids.iter().map(|id| id.cast_signed()).collect();
        tensors.push(HostTensor::from_host(format!("{prefix}/probabilities"), probabilities)?);
        tensors.push(HostTensor::from_host(format!("{prefix}/labels"), Tensor::from_slice(&set.labels))?);
        tensors.push(HostTensor::from_host(format!("{prefix}/ids"), Tensor::from_slice(&ids))?);
    }
    storage::write(folder, PREDICTIONS, &tensors, (KEY, metadata(launch, spec, sets)))
}

fn metadata(launch: &Launch, spec: &EvaluateSpec, sets: &[Predicted]) -> String {
    let ood: Vec<&str> = sets.iter().filter_map(|set| set.name.as_deref()).collect();
    let classes = spec.networks.first().map(|network| data::classes(&network.data)).unwrap_or_default();
    let trial = launch.spec.key();
    serde_json::json!({ "format": FORMAT, "trial": trial, "classes": classes, "ood": ood, "spec": launch.spec })
        .to_string()
}
