//! Finds the first step whose loss or gradient was not finite, without a host copy at each step.

use tch::{Device, Kind, Tensor};

/// Device-side memory of the first step that went wrong.
///
/// Each step costs a few scalar operations that are only queued; the answer is copied to the host when
/// somebody asks. The gradient is watched as well as the loss because the loss of a rank is its own, but
/// the averaged gradient is that of all: so every rank names the same step.
pub struct Watch {
    first: Tensor,
}

impl Watch {
    /// A watch that has seen nothing wrong.
    pub fn new(device: Device) -> Self {
        Self { first: Tensor::full([], i64::MAX, (Kind::Int64, device)) }
    }

    /// Takes note of `step`, counted from 1.
    pub fn observe(&mut self, step: u64, loss: &Tensor, grad_norm: &Tensor) {
        let _no_grad = tch::no_grad_guard();
        let finite = loss.isfinite().logical_and(&grad_norm.isfinite());
        let candidate = self.first.full_like(step.cast_signed());
        self.first = self.first.where_self(&finite, &self.first.minimum(&candidate));
    }

    /// The first step that was not finite, if any.
    pub fn first(&self) -> Option<u64> {
        // sync: copies one integer to the host.
        let first = self.first.int64_value(&[]);
        (first != i64::MAX).then(|| first.cast_unsigned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_bad_steps_is_named() {
        let number = |value: f64| Tensor::from(value as f32);
        let mut watch = Watch::new(Device::Cpu);
        watch.observe(1, &number(0.5), &number(2.0));
        assert_eq!(watch.first(), None);
        watch.observe(2, &number(0.5), &number(f64::INFINITY));
        watch.observe(3, &number(f64::NAN), &number(f64::NAN));
        watch.observe(4, &number(0.5), &number(1.0));
        assert_eq!(watch.first(), Some(2));
    }
}
