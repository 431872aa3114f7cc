//! Whether training is long enough, and of the right kind, for what a method takes from it.

use super::super::read::{Located, Log, Setting};
use super::super::recipe::RecipeLayer;
use super::{MethodEntry, Work};
use crate::spec::{Schedule, SnapshotPlace, SnapshotSettings, SwagSettings, TrainMethod};

/// Reports what does not go together, once layers are merged.
pub(crate) fn check(log: &Log<'_>, method: &MethodEntry, work: &Work, layer: &RecipeLayer) {
    let (Work::Network { train, .. }, Setting::Is(epochs)) = (work, &layer.epochs) else {
        return;
    };
    match train {
        TrainMethod::Swag(settings) => check_collections(log, method, settings, epochs),
        TrainMethod::Snapshots(settings) => match settings.place {
            SnapshotPlace::CycleEnds => check_cycles(log, settings, layer),
            SnapshotPlace::LastEpochs => check_epochs(log, method, settings, epochs),
        },
        TrainMethod::Deterministic
        | TrainMethod::Dropout(_)
        | TrainMethod::BatchEnsemble(_)
        | TrainMethod::LpBnn(_)
        | TrainMethod::RankOne(_)
        | TrainMethod::Mimo(_)
        | TrainMethod::Packed(_)
        | TrainMethod::Masksembles(_)
        | TrainMethod::Evidential(_)
        | TrainMethod::Duq(_)
        | TrainMethod::Sngp(_)
        | TrainMethod::Tradi(_) => {}
    }
}

/// The trainer, which knows the steps of an epoch, counts again.
fn check_collections(log: &Log<'_>, method: &MethodEntry, settings: &SwagSettings, epochs: &Located<u32>) {
    let all = f64::from(epochs.value) * f64::from(settings.collections_per_epoch);
    let collected = all - (settings.start * all).floor();
    if collected < 2.0 {
        let message = format!(
            "SWAG needs at least 2 collected networks, and {} epochs from part {} on give {collected}",
            epochs.value, settings.start
        );
        let hint = "raise `epochs` or `collections-per-epoch`, or lower `start`".to_owned();
        log.problem(&method.at, message, Some(hint));
    }
}

fn check_cycles(log: &Log<'_>, settings: &SnapshotSettings, layer: &RecipeLayer) {
    let Setting::Is(schedule) = &layer.schedule else { return };
    let cyclic = match &schedule.value {
        Schedule::Cyclic { cycles } => cycles.is_multiple_of(settings.count),
        Schedule::Constant | Schedule::Cosine | Schedule::Step { .. } => false,
    };
    if !cyclic {
        let count = settings.count;
        let message =
            format!("{count} snapshots are taken at the ends of cycles, which this schedule does not have");
        let hint = format!(
            "leave `schedule` out, write `{{ kind = \"cyclic\", cycles = {count} }}`, or use \
             `kind = \"checkpoint-ensemble\"`"
        );
        log.problem(&schedule.at, message, Some(hint));
    }
}

fn check_epochs(log: &Log<'_>, method: &MethodEntry, settings: &SnapshotSettings, epochs: &Located<u32>) {
    if settings.count > epochs.value {
        let message =
            format!("{} networks cannot be kept at the ends of {} epochs", settings.count, epochs.value);
        log.problem(&method.at, message, Some("raise `epochs`, or lower `networks`".to_owned()));
    }
}
