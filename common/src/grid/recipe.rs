//! `[recipe]` and everything that changes it: a layer says only what it changes, and layers are merged
//! before the result is checked.

use super::read::{At, Bounds, Located, Log, Section, Setting, Value};
use crate::spec::{Augmentation, DataSpec, Precision, Recipe, Schedule};

pub(super) const NON_NEGATIVE: Bounds = Bounds { text: "a number of at least 0", hold: |x| x >= 0.0 };
pub(super) const POSITIVE: Bounds = Bounds { text: "a number above 0", hold: |x| x > 0.0 };
pub(super) const BELOW_ONE: Bounds =
    Bounds { text: "a number of at least 0 and below 1", hold: |x| (0.0..1.0).contains(&x) };
const FACTOR: Bounds = Bounds { text: "a number above 0 and below 1", hold: |x| x > 0.0 && x < 1.0 };

/// What one layer says about the recipe.
#[derive(Clone, Debug, Default)]
pub(super) struct RecipeLayer {
    pub epochs: Setting<u32>,
    pub batch_size: Setting<u32>,
    pub lr: Setting<f64>,
    pub schedule: Setting<Schedule>,
    pub warmup_epochs: Setting<f64>,
    pub momentum: Setting<f64>,
    pub nesterov: Setting<bool>,
    pub weight_decay: Setting<f64>,
    pub clip_norm: Setting<Option<f64>>,
    pub reset_momentum_each_epoch: Setting<bool>,
    pub augmentation: Setting<Vec<Located<Augmentation>>>,
    pub precision: Setting<Precision>,
}

/// Values of keys that no layer sets. `epochs` has none: how long to train is a decision of each experiment.
mod default {
    pub const BATCH_SIZE: u32 = 128;
    pub const LR: f64 = 0.1;
    pub const WARMUP_EPOCHS: f64 = 0.0;
    pub const MOMENTUM: f64 = 0.9;
    pub const WEIGHT_DECAY: f64 = 5e-4;
}

/// Every key of a recipe.
pub(super) const KEYS: [&str; 12] = [
    "epochs",
    "batch-size",
    "lr",
    "schedule",
    "warmup-epochs",
    "momentum",
    "nesterov",
    "weight-decay",
    "clip-norm",
    "reset-momentum-each-epoch",
    "augmentation",
    "precision",
];

impl RecipeLayer {
    pub fn read(value: &Value<'_>) -> Self {
        let Some(mut section) = value.section() else {
            return Self::bad();
        };
        let layer = Self {
            epochs: section.set("epochs", |v| v.integer(1..=100_000)),
            batch_size: section.set("batch-size", |v| v.integer(1..=1_000_000)),
            lr: section.set("lr", |v| v.real(&POSITIVE)),
            schedule: section.set("schedule", schedule),
            warmup_epochs: section.set("warmup-epochs", |v| v.real(&NON_NEGATIVE)),
            momentum: section.set("momentum", |v| v.real(&BELOW_ONE)),
            nesterov: section.set("nesterov", Value::boolean),
            weight_decay: section.set("weight-decay", |v| v.real(&NON_NEGATIVE)),
            clip_norm: section.set("clip-norm", |v| v.or_none(|v| v.real(&POSITIVE))),
            reset_momentum_each_epoch: section.set("reset-momentum-each-epoch", Value::boolean),
            augmentation: section.set("augmentation", augmentation),
            precision: section.set("precision", |v| v.choice("precision", &Precision::ALL)),
        };
        section.finish();
        layer
    }

    /// This layer with a later one on top.
    pub fn then(self, later: Self) -> Self {
        Self {
            epochs: self.epochs.then(later.epochs),
            batch_size: self.batch_size.then(later.batch_size),
            lr: self.lr.then(later.lr),
            schedule: self.schedule.then(later.schedule),
            warmup_epochs: self.warmup_epochs.then(later.warmup_epochs),
            momentum: self.momentum.then(later.momentum),
            nesterov: self.nesterov.then(later.nesterov),
            weight_decay: self.weight_decay.then(later.weight_decay),
            clip_norm: self.clip_norm.then(later.clip_norm),
            reset_momentum_each_epoch: self.reset_momentum_each_epoch.then(later.reset_momentum_each_epoch),
            augmentation: self.augmentation.then(later.augmentation),
            precision: self.precision.then(later.precision),
        }
    }

    /// The recipe, with defaults for what no layer sets. Nothing when a value is missing or was refused.
    pub fn recipe(&self) -> Option<Recipe> {
        let augmentation = self.augmentation.or(Vec::new())?;
        Some(Recipe {
            epochs: self.epochs.clone().located()?.value,
            batch_size: self.batch_size.or(default::BATCH_SIZE)?,
            lr: self.lr.or(default::LR)?,
            schedule: self.schedule.or(Schedule::Cosine)?,
            warmup_epochs: self.warmup_epochs.or(default::WARMUP_EPOCHS)?,
            momentum: self.momentum.or(default::MOMENTUM)?,
            nesterov: self.nesterov.or(false)?,
            weight_decay: self.weight_decay.or(default::WEIGHT_DECAY)?,
            clip_norm: self.clip_norm.or(None)?,
            reset_momentum_each_epoch: self.reset_momentum_each_epoch.or(false)?,
            augmentation: augmentation.into_iter().map(|located| located.value).collect(),
            precision: self.precision.or(Precision::default())?,
        })
    }

