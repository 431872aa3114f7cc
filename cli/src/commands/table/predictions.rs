//! Scores from a predictions file, without the trainer.
//!
//! The file's layout is described where it is written, in the trainer's `evaluate::artifact` and `evaluate::regression`.

#[cfg(test)]
mod tests;

use anyhow::{Context as _, ensure};
use metrics::{
    ClassificationReport, Evaluation, GaussianPredictions, LabelledPredictions, Predictions, Shape,
    ShiftName, ShiftedSet, regression_report,
};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

/// Versions of the layout that this build reads. The second adds logits, held-out predictions and corrupted sets.
const FORMATS: std::ops::RangeInclusive<u32> = 1..=2;

#[derive(Deserialize)]
struct Metadata {
    format: u32,
    #[serde(default)]
    task: Task,
    ood: Vec<String>,
    #[serde(default)]
    shift: Vec<String>,
    #[serde(default)]
    weight_cosine: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Task {
    #[default]
    Classification,
    Regression,
}

/// Predictions of classes: of the test set, and of whatever else was evaluated.
pub struct Sets {
    /// The test set.
    pub id: LabelledPredictions<'static>,
    /// Out-of-distribution sets by name, in the order of the specification.
    pub ood: Vec<(String, Predictions<'static>)>,
    /// What temperatures are fitted to.
    pub held_out: Option<LabelledPredictions<'static>>,
    /// The test set after corruptions.
    pub shift: Vec<(ShiftName, LabelledPredictions<'static>)>,
    /// Mean cosine of two members' weights.
    pub weight_cosine: Option<f64>,
}

/// Every score of the predictions in `file`, by name.
///
/// # Errors
///
/// When the file is cut, of another format, or holds what cannot be predictions.
pub fn scores(file: &[u8]) -> anyhow::Result<Vec<(String, f64)>> {
    let (metadata, tensors) = open(file)?;
    let report = match metadata.task {
        Task::Regression => regression(&tensors, &metadata.ood)?,
        Task::Classification => {
            let Sets { id, ood, held_out, shift, weight_cosine } = classification(&tensors, metadata)?;
            let ood: Vec<_> = ood.iter().map(|(name, predictions)| (name.as_str(), predictions)).collect();
            let shift: Vec<_> = shift
                .iter()
                .map(|(name, predictions)| ShiftedSet { name: name.clone(), predictions })
                .collect();
            let evaluation = Evaluation::new(&id)
                .with_ood(&ood)
                .with_held_out(held_out.as_ref())
                .with_shift(&shift)
                .with_weight_cosine(weight_cosine);
            ClassificationReport::compute(&evaluation)?.into_iter().collect()
        }
    };
    Ok(report.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}

/// The predictions of classes in `file`.
///
/// # Errors
///
/// As [`scores`], and when numbers are predicted in it.
pub fn sets(file: &[u8]) -> anyhow::Result<Sets> {
    let (metadata, tensors) = open(file)?;
    ensure!(metadata.task == Task::Classification, "it predicts numbers, and only classes are read here");
    classification(&tensors, metadata)
}

fn open(file: &[u8]) -> anyhow::Result<(Metadata, SafeTensors<'_>)> {
    let (_, header) = SafeTensors::read_metadata(file).context("not a safetensors file")?;
    let entry = header.metadata().as_ref().and_then(|entries| entries.get("predictions"));
    let metadata: Metadata = serde_json::from_str(entry.context("no `predictions` in the metadata")?)?;
    let format = metadata.format;
    ensure!(FORMATS.contains(&format), "format {format} is none of {FORMATS:?}, which this build reads");
    Ok((metadata, SafeTensors::deserialize(file)?))
}

fn classification(tensors: &SafeTensors<'_>, metadata: Metadata) -> anyhow::Result<Sets> {
    let id = labelled(tensors, "id")?;
    let mut ood = Vec::new();
    for name in metadata.ood {
        let predictions = set(tensors, &format!("ood/{name}"))?;
        ood.push((name, predictions));
    }
    let has_held_out = tensors.tensor("held_out/probabilities").is_ok();
    let held_out = if has_held_out { Some(labelled(tensors, "held_out")?) } else { None };
    let mut shift = Vec::new();
    for name in metadata.shift {
        shift.push((name.parse::<ShiftName>()?, shifted(tensors, &name, &id)?));
    }
    Ok(Sets { id, ood, held_out, shift, weight_cosine: metadata.weight_cosine })
}

/// Probabilities, logits if there are any, and ids.
fn set(tensors: &SafeTensors<'_>, prefix: &str) -> anyhow::Result<Predictions<'static>> {
    let (shape, probabilities) = floats(tensors, &format!("{prefix}/probabilities"))?;
    let ids = integers(tensors, &format!("{prefix}/ids"))?;
    let ids = ids.into_iter().map(u64::try_from).collect::<Result<Vec<_>, _>>()?;
    let predictions = Predictions::new(shape, probabilities, ids)?;
    let name = format!("{prefix}/logits");
    if tensors.tensor(&name).is_err() {
        return Ok(predictions);
    }
    let (found, logits) = floats(tensors, &name)?;
    ensure!(found == shape, "`{name}` has shape {found}, the probabilities {shape}");
    Ok(predictions.with_logits(logits)?)
}

fn labelled(tensors: &SafeTensors<'_>, prefix: &str) -> anyhow::Result<LabelledPredictions<'static>> {
    let labels = integers(tensors, &format!("{prefix}/labels"))?;
    let labels = labels.into_iter().map(u32::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(set(tensors, prefix)?.with_labels(labels)?)
}

/// Predictions of the test images under corruption, which are the first of the test images, in the same order.
fn shifted(
    tensors: &SafeTensors<'_>,
    name: &str,
    id: &LabelledPredictions<'_>,
) -> anyhow::Result<LabelledPredictions<'static>> {
    let (shape, probabilities) = floats(tensors, &format!("shift/{name}/probabilities"))?;
    let (ids, labels) = (id.predictions().ids(), id.labels());
    let first = shape.samples.min(ids.len());
    Ok(Predictions::new(shape, probabilities, ids[..first].to_vec())?
        .with_labels(labels[..first].to_vec())?)
}

/// Means, variances and targets of a set.
struct Gaussians([Vec<f64>; 3]);

impl Gaussians {
    fn read(tensors: &SafeTensors<'_>, prefix: &str) -> anyhow::Result<Self> {
        let [means, variances] =
            ["means", "variances"].map(|name| matrix(tensors, &format!("{prefix}/{name}")));
        let (width, features) = matrix(tensors, &format!("{prefix}/features"))?;
        // The target is the last feature.
        let targets = features.chunks_exact(width.max(1)).filter_map(|row| row.last().copied()).collect();
        Ok(Self([means?.1, variances?.1, targets]))
    }

    fn predictions(&self) -> anyhow::Result<GaussianPredictions<'_>> {
        let Self([means, variances, targets]) = self;
        Ok(GaussianPredictions::new(means, variances, targets)?)
    }
}

fn regression(tensors: &SafeTensors<'_>, ood: &[String]) -> anyhow::Result<Vec<(metrics::MetricName, f64)>> {
    let test = Gaussians::read(tensors, "id")?;
    let far = ood.iter().map(|name| Gaussians::read(tensors, &format!("ood/{name}")));
    let far = far.collect::<anyhow::Result<Vec<_>>>()?;
    let mut sets = Vec::new();
    for (name, set) in ood.iter().zip(&far) {
        sets.push((name.as_str(), set.predictions()?));
    }
    Ok(regression_report(&test.predictions()?, &sets)?)
}

/// Values of a tensor of two axes, and the length of a row.
fn matrix(tensors: &SafeTensors<'_>, name: &str) -> anyhow::Result<(usize, Vec<f64>)> {
    let tensor = tensors.tensor(name).with_context(|| format!("no tensor `{name}`"))?;
    let &[_, width] = tensor.shape() else {
        anyhow::bail!("`{name}` has {} axes, not 2", tensor.shape().len());
    };
    Ok((width, float_values(&tensor, name)?.into_iter().map(f64::from).collect()))
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> anyhow::Result<(Shape, Vec<f32>)> {
    let tensor = tensors.tensor(name).with_context(|| format!("no tensor `{name}`"))?;
    let &[members, samples, classes] = tensor.shape() else {
        anyhow::bail!("`{name}` has {} axes, not 3", tensor.shape().len());
    };
    Ok((Shape { members, samples, classes }, float_values(&tensor, name)?))
}

fn float_values(tensor: &safetensors::tensor::TensorView<'_>, name: &str) -> anyhow::Result<Vec<f32>> {
    ensure!(tensor.dtype() == Dtype::F32, "`{name}` is not of 32-bit floats");
    Ok(tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

fn integers(tensors: &SafeTensors<'_>, name: &str) -> anyhow::Result<Vec<i64>> {
    let tensor = tensors.tensor(name).with_context(|| format!("no tensor `{name}`"))?;
    ensure!(tensor.dtype() == Dtype::I64, "`{name}` is not of 64-bit integers");
    Ok(tensor.data().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect())
}
