//! Scores from a predictions file, without the trainer.
//!
//! The file's layout is described where it is written, in the trainer's `evaluate::artifact`.

use anyhow::{Context as _, ensure};
use metrics::{
    ClassificationReport, Evaluation, LabelledPredictions, Predictions, Shape, ShiftName, ShiftedSet,
};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

/// Versions of the layout that this build reads. The second adds logits, held-out predictions and corrupted sets.
const FORMATS: std::ops::RangeInclusive<u32> = 1..=2;

#[derive(Deserialize)]
struct Metadata {
    format: u32,
    ood: Vec<String>,
    #[serde(default)]
    shift: Vec<String>,
    #[serde(default)]
    weight_cosine: Option<f64>,
}

/// Predictions on the test set, and on each out-of-distribution set.
pub struct Sets {
    /// The test set.
    pub id: LabelledPredictions<'static>,
    /// By name, in the order of the specification.
    pub ood: Vec<(String, Predictions<'static>)>,
}

/// Every score of the predictions in `file`, by name.
///
/// # Errors
///
/// When the file is cut, of another format, or holds what cannot be probabilities.
pub fn scores(file: &[u8]) -> anyhow::Result<Vec<(String, f64)>> {
    let (metadata, tensors) = open(file)?;
    let Sets { id, ood } = clean(&metadata, &tensors)?;
    let ood: Vec<_> = ood.iter().map(|(name, predictions)| (name.as_str(), predictions)).collect();
    let has_held_out = tensors.tensor("held_out/probabilities").is_ok();
    let held_out = if has_held_out { Some(labelled(&tensors, "held_out")?) } else { None };
    let mut corrupted = Vec::new();
    for name in &metadata.shift {
        corrupted.push((name.parse::<ShiftName>()?, shifted(&tensors, name, &id)?));
    }
    let shift: Vec<_> =
        corrupted.iter().map(|(name, predictions)| ShiftedSet { name: name.clone(), predictions }).collect();

    let evaluation = Evaluation::new(&id)
        .with_ood(&ood)
        .with_held_out(held_out.as_ref())
        .with_shift(&shift)
        .with_weight_cosine(metadata.weight_cosine);
    let report = ClassificationReport::compute(&evaluation)?;
    Ok(report.entries().iter().map(|(name, value)| (name.to_string(), *value)).collect())
}

/// The predictions in `file`, without those on held-out or corrupted images.
///
/// # Errors
///
/// As [`scores`].
pub fn sets(file: &[u8]) -> anyhow::Result<Sets> {
    let (metadata, tensors) = open(file)?;
    clean(&metadata, &tensors)
}

fn open(file: &[u8]) -> anyhow::Result<(Metadata, SafeTensors<'_>)> {
    let (_, header) = SafeTensors::read_metadata(file).context("not a safetensors file")?;
    let entry = header.metadata().as_ref().and_then(|entries| entries.get("predictions"));
    let metadata: Metadata = serde_json::from_str(entry.context("no `predictions` in the metadata")?)?;
    let format = metadata.format;
    ensure!(FORMATS.contains(&format), "format {format} is none of {FORMATS:?}, which this build reads");
    Ok((metadata, SafeTensors::deserialize(file)?))
}

fn clean(metadata: &Metadata, tensors: &SafeTensors<'_>) -> anyhow::Result<Sets> {
    let id = labelled(tensors, "id")?;
    let mut ood = Vec::new();
    for name in &metadata.ood {
        ood.push((name.clone(), set(tensors, &format!("ood/{name}"))?));
    }
    Ok(Sets { id, ood })
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

/// Predictions of the test images under corruption, which are the test images in the same order.
fn shifted<'a>(
    tensors: &SafeTensors<'_>,
    name: &str,
    id: &'a LabelledPredictions<'_>,
) -> anyhow::Result<LabelledPredictions<'a>> {
    let (shape, probabilities) = floats(tensors, &format!("shift/{name}/probabilities"))?;
    Ok(Predictions::new(shape, probabilities, id.predictions().ids())?.with_labels(id.labels())?)
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> anyhow::Result<(Shape, Vec<f32>)> {
    let tensor = tensors.tensor(name).with_context(|| format!("no tensor `{name}`"))?;
    ensure!(tensor.dtype() == Dtype::F32, "`{name}` is not of 32-bit floats");
    let &[members, samples, classes] = tensor.shape() else {
        anyhow::bail!("`{name}` has {} axes, not 3", tensor.shape().len());
    };
    let values = tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Ok((Shape { members, samples, classes }, values))
}

fn integers(tensors: &SafeTensors<'_>, name: &str) -> anyhow::Result<Vec<i64>> {
    let tensor = tensors.tensor(name).with_context(|| format!("no tensor `{name}`"))?;
    ensure!(tensor.dtype() == Dtype::I64, "`{name}` is not of 64-bit integers");
    Ok(tensor.data().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::tensor::TensorView;

    use super::*;

    fn file(ood: &[&str], labels: &[i64]) -> Vec<u8> {
        let probabilities: Vec<u8> =
            [0.9_f32, 0.1, 0.2, 0.8, 0.7, 0.3, 0.4, 0.6].iter().flat_map(|p| p.to_le_bytes()).collect();
        let labels: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        let ids: Vec<u8> = [0_i64, 1].iter().flat_map(|id| id.to_le_bytes()).collect();
        let view = |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
        let mut tensors = vec![
            ("id/probabilities".to_owned(), view(Dtype::F32, &[2, 2, 2], &probabilities)),
            ("id/labels".to_owned(), view(Dtype::I64, &[2], &labels)),
            ("id/ids".to_owned(), view(Dtype::I64, &[2], &ids)),
        ];
        for name in ood {
            tensors.push((format!("ood/{name}/probabilities"), view(Dtype::F32, &[2, 2, 2], &probabilities)));
            tensors.push((format!("ood/{name}/ids"), view(Dtype::I64, &[2], &ids)));
        }
        let metadata = serde_json::json!({ "format": 1, "ood": ood }).to_string();
        let metadata = HashMap::from([("predictions".to_owned(), metadata)]);
        safetensors::serialize(tensors, Some(metadata)).unwrap()
    }

    fn value(scores: &[(String, f64)], name: &str) -> f64 {
        scores.iter().find(|(other, _)| other == name).unwrap().1
    }

    #[test]
    fn scores_are_those_of_the_mean_over_members() {
        let scores = scores(&file(&["held-out"], &[0, 0])).unwrap();
        assert_eq!(value(&scores, "accuracy"), 0.5);
        // Means are (0.8, 0.2) and (0.3, 0.7); both labels are 0.
        let expected = -(0.8_f64.ln() + 0.3_f64.ln()) / 2.0;
        // 1e-7: the probabilities are stored in 32 bits.
        assert!((value(&scores, "nll") - expected).abs() < 1e-7);
        assert_eq!(value(&scores, "auroc"), 0.5);
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_refused() {
        let file = file(&[], &[0, 1]);
        for end in 0..file.len() {
            assert!(scores(&file[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn labels_beyond_the_classes_are_refused() {
        assert!(scores(&file(&[], &[0, 2])).is_err());
        assert!(scores(&file(&[], &[0, -1])).is_err());
    }

    /// A file of the second format: logits, held-out predictions and one corrupted set, all of two images.
    fn second_format(shift: &str) -> Vec<u8> {
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let sure = bytes(&[0.9, 0.1, 0.2, 0.8]);
        let logits = bytes(&[0.9_f32.ln(), 0.1_f32.ln(), 0.2_f32.ln(), 0.8_f32.ln()]);
        let unsure = bytes(&[0.4, 0.6, 0.4, 0.6]);
        let far = bytes(&[-5.0, -5.5, -5.0, -6.0]);
        let integers =
            |values: [i64; 2]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (ids, labels, others) = (integers([0, 1]), integers([0, 1]), integers([0, 0]));
        let float = |bytes| TensorView::new(Dtype::F32, vec![1, 2, 2], bytes).unwrap();
        let integer = |bytes| TensorView::new(Dtype::I64, vec![2], bytes).unwrap();
        let tensors = vec![
            ("id/probabilities".to_owned(), float(&sure)),
            ("id/logits".to_owned(), float(&logits)),
            ("id/labels".to_owned(), integer(&labels)),
            ("id/ids".to_owned(), integer(&ids)),
            ("ood/svhn/probabilities".to_owned(), float(&unsure)),
            ("ood/svhn/logits".to_owned(), float(&far)),
            ("ood/svhn/ids".to_owned(), integer(&ids)),
            ("held_out/probabilities".to_owned(), float(&sure)),
            ("held_out/labels".to_owned(), integer(&others)),
            ("held_out/ids".to_owned(), integer(&ids)),
            (format!("shift/{shift}/probabilities"), float(&unsure)),
        ];
        let metadata =
            serde_json::json!({ "format": 2, "ood": ["svhn"], "shift": [shift], "weight_cosine": 0.25 });
        let metadata = HashMap::from([("predictions".to_owned(), metadata.to_string())]);
        safetensors::serialize(tensors, Some(metadata)).unwrap()
    }

    #[test]
    fn the_second_format_has_logits_held_out_predictions_and_corrupted_sets() {
        let scores = scores(&second_format("fog.3")).unwrap();
        assert_eq!(value(&scores, "accuracy"), 1.0);
        assert_eq!(value(&scores, "auroc_energy"), 1.0);
        assert_eq!(value(&scores, "accuracy/fog.3"), 0.5);
        assert_eq!(value(&scores, "shifted_sets"), 1.0);
        assert_eq!(value(&scores, "weight_cosine"), 0.25);
        // One of two held-out images is wrong: the network was too sure.
        assert!(value(&scores, "temperature") > 1.0);
        assert!(scores.iter().any(|(name, _)| name.starts_with("ca_partial/1.")));
    }

    #[test]
    fn a_corrupted_set_without_a_severity_is_refused() {
        let error = super::scores(&second_format("fog")).unwrap_err().to_string();
        assert!(error.starts_with("`fog` does not name a corrupted set"), "{error}");
    }

    #[test]
    fn a_format_of_the_future_is_refused() {
        let file = file(&[], &[0, 1]);
        // A digit of the header: offsets stay.
        let text = b"\\\"format\\\":1";
        let place = file.windows(text.len()).position(|window| window == text).unwrap() + text.len() - 1;
        let mut newer = file.clone();
        newer[place] = b'3';
        let error = super::scores(&newer).unwrap_err().to_string();
        assert!(error.starts_with("format 3 is none of 1..=2"), "{error}");
    }
}
