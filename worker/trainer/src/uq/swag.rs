//! SWAG: mean, variances and a low-rank covariance of the weights that training at a constant rate walks through, and
//! networks drawn from that Gaussian.
//!
//! Source: Maddox et al., *A simple baseline for Bayesian uncertainty in deep learning*, NeurIPS 2019.

use common::spec::SwagSettings;
use tch::Tensor;

use crate::model::{ModelError, NamedTensor, Role};
use crate::train::Position;

const MEAN: &str = "swag.mean";
const VARIANCE: &str = "swag.variance";
const DEVIATIONS: &str = "swag.deviations";

/// When weights are collected.
#[derive(Clone, Copy, Debug)]
struct Calendar {
    /// Steps before the constant learning rate.
    start: u64,
    per_epoch: u64,
    steps_per_epoch: u64,
}

impl Calendar {
    fn new(settings: &SwagSettings, length: Position) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates; checked by the grid"
        )]
        let start = (settings.start * length.total_steps as f64).ceil() as u64;
        let steps_per_epoch = length.steps_per_epoch.max(1);
        let per_epoch = u64::from(settings.collections_per_epoch).clamp(1, steps_per_epoch);
        Self { start: start.min(length.total_steps), per_epoch, steps_per_epoch }
    }

    /// Collections once `done` steps are done: each epoch has as many at equal distances, the last of them at its end.
    fn collected(self, done: u64) -> u64 {
        let parts = |done: u64| done * self.per_epoch / self.steps_per_epoch;
        parts(done.max(self.start)) - parts(self.start)
    }
}

/// Moments of the weights, all of a network's trained tensors in one vector.
pub(crate) struct SwagTracker {
    calendar: Calendar,
    lr: f64,
    mean: Tensor,
    variance: Tensor,
    /// `[columns, P]`; the newest overwrites the oldest.
    deviations: Tensor,
}

impl SwagTracker {
    /// # Errors
    ///
    /// [`ModelError::TooShort`] when fewer than two networks would be collected.
    pub(crate) fn new(
        settings: &SwagSettings,
        network: &[NamedTensor],
        length: Position,
    ) -> Result<Self, ModelError> {
        let calendar = Calendar::new(settings, length);
        let collections = calendar.collected(length.total_steps);
        if collections < 2 {
            return Err(ModelError::TooShort {
                what: format!(
                    "SWAG collects {collections} networks and needs 2: raise `epochs` or \
                     `collections-per-epoch`, or lower `start`"
                ),
            });
        }
        let columns = i64::from(settings.rank).min(collections.cast_signed());
        let mean = flat(network).f_zeros_like()?;
        let deviations = Tensor::f_zeros([columns, mean.numel() as i64], (mean.kind(), mean.device()))?;
        Ok(Self { calendar, lr: settings.lr, variance: mean.f_zeros_like()?, mean, deviations })
    }

    /// The constant rate from the start of collection on.
    pub(crate) fn learning_rate(&self, scheduled: f64, done: u64) -> f64 {
        if done < self.calendar.start { scheduled } else { self.lr }
    }

    /// Collects the weights after the step number `done`, counted from 0, when it is one of those.
    pub(crate) fn after_step(&mut self, network: &[NamedTensor], done: u64) {
        let before = self.calendar.collected(done);
        if self.calendar.collected(done + 1) > before {
            self.collect(&flat(network), before);
        }
    }

    /// Running moments, as Welford's: the variance is never negative, and is not a small difference of squares.
    fn collect(&mut self, weights: &Tensor, before: u64) {
        let _no_grad = tch::no_grad_guard();
        let count = before as f64;
        let change = weights - &self.mean;
        let _ = self.mean.g_add_(&(&change / (count + 1.0)));
        // From the mean with these weights in it, as in the paper's algorithm 1.
        let deviation = weights - &self.mean;
        let _ = self.variance.g_mul_scalar_(count).g_add_(&(change * &deviation)).g_div_scalar_(count + 1.0);
        let column = before.cast_signed() % self.deviations.size()[0];
        self.deviations.get(column).copy_(&deviation);
    }

    pub(crate) fn named_tensors(&self) -> Vec<(String, Tensor)> {
        [(MEAN, &self.mean), (VARIANCE, &self.variance), (DEVIATIONS, &self.deviations)]
            .map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()))
            .into()
    }
}