    /// Images per optimizer step; nothing when the value was refused.
    pub fn batch_size(&self) -> Option<u32> {
        self.batch_size.or(default::BATCH_SIZE)
    }

    /// Reports what does not go together, once layers are merged. `entry` is where to point when the
    /// values are defaults: the method that the recipe is for.
    pub fn check(&self, log: &Log<'_>, data: &DataSpec, entry: &At) {
        self.check_length(log, entry);
        if matches!((self.nesterov.or(false), self.momentum.or(default::MOMENTUM)), (Some(true), Some(0.0))) {
            let at = self.nesterov.at().unwrap_or(entry);
            let hint = "set `momentum` above 0, or `nesterov` to false".to_owned();
            log.problem(at, "Nesterov's momentum needs momentum", Some(hint));
        }
        let trained_on = data.train_limit.map(|limit| limit.saturating_sub(data.validation));
        if let (Some(batch), Some(limit)) = (self.batch_size(), trained_on)
            && batch > limit
        {
            let at = self.batch_size.at().unwrap_or(entry);
            let message = format!("a batch of {batch} does not fit into {limit} training images");
            log.problem(
                at,
                message,
                Some("lower `batch-size`, or raise the data set's `train-limit`".to_owned()),
            );
        }
        if let Setting::Is(list) = &self.augmentation {
            list.value.iter().for_each(|augmentation| check_augmentation(log, data, augmentation));
        }
    }

    fn check_length(&self, log: &Log<'_>, entry: &At) {
        let epochs = match &self.epochs {
            Setting::Unset => {
                let hint = "set `epochs` in `[recipe]`, or in the method's own `[method.recipe]`".to_owned();
                return log.problem(entry, "nothing says for how many `epochs` to train", Some(hint));
            }
            Setting::Bad => return,
            Setting::Is(epochs) => epochs.value,
        };
        if let Setting::Is(warmup) = &self.warmup_epochs
            && warmup.value > f64::from(epochs)
        {
            let message =
                format!("a warm-up of {} epochs is longer than training, {epochs} epochs", warmup.value);
            log.problem(&warmup.at, message, Some("shorten the warm-up, or train longer".to_owned()));
        }
        if let Setting::Is(Located { value: Schedule::Step { milestones, .. }, at }) = &self.schedule
            && let Some(milestone) = milestones.iter().find(|milestone| **milestone >= epochs)
        {
            let message =
                format!("milestone {milestone} is never reached: training ends after {epochs} epochs");
            log.problem(at, message, Some("lower or drop the milestone, or train longer".to_owned()));
        }
    }

    /// A layer that was not even a table, and is reported: nothing is checked that depends on it.
    fn bad() -> Self {
        Self { epochs: Setting::Bad, ..Self::default() }
    }
}

fn schedule(value: &Value<'_>) -> Option<Located<Schedule>> {
    #[derive(Clone, Copy)]
    enum Kind {
        Constant,
        Cosine,
        Step,
        Cyclic,
    }
    let kinds = [
        ("constant", Kind::Constant),
        ("cosine", Kind::Cosine),
        ("step", Kind::Step),
        ("cyclic", Kind::Cyclic),
    ];
    let (kind, mut section) = kind(value, "schedule", &kinds)?;
    let schedule = match (kind, &mut section) {
        (Kind::Constant, _) => Some(Schedule::Constant),
        (Kind::Cosine, _) => Some(Schedule::Cosine),
        (Kind::Step, Some(section)) => step(section),
        (Kind::Cyclic, Some(section)) => section
            .require("cycles", "parts of training of one half cosine each, like 4")
            .and_then(|v| v.integer(1..=1_000))
            .map(|cycles| Schedule::Cyclic { cycles: cycles.value }),
        (Kind::Cyclic, None) => {
            let example = "write `{ kind = \"cyclic\", cycles = 4 }`".to_owned();
            value.problem("a cyclic schedule needs a number of cycles", Some(example));
            None
        }
        (Kind::Step, None) => {
            let example = "write `{ kind = \"step\", milestones = [80, 160, 200], factor = 0.1 }`".to_owned();
            value.problem("a step schedule needs milestones and a factor", Some(example));
            None
        }
    };
    if let Some(section) = section {
        section.finish();
    }
    Some(value.located(schedule?))
}

