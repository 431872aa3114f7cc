//! The checkpoint that predicts held-out images best, of a trial that keeps it; and, for random histories, that what must
//! be kept is and nothing else.

use std::collections::BTreeSet;

use common::plan::Plan;
use common::result::{Checkpoint, Score};
use common::spec::Scoring;
use common::{AttemptId, Digest, FailureCause, TrialId};
use coordinator_core::{Effect, Input, Step};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use crate::case::*;
use crate::support::{evaluate, network, plan_with};

const KEEP_BEST: Option<Scoring> = Some(Scoring { samples: 1, batch_size: 64 });

fn scored(step: u64, score: f64) -> Checkpoint {
    checkpoint(step, &step.to_string()).scored(Score::new(score))
}

fn delete(step: u64) -> Effect {
    Effect::DeleteBlob { digest: scored(step, 0.0).digest }
}

fn kept(case: &Case, trial: TrialId) -> Vec<u64> {
    case.cluster.trial(trial).unwrap().checkpoints.iter().map(|held| held.step).collect()
}

fn best(case: &Case) -> Option<u64> {
    case.cluster.trial(T1).unwrap().best().map(|held| held.step)
}

fn keeping(mut plan: Plan, keep_best: Option<Scoring>) -> Plan {
    for planned in &mut plan.trials {
        planned.policy.keep_best = keep_best;
    }
    plan
}

/// A trial that runs, whose policy keeps the last two checkpoints and the best.
fn training() -> Case {
    let mut case = Case::with_workers([1]);
    let _ = case.submit_plan(keeping(plan([train(1, 1), evaluate([network(1, 1)])]), KEEP_BEST));
    case
}

#[test]
fn the_best_checkpoint_is_kept_apart_from_the_last_two_until_there_is_a_better_one() {
    let mut case = training();
    for (step, score) in [(10, 0.5), (20, 0.3), (30, 0.6), (40, 0.4)] {
        let _ = case.commit(W1, A1, scored(step, score));
    }
    assert_eq!((kept(&case, T1), best(&case)), (vec![20, 30, 40], Some(20)));
    let step = case.commit(W1, A1, scored(50, 0.2));
    assert_eq!(outline(&step), ["t1 committed 50", "t1 dropped one: Superseded"]);
    assert_eq!(step.effects, [delete(20)]);
    assert_eq!((kept(&case, T1), best(&case)), (vec![30, 40, 50], Some(50)));
    assert_eq!(case.cluster.trial(T1).unwrap().restore().next().map(|held| held.step), Some(50));
}

#[test]
fn the_best_checkpoint_survives_success_and_is_not_the_network() {
    let mut case = training();
    for (step, score) in [(10, 0.3), (20, 0.5), (30, 0.4)] {
        let _ = case.commit(W1, A1, scored(step, score));
    }
    let step = case.end(W1, A1, success());
    assert_eq!(outline(&step)[..2], ["t1 succeeded", "t1 dropped one: Superseded"]);
    case.restart();
    assert_eq!((kept(&case, T1), best(&case)), (vec![10, 30], Some(10)));
    let network = case.cluster.networks(T2).map(|(_, held)| held.step).collect::<Vec<_>>();
    assert_eq!(network, [30]);
}

#[test]
fn of_equal_scores_the_newest_is_best_and_without_a_score_none_is() {
    let mut case = training();
    let _ = case.commit(W1, A1, checkpoint(5, "5"));
    assert_eq!(best(&case), None);
    for (step, score) in [(10, 0.3), (20, 0.3), (30, 0.4), (40, f64::NAN), (50, 0.4)] {
        let _ = case.commit(W1, A1, scored(step, score));
    }
    assert_eq!((kept(&case, T1), best(&case)), (vec![20, 40, 50], Some(20)));
}

#[test]
fn a_damaged_best_is_dropped_and_the_next_best_takes_its_place() {
    let mut case = training();
    for (step, score) in [(10, 0.1), (20, 0.3), (30, 0.2)] {
        let _ = case.commit(W1, A1, scored(step, score));
    }
    let step = case.handle(Input::CheckpointDamaged { attempt: A1, digest: scored(10, 0.1).digest });
    assert_eq!(outline(&step), ["t1 dropped one: Damaged"]);
    assert_eq!(best(&case), Some(30));
    assert_eq!(outline(&case.commit(W1, A1, scored(40, 0.9))), ["t1 committed 40"]);
    assert_eq!(kept(&case, T1), [20, 30, 40]);
    assert_eq!(outline(&case.end(W1, A1, success()))[0], "t1 succeeded", "the newest was not damaged");
}

