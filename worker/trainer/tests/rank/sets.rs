//! Evaluations beyond the test set: validation images, corrupted images, and numbers instead of classes.

use std::fs;

use common::spec::{
    Corruption, DatasetName, MlpNorm, ModelSpec, OodSource, Predictor, Schedule, ShiftSource, ShiftSpec,
    TrainMethod, TrainSpec,
};
use metrics::{ClassificationReport, Evaluation, Predictions, ShiftName, ShiftedSet};
use safetensors::SafeTensors;

use crate::evaluation::{artifact, evaluate, evaluation, stored, trained};
use crate::support::{batch_ensemble, train_spec};

const DIRECT: Predictor = Predictor::Direct { samples_per_member: 1 };

#[test]
fn temperature_and_corruptions_come_from_networks_that_exist() {
    let folder = tempfile::tempdir().unwrap();
    let mut train = train_spec(batch_ensemble());
    train.data.train_limit = Some(200);
    train.data.validation = 60;
    let paths = [trained(&train, folder.path())];
    let mut spec = evaluation(vec![train], DIRECT);
    spec.shift = Some(ShiftSpec {
        source: ShiftSource::Generated,
        corruptions: vec![Corruption::GaussianNoise, Corruption::Contrast],
        severities: vec![5],
        limit: Some(40),
    });
    let ended = evaluate(&spec, &paths, &folder.path().join("evaluate"));
    let reported = ended.done();
    for name in ["temperature", "nll_scaled", "accuracy/gaussian_noise.5", "auroc_energy", "weight_cosine"] {
        assert!(reported.contains_key(name), "no `{name}` in {reported:?}");
    }
    assert_eq!(reported["shifted_sets"], 2.0);

    // What is stored gives the same figures, and the corrupted images are the first of the test images.
    let bytes = fs::read(artifact(&ended)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let id = stored(&file, "id");
    let shape = file.tensor("shift/contrast.5/probabilities").unwrap().shape().to_vec();
    assert_eq!(shape, [1, 40, 8], "the mean of both members");
    let values: Vec<f32> = file
        .tensor("shift/contrast.5/probabilities")
        .unwrap()
        .data()
        .chunks(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let shape = metrics::Shape { members: 1, samples: 40, classes: 8 };
    let contrast = Predictions::new(shape, values, id.ids[..40].to_vec()).unwrap();
    let contrast = contrast.with_labels(id.labels[..40].to_vec()).unwrap();
    let test = Predictions::new(id.shape, id.probabilities, id.ids).unwrap().with_labels(id.labels).unwrap();
    let name: ShiftName = "contrast.5".parse().unwrap();
    let shift = [ShiftedSet { name, predictions: &contrast }];
    let report = ClassificationReport::compute(&Evaluation::new(&test).with_shift(&shift)).unwrap();
    for name in ["nll", "nll/contrast.5", "ece/contrast.5"] {
        assert_eq!(report.value(name).unwrap().to_bits(), reported[name].to_bits(), "{name}");
    }
    assert_eq!(file.tensor("held_out/labels").unwrap().shape(), [60]);
}

/// A perceptron on the cubic, trained for some hundred steps.
fn cubic(method: TrainMethod) -> TrainSpec {
    let mut spec = train_spec(method);
    spec.data.set = DatasetName::Cubic;
    spec.data.held_out = Vec::new();
    spec.data.train_limit = None;
    spec.data.test_limit = Some(200);
    spec.model = ModelSpec::Mlp { layers: 2, width: 32, norm: MlpNorm::None };
    spec.recipe.epochs = 20;
    spec.recipe.batch_size = 50;
    spec.recipe.schedule = Schedule::Cosine;
    spec.recipe.lr = 0.02;
    spec.recipe.augmentation = Vec::new();
    spec
}

#[test]
fn a_number_is_predicted_better_than_by_its_mean_and_less_surely_far_away() {
    let folder = tempfile::tempdir().unwrap();
    let networks: Vec<TrainSpec> =
        (0..3).map(|seed| TrainSpec { seed, ..cubic(TrainMethod::Deterministic) }).collect();
    let paths: Vec<_> = networks.iter().map(|network| trained(network, folder.path())).collect();
    let mut spec = evaluation(networks, DIRECT);
    spec.ood = vec![OodSource::CubicFar];
    let ended = evaluate(&spec, &paths, &folder.path().join("evaluate"));
    let reported = ended.done();
    // The target's standard deviation is 24.4, the noise's 3.
    assert!(reported["rmse"] < 12.0, "{reported:?}");
    assert!(reported["epistemic_std/cubic-far"] > 2.0 * reported["epistemic_std"], "{reported:?}");
    assert!(!reported.contains_key("accuracy"));
    let bytes = fs::read(artifact(&ended)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("id/means").unwrap().shape(), [3, 200]);
    assert_eq!(file.tensor("ood/cubic-far/features").unwrap().shape(), [200, 2]);
}

#[test]
fn members_predict_numbers_too() {
    let folder = tempfile::tempdir().unwrap();
    let network = cubic(batch_ensemble());
    let paths = [trained(&network, folder.path())];
    let mut spec = evaluation(vec![network], DIRECT);
    spec.ood = Vec::new();
    let ended = evaluate(&spec, &paths, &folder.path().join("evaluate"));
    assert_eq!(ended.done()["members"], 2.0);
    assert!(ended.done()["epistemic_std"] > 0.0);
}
