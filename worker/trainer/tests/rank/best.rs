//! Checkpoints that are scored, so that the best one can be kept: scores are right, and training does not notice.

use std::fs;
use std::path::Path;

use common::report::{Command, Launch, Report};
use common::spec::{DropoutSettings, Predictor, Scoring, TrainMethod, TrainSpec, TrialSpec};
use metrics::{Predictions, negative_log_likelihood};
use safetensors::SafeTensors;

use crate::evaluation::{artifact, evaluate, evaluation, stored};
use crate::resume::kill_and_resume;
use crate::support::{
    Ended, Rank, assert_same_tensors, batch_ensemble, launch, lp_bnn, run_gang, sngp, train_spec,
};

/// As many training images as other tests have, and 30 that are held out.
fn held_out(method: TrainMethod, world_size: u32) -> TrainSpec {
    let mut spec = train_spec(method);
    spec.data.train_limit = Some(130);
    spec.data.validation = 30;
    spec.world_size = world_size;
    spec
}

fn launches(spec: &TrainSpec, folder: &Path) -> [Launch; 2] {
    let mut without = launch(TrialSpec::Train(spec.clone()), &folder.join("without"));
    without.policy.checkpoint_steps = Some(4);
    let mut with = Launch { work_dir: folder.join("with"), ..without.clone() };
    with.policy.keep_best = Some(Scoring { samples: 3, batch_size: 16 });
    [without, with]
}

fn scores(ended: &Ended) -> Vec<(u64, Option<f64>)> {
    let score = |report: &Report| match report {
        Report::Checkpoint { step, score, .. } => Some((*step, *score)),
        _ => None,
    };
    ended.reports.iter().filter_map(score).collect()
}

/// Trains with and without scores: all but those is the same.
fn trains_the_same(method: TrainMethod, world_size: u32) {
    let folder = tempfile::tempdir().unwrap();
    let ends = launches(&held_out(method, world_size), folder.path()).map(|launch| run_gang(&launch));
    let [without, with] = ends.map(|mut ranks| ranks.swap_remove(0));
    assert_same_tensors(&without.final_checkpoint(), &with.final_checkpoint());
    assert_eq!(without.done()["loss"], with.done()["loss"]);
    assert!(scores(&without).iter().all(|(_, score)| score.is_none()));

    let (rows, others): (Vec<_>, Vec<_>) =
        with.rows().into_iter().partition(|row| row.name == "held-out-nll");
    assert_eq!(others, without.rows());
    let rows: Vec<_> = rows.into_iter().map(|row| (row.step, Some(row.value))).collect();
    assert_eq!(scores(&with), rows);
    assert!(rows.len() >= 2 && rows.last().unwrap().0 == 18, "{rows:?}");
    let values: Vec<f64> = rows.into_iter().filter_map(|(_, score)| score).collect();
    assert!(values.iter().all(|value| *value > 0.0 && *value < 10.0), "{values:?}");
    assert_eq!(with.warnings(), without.warnings());
}

#[test]
fn a_sampling_network_trains_to_the_same_bits_whether_it_is_scored_or_not() {
    trains_the_same(lp_bnn(), 1);
}

#[test]
fn two_ranks_train_to_the_same_bits_whether_the_first_scores_or_not() {
    trains_the_same(lp_bnn(), 2);
}

#[test]
fn networks_that_drop_out_and_that_remember_train_to_the_same_bits_whether_they_are_scored_or_not() {
    trains_the_same(TrainMethod::Dropout(DropoutSettings { rate: 0.2, ..DropoutSettings::default() }), 1);
    trains_the_same(batch_ensemble(), 1);
    trains_the_same(sngp(), 1);
}

#[test]
fn a_score_is_that_of_the_predictions_that_an_evaluation_stores() {
    let folder = tempfile::tempdir().unwrap();
    let spec = held_out(batch_ensemble(), 1);
    let [_, with] = launches(&spec, folder.path());
    let trained = run_gang(&with).swap_remove(0);
    let predictor = Predictor::Direct { samples_per_member: 1 };
    let evaluated = evaluate(
        &evaluation(vec![spec], predictor),
        &[trained.final_checkpoint()],
        &folder.path().join("evaluation"),
    );
    let bytes = fs::read(artifact(&evaluated)).unwrap();
    let stored = stored(&SafeTensors::deserialize(&bytes).unwrap(), "held_out");
    let predictions =
        Predictions::new(stored.shape, stored.probabilities.as_slice(), stored.ids.as_slice()).unwrap();
    let expected = negative_log_likelihood(&predictions.with_labels(stored.labels).unwrap());
    let found = scores(&trained).pop().unwrap().1.unwrap();
    // The same numbers in batches of another size.
    assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
}

#[test]
fn a_trial_that_goes_on_scores_its_checkpoints_as_one_that_was_not_killed() {
    let folder = tempfile::tempdir().unwrap();
    let [_, mut whole] = launches(&held_out(lp_bnn(), 1), folder.path());
    whole.policy.checkpoint_steps = Some(1);
    let expected = run_gang(&whole).swap_remove(0);
    let resumed = kill_and_resume(&whole, 7, folder.path());
    assert_same_tensors(&expected.final_checkpoint(), &resumed.final_checkpoint());
    let (expected, found) = (scores(&expected), scores(&resumed));
    // A slow disk passes over some steps.
    let both = found.iter().filter(|(step, _)| expected.iter().any(|(other, _)| other == step));
    assert!(both.clone().count() > 0);
    assert!(both.clone().all(|score| expected.contains(score)), "{found:?} is no part of {expected:?}");
}

#[test]
fn a_trial_that_yields_scores_no_step_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = held_out(lp_bnn(), 1);
    spec.recipe.epochs = 30;
    let [_, mut with] = launches(&spec, folder.path());
    with.policy.checkpoint_steps = Some(1);
    let mut rank = Rank::start(&with);
    rank.wait_for(|report| matches!(report, Report::Checkpoint { .. }).then_some(()));
    rank.command(&Command::Yield);
    let ended = rank.end();
    let step = match ended.reports.last() {
        Some(Report::Yielded { step }) => *step,
        other => panic!("the last report is {other:?}"),
    };
    let rows: Vec<_> = ended.rows().into_iter().filter(|row| row.name == "held-out-nll").collect();
    assert!(rows.windows(2).all(|pair| pair[0].step < pair[1].step), "{rows:?}");
    let scores = scores(&ended);
    assert_eq!(scores.last().map(|(of, _)| *of), Some(step));
    for (of, score) in scores {
        assert!(rows.iter().any(|row| row.step == of && Some(row.value) == score), "step {of}: {score:?}");
    }
}
