//! From axes and layers to cells and trials.
//!
//! Cells stand in the order of the file: data set, model, method, seed. A trial stands where the first cell
//! that uses it needs it, so the order, too, follows from the text alone.

use std::collections::BTreeMap;

use super::data::{DataContent, DataEntry};
use super::file::{GridFile, MAX_SEED, ModelEntry};
use super::method::{Kind, MethodEntry, Work, check_length};
use super::read::{At, Log, Setting};
use super::recipe::RecipeLayer;
use super::slots::Slots;
use crate::plan::{Cell, Plan, PlannedTrial};
use crate::spec::{
    DataSpec, EVALUATION_NUMERICS, EvaluateSpec, ModelSpec, NUMERICS, OodSource, Predictor, RunPolicy,
    Scoring, ShiftSpec, Task, TrainMethod, TrainSpec, TrialSpec,
};
use crate::{Digest, TrialKey};

/// Cells of one grid: far beyond any benchmark, and small enough to hold and to print.
const MAX_CELLS: usize = 10_000;

/// Seed of member `member` of a Deep Ensemble whose cell has seed `seed`.
///
/// Member 0 has the cell's own seed, so that it is the network of the deterministic baseline. Seeds of the
/// others are the first eight bytes, least significant first, of the BLAKE3 digest of the text
/// `credence ensemble member\n<seed>\n<member>`, without their eleven highest bits (so below 2⁵³, exact in JSON).
/// Neighbouring seeds and members therefore have nothing in common.
pub fn member_seed(seed: u64, member: u32) -> u64 {
    if member == 0 {
        return seed;
    }
    let Digest(digest) = Digest::of(format!("credence ensemble member\n{seed}\n{member}").as_bytes());
    let mut low = [0; 8];
    low.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(low) & MAX_SEED
}

/// Expands what was read. What does not go together is reported to `log`.
pub(super) fn expand(log: &Log<'_>, file: &GridFile) -> Plan {
    let mut plan =
        Expansion { file, log, clean_before: log.len() == 0, trials: Vec::new(), known: BTreeMap::new() };
    let name = file.name.clone().unwrap_or_default();
    let size = [file.data.len(), file.models.len(), file.methods.len(), file.seeds.len()];
    let cells = size.into_iter().try_fold(1_usize, usize::checked_mul).unwrap_or(usize::MAX);
    if cells > MAX_CELLS {
        let message = format!("the grid has {cells} cells, more than {MAX_CELLS}");
        log.problem(&At { span: 0..0, path: String::new() }, message, Some("split it".to_owned()));
        return planned(file, name, Vec::new(), Vec::new());
    }
    let places = plan.places();
    plan.check_conditions(&places);
    let cells = places.iter().filter_map(|place| plan.cell(place)).collect();
    planned(file, name, plan.trials, cells)
}

fn planned(file: &GridFile, name: String, trials: Vec<PlannedTrial>, cells: Vec<Cell>) -> Plan {
    Plan { name, project: file.project.clone(), priority: file.priority, trials, cells }
}

/// A cell before its trials are known.
#[derive(Clone, Copy)]
struct Place<'a> {
    data: &'a DataEntry,
    model: &'a ModelEntry,
    method: &'a MethodEntry,
    seed: u64,
}

/// The parts of a cell's trials that do not depend on the method.
struct Subject<'a> {
    data: &'a DataSpec,
    ood: &'a [OodSource],
    shift: &'a Option<ShiftSpec>,
    model: ModelSpec,
    slots: Slots,
}

struct Expansion<'a, 't> {
    file: &'a GridFile,
    log: &'a Log<'t>,
    clean_before: bool,
    trials: Vec<PlannedTrial>,
    known: BTreeMap<TrialKey, usize>,
}

