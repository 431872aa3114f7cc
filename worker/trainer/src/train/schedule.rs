//! Learning rate of each optimizer step: a pure function of the recipe and the step.

use common::spec::{Recipe, Schedule};

/// Learning rate over training.
///
/// The rate of step `s`, counted from 0, of `S` steps with a warm-up of `w` steps is
/// `lr · min(1, (s + 1) / w) · schedule(s)`, where the schedule is 1 (constant),
/// `½ (1 + cos(π (s − w) / (S − w)))` after the warm-up and 1 within it (cosine), `½ (1 + cos(π (s − a) / (b − a)))`
/// where the cycle of s has the steps from a to before b (cyclic), or `factor^(milestones ≤ epoch of s)` (step).
///
/// Source: as `torch.optim.lr_scheduler.CosineAnnealingLR` with `T_max = S − w`, and `MultiStepLR` advanced
/// once an epoch; the warm-up ends exactly at `lr`. Cyclic: Huang et al., *Snapshot ensembles*, ICLR 2017, eq. 2, whose
/// cycles have ⌈S/M⌉ steps; here cycle i ends at ⌊(i + 1) S/M⌋, so that the last one, too, falls to 0 where S is no
/// multiple of M.
#[derive(Clone, Debug)]
pub struct LearningRate {
    base: f64,
    schedule: Schedule,
    warmup: u64,
    steps_per_epoch: u64,
    total: u64,
}

/// Steps done at the end of part `index` of `parts` equal parts of `total` steps.
pub(crate) fn part_end(total: u64, parts: u64, index: u64) -> u64 {
    (index + 1) * total / parts
}

