//! Which images a rank sees in which step.
//!
//! The order of an epoch depends on the seed and the epoch alone, and each global batch is a piece of that order
//! which the ranks divide among them. So the images of a step are the same for every world size, and a resumed trial
//! continues at its step without having stored an order.

use crate::rng::{Purpose, Stream};

/// The order in which epoch `epoch` of the trial with `seed` visits `n` images: a permutation of `0..n`.
///
/// # Panics
///
/// When `n` is above `u32::MAX`.
pub fn epoch_order(seed: u64, epoch: u64, n: usize) -> Vec<u32> {
    let n = u32::try_from(n).expect("images are counted in 32 bits");
    let mut order: Vec<u32> = (0..n).collect();
    Stream::new(seed, Purpose::ORDER, &[epoch]).shuffle(&mut order);
    order
}

/// How the ranks of a trial divide each global batch: rank `r` gets the `r`-th contiguous share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sharding {
    global_batch: usize,
    world_size: usize,
    rank: usize,
}

/// Why a global batch cannot be divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShardingError {
    /// Batch and world size must not be zero.
    #[error("a global batch of {global_batch} over {world_size} ranks leaves a rank without images")]
    Empty {
        /// The global batch.
        global_batch: usize,
        /// The world size.
        world_size: usize,
    },
    /// Ranks would get shares of different size, whose gradients must not be averaged as equals.
    #[error("a global batch of {global_batch} cannot be divided evenly over {world_size} ranks")]
    NotDivisible {
        /// The global batch.
        global_batch: usize,
        /// The world size.
        world_size: usize,
    },
    /// There is no such rank.
    #[error("rank {rank} of a world of {world_size} ranks")]
    Rank {
        /// The rank.
        rank: usize,
        /// The world size.
        world_size: usize,
    },
    /// Incomplete batches are dropped, so that an epoch would have no step.
    #[error("{images} images do not fill one global batch of {global_batch}: use a smaller batch")]
    NoStep {
        /// Number of images.
        images: usize,
        /// The global batch.
        global_batch: usize,
    },
}

impl Sharding {
    /// The share of `rank` in global batches of `global_batch` images.
    ///
    /// # Errors
    ///
    /// Every [`ShardingError`] but [`ShardingError::NoStep`].
    pub fn new(global_batch: usize, world_size: usize, rank: usize) -> Result<Self, ShardingError> {
        if world_size == 0 || global_batch < world_size {
            return Err(ShardingError::Empty { global_batch, world_size });
        }
        if !global_batch.is_multiple_of(world_size) {
            return Err(ShardingError::NotDivisible { global_batch, world_size });
        }
        if rank >= world_size {
            return Err(ShardingError::Rank { rank, world_size });
        }
        Ok(Self { global_batch, world_size, rank })
    }

    /// Images of one step on this rank.
    pub fn local_batch(&self) -> usize {
        self.global_batch / self.world_size
    }

    /// Steps of an epoch over `images` images; an incomplete last batch is dropped.
    ///
    /// # Errors
    ///
    /// [`ShardingError::NoStep`] when there is not one full batch.
    pub fn steps_per_epoch(&self, images: usize) -> Result<usize, ShardingError> {
        match images / self.global_batch {
            0 => Err(ShardingError::NoStep { images, global_batch: self.global_batch }),
            steps => Ok(steps),
        }
    }

    /// What this rank sees of `order` in step `step` of the epoch, or nothing after the last full batch.
    pub fn share<'a>(&self, order: &'a [u32], step: usize) -> Option<&'a [u32]> {
        let batch = order.chunks_exact(self.global_batch).nth(step)?;
        batch.chunks_exact(self.local_batch()).nth(self.rank)
    }

    /// What this rank sees of `order`, step by step.
    pub fn batches<'a>(&self, order: &'a [u32]) -> impl Iterator<Item = &'a [u32]> + use<'a> {
        let sharding = *self;
        (0..order.len() / self.global_batch).filter_map(move |step| sharding.share(order, step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_order_visits_every_image_once() {
        let mut order = epoch_order(3, 1, 1_000);
        order.sort_unstable();
        assert!(order.iter().copied().eq(0..1_000));
    }

    #[test]
    fn each_epoch_and_each_seed_has_its_own_order() {
        let reference = epoch_order(3, 1, 100);
        assert_eq!(epoch_order(3, 1, 100), reference);
        assert_ne!(epoch_order(3, 2, 100), reference);
        assert_ne!(epoch_order(4, 1, 100), reference);
    }

    #[test]
    fn the_ranks_of_every_world_size_see_the_same_global_batches() {
        let order = epoch_order(5, 0, 101);
        let single: Vec<_> = Sharding::new(12, 1, 0).unwrap().batches(&order).collect();
        assert_eq!(single.len(), 8);
        for world_size in [2, 3, 4, 6, 12] {
            for (step, batch) in single.iter().enumerate() {
                let joined: Vec<u32> = (0..world_size)
                    .flat_map(|rank| {
                        Sharding::new(12, world_size, rank).unwrap().share(&order, step).unwrap()
                    })
                    .copied()
                    .collect();
                assert_eq!(joined, *batch, "world size {world_size}, step {step}");
            }
        }
    }

    #[test]
    fn an_incomplete_last_batch_is_dropped_by_every_rank() {
        let order = epoch_order(5, 0, 23);
        for rank in 0..2 {
            let sharding = Sharding::new(8, 2, rank).unwrap();
            assert_eq!(sharding.steps_per_epoch(23), Ok(2));
            assert_eq!(sharding.batches(&order).count(), 2);
            assert_eq!(sharding.share(&order, 2), None);
            assert_eq!(sharding.local_batch(), 4);
        }
    }

    #[test]
    fn what_cannot_be_divided_is_refused() {
        assert_eq!(
            Sharding::new(10, 4, 0),
            Err(ShardingError::NotDivisible { global_batch: 10, world_size: 4 })
        );
        assert_eq!(Sharding::new(8, 2, 2), Err(ShardingError::Rank { rank: 2, world_size: 2 }));
        assert_eq!(Sharding::new(0, 1, 0), Err(ShardingError::Empty { global_batch: 0, world_size: 1 }));
        assert_eq!(Sharding::new(8, 0, 0), Err(ShardingError::Empty { global_batch: 8, world_size: 0 }));
        let sharding = Sharding::new(8, 2, 0).unwrap();
        assert_eq!(sharding.steps_per_epoch(7), Err(ShardingError::NoStep { images: 7, global_batch: 8 }));
    }
}