impl<'a> Expansion<'a, '_> {
    fn places(&self) -> Vec<Place<'a>> {
        let file = self.file;
        let mut places = Vec::new();
        for data in &file.data {
            for model in &file.models {
                for method in &file.methods {
                    places.extend(file.seeds.iter().map(|seed| Place { data, model, method, seed: *seed }));
                }
            }
        }
        places
    }

    fn excluded(&self, place: &Place<'_>) -> bool {
        self.file.excludes.iter().any(|condition| place.meets(condition))
    }

    /// A condition that no cell meets is a mistake. It can only be told when everything else could be read.
    fn check_conditions(&self, places: &[Place<'a>]) {
        if !self.clean_before {
            return;
        }
        for condition in &self.file.excludes {
            if !places.iter().any(|place| place.meets(condition)) {
                self.log.problem(&condition.at, "no cell of the grid is meant", None);
            }
        }
        let left: Vec<&Place<'a>> = places.iter().filter(|place| !self.excluded(place)).collect();
        if left.is_empty() {
            let at = self.file.excludes.first().map(|condition| condition.at.clone());
            let at = at.unwrap_or(At { span: 0..0, path: String::new() });
            self.log.problem(
                &at,
                "every cell of the grid is excluded",
                Some("drop an `[[exclude]]`".to_owned()),
            );
            return;
        }
        for entry in &self.file.overrides {
            let meant = |place: &&Place<'a>| {
                place.meets(&entry.condition)
                    || self.baseline(place).is_some_and(|base| base.meets(&entry.condition))
            };
            if !left.iter().any(meant) {
                let hint = "its cells are excluded, or the axes that it names do not meet".to_owned();
                self.log.problem(&entry.condition.at, "no cell of the grid is meant", Some(hint));
            }
        }
    }

    /// The place of the deterministic baseline that a method's networks are like, whether or not it is itself excluded.
    fn baseline(&self, place: &Place<'a>) -> Option<Place<'a>> {
        place.method.kind.filter(|kind| kind.has_baseline())?;
        let label = place.method.baseline.as_ref().map(|label| label.value.as_str());
        let mut deterministic = self.file.methods.iter().filter(|entry| {
            entry.kind == Some(Kind::Deterministic) && label.is_none_or(|label| label == entry.label.value)
        });
        deterministic.next().map(|method| Place { method, ..*place })
    }

    /// Recipe and slots of a cell; later layers win. The members of an ensemble start from what the baseline's
    /// network of the same cell has, so that the two share it.
    fn layers(&self, place: &Place<'a>) -> (RecipeLayer, Setting<Slots>) {
        let method = place.method;
        let (recipe, slots) = match self.baseline(place) {
            Some(base) => self.layers(&base),
            None => (self.file.recipe.clone(), Setting::Unset),
        };
        let mut recipe = recipe.then(method.implied.clone()).then(method.recipe.clone());
        let mut slots = slots.then(method.slots.clone());
        for entry in self.file.overrides.iter().filter(|entry| place.meets(&entry.condition)) {
            recipe = recipe.then(entry.recipe.clone());
            slots = slots.then(entry.slots.clone());
        }
        (recipe, slots)
    }

    fn cell(&mut self, place: &Place<'a>) -> Option<Cell> {
        if self.excluded(place) {
            return None;
        }
        let DataContent { spec: data, ood, shift } = place.data.content.as_ref()?;
        let work = place.method.work.as_ref()?;
        let (layer, slots) = self.layers(place);
        layer.check(self.log, data, &place.method.at);
        check_length(self.log, place.method, work, &layer);
        self.check_batch(place, work, &layer, &slots);
        self.check_task(place, work, data);
        if self.log.len() > 0 {
            return None;
        }
        let subject = Subject { data, ood, shift, model: place.model.model?, slots: slots.or(Slots::ONE)? };
        let recipe = layer.recipe()?;
        if let Work::Network { train, .. } = work {
            let at = layer.clip_norm.at().unwrap_or(&place.method.at);
            super::method::warn(self.log, at, &place.method.label.value, train, &recipe);
        }
        let train = |method: TrainMethod, seed: u64| TrainSpec {
            method,
            data: subject.data.clone(),
            model: subject.model,
            recipe: recipe.clone(),
            pretrained: place.model.pretrained.clone(),
            seed,
            world_size: subject.slots.max,
            min_world_size: subject.slots.min,
            numerics: NUMERICS,
        };
        let (predictor, networks) = match work {
            Work::Network { train: method, predictor } => {
                (predictor.clone(), vec![train(method.clone(), place.seed)])
            }
            Work::Ensemble { networks } => {
                let members = (0..*networks).map(|member| member_seed(place.seed, member));
                let networks = members.map(|seed| train(TrainMethod::Deterministic, seed)).collect();
                (Predictor::Direct { samples_per_member: 1 }, networks)
            }
        };
        Some(self.evaluate(place, &subject, predictor, networks))
    }

    fn evaluate(
        &mut self,
        place: &Place<'a>,
        subject: &Subject<'_>,
        predictor: Predictor,
        networks: Vec<TrainSpec>,
    ) -> Cell {
        let policy = self.file.run.policy.clone();
        let scoring = Scoring { samples: predictor.samples(), batch_size: self.file.evaluation_batch };
        let keep_best = self.file.run.keep_best.as_ref().map(|_| scoring);
        let training = RunPolicy { keep_best, ..policy.clone() };
        let several = networks.len() > 1;
        for (member, network) in networks.iter().enumerate() {
            let member = if several && member > 0 { format!(" member {member}") } else { String::new() };
            let label = format!("train {}{member}", place.words(&network.method));
            self.add(TrialSpec::Train(network.clone()), &training, label);
        }
        let evaluate = TrialSpec::Evaluate(EvaluateSpec {
            predictor,
            networks,
            ood: subject.ood.to_vec(),
            shift: subject.shift.clone(),
            seed: place.seed,
            batch_size: self.file.evaluation_batch,
            numerics: EVALUATION_NUMERICS,
        });
        let label = format!("evaluate {}", place.title());
        Cell {
            data: place.data.label.value.as_str().into(),
            model: place.model.name.as_str().into(),
            method: place.method.label.value.as_str().into(),
            seed: place.seed,
            trial: self.add(evaluate, &policy, label),
        }
    }

    fn add(&mut self, spec: TrialSpec, policy: &RunPolicy, label: String) -> TrialKey {
        let key = spec.key();
        let next = self.trials.len();
        if *self.known.entry(key).or_insert(next) == next {
            self.trials.push(PlannedTrial { spec, policy: policy.clone(), label });
        }
        key
    }

    /// Some methods are about classes only.
    fn check_task(&self, place: &Place<'_>, work: &Work, data: &DataSpec) {
        let able = match work {
            Work::Network { train, predictor } => train.can_regress() && predictor.can_regress(),
            Work::Ensemble { .. } => true,
        };
        if data.set.task() == Task::Regression && !able {
            let method = &place.method.label;
            let message = format!("`{}` predicts classes, and `{}` has none", method.value, data.set);
            let hint = "leave the cells out with an `[[exclude]]`, or drop the method".to_owned();
            self.log.problem(&method.at, message, Some(hint));
        }
    }

    /// Ranks share a batch evenly, and so do members that each see a part of it.
    fn check_batch(&self, place: &Place<'_>, work: &Work, layer: &RecipeLayer, slots: &Setting<Slots>) {
        let (Some(batch), Some(wanted)) = (layer.batch_size(), slots.or(Slots::ONE)) else {
            return;
        };
        let at = slots.at().or(layer.batch_size.at()).unwrap_or(&place.method.at);
        let ranks = wanted.max;
        if batch % ranks != 0 {
            let message = format!("a batch of {batch} images cannot be shared evenly by {ranks} ranks");
            let hint =
                format!("make `batch-size` a multiple of `slots`, like {}", batch.div_ceil(ranks) * ranks);
            return self.log.problem(at, message, Some(hint));
        }
        let Some(members) = split_members(work) else {
            return;
        };
        let fewest = wanted.min.unwrap_or(ranks);
        let uneven = |ranks: &u32| batch.is_multiple_of(*ranks) && !(batch / ranks).is_multiple_of(members);
        if let Some(ranks) = (fewest..=ranks).rev().find(uneven) {
            let share = batch / ranks;
            let at = layer.batch_size.at().or(slots.at()).unwrap_or(&place.method.at);
            let message = format!("{share} images a rank cannot be split evenly over {members} members");
            let unit = ranks * members;
            let hint = format!(
                "with `batch = \"split\"` make `batch-size` a multiple of slots × members, like {}",
                batch.div_ceil(unit) * unit
            );
            self.log.problem(at, message, Some(hint));
        }
    }
}

