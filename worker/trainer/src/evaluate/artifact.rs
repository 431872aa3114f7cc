//! The file of an evaluation's predictions, readable with safetensors and numpy alone.
//!
//! | tensor | shape | meaning |
//! |---|---|---|
//! | `id/probabilities` | `[J, N, K]` f32 | of each member, test images of the known classes |
//! | `id/logits` | `[J, N, K]` f32 | what the softmax was taken of; means, where a member's probabilities are means over draws |
//! | `id/labels` | `[N]` i64 | index into the K outputs |
//! | `id/ids` | `[N]` i64 | position in the official file |
//! | `held_out/…` | the same | training images that no network was fitted to; ids are positions in the training file |
//! | `ood/NAME/…` | the same | for each out-of-distribution set; labels are the set's own |
//! | `shift/CORRUPTION.SEVERITY/probabilities` | `[1, N', K]` f32 | mean over members, the first N' test images corrupted |
//!
//! Of points with real features, `…/features` `[N, C]` f32 are stored beside. Networks that predict numbers leave other
//! tensors, see `regression`.
//!
//! The metadata entry `predictions` is JSON: `format`, `trial`, `classes` (the original class of each output), `ood` and
//! `shift` (names, in the order of the specification), `weight_cosine` (a number or null: mean cosine of two members' weights) and
//! `spec` (the trial's specification). Tables score the mean of the probabilities over J:
//!
//! ```python
//! f = safetensors.safe_open("predictions.safetensors", "numpy")
//! accuracy = (f.get_tensor("id/probabilities").mean(0).argmax(-1) == f.get_tensor("id/labels")).mean()
//! ```

use std::path::{Path, PathBuf};

use common::report::Launch;
use common::spec::{EvaluateSpec, Task};
use tch::Tensor;

use super::regression::Gaussians;
use super::sets::{Predicted, SetKind};
use crate::data;
use crate::storage::{self, HostTensor, StorageError};

/// Name of the artifact.
pub const PREDICTIONS: &str = "predictions.safetensors";

/// Key of the file's only metadata entry.
const KEY: &str = "predictions";

/// Version of the layout above.
const FORMAT: u32 = 2;

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
    weight_cosine: Option<f64>,
) -> Result<PathBuf, StorageError> {
    let task = data::task(spec);
    let mut tensors = Vec::new();
    for set in sets {
        match (task, spec.networks.first()) {
            (Task::Regression, Some(network)) => {
                tensors.extend(Gaussians::of(set, &network.data).tensors()?);
            }
            (Task::Classification | Task::Regression, _) => tensors.extend(of_classes(set)?),
        }
    }
    storage::write(folder, PREDICTIONS, &tensors, (KEY, metadata(launch, spec, sets, weight_cosine)))
}

/// Tensors of a set of which classes are predicted.
fn of_classes(set: &Predicted) -> Result<Vec<HostTensor>, StorageError> {
    let mut tensors = Vec::new();
    let prefix = &set.kind;
    let metrics::Shape { members, samples, classes } = set.shape;
    let shape = [members, samples, classes].map(|axis| axis as i64);
    let floats = |values: &[f32]| Tensor::from_slice(values).view(shape);
    tensors.push(HostTensor::from_host(format!("{prefix}/probabilities"), floats(&set.probabilities))?);
    if let Some(logits) = &set.logits {
        tensors.push(HostTensor::from_host(format!("{prefix}/logits"), floats(logits))?);
    }
    // Labels and ids of corrupted images are those of the test set.
    if !matches!(set.kind, SetKind::Shifted { .. }) {
        let ids: Vec<i64> = set.ids.iter().map(|id| id.cast_signed()).collect();
        tensors.push(HostTensor::from_host(format!("{prefix}/labels"), Tensor::from_slice(&set.labels))?);
        tensors.push(HostTensor::from_host(format!("{prefix}/ids"), Tensor::from_slice(&ids))?);
    }
    if !set.features.is_empty() {
        let features = Tensor::from_slice(&set.features).view([samples as i64, -1]);
        tensors.push(HostTensor::from_host(format!("{prefix}/features"), features)?);
    }
    Ok(tensors)
}

fn metadata(launch: &Launch, spec: &EvaluateSpec, sets: &[Predicted], weight_cosine: Option<f64>) -> String {
    let (mut ood, mut shift) = (Vec::new(), Vec::new());
    for set in sets {
        match &set.kind {
            SetKind::Test | SetKind::HeldOut => {}
            SetKind::OutOfDistribution(name) => ood.push(name.clone()),
            SetKind::Shifted { corruption, severity } => shift.push(format!("{corruption}.{severity}")),
        }
    }
    let classes = spec.networks.first().map(|network| data::classes(&network.data)).unwrap_or_default();
    serde_json::json!({
        "format": FORMAT,
        "task": match data::task(spec) {
            Task::Classification => "classification",
            Task::Regression => "regression",
        },
        "trial": launch.spec.key(),
        "classes": classes,
        "ood": ood,
        "shift": shift,
        "weight_cosine": weight_cosine,
        "spec": launch.spec,
    })
    .to_string()
}