/// The trained tensors, in the order of the network.
fn trained(network: &[NamedTensor]) -> impl Iterator<Item = &Tensor> {
    network.iter().filter_map(|named| match named.role {
        Role::Weight { .. } => Some(&named.tensor),
        Role::Frozen | Role::Buffer | Role::State => None,
    })
}

fn flat(network: &[NamedTensor]) -> Tensor {
    Tensor::cat(&trained(network).map(|tensor| tensor.detach().flatten(0, -1)).collect::<Vec<_>>(), 0)
}

/// The Gaussian that was collected.
pub(crate) struct SwagPosterior {
    mean: Tensor,
    deviation: Tensor,
    columns: Tensor,
    scale: f64,
    targets: Vec<Tensor>,
}

impl SwagPosterior {
    /// The posterior over the weights of `network`; `stored` finds what the tracker kept.
    pub(crate) fn new<E>(
        network: &[NamedTensor],
        scale: f64,
        stored: impl Fn(&str) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        let targets: Vec<Tensor> = trained(network).map(Tensor::shallow_clone).collect();
        let device = targets.first().map_or(tch::Device::Cpu, Tensor::device);
        let stored = |name| stored(name).map(|tensor| tensor.to_device(device));
        Ok(Self {
            mean: stored(MEAN)?,
            deviation: stored(VARIANCE)?.clamp_min(0.0).sqrt(),
            columns: stored(DEVIATIONS)?,
            scale,
            targets,
        })
    }

    /// Numbers that prediction needs: without scale, the mean.
    pub(crate) fn stored_count(&self) -> i64 {
        let spread = if self.scale == 0.0 { 0 } else { self.deviation.numel() + self.columns.numel() };
        (self.mean.numel() + spread) as i64
    }

    /// Overwrites the network's weights with a draw from libtorch's generator.
    pub(crate) fn draw(&self) {
        let _no_grad = tch::no_grad_guard();
        let options = (self.mean.kind(), self.mean.device());
        let diagonal = Tensor::randn(self.mean.size(), options);
        let low_rank = Tensor::randn([self.columns.size()[0]], options);
        self.place(&self.weights(&diagonal, &low_rank));
    }

    /// w = mean + s (√var ⊙ z₁ / √2 + Dᵀ z₂ / √(2 (K − 1))), with K the columns that there are.
    fn weights(&self, diagonal: &Tensor, low_rank: &Tensor) -> Tensor {
        let columns = low_rank.numel() as f64;
        let walk = self.columns.tr().mv(low_rank) / (columns - 1.0).sqrt();
        &self.mean + (&self.deviation * diagonal + walk) * (self.scale * std::f64::consts::FRAC_1_SQRT_2)
    }

    fn place(&self, weights: &Tensor) {
        let mut from = 0;
        for target in &self.targets {
            let count = target.numel() as i64;
            target.shallow_clone().copy_(&weights.narrow(0, from, count).view_as(target));
            from += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tch::{Device, Kind};

    use super::*;
    use crate::model::golden::unit;

    fn network() -> Vec<NamedTensor> {
        let tensor = |name: &str, shape: &[i64], role| NamedTensor {
            name: name.to_owned(),
            tensor: Tensor::zeros(shape, (Kind::Double, Device::Cpu)),
            role,
        };
        let weight = Role::Weight { decay: true, owner: crate::model::Owner::Network };
        vec![
            tensor("a.weight", &[3, 2], weight),
            tensor("bn.running_mean", &[2], Role::Buffer),
            tensor("b.bias", &[4], weight),
        ]
    }

    fn length(total_steps: u64, steps_per_epoch: u64) -> Position {
        Position { done: 0, steps_per_epoch, total_steps, train_images: 1 }
    }

    fn fill(network: &mut [NamedTensor], collection: &str) {
        for NamedTensor { name, tensor, .. } in network {
            let values = unit(&format!("{name} {collection}"), tensor.numel());
            tensor.copy_(&Tensor::from_slice(&values).view_as(tensor));
        }
    }

    fn golden() -> BTreeMap<String, Tensor> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/swag.safetensors");
        Tensor::read_safetensors(path).unwrap().into_iter().collect()
    }

    /// Double precision; Welford's recursion against moments of the whole list.
    fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
        assert_eq!(found.size(), expected.size(), "{what}");
        let error = (found - expected).abs().max().double_value(&[]);
        assert!(error < 1e-13, "{what} is off by {error:e}");
    }