impl LearningRate {
    /// The learning rates of `recipe` with so many steps per epoch.
    ///
    /// A fractional warm-up is rounded to whole steps.
    pub fn new(recipe: &Recipe, steps_per_epoch: u64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and a negative warm-up is none"
        )]
        let warmup = (recipe.warmup_epochs * steps_per_epoch as f64).round() as u64;
        Self {
            base: recipe.lr,
            schedule: recipe.schedule.clone(),
            warmup,
            steps_per_epoch,
            total: steps_per_epoch * u64::from(recipe.epochs),
        }
    }

    /// Learning rate of the step after `done` steps.
    pub fn at(&self, done: u64) -> f64 {
        self.base * self.warmup_factor(done) * self.schedule_factor(done)
    }

    fn warmup_factor(&self, done: u64) -> f64 {
        if done < self.warmup { (done + 1) as f64 / self.warmup as f64 } else { 1.0 }
    }

    fn schedule_factor(&self, done: u64) -> f64 {
        match &self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Cosine => {
                let length = self.total.saturating_sub(self.warmup);
                if done < self.warmup || length == 0 {
                    return 1.0;
                }
                let progress = (done - self.warmup) as f64 / length as f64;
                0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Schedule::Cyclic { cycles } => {
                let cycles = u64::from(*cycles).max(1);
                let index = ((done + 1) * cycles).div_ceil(self.total.max(1)).saturating_sub(1);
                let start = index.checked_sub(1).map_or(0, |before| part_end(self.total, cycles, before));
                let length = part_end(self.total, cycles, index).saturating_sub(start).max(1);
                let progress = (done - start) as f64 / length as f64;
                0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Schedule::Step { milestones, factor } => {
                let epoch = done / self.steps_per_epoch;
                let passed = milestones.iter().filter(|&&milestone| u64::from(milestone) <= epoch).count();
                milestones.iter().take(passed).fold(1.0, |product, _| product * factor)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(schedule: Schedule, epochs: u32, warmup_epochs: f64) -> Recipe {
        Recipe {
            epochs,
            batch_size: 1,
            lr: 0.2,
            schedule,
            warmup_epochs,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.0,
            clip_norm: None,
            reset_momentum_each_epoch: false,
            precision: common::spec::Precision::Fp32,
            augmentation: Vec::new(),
        }
    }

    #[test]
    fn the_warm_up_rises_linearly_and_ends_at_the_full_rate() {
        let rate = LearningRate::new(&recipe(Schedule::Constant, 4, 1.5), 4);
        let rates: Vec<f64> = (0..8).map(|step| rate.at(step)).collect();
        let expected = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0, 6.0].map(|sixths| 0.2 * (sixths / 6.0));
        assert_eq!(rates, expected);
    }

    #[test]
    fn the_cosine_starts_after_the_warm_up_and_never_rises() {
        let rate = LearningRate::new(&recipe(Schedule::Cosine, 5, 1.0), 10);
        assert_eq!(rate.at(9), 0.2);
        assert_eq!(rate.at(10), 0.2);
        assert!((rate.at(30) - 0.1).abs() < 1e-12, "half way");
        assert!((11..50).all(|step| rate.at(step) < rate.at(step - 1)));
        assert!(rate.at(49) > 0.0);
    }

    #[test]
    fn a_milestone_counts_from_the_epoch_after_it() {
        let step = Schedule::Step { milestones: vec![2, 3], factor: 0.1 };
        let rate = LearningRate::new(&recipe(step, 4, 0.0), 5);
        assert_eq!(rate.at(9), 0.2);
        assert_eq!(rate.at(10), 0.2 * 0.1);
        assert_eq!(rate.at(15), 0.2 * (0.1 * 0.1));
    }

    /// Eq. 2 of Huang et al.: α(t) = α₀/2 (cos(π mod(t − 1, ⌈T/M⌉) / ⌈T/M⌉) + 1), t from 1.
    #[test]
    fn whole_cycles_are_those_of_the_paper() {
        let rate = LearningRate::new(&recipe(Schedule::Cyclic { cycles: 4 }, 6, 0.0), 10);
        let length = 60_u64.div_ceil(4);
        for t in 1..=60_u64 {
            let part = ((t - 1) % length) as f64 / length as f64;
            let expected = 0.1 * ((std::f64::consts::PI * part).cos() + 1.0);
            assert!((rate.at(t - 1) - expected).abs() < 1e-15, "step {t}");
        }
    }

    #[test]
    fn every_cycle_falls_from_the_full_rate_also_when_its_length_is_not_whole() {
        for (epochs, cycles) in [(11, 4), (10, 3), (7, 5), (5, 7)] {
            let rate = LearningRate::new(&recipe(Schedule::Cyclic { cycles }, epochs, 0.0), 3);
            let total = 3 * u64::from(epochs);
            let mut start = 0;
            for index in 0..u64::from(cycles) {
                let end = part_end(total, u64::from(cycles), index);
                assert_eq!(rate.at(start), 0.2);
                assert!((start + 1..end).all(|step| rate.at(step) < rate.at(step - 1)));
                let last = 0.1 * (1.0 - (std::f64::consts::PI / (end - start) as f64).cos());
                assert!((rate.at(end - 1) - last).abs() < 1e-12, "the step before the fall to 0");
                start = end;
            }
            assert_eq!(start, total);
        }
    }

    #[test]
    fn the_warm_up_is_a_factor_of_the_first_cycle_alone() {
        let with = |warmup| LearningRate::new(&recipe(Schedule::Cyclic { cycles: 3 }, 6, warmup), 4);
        let (plain, warmed) = (with(0.0), with(1.0));
        for step in 0..24 {
            let factor = if step < 4 { (step + 1) as f64 / 4.0 } else { 1.0 };
            assert!((warmed.at(step) - factor * plain.at(step)).abs() < 1e-15, "step {step}");
        }
    }

    #[test]
    fn a_warm_up_longer_than_training_never_reaches_the_full_rate() {
        let rate = LearningRate::new(&recipe(Schedule::Cosine, 1, 2.0), 4);
        assert_eq!(rate.at(3), 0.1);
    }
}
