//! What an evaluation has to be scored: the test set, and whatever else was predicted.

use crate::predictions::{LabelledPredictions, Predictions};
use crate::shift::ShiftedSet;

/// All predictions of one evaluation, and what else belongs in its report. What is not given is left out.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation<'a> {
    pub(crate) id: &'a LabelledPredictions<'a>,
    pub(crate) ood: &'a [(&'a str, &'a Predictions<'a>)],
    pub(crate) held_out: Option<&'a LabelledPredictions<'a>>,
    pub(crate) shift: &'a [ShiftedSet<'a>],
    pub(crate) weight_cosine: Option<f64>,
}

impl<'a> Evaluation<'a> {
    /// An evaluation of the in-distribution test set alone.
    pub fn new(id: &'a LabelledPredictions<'a>) -> Self {
        Self { id, ood: &[], held_out: None, shift: &[], weight_cosine: None }
    }

    /// Adds out-of-distribution sets, by name: detection, with and without logits.
    #[must_use]
    pub fn with_ood(self, ood: &'a [(&'a str, &'a Predictions<'a>)]) -> Self {
        Self { ood, ..self }
    }

    /// Adds predictions of samples that were neither trained nor tested on: temperature scaling.
    #[must_use]
    pub fn with_held_out(self, held_out: impl Into<Option<&'a LabelledPredictions<'a>>>) -> Self {
        Self { held_out: held_out.into(), ..self }
    }

    /// Adds the test set under corruptions; one member is enough, the mean over the others.
    #[must_use]
    pub fn with_shift(self, shift: &'a [ShiftedSet<'a>]) -> Self {
        Self { shift, ..self }
    }

    /// Adds the mean pairwise cosine of the members' weights, which no prediction shows.
    ///
    /// See [`mean_pairwise_cosine`](crate::mean_pairwise_cosine).
    #[must_use]
    pub fn with_weight_cosine(self, cosine: impl Into<Option<f64>>) -> Self {
        Self { weight_cosine: cosine.into(), ..self }
    }
}
