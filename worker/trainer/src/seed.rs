//! Seeds of libtorch's generator. It is reseeded before every use, so that no draw depends on how many
//! were made before it: that is what makes a resumed run equal to one that was never stopped.

use datasets::rng::{Purpose, Stream};

/// Before an optimizer step; indices: step, rank.
pub const STEP: Purpose = Purpose::named("step");

/// Before a forward pass of an evaluation; indices: network, image set, batch, draw.
pub const PREDICT: Purpose = Purpose::named("predict");

/// Before a draw of a network's weights; indices: network, draw.
pub const WEIGHTS: Purpose = Purpose::named("weights");

/// Seeds libtorch's generators for one use.
pub fn reseed(seed: u64, purpose: Purpose, indices: &[u64]) {
    tch::manual_seed(derive(seed, purpose, indices));
}

/// 64 bits that depend on every argument.
pub fn derive(seed: u64, purpose: Purpose, indices: &[u64]) -> i64 {
    Stream::new(seed, purpose, indices).u64().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_name_changes_the_seed() {
        let base = derive(1, STEP, &[2, 3]);
        assert_eq!(base, derive(1, STEP, &[2, 3]));
        for other in [derive(2, STEP, &[2, 3]), derive(1, PREDICT, &[2, 3]), derive(1, STEP, &[3, 2])] {
            assert_ne!(base, other);
        }
    }
}
