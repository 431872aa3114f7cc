//! Counter-based random numbers: every draw is a function of what it is for.
//!
//! A [`Stream`] is named by a seed, a [`Purpose`] and indices such as the epoch and the image. Two streams with the
//! same name give the same numbers, whatever was drawn before, in whichever process; two streams with different
//! names are independent. So a trial that was killed and resumed draws what the unbroken one would have drawn, and
//! nothing has to be stored in a checkpoint.
//!
//! The generator is Philox4x32-10. Source: Salmon, Moraes, Dror, Shaw, *Parallel random numbers: as easy as 1, 2,
//! 3*, SC 2011; tested with the known-answer vectors of Random123. How a name becomes a key and a counter is ours,
//! see [`Stream::new`]; `fixtures/make_golden.py` is a second implementation of it that the tests are held to.
//!
//! Deliberately absent: cryptographic strength, and a generator that is seeded from the clock or from the system.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// One block of Philox4x32-10: a bijection of `counter` for each `key`.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let left = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let right = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter =
            [high(right) ^ counter[1] ^ key[0], low(right), high(left) ^ counter[3] ^ key[1], low(left)];
    }
    counter
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn low(word: u64) -> u32 {
    word as u32
}

const fn high(word: u64) -> u32 {
    low(word >> 32)
}

/// What numbers are drawn for. Draws for one purpose do not move those for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Purpose(u64);

impl Purpose {
    /// Order of the training images; index: epoch.
    pub const ORDER: Self = Self::named("order");
    /// Random crop; indices: epoch, image id.
    pub const CROP: Self = Self::named("crop");
    /// Horizontal flip; indices: epoch, image id.
    pub const FLIP: Self = Self::named("flip");
    /// Cutout; indices: epoch, image id.
    pub const CUTOUT: Self = Self::named("cutout");
    /// Choice of validation images; index: image id.
    pub const VALIDATION: Self = Self::named("validation");
    /// Choice of the test images of the digits; index: image id.
    pub const DIGITS_TEST: Self = Self::named("digits test");
    /// Initial values of parameters.
    pub const INITIALISATION: Self = Self::named("initialisation");
    /// Dropout masks.
    pub const DROPOUT: Self = Self::named("dropout");
    /// Samples of latent variables.
    pub const LATENT: Self = Self::named("latent");
    /// Stochastic forward passes of an evaluation.
    pub const EVALUATION: Self = Self::named("evaluation");

    /// A purpose of the caller's own. Equal names are equal purposes.
    ///
    /// The name is reduced to 64 bits by FNV-1a.
    pub const fn named(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut hash = 0xCBF2_9CE4_8422_2325_u64;
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01B3);
            at += 1;
        }
        Self(hash)
    }
}

/// A sequence of random numbers that is fixed by its name.
#[derive(Debug, Clone)]
pub struct Stream {
    key: [u32; 2],
    /// The upper half of the counter; the lower counts blocks.
    nonce: [u32; 2],
    block: u64,
    words: [u32; 4],
    used: usize,
    spare_normal: Option<f64>,
}

impl Stream {
    /// The stream of `seed`, `purpose` and `indices`.
    ///
    /// The name is absorbed by CBC-MAC over Philox under the key `seed`: first the purpose and the number of indices
    /// (so that no name is a prefix of another), then each index. Of the 128 bits that result, 64 become the key of
    /// the stream and 64 the upper half of its counter, so two names share a stream with a probability near 2⁻¹²⁸
    /// and no two streams overlap within 2⁶⁴ blocks.
    pub fn new(seed: u64, purpose: Purpose, indices: &[u64]) -> Self {
        let key = [low(seed), high(seed)];
        let count = indices.len() as u64;
        let mut state = philox4x32([low(purpose.0), high(purpose.0), low(count), high(count)], key);
        for &index in indices {
            state[0] ^= low(index);
            state[1] ^= high(index);
            state = philox4x32(state, key);
        }
        Self {
            key: [state[0], state[1]],
            nonce: [state[2], state[3]],
            block: 0,
            words: [0; 4],
            used: 4,
            spare_normal: None,
        }
    }

    /// 32 random bits.
    pub fn u32(&mut self) -> u32 {
        if self.used == self.words.len() {
            let counter = [low(self.block), high(self.block), self.nonce[0], self.nonce[1]];
            self.words = philox4x32(counter, self.key);
            self.block += 1;
            self.used = 0;
        }
        let word = self.words[self.used];
        self.used += 1;
        word
    }

    /// 64 random bits; the first word drawn is the lower half.
    pub fn u64(&mut self) -> u64 {
        let low = u64::from(self.u32());
        low | u64::from(self.u32()) << 32
    }

    /// Uniform in `[0, 1)`, a multiple of 2⁻²⁴.
    pub fn f32(&mut self) -> f32 {
        const STEP: f32 = 1.0 / (1 << 24) as f32;
        (self.u32() >> 8) as f32 * STEP
    }