fn step(section: &mut Section<'_>) -> Option<Schedule> {
    let list =
        section.require("milestones", "epochs at which the learning rate falls, like `[80, 160, 200]`");
    let factor =
        section.require("factor", "what the learning rate is multiplied by at each milestone, like 0.1");
    let factor = factor.and_then(|value| value.real(&FACTOR));
    let list = list?;
    let elements = list.list()?;
    let milestones: Vec<Located<u32>> = elements.iter().filter_map(|v| v.integer(1..=100_000)).collect();
    if elements.is_empty() {
        list.problem(
            "a step schedule without milestones",
            Some("write `schedule = \"constant\"`".to_owned()),
        );
    }
    if let Some(pair) = milestones.windows(2).find(|pair| pair[0].value >= pair[1].value) {
        let (earlier, later) = (pair[0].value, pair[1].value);
        let message = format!("milestones ascend, but {later} stands after {earlier}");
        list.problem(message, None);
        return None;
    }
    if milestones.is_empty() || milestones.len() < elements.len() {
        return None;
    }
    Some(Schedule::Step {
        milestones: milestones.into_iter().map(|located| located.value).collect(),
        factor: factor?.value,
    })
}

fn augmentation(value: &Value<'_>) -> Option<Located<Vec<Located<Augmentation>>>> {
    let elements = value.list()?;
    let list: Vec<_> = elements.iter().filter_map(one_augmentation).collect();
    if list.len() < elements.len() {
        return None;
    }
    for (index, element) in elements.iter().enumerate() {
        let kind = std::mem::discriminant(&list[index].value);
        if list[..index].iter().any(|earlier| std::mem::discriminant(&earlier.value) == kind) {
            element.problem(
                "this augmentation is applied before already",
                Some("keep one of the two".to_owned()),
            );
            return None;
        }
        if matches!(list[index].value, Augmentation::Cutout { .. }) && index + 1 < list.len() {
            let hint = "images are normalised before `cutout` and after the others: put it last".to_owned();
            element.problem("`cutout` is not the last augmentation", Some(hint));
            return None;
        }
    }
    Some(value.located(list))
}

fn one_augmentation(value: &Value<'_>) -> Option<Located<Augmentation>> {
    #[derive(Clone, Copy)]
    enum Kind {
        Crop,
        Flip,
        Cutout,
    }
    let kinds = [("crop", Kind::Crop), ("flip", Kind::Flip), ("cutout", Kind::Cutout)];
    let (kind, mut section) = kind(value, "augmentation", &kinds)?;
    let augmentation = match (kind, &mut section) {
        (Kind::Flip, _) => Some(Augmentation::Flip),
        (Kind::Crop, Some(section)) => section
            .require("padding", "pixels that are added on each side, like 4")
            .and_then(|v| v.integer(1..=1_000))
            .map(|padding| Augmentation::Crop { padding: padding.value }),
        (Kind::Cutout, Some(section)) => section
            .require("size", "side of the square in pixels, like 16")
            .and_then(|v| v.integer(1..=1_000))
            .map(|size| Augmentation::Cutout { size: size.value }),
        (Kind::Crop, None) => {
            value.problem(
                "`crop` needs a padding",
                Some("write `{ kind = \"crop\", padding = 4 }`".to_owned()),
            );
            None
        }
        (Kind::Cutout, None) => {
            value.problem(
                "`cutout` needs a size",
                Some("write `{ kind = \"cutout\", size = 16 }`".to_owned()),
            );
            None
        }
    };
    if let Some(section) = section {
        section.finish();
    }
    Some(value.located(augmentation?))
}

/// A kind by its name alone, or in a table with the settings that it has.
fn kind<'a, T: Copy>(
    value: &Value<'a>,
    what: &str,
    kinds: &[(&'static str, T)],
) -> Option<(T, Option<Section<'a>>)> {
    if !value.is_table() {
        return Some((value.choice(what, kinds)?.value, None));
    }
    let mut section = value.section()?;
    let kind = section.require("kind", &format!("which {what}, like `kind = \"{}\"`", kinds[0].0))?;
    Some((kind.choice(what, kinds)?.value, Some(section)))
}

fn check_augmentation(log: &Log<'_>, data: &DataSpec, augmentation: &Located<Augmentation>) {
    let [_, height, width] = data.set.shape();
    let side = height.min(width);
    let at = &augmentation.at;
    match augmentation.value {
        Augmentation::Flip if !data.set.mirrors() => {
            let message =
                format!("`flip` does not keep the labels of `{}`: a mirrored digit is no digit", data.set);
            let hint =
                "drop `flip`, or set `augmentation` for the other data sets in an `[[override]]`".to_owned();
            log.problem(at, message, Some(hint));
        }
        Augmentation::Crop { padding } if padding >= side => {
            let message = format!(
                "a padding of {padding} can push an image of `{}`, {side} wide, out of sight",
                data.set
            );
            log.problem(at, message, Some(format!("use an eighth of the side, {}", (side / 8).max(1))));
        }
        Augmentation::Cutout { size } if size >= 2 * side => {
            let message = format!("a square of {size} covers every image of `{}`, {side} wide", data.set);
            log.problem(at, message, Some(format!("use half of the side, {}", side / 2)));
        }
        Augmentation::Flip | Augmentation::Crop { .. } | Augmentation::Cutout { .. } => {}
    }
}