    #[test]
    fn moments_and_draws_are_those_of_the_reference() {
        let golden = golden();
        let settings = SwagSettings { start: 0.5, rank: 3, ..SwagSettings::default() };
        for collections in [2, 3, 7] {
            let mut network = network();
            let mut tracker = SwagTracker::new(&settings, &network, length(2 * collections, 1)).unwrap();
            for done in 0..2 * collections {
                // Before the start there is something else, which must leave no trace.
                let collection = done.checked_sub(collections).map_or("early".to_owned(), |c| c.to_string());
                fill(&mut network, &collection);
                tracker.after_step(&network, done);
            }
            let expected = |part: &str| &golden[&format!("{collections}.{part}")];
            assert_close(&tracker.mean, expected("mean"), "mean");
            assert_close(&tracker.variance, expected("variance"), "variance");
            let kept: BTreeMap<String, Tensor> = tracker.named_tensors().into_iter().collect();
            let stored =
                |name: &str| -> Result<Tensor, std::convert::Infallible> { Ok(kept[name].shallow_clone()) };
            for (scale, key) in [(1.0, "draw 1.0"), (0.5, "draw 0.5")] {
                let Ok(posterior) = SwagPosterior::new(&network, scale, stored);
                let columns = collections.min(3) as usize;
                let noise = |name, count| Tensor::from_slice(&unit(name, count));
                posterior.place(&posterior.weights(&noise("diagonal", 10), &noise("low rank", columns)));
                assert_close(&flat(&network), expected(key), key);
                assert_eq!(posterior.stored_count(), (2 + columns as i64) * 10);
            }
        }
    }

    #[test]
    fn without_scale_every_draw_is_the_mean() {
        let network = network();
        let stored = |name: &str| -> Result<Tensor, std::convert::Infallible> {
            Ok(if name == DEVIATIONS {
                Tensor::ones([2, 10], (Kind::Double, Device::Cpu))
            } else {
                Tensor::arange(10, (Kind::Double, Device::Cpu))
            })
        };
        let Ok(posterior) = SwagPosterior::new(&network, 0.0, stored);
        assert_eq!(posterior.stored_count(), 10, "no deviation is read");
        posterior.draw();
        assert_eq!(flat(&network), Tensor::arange(10, (Kind::Double, Device::Cpu)));
    }

    /// swa_gaussian collects at the end of each epoch after `swa_start`, from which on the rate is constant.
    #[test]
    fn collections_are_at_ends_of_epochs_and_their_equal_parts() {
        let moments = |start: f64, per_epoch: u32, total: u64, steps_per_epoch: u64| -> Vec<u64> {
            let settings =
                SwagSettings { start, collections_per_epoch: per_epoch, ..SwagSettings::default() };
            let calendar = Calendar::new(&settings, length(total, steps_per_epoch));
            (1..=total).filter(|&done| calendar.collected(done) > calendar.collected(done - 1)).collect()
        };
        assert_eq!(moments(0.75, 1, 20 * 7, 7), [112, 119, 126, 133, 140]);
        assert_eq!(moments(0.5, 2, 4 * 5, 5), [13, 15, 18, 20]);
        assert_eq!(moments(0.5, 100, 8, 4), [5, 6, 7, 8], "at most once a step");
        assert_eq!(moments(0.7, 1, 30, 10), [30]);
    }

    #[test]
    fn the_rate_is_constant_from_the_start_of_collection_on() {
        let settings = SwagSettings { start: 0.5, lr: 0.02, ..SwagSettings::default() };
        let tracker = SwagTracker::new(&settings, &network(), length(20, 2)).unwrap();
        assert_eq!(tracker.learning_rate(0.7, 9), 0.7);
        assert_eq!(tracker.learning_rate(0.7, 10), 0.02);
    }

    #[test]
    fn fewer_than_two_collections_are_refused() {
        let settings = SwagSettings { start: 0.7, ..SwagSettings::default() };
        assert!(matches!(
            SwagTracker::new(&settings, &network(), length(30, 10)),
            Err(ModelError::TooShort { .. })
        ));
    }
}
