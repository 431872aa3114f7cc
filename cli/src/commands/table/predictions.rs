//! Scores from a predictions file, without the trainer.
//!
//! The file's layout is described where it is written, in the trainer's `evaluate::artifact`.

use anyhow::{Context as _, ensure};
use metrics::{ClassificationReport, Evaluation, LabelledPredictions, Predictions, Shape};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

/// Version of the layout that this build reads.
const FORMAT: u32 = 1;

#[derive(Deserialize)]
struct Metadata {
    format: u32,
    ood: Vec<String>,
}

/// Every score of the predictions in `file`, by name.
///
/// # Errors
///
/// When the file is cut, of another format, or holds what cannot be probabilities.
pub fn scores(file: &[u8]) -> anyhow::Result<Vec<(String, f64)>> {
    let Sets { id, ood } = sets(file)?;
    let ood: Vec<_> = ood.iter().map(|(name, predictions)| (name.as_str(), predictions)).collect();
    let report = ClassificationReport::compute(&Evaluation::new(&id).with_ood(&ood))?;
    Ok(report.entries().iter().map(|(name, value)| (name.to_string(), *value)).collect())
}

/// Predictions on the test set, and on each out-of-distribution set.
pub struct Sets {
    /// The test set.
    pub id: LabelledPredictions<'static>,
    /// By name, in the order of the specification.
    pub ood: Vec<(String, Predictions<'static>)>,
}

/// The predictions in `file`.
///
/// # Errors
///
/// As [`scores`].
pub fn sets(file: &[u8]) -> anyhow::Result<Sets> {
    let (_, header) = SafeTensors::read_metadata(file).context("not a safetensors file")?;
    let entry = header.metadata().as_ref().and_then(|entries| entries.get("predictions"));
    let metadata: Metadata = serde_json::from_str(entry.context("no `predictions` in the metadata")?)?;
    ensure!(metadata.format == FORMAT, "format {} is not {FORMAT}, which this build reads", metadata.format);
    let tensors = SafeTensors::deserialize(file)?;

    let labels =
        integers(&tensors, "id/labels")?.into_iter().map(u32::try_from).collect::<Result<Vec<_>, _>>()?;
    let id = set(&tensors, "id")?.with_labels(labels)?;
    let mut ood = Vec::new();
    for name in metadata.ood {
        let predictions = set(&tensors, &format!("ood/{name}"))?;
        ood.push((name, predictions));
    }
    Ok(Sets { id, ood })
}

fn set(tensors: &SafeTensors<'_>, prefix: &str) -> anyhow::Result<Predictions<'static>> {
    let name = format!("{prefix}/probabilities");
    let tensor = tensors.tensor(&name).with_context(|| format!("no tensor `{name}`"))?;
    ensure!(tensor.dtype() == Dtype::F32, "`{name}` is not of 32-bit floats");
    let &[members, samples, classes] = tensor.shape() else {
        anyhow::bail!("`{name}` has {} axes, not 3", tensor.shape().len());
    };
    let bytes = tensor.data().as_chunks().0;
    let probabilities: Vec<f32> = bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let ids = integers(tensors, &format!("{prefix}/ids"))?;
    let ids = ids.into_iter().map(u64::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(Predictions::new(Shape { members, samples, classes }, probabilities, ids)?)
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
}
