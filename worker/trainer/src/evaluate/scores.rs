//! From stored predictions to named scores: the very numbers that are stored are those that are scored.

use std::collections::BTreeMap;

use metrics::{ClassificationReport, Evaluation, LabelledPredictions, Predictions, ShiftName, ShiftedSet};

use super::sets::{Predicted, SetKind};
use crate::error::TrainerError;

/// Scores of an evaluation by name. The test set comes first.
///
/// # Errors
///
/// [`TrainerError::Predictions`] and [`TrainerError::Report`] when the predictions are none.
pub fn of(sets: &[Predicted], weight_cosine: Option<f64>) -> Result<BTreeMap<String, f64>, TrainerError> {
    let (mut test, mut held_out) = (None, None);
    let (mut ood, mut shifted) = (Vec::new(), Vec::new());
    for set in sets {
        match &set.kind {
            SetKind::Test => test = Some(labelled(set)?),
            SetKind::HeldOut => held_out = Some(labelled(set)?),
            SetKind::OutOfDistribution(name) => ood.push((name.as_str(), predictions(set)?)),
            SetKind::Shifted { corruption, severity } => {
                shifted.push((
                    ShiftName::new(corruption, u8::try_from(*severity).unwrap_or(u8::MAX))?,
                    labelled(set)?,
                ));
            }
        }
    }
    let test = test.expect("every evaluation predicts the test set");
    let ood: Vec<_> = ood.iter().map(|(name, predictions)| (*name, predictions)).collect();
    let shift: Vec<_> =
        shifted.iter().map(|(name, predictions)| ShiftedSet { name: name.clone(), predictions }).collect();
    let evaluation = Evaluation::new(&test)
        .with_ood(&ood)
        .with_held_out(held_out.as_ref())
        .with_shift(&shift)
        .with_weight_cosine(weight_cosine);
    let report = ClassificationReport::compute(&evaluation)?;
    Ok(report.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}

fn predictions(set: &Predicted) -> Result<Predictions<'_>, TrainerError> {
    let predictions = Predictions::new(set.shape, set.probabilities.as_slice(), set.ids.as_slice())?;
    Ok(match &set.logits {
        Some(logits) => predictions.with_logits(logits.as_slice())?,
        None => predictions,
    })
}

/// Predictions of a set, with the labels that they should have.
///
/// # Errors
///
/// [`TrainerError::Predictions`] when the predictions are none.
pub fn labelled(set: &Predicted) -> Result<LabelledPredictions<'_>, TrainerError> {
    let label = |&label: &i64| u32::try_from(label).unwrap_or(u32::MAX);
    Ok(predictions(set)?.with_labels(set.labels.iter().map(label).collect::<Vec<u32>>())?)
}
