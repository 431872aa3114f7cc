//! Slots of a training trial: a number of ranks, or the limits of an elastic trial.

use super::read::{Located, Value};

/// Most ranks of a trial.
const MAX: u64 = 4_096;

/// What `slots` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slots {
    /// Fewest ranks of an elastic trial.
    pub min: Option<u32>,
    /// Ranks; of an elastic trial the most.
    pub max: u32,
}

impl Slots {
    pub const ONE: Self = Self { min: None, max: 1 };
}

/// Reads a number, or `{ min = 1, max = 4 }`.
pub(super) fn read(value: &Value<'_>) -> Option<Located<Slots>> {
    if !value.is_table() {
        let ranks = value.integer(1..=MAX)?;
        return Some(Located { value: Slots { min: None, max: ranks.value }, at: ranks.at });
    }
    let mut section = value.section()?;
    let min = section.require("min", "the fewest ranks, like `{ min = 1, max = 4 }`");
    let max = section.require("max", "the most ranks, like `{ min = 1, max = 4 }`");
    section.finish();
    let (min, max): (Located<u32>, Located<u32>) = (min?.integer(1..=MAX)?, max?.integer(1..=MAX)?);
    if min.value >= max.value {
        let hint = format!("set `max` above `min`, or write `slots = {}`", max.value);
        value.problem("`min` must be below `max`", Some(hint));
        return None;
    }
    Some(value.located(Slots { min: Some(min.value), max: max.value }))
}