    /// Uniform in `[0, 1)`, a multiple of 2⁻⁵³.
    pub fn f64(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.u64() >> 11) as f64 * STEP
    }

    /// Uniform in `0..n`, without bias.
    ///
    /// # Panics
    ///
    /// When `n` is 0.
    ///
    /// Source: Lemire, *Fast random integer generation in an interval*, ACM TOMACS 29(1), 2019.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "there is no number below 0");
        // 2⁶⁴ mod n: products whose lower half is below it would favour some results.
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.u64()) * u128::from(n);
            #[expect(clippy::cast_possible_truncation, reason = "the two halves are meant")]
            let (upper, lower) = ((product >> 64) as u64, product as u64);
            if lower >= threshold {
                return upper;
            }
        }
    }

    /// Uniform in `0..n`, without bias.
    ///
    /// # Panics
    ///
    /// When `n` is 0.
    pub fn index(&mut self, n: usize) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "the result is below n, which is a usize")]
        let index = self.below(n as u64) as usize;
        index
    }

    /// Standard normal, by Box and Muller.
    ///
    /// Unlike the uniform draws it goes through the platform's `ln`, `sin` and `cos`, so its last bits may differ
    /// between platforms, never between runs on one.
    pub fn normal(&mut self) -> f64 {
        if let Some(normal) = self.spare_normal.take() {
            return normal;
        }
        // 1 − u is in (0, 1], whose logarithm is finite.
        let radius = (-2.0 * (1.0 - self.f64()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.f64()).sin_cos();
        self.spare_normal = Some(radius * sin);
        radius * cos
    }

    /// Permutes `items` uniformly (Fisher and Yates, from the back).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random123, `tests/kat_vectors`, the three lines `philox4x32 10`.
    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        let vectors = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, answer) in vectors {
            assert_eq!(philox4x32(counter, key), answer);
        }
    }

    #[test]
    fn a_stream_depends_on_its_name_and_on_nothing_else() {
        let take = |seed, purpose, indices: &[u64]| Stream::new(seed, purpose, indices).u64();
        let reference = take(1, Purpose::CROP, &[2, 3]);
        assert_eq!(take(1, Purpose::CROP, &[2, 3]), reference);
        let others = [
            take(2, Purpose::CROP, &[2, 3]),
            take(1 << 32, Purpose::CROP, &[2, 3]),
            take(1, Purpose::FLIP, &[2, 3]),
            take(1, Purpose::CROP, &[3, 2]),
            take(1, Purpose::CROP, &[2]),
            take(1, Purpose::CROP, &[2, 3, 0]),
            take(1, Purpose::CROP, &[2, 3 << 32]),
        ];
        for (at, other) in others.into_iter().enumerate() {
            assert_ne!(other, reference, "name {at}");
        }
    }

    #[test]
    fn named_purposes_differ() {
        let all = [
            Purpose::ORDER,
            Purpose::CROP,
            Purpose::FLIP,
            Purpose::CUTOUT,
            Purpose::VALIDATION,
            Purpose::DIGITS_TEST,
            Purpose::INITIALISATION,
            Purpose::DROPOUT,
            Purpose::LATENT,
            Purpose::EVALUATION,
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn uniform_draws_stay_in_range_and_fill_it() {
        let mut stream = Stream::new(7, Purpose::named("test"), &[]);
        let (mut sum, mut smallest, mut largest) = (0.0, f64::MAX, f64::MIN);
        for _ in 0..10_000 {
            let wide = stream.f64();
            let narrow = f64::from(stream.f32());
            assert!((0.0..1.0).contains(&wide) && (0.0..1.0).contains(&narrow));
            sum += wide + narrow;
            smallest = smallest.min(wide);
            largest = largest.max(wide);
        }
        // 20,000 uniform draws: the mean has standard deviation 0.002.
        assert!((sum / 20_000.0 - 0.5).abs() < 0.01, "mean {}", sum / 20_000.0);
        assert!(smallest < 0.01 && largest > 0.99);
    }

    #[test]
    fn below_is_uniform_for_a_bound_that_is_no_power_of_two() {
        let mut stream = Stream::new(8, Purpose::named("test"), &[]);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[stream.index(7)] += 1;
        }
        // Chi-square with 6 degrees of freedom: above 22.5 once in 1,000 seeds.
        let chi: f64 = counts.iter().map(|&count| (f64::from(count) - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi < 22.5, "{counts:?}");
    }

    #[test]
    fn below_rejects_the_products_that_would_favour_small_results() {
        // For n = 3·2⁶² a quarter of all words is rejected; otherwise multiples of 3 would come twice as often.
        let n = 3 << 62;
        let mut stream = Stream::new(9, Purpose::named("test"), &[]);
        let mut residues = [0_u32; 3];
        for _ in 0..30_000 {
            let drawn = stream.below(n);
            assert!(drawn < n);
            residues[usize::try_from(drawn % 3).unwrap()] += 1;
        }
        for count in residues {
            // Standard deviation 82.
            assert!(count.abs_diff(10_000) < 400, "{residues:?}");
        }
    }

    #[test]
    fn normal_draws_have_the_moments_of_the_standard_normal() {
        let mut stream = Stream::new(10, Purpose::named("test"), &[]);
        let draws: Vec<_> = (0..40_000).map(|_| stream.normal()).collect();
        let moment = |power: i32| draws.iter().map(|draw| draw.powi(power)).sum::<f64>() / draws.len() as f64;
        // Four standard deviations of each sample moment, for 40,000 draws.
        assert!(moment(1).abs() < 0.02, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.03, "{}", moment(2));
        assert!(moment(3).abs() < 0.08, "{}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.2, "{}", moment(4));
    }

    #[test]
    fn every_order_of_three_is_equally_likely_after_a_shuffle() {
        let mut counts = std::collections::HashMap::new();
        for trial in 0..12_000 {
            let mut items = [0, 1, 2];
            Stream::new(11, Purpose::named("test"), &[trial]).shuffle(&mut items);
            *counts.entry(items).or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Standard deviation 41.
        assert!(counts.values().all(|count| count.abs_diff(2_000) < 200), "{counts:?}");
    }
}