#[test]
fn scores_of_a_trial_that_does_not_ask_for_its_best_keep_nothing() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    for (step, score) in [(10, 0.1), (20, 0.3), (30, 0.2)] {
        let _ = case.commit(W1, A1, scored(step, score));
    }
    assert_eq!((kept(&case, T1), best(&case)), (vec![20, 30], None));
}

#[test]
fn a_trial_that_is_submitted_again_without_asking_for_its_best_gives_it_up() {
    let mut case = training();
    for (step, score) in [(10, 0.1), (20, 0.3), (30, 0.2)] {
        let _ = case.commit(W1, A1, scored(step, score));
    }
    let _ = case.handle(Input::CancelTrial { trial: T1 });
    assert_eq!(kept(&case, T1), [10, 20, 30]);
    let step = case.submit([train(1, 1)]);
    assert_eq!(outline(&step)[..2], ["t1 resubmitted", "t1 dropped one: Superseded"]);
    assert_eq!(kept(&case, T1), [20, 30]);
}

/// A checkpoint that must still be there.
#[derive(Clone, Debug)]
struct Held {
    step: u64,
    score: Option<f64>,
    pinned: bool,
}

/// What must be kept of one trial, by rules of its own.
#[derive(Clone, Debug, Default)]
struct Model {
    held: Vec<Held>,
    keeps_best: bool,
    succeeded: bool,
    /// The newest was damaged, so the trial cannot succeed before there is another.
    behind: bool,
}

impl Model {
    fn steps(&self) -> Vec<u64> {
        self.held.iter().map(|held| held.step).collect()
    }

    fn commit(&mut self, step: u64, score: Option<f64>) {
        self.held.push(Held { step, score, pinned: false });
        self.behind = false;
        self.forget();
    }

    fn damage(&mut self, step: u64) {
        self.behind |= self.held.last().is_some_and(|last| last.step == step);
        self.held.retain(|held| held.step != step);
    }

    fn pin(&mut self, step: u64, pinned: bool) {
        self.held.iter_mut().filter(|held| held.step == step).for_each(|held| held.pinned = pinned);
        self.forget();
    }

    /// Leaves the newest two, or once it succeeded the last; and whatever is pinned or best.
    fn forget(&mut self) {
        let mut best: Option<(f64, u64)> = None;
        for held in self.held.iter().filter(|_| self.keeps_best) {
            best = match (best, held.score) {
                (Some((lowest, _)), Some(score)) if score > lowest => best,
                (_, Some(score)) => Some((score, held.step)),
                (_, None) => best,
            };
        }
        let last = self.held.last().map(|held| held.step).filter(|_| self.succeeded);
        let mut room = if self.succeeded { 0 } else { 2 };
        let mut left = Vec::new();
        for held in self.held.drain(..).rev() {
            let spared =
                held.pinned || best.is_some_and(|(_, step)| step == held.step) || last == Some(held.step);
            if spared || room > 0 {
                room -= usize::from(!spared);
                left.push(held);
            }
        }
        left.reverse();
        self.held = left;
    }
}

/// Two networks that train side by side, whose checkpoints of a step have the same content, and an evaluation of the first.
struct History {
    case: Case,
    rng: SmallRng,
    models: [Model; 2],
    stored: BTreeSet<Digest>,
}

const TRAINED: [TrialId; 2] = [T1, T2];

impl History {
    fn new(seed: u64) -> Self {
        let mut history = Self {
            case: Case::with_workers([3]),
            rng: SmallRng::seed_from_u64(seed),
            models: Default::default(),
            stored: BTreeSet::new(),
        };
        history.submit(KEEP_BEST);
        history
    }

    /// Submits what is not open or done already, which gives it this policy.
    fn submit(&mut self, keep_best: Option<Scoring>) {
        for (model, trial) in self.models.iter_mut().zip(TRAINED) {
            if self.case.cluster.trial(trial).is_none_or(|record| record.has_ended() && !model.succeeded) {
                model.keeps_best = keep_best.is_some();
                model.forget();
            }
        }
        let plan = plan_with(1_000, [train(1, 1), train(2, 1), evaluate([network(1, 1)])]);
        let step = self.case.submit_plan(keeping(plan, keep_best));
        self.check(&step);
    }

