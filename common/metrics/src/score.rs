//! Which per-sample quantity serves as out-of-distribution score.
//!
//! Every score is oriented so that a higher value means "more likely out of distribution".

use std::borrow::Cow;

use crate::uncertainty::Uncertainty;

/// An out-of-distribution score of an ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OodScore {
    /// Minus the maximum probability of the ensemble mean; the default of every table.
    MaxProbability,
    /// Entropy of the ensemble mean.
    PredictiveEntropy,
    /// Mean entropy of the members.
    ExpectedEntropy,
    /// Predictive minus expected entropy.
    MutualInformation,
    /// Share of votes against the modal class.
    VariationRatio,
    /// Variance over members, averaged over classes.
    MemberVariance,
    /// Energy of the members' mean logits.
    Energy,
    /// Minus the greatest of the members' mean logits.
    MaxLogit,
}

impl OodScore {
    /// Every score.
    pub const ALL: [Self; 8] = [
        Self::MaxProbability,
        Self::PredictiveEntropy,
        Self::ExpectedEntropy,
        Self::MutualInformation,
        Self::VariationRatio,
        Self::MemberVariance,
        Self::Energy,
        Self::MaxLogit,
    ];

    /// The score of each sample, `[N]`; `None` when it needs logits and there are none.
    pub fn values(self, uncertainty: &Uncertainty) -> Option<Cow<'_, [f64]>> {
        Some(match self {
            Self::MaxProbability => uncertainty.confidence.iter().map(|p| -p).collect(),
            Self::PredictiveEntropy => Cow::Borrowed(&uncertainty.predictive_entropy),
            Self::ExpectedEntropy => Cow::Borrowed(&uncertainty.expected_entropy),
            Self::MutualInformation => Cow::Borrowed(&uncertainty.mutual_information),
            Self::VariationRatio => Cow::Borrowed(&uncertainty.variation_ratio),
            Self::MemberVariance => Cow::Borrowed(&uncertainty.member_variance),
            Self::Energy => Cow::Borrowed(uncertainty.energy.as_ref()?),
            Self::MaxLogit => uncertainty.max_logit.as_ref()?.iter().map(|logit| -logit).collect(),
        })
    }

    /// Whether the score is 0 for every sample of a single network, which separates nothing.
    pub fn needs_members(self) -> bool {
        match self {
            Self::MaxProbability
            | Self::PredictiveEntropy
            | Self::ExpectedEntropy
            | Self::Energy
            | Self::MaxLogit => false,
            Self::MutualInformation | Self::VariationRatio | Self::MemberVariance => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predictions::{Predictions, Shape};

    #[test]
    fn every_score_is_higher_where_the_ensemble_is_less_sure() {
        // Sample 0: both members sure and agreed. Sample 1: unsure and disagreed.
        let shape = Shape { members: 2, samples: 2, classes: 2 };
        let values = vec![0.9, 0.1, 0.7, 0.3, /* member 1 */ 0.9, 0.1, 0.4, 0.6];
        let logits = vec![2.0, 0.0, 1.0, 0.0, /* member 1 */ 2.0, 0.0, 0.0, 1.0];
        let predictions = Predictions::new(shape, values, vec![0, 1]).unwrap();
        let uncertainty = Uncertainty::new(&predictions.with_logits(logits).unwrap());
        for score in OodScore::ALL {
            let values = score.values(&uncertainty).unwrap();
            assert!(values[1] > values[0], "{score:?}: {values:?}");
        }
    }
}