impl Place<'_> {
    fn meets(&self, condition: &super::file::Condition) -> bool {
        condition.holds(&self.data.label.value, &self.model.name, &self.method.label.value, self.seed)
    }

    /// A network of the cell in words. Deterministic ones belong to whoever needs them.
    fn words(&self, method: &TrainMethod) -> String {
        match method {
            TrainMethod::Deterministic => self.with(Kind::Deterministic.name()),
            TrainMethod::Dropout(_)
            | TrainMethod::BatchEnsemble(_)
            | TrainMethod::LpBnn(_)
            | TrainMethod::RankOne(_)
            | TrainMethod::Mimo(_)
            | TrainMethod::Packed(_)
            | TrainMethod::Masksembles(_)
            | TrainMethod::Evidential(_)
            | TrainMethod::Duq(_)
            | TrainMethod::Sngp(_)
            | TrainMethod::Tradi(_)
            | TrainMethod::Swag(_)
            | TrainMethod::Snapshots(_) => self.title(),
        }
    }

    fn title(&self) -> String {
        self.with(&self.method.label.value)
    }

    fn with(&self, method: &str) -> String {
        format!("{method} {} {} seed {}", self.model.name, self.data.label.value, self.seed)
    }
}

fn split_members(work: &Work) -> Option<u32> {
    match work {
        Work::Network { train, .. } => train.split_members(),
        Work::Ensemble { .. } => None,
    }
}
