//! Dropout: where it stands, what is zeroed together, and training batches that hold each image several times.
//!
//! Sources: Gal, Ghahramani, *Dropout as a Bayesian Approximation*, ICML 2016; for the places besides the residual one,
//! `wide_resnet_dropout.py` of Uncertainty Baselines, commit 163351d.

use common::spec::{DropoutPlace, DropoutUnit};
use tch::Tensor;

use crate::model::plan::DropoutPlan;
use crate::model::{Dropout, Pass};

impl DropoutPlan {
    /// Dropout between the two convolutions of a residual block, in front of the second normalisation.
    pub(crate) fn in_residual(self, x: Tensor, pass: &Pass<'_>) -> Tensor {
        match self.place {
            DropoutPlace::Residual => self.drop(x, pass),
            DropoutPlace::EveryLayer => x,
        }
    }

    /// Dropout behind a layer of [`DropoutPlace::EveryLayer`].
    pub(crate) fn behind_layer(self, x: Tensor, pass: &Pass<'_>) -> Tensor {
        match self.place {
            DropoutPlace::Residual => x,
            DropoutPlace::EveryLayer => self.drop(x, pass),
        }
    }

    fn drop(self, x: Tensor, pass: &Pass<'_>) -> Tensor {
        match (pass.dropout, self.unit) {
            (Dropout::Off, _) => x,
            (Dropout::Drawn, _) if self.rate == 0.0 => x,
            (Dropout::Drawn, DropoutUnit::Element) => x.dropout(self.rate, true),
            (Dropout::Drawn, DropoutUnit::Channel) => x.feature_dropout(self.rate, true),
        }
    }
}

/// A batch with each image `times` times, the whole batch over and over, and its labels.
///
/// Shapes: `x` `[B, ..]`, `y` `[B]`; returns `[R·B, ..]`, `[R·B]`.
pub(crate) fn repeat_batch(x: &Tensor, y: &Tensor, times: i64) -> (Tensor, Tensor) {
    if times == 1 {
        return (x.shallow_clone(), y.shallow_clone());
    }
    let mut tiles = vec![1; x.dim()];
    tiles[0] = times;
    (x.repeat(&tiles[..]), y.repeat([times]))
}
