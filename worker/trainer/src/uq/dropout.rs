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

#[cfg(test)]
mod tests {
    use common::spec::{DropoutSettings, ModelSpec, TrainMethod, WideResNetVariant};
    use tch::{Device, Kind, no_grad};

    use super::*;
    use crate::model::{Mode, Network};

    fn build(settings: DropoutSettings) -> Network {
        let spec = ModelSpec::WideResNet { depth: 10, widen: 1, variant: WideResNetVariant::Authors };
        Network::new(&spec, &TrainMethod::Dropout(settings), [1, 8, 8], 4, 3, Device::Cpu).unwrap()
    }

    fn improved(rate: f64) -> DropoutSettings {
        DropoutSettings { rate, place: DropoutPlace::EveryLayer, unit: DropoutUnit::Channel, repetitions: 4 }
    }

    fn images() -> Tensor {
        (Tensor::arange(6 * 64, (Kind::Float, Device::Cpu)) * 1.7).sin().view([6, 1, 8, 8])
    }

    #[test]
    fn a_unit_of_channels_zeroes_whole_channels_and_keeps_the_mean() {
        let plan = DropoutPlan { rate: 0.25, place: DropoutPlace::Residual, unit: DropoutUnit::Channel };
        let pass = Pass {
            vectors: &[],
            statistics: crate::model::norm::Statistics::Running,
            dropout: Dropout::Drawn,
        };
        let x = Tensor::ones([100, 100, 2, 3], (Kind::Double, Device::Cpu));
        let y = plan.in_residual(x.shallow_clone(), &pass);
        let channels = y.flatten(2, 3);
        assert_eq!(channels.amin([2i64].as_slice(), false), channels.amax([2i64].as_slice(), false));
        let dropped = channels.select(2, 0).eq(0.0).to_kind(Kind::Double).mean(None).double_value(&[]);
        // Five standard errors of 10,000 draws.
        assert!((dropped - 0.25).abs() < 0.022, "{dropped} dropped");
        assert!((y.max().double_value(&[]) - 1.0 / 0.75).abs() < 1e-12);
        assert_eq!(plan.behind_layer(x.shallow_clone(), &pass), x);
    }

    #[test]
    fn a_training_batch_holds_each_image_as_often_as_asked_and_no_mask_twice() {
        let network = build(improved(0.3));
        let labels = Tensor::arange(6, (Kind::Int64, Device::Cpu)).remainder(4);
        let (x, y) = network.training_batch(&images(), &labels);
        assert_eq!(x, images().repeat([4, 1, 1, 1]));
        assert_eq!(y, labels.repeat([4]));
        let rows = no_grad(|| network.forward(&x, Mode::Train)).logits.unflatten(0, [4, -1]);
        assert_ne!(rows.get(0), rows.get(1));
        for repetitions in [0, 1] {
            let once = build(DropoutSettings { repetitions, ..improved(0.3) });
            assert_eq!(once.training_batch(&images(), &labels).0, images());
        }
    }
}
