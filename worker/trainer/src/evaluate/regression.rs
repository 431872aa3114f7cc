//! Evaluations of networks that predict numbers: what is stored of them and how they are scored.
//!
//! | tensor | shape | meaning |
//! |---|---|---|
//! | `id/means`, `id/variances` | `[J, N]` f32 | of each member's Gaussian, in the units of the target |
//! | `id/features` | `[N, C]` f32 | the examples, the target last |
//! | `ood/NAME/…` | the same | for each out-of-distribution set |
//!
//! The metadata entry is that of classifications, with `task` = `regression`.

use std::collections::BTreeMap;

use common::spec::DataSpec;
use metrics::{GaussianPredictions, regression_report};
use tch::Tensor;

use super::sets::{Predicted, SetKind};
use crate::data;
use crate::error::TrainerError;
use crate::storage::{HostTensor, StorageError};
use crate::train::LOG_VARIANCE_BOUND;

/// Predictions of a set, as they are stored.
pub struct Gaussians {
    kind: SetKind,
    members: usize,
    means: Vec<f32>,
    variances: Vec<f32>,
    features: Vec<f32>,
}

impl Gaussians {
    /// What the outputs of the networks for `set` mean.
    pub fn of(set: &Predicted, data: &DataSpec) -> Self {
        let (mean, std) = data::target_moments(data);
        let outputs = set.logits.as_deref().unwrap_or_default();
        let rows = || outputs.chunks_exact(2).map(|row| [f64::from(row[0]), f64::from(row[1])]);
        let variance = |log: f64| std * std * log.clamp(-LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND).exp();
        #[expect(clippy::cast_possible_truncation, reason = "predictions are kept in single precision")]
        let narrow = |value: f64| value as f32;
        Self {
            kind: set.kind.clone(),
            members: set.shape.members,
            means: rows().map(|[output, _]| narrow(mean + std * output)).collect(),
            variances: rows().map(|[_, log]| narrow(variance(log))).collect(),
            features: set.features.clone(),
        }
    }

    fn samples(&self) -> usize {
        self.means.len() / self.members.max(1)
    }

    /// The set's tensors in the artifact.
    pub fn tensors(&self) -> Result<Vec<HostTensor>, StorageError> {
        let [members, samples] = [self.members, self.samples()].map(|axis| axis as i64);
        let named = [
            ("means", &self.means, [members, samples]),
            ("variances", &self.variances, [members, samples]),
            ("features", &self.features, [samples, -1]),
        ];
        let tensor = |(name, values, shape): (&str, &Vec<f32>, [i64; 2])| {
            HostTensor::from_host(format!("{}/{name}", self.kind), Tensor::from_slice(values).view(shape))
        };
        named.into_iter().map(tensor).collect()
    }
}

/// Scores of an evaluation by name. The test set comes first.
///
/// # Errors
///
/// [`TrainerError::Gaussian`] when the predictions are none.
pub fn scores(sets: &[Gaussians]) -> Result<BTreeMap<String, f64>, TrainerError> {
    let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<f64>>();
    let columns: Vec<[Vec<f64>; 3]> = sets
        .iter()
        .map(|set| {
            let width = set.features.len() / set.samples().max(1);
            let targets: Vec<f32> =
                set.features.chunks_exact(width.max(1)).map(|row| row[width - 1]).collect();
            [wide(&set.means), wide(&set.variances), wide(&targets)]
        })
        .collect();
    let mut predictions = Vec::new();
    for [means, variances, targets] in &columns {
        predictions.push(GaussianPredictions::new(means, variances, targets)?);
    }
    let far: Vec<_> = sets
        .iter()
        .zip(&predictions)
        .filter_map(|(set, predictions)| match &set.kind {
            SetKind::OutOfDistribution(name) => Some((name.as_str(), *predictions)),
            SetKind::Test | SetKind::HeldOut | SetKind::Shifted { .. } => None,
        })
        .collect();
    let report = regression_report(&predictions[0], &far)?;
    Ok(report.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}
