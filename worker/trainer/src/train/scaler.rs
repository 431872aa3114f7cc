//! Loss scaling of half precision, as `torch.amp.GradScaler` does it: gradients that are too small for the range of `fp16` are
//! made larger by a factor that is found by trying.
//!
//! Unlike PyTorch's, nothing here waits for the device: whether a step is skipped is decided there.

use tch::{Device, Kind, Tensor};

/// PyTorch's defaults.
const INITIAL: f64 = 65_536.0;
const GROWTH: f64 = 2.0;
const BACKOFF: f64 = 0.5;
/// Steps without a skip after which the scale grows.
const INTERVAL: i64 = 2_000;

/// Below it, a gradient that is not finite is no matter of scale. PyTorch has no such limit, and skips for ever.
const LEAST: f64 = 1.0 / 1_024.0;

/// The scale of the loss, on the device.
pub struct GradScaler {
    scale: Tensor,
    /// Steps since the last skip or growth.
    streak: Tensor,
    /// Steps skipped so far.
    skipped: Tensor,
    interval: i64,
}

impl GradScaler {
    /// A scaler before the first step.
    pub fn new(device: Device) -> Self {
        Self::with_interval(device, INTERVAL)
    }

    fn with_interval(device: Device, interval: i64) -> Self {
        Self {
            scale: Tensor::full([], INITIAL, (Kind::Float, device)),
            streak: Tensor::zeros([], (Kind::Int64, device)),
            skipped: Tensor::zeros([], (Kind::Int64, device)),
            interval,
        }
    }

    /// The loss to go backward from.
    pub fn scale(&self, loss: &Tensor) -> Tensor {
        loss * &self.scale
    }

    /// What the gradients of a scaled loss are to be multiplied with. A power of two, so that nothing is rounded.
    pub fn inverse(&self) -> Tensor {
        self.scale.reciprocal()
    }

    /// 1 where the step is to be skipped, because `norm` of its gradients is not finite; 0 where it is not.
    pub fn found_inf(norm: &Tensor) -> Tensor {
        norm.isfinite().logical_not().to_kind(Kind::Float)
    }

    /// The norm that training is watched by: 0 for a step that is skipped and says nothing against the training.
    pub fn forgiven(&self, norm: &Tensor) -> Tensor {
        let fault = self.scale.lt(LEAST).logical_or(&norm.isfinite());
        norm.where_self(&fault, &norm.zeros_like())
    }

    /// Takes note of a step, after it: smaller after one that was skipped, larger after many that were not.
    pub fn update(&mut self, found_inf: &Tensor) {
        let _no_grad = tch::no_grad_guard();
        let skip = found_inf.gt(0.0);
        let streak = (&self.streak + 1).masked_fill(&skip, 0);
        let grow = streak.ge(self.interval);
        // Beyond the range of a float there is nothing to gain.
        let grown = &self.scale * GROWTH;
        let grown = grown.where_self(&grown.isfinite(), &self.scale);
        let scale = grown.where_self(&grow, &self.scale);
        let scale = (&self.scale * BACKOFF).where_self(&skip, &scale);
        self.scale.copy_(&scale);
        self.streak.copy_(&streak.masked_fill(&grow, 0));
        let _ = self.skipped.g_add_(&skip.to_kind(Kind::Int64));
    }

    /// The scale, and the steps skipped so far.
    pub fn values(&self) -> (f64, f64) {
        // sync: copies two numbers to the host, for a metric row.
        (self.scale.double_value(&[]), self.skipped.double_value(&[]))
    }

    /// All that a checkpoint has to hold of it, by name. The tensors share storage with the scaler.
    pub fn named_tensors(&self) -> Vec<(String, Tensor)> {
        [("scale", &self.scale), ("streak", &self.streak), ("skipped", &self.skipped)]
            .map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()))
            .into()
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        interval: i64,
        finite: Vec<bool>,
        scale: Vec<f64>,
        streak: Vec<i64>,
    }

    /// `fixtures/make_golden_amp.py`: `torch.amp.GradScaler` of torch 2.11.0. Powers of two, so equal to the bit.
    #[test]
    fn scale_and_streak_are_those_of_pytorch_after_every_step() {
        let golden: Golden = serde_json::from_str(include_str!("../../fixtures/amp.json")).unwrap();
        assert!(golden.finite.len() >= 40 && golden.finite.contains(&false));
        let mut scaler = GradScaler::with_interval(Device::Cpu, golden.interval);
        for (step, finite) in golden.finite.iter().enumerate() {
            let norm = Tensor::from(if *finite { 2.0_f32 } else { f32::INFINITY });
            scaler.update(&GradScaler::found_inf(&norm));
            assert_eq!(scaler.values().0, golden.scale[step], "step {step}");
            assert_eq!(scaler.streak.int64_value(&[]), golden.streak[step], "step {step}");
        }
        let skipped = golden.finite.iter().filter(|finite| !**finite).count();
        assert_eq!(scaler.values().1, skipped as f64);
    }

    #[test]
    fn scaling_and_its_inverse_change_no_bit_of_a_gradient() {
        let scaler = GradScaler::new(Device::Cpu);
        let gradient = Tensor::from_slice(&[1.0_f32 / 3.0, -7.1e-30, 3.0e20]);
        assert_eq!(scaler.scale(&gradient) * scaler.inverse(), gradient);
    }

    #[test]
    fn a_skipped_step_is_forgiven_until_the_scale_is_not_to_blame() {
        let mut scaler = GradScaler::new(Device::Cpu);
        let [bad, good] = [f32::NAN, 3.0].map(Tensor::from);
        assert_eq!(scaler.forgiven(&bad).double_value(&[]), 0.0);
        assert_eq!(scaler.forgiven(&good).double_value(&[]), 3.0);
        // From 2¹⁶ to below 2⁻¹⁰.
        for _ in 0..27 {
            assert_eq!(scaler.forgiven(&bad).double_value(&[]), 0.0);
            scaler.update(&GradScaler::found_inf(&bad));
        }
        assert!(scaler.forgiven(&bad).double_value(&[]).is_nan());
    }

    #[test]
    fn the_scale_does_not_leave_the_range_of_a_float() {
        let mut scaler = GradScaler::with_interval(Device::Cpu, 1);
        let finite = GradScaler::found_inf(&Tensor::from(1.0_f32));
        for _ in 0..300 {
            scaler.update(&finite);
        }
        assert_eq!(scaler.values().0, 2f64.powi(127));
    }
}