    fn attempt(&self, trial: TrialId) -> Option<AttemptId> {
        self.case.cluster.trial(trial)?.attempt().map(|attempt| attempt.id)
    }

    fn input(&mut self) {
        let which = self.rng.random_range(0..2);
        let trial = TRAINED[which];
        let held = self.models[which].steps().choose(&mut self.rng).copied();
        match (self.rng.random_range(0..100), self.attempt(trial), held) {
            (0..50, Some(attempt), _) => self.commit(which, attempt),
            (50..62, _, Some(step)) => self.pin(which, step, true),
            (62..74, _, Some(step)) => self.pin(which, step, false),
            (74..82, Some(attempt), Some(step)) => {
                self.models[which].damage(step);
                let digest = checkpoint(step, &step.to_string()).digest;
                self.handle(Input::CheckpointDamaged { attempt, digest });
            }
            (82..88, Some(attempt), _) => {
                let end = Err(FailureCause::OutOfMemory);
                self.handle(Input::Ended { worker: W1, attempt, end });
            }
            (88..93, Some(attempt), _) => self.succeed(which, attempt),
            (93..97, _, _) => self.damage_network(),
            (97..100, Some(_), _) => {
                self.handle(Input::CancelTrial { trial });
                let keep_best = KEEP_BEST.filter(|_| self.rng.random_bool(0.5));
                self.submit(keep_best);
            }
            _ => {}
        }
    }

    fn commit(&mut self, which: usize, attempt: AttemptId) {
        let model = &mut self.models[which];
        let newest = model.held.last().map_or(0, |held| held.step);
        let step = newest + self.rng.random_range(1..4);
        let score =
            [None, Some(0.1), Some(0.2), Some(0.3), Some(0.4)].choose(&mut self.rng).copied().unwrap();
        model.commit(step, score);
        let checkpoint = checkpoint(step, &step.to_string()).scored(score.and_then(Score::new));
        self.stored.insert(checkpoint.digest);
        self.handle(Input::CheckpointCommitted { worker: W1, attempt, checkpoint });
    }

    fn pin(&mut self, which: usize, step: u64, pinned: bool) {
        let trial = TRAINED[which];
        self.models[which].pin(step, pinned);
        self.handle(match pinned {
            true => Input::PinCheckpoint { trial, step },
            false => Input::UnpinCheckpoint { trial, step },
        });
    }

    /// Without its last checkpoint it is not believed, and runs again.
    fn succeed(&mut self, which: usize, attempt: AttemptId) {
        let model = &mut self.models[which];
        if !model.held.is_empty() && !model.behind {
            model.succeeded = true;
            model.forget();
        }
        self.handle(Input::Ended { worker: W1, attempt, end: success() });
    }

    /// The evaluation finds the network that it reads damaged, which is trained again.
    fn damage_network(&mut self) {
        let Some(attempt) = self.attempt(T3) else { return };
        let step = self.models[0].held.last().unwrap().step;
        self.models[0].damage(step);
        self.models[0].succeeded = false;
        let digest = checkpoint(step, &step.to_string()).digest;
        self.handle(Input::CheckpointDamaged { attempt, digest });
    }

    fn handle(&mut self, input: Input) {
        let step = self.case.handle(input);
        self.check(&step);
    }

    fn check(&mut self, step: &Step) {
        let wanted: BTreeSet<Digest> = self
            .models
            .iter()
            .flat_map(Model::steps)
            .map(|step| checkpoint(step, &step.to_string()).digest)
            .collect();
        for effect in &step.effects {
            if let Effect::DeleteBlob { digest } = effect {
                assert!(!wanted.contains(digest), "a blob that is referred to was deleted");
                assert!(self.stored.remove(digest), "a blob was deleted twice");
            }
        }
        assert_eq!(self.stored, wanted, "blobs that nobody refers to any more were left");
        for (model, trial) in self.models.iter().zip(TRAINED) {
            assert_eq!(kept(&self.case, trial), model.steps(), "{trial}: {model:?}");
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "shown when the test fails")]
fn what_is_newest_best_pinned_or_final_is_kept_and_nothing_else_whatever_happens() {
    for seed in 0..40 {
        println!("seed {seed}");
        let mut history = History::new(seed);
        for _ in 0..80 {
            history.input();
        }
    }
}
