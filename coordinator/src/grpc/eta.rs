//! How long an experiment will still take: a plain estimate, made anew for every look.
//!
//! A trial takes as long as those like it took on average: those of the same class (what is trained with which
//! network on which data, or evaluated), or, while there is none, as long as one of the class that runs now
//! will take. The work that is left is spread over all slots; it takes no less than its longest trial.

use std::collections::BTreeMap;

use common::TrialId;
use common::spec::{TrainSpec, TrialSpec};
use coordinator_core::{Experiment, Phase, Session, Trial};

use crate::driver::View;

/// A trial, as far as its duration is concerned.
#[derive(Clone, Debug, PartialEq)]
struct Work {
    class: String,
    slots: u32,
    stage: Stage,
}

/// Where a trial stands. Times in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// It took so long.
    Done(f64),
    /// It runs.
    Running {
        elapsed: f64,
        /// By its own progress, if it has any.
        left: Option<f64>,
    },
    /// It will run.
    Open,
}

/// Seconds until every trial of the experiment has ended; `None` while nothing is known.
pub(super) fn seconds_left(view: &View<'_>, experiment: &Experiment) -> Option<f64> {
    let connected = view.cluster.workers().filter(|member| member.session == Session::Connected);
    let slots = connected.map(|member| member.worker.slots).sum();
    let trials = experiment.trials.iter().filter_map(|&id| work(view, id, view.cluster.trial(id)?));
    estimate(&trials.collect::<Vec<_>>(), slots)
}

fn work(view: &View<'_>, id: TrialId, trial: &Trial) -> Option<Work> {
    let newest = view.history.attempts_of(id).next_back().map(|(_, attempt)| attempt);
    let stage = match &trial.phase {
        Phase::Waiting | Phase::Queued | Phase::Paused => Stage::Open,
        Phase::Running(attempt) => {
            let elapsed = view.now.since(attempt.started).as_secs_f64();
            Stage::Running { elapsed, left: seconds_by_progress(view, id, elapsed) }
        }
        Phase::Ended { at, .. } => {
            // One that failed or was cancelled says nothing about those that succeed.
            let attempt = newest.filter(|_| trial.has_succeeded())?;
            Stage::Done(at.since(attempt.started).as_secs_f64())
        }
    };
    Some(Work { class: class(trial.spec.unseeded()), slots: trial.slots(), stage })
}

fn seconds_by_progress(view: &View<'_>, id: TrialId, elapsed: f64) -> Option<f64> {
    let progress = view.progress(id)?;
    let left = progress.total_steps.checked_sub(progress.step)?;
    if progress.total_steps == 0 {
        return None;
    }
    // Steps that it was handed by a checkpoint would make the mean over its own time too fast.
    let mean = (elapsed > 0.0).then(|| progress.step as f64 / elapsed);
    let speed = progress.steps_per_second.or(mean).filter(|speed| *speed > 0.0)?;
    Some(left as f64 / speed)
}

fn class(spec: &TrialSpec) -> String {
    match spec {
        TrialSpec::Train(train) => {
            let TrainSpec {
                method,
                data,
                model,
                recipe,
                world_size,
                min_world_size: _,
                pretrained: _,
                seed: _,
                numerics: _,
            } = train;
            format!("train {method:?} {data:?} {model:?} {recipe:?} {world_size}")
        }
        TrialSpec::Evaluate(evaluate) => {
            format!("evaluate {:?} {}", evaluate.predictor, evaluate.networks.len())
        }
    }
}

fn estimate(trials: &[Work], slots: u32) -> Option<f64> {
    let known = means(trials);
    let overall = mean(known.values().copied());
    let expected = |work: &Work| known.get(work.class.as_str()).copied().or(overall);
    let mut slot_seconds = 0.0;
    let mut longest = 0.0_f64;
    for work in trials {
        let left = match work.stage {
            Stage::Done(_) => continue,
            Stage::Running { elapsed, left } => {
                left.or_else(|| expected(work).map(|expected| (expected - elapsed).max(0.0)))?
            }
            Stage::Open => expected(work)?,
        };
        slot_seconds += left * f64::from(work.slots);
        longest = longest.max(left);
    }
    (slots > 0).then(|| (slot_seconds / f64::from(slots)).max(longest))
}

/// Mean duration of each class: over the trials that are done, else over those that run.
fn means(trials: &[Work]) -> BTreeMap<&str, f64> {
    let mut done: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut running: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for work in trials {
        match work.stage {
            Stage::Done(seconds) => done.entry(&work.class).or_default().push(seconds),
            Stage::Running { elapsed, left: Some(left) } => {
                running.entry(&work.class).or_default().push(elapsed + left);
            }
            Stage::Running { left: None, .. } | Stage::Open => {}
        }
    }
    running.extend(done);
    running.into_iter().filter_map(|(class, seconds)| Some((class, mean(seconds.into_iter())?))).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(class: &str, slots: u32, stage: Stage) -> Work {
        Work { class: class.to_owned(), slots, stage }
    }

    #[test]
    fn nothing_is_said_before_anything_is_known() {
        let open = [trial("a", 1, Stage::Open)];
        assert_eq!(estimate(&open, 4), None);
        let running = [trial("a", 1, Stage::Running { elapsed: 3.0, left: None })];
        assert_eq!(estimate(&running, 4), None);
    }

    #[test]
    fn nothing_is_said_without_slots() {
        assert_eq!(estimate(&[trial("a", 1, Stage::Done(5.0)), trial("a", 1, Stage::Open)], 0), None);
    }

    #[test]
    fn what_is_left_is_spread_over_the_slots() {
        let mut trials = vec![trial("a", 1, Stage::Done(10.0)), trial("a", 1, Stage::Done(20.0))];
        trials.extend((0..8).map(|_| trial("a", 1, Stage::Open)));
        assert_eq!(estimate(&trials, 4), Some(8.0 * 15.0 / 4.0));
        trials.push(trial("a", 4, Stage::Open));
        assert_eq!(estimate(&trials, 4), Some((8.0 + 4.0) * 15.0 / 4.0));
    }

    #[test]
    fn it_takes_no_less_than_the_longest_trial() {
        let trials = [trial("a", 1, Stage::Done(60.0)), trial("a", 1, Stage::Open)];
        assert_eq!(estimate(&trials, 16), Some(60.0));
    }

    #[test]
    fn a_trial_that_runs_is_estimated_by_its_own_progress_and_stands_for_its_class() {
        let trials =
            [trial("a", 1, Stage::Running { elapsed: 10.0, left: Some(30.0) }), trial("a", 1, Stage::Open)];
        assert_eq!(estimate(&trials, 1), Some(30.0 + 40.0));
    }

    #[test]
    fn a_class_that_nothing_is_known_of_takes_the_mean_of_the_others() {
        let trials =
            [trial("a", 1, Stage::Done(10.0)), trial("b", 1, Stage::Done(30.0)), trial("c", 1, Stage::Open)];
        assert_eq!(estimate(&trials, 1), Some(20.0));
    }

    #[test]
    fn a_trial_that_runs_longer_than_expected_is_about_to_end() {
        let trials =
            [trial("a", 1, Stage::Done(10.0)), trial("a", 1, Stage::Running { elapsed: 25.0, left: None })];
        assert_eq!(estimate(&trials, 1), Some(0.0));
    }
}
