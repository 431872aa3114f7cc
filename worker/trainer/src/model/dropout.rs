//! Where a method's dropout may stand in a network, and what it does there.

use common::spec::{DropoutPlace, DropoutUnit};
use tch::Tensor;

use super::plan::DropoutPlan;
use super::{Dropout, Pass};

impl DropoutPlan {
    /// Drops from `x`, at a site of the network that only methods with dropout at `site` use.
    ///
    /// Shapes: `x` is `[N, C, ..]`, and so is what is returned.
    pub(crate) fn apply(&self, x: &Tensor, site: DropoutPlace, pass: &Pass<'_>) -> Tensor {
        if self.rate == 0.0 || self.place != site || pass.dropout == Dropout::Off {
            return x.shallow_clone();
        }
        match self.unit {
            DropoutUnit::Element => x.dropout(self.rate, true),
            DropoutUnit::Channel => x.feature_dropout(self.rate, true),
        }
    }
}
