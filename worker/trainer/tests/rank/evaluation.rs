//! Evaluations: what is stored is what was scored.

use std::fs;
use std::path::{Path, PathBuf};

use common::FailureCause;
use common::report::{Launch, Report};
use common::spec::{
    DatasetName, DropoutSettings, EVALUATION_NUMERICS, EvaluateSpec, OodSource, Predictor, RankOneSettings,
    TrainMethod, TrainSpec, TrialSpec,
};
use metrics::{ClassificationReport, Evaluation, Predictions, Shape};
use safetensors::SafeTensors;

use crate::support::{Ended, batch_ensemble, launch, lp_bnn, network_files, run, tensors, train_spec};

pub fn trained(spec: &TrainSpec, folder: &Path) -> PathBuf {
    let folder = folder.join(TrialSpec::Train(spec.clone()).key().0.short());
    run(&launch(TrialSpec::Train(spec.clone()), &folder)).final_checkpoint()
}

pub fn evaluation(networks: Vec<TrainSpec>, predictor: Predictor) -> EvaluateSpec {
    EvaluateSpec {
        predictor,
        networks,
        ood: vec![OodSource::HeldOut],
        shift: None,
        seed: 5,
        batch_size: 50,
        numerics: EVALUATION_NUMERICS,
    }
}

pub fn evaluate(spec: &EvaluateSpec, paths: &[PathBuf], folder: &Path) -> Ended {
    run(&evaluate_launch(spec, paths, folder))
}

fn evaluate_launch(spec: &EvaluateSpec, paths: &[PathBuf], folder: &Path) -> Launch {
    let networks = network_files(&spec.networks, paths);
    Launch { networks, ..launch(TrialSpec::Evaluate(spec.clone()), folder) }
}

pub fn artifact(ended: &Ended) -> PathBuf {
    artifact_called("predictions.safetensors", ended).unwrap()
}

fn artifact_called(wanted: &str, ended: &Ended) -> Option<PathBuf> {
    ended.reports.iter().find_map(|report| match report {
        Report::Artifact { name, path } if name == wanted => Some(path.clone()),
        _ => None,
    })
}

/// A set of predictions as anyone with a safetensors library reads it.
pub struct Stored {
    pub shape: Shape,
    pub probabilities: Vec<f32>,
    pub labels: Vec<u32>,
    pub ids: Vec<u64>,
}

pub fn stored(file: &SafeTensors<'_>, prefix: &str) -> Stored {
    let integers = |name: &str| -> Vec<u64> {
        let view = file.tensor(&format!("{prefix}/{name}")).unwrap();
        view.data().chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    let view = file.tensor(&format!("{prefix}/probabilities")).unwrap();
    let &[members, samples, classes] = view.shape() else { panic!("{:?}", view.shape()) };
    let floats = view.data().chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    Stored {
        shape: Shape { members, samples, classes },
        probabilities: floats.collect(),
        labels: integers("labels").into_iter().map(|label| u32::try_from(label).unwrap()).collect(),
        ids: integers("ids"),
    }
}

#[test]
fn the_stored_predictions_give_the_reported_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let specs = vec![train_spec(batch_ensemble()), train_spec(lp_bnn())];
    let paths: Vec<PathBuf> = specs.iter().map(|spec| trained(spec, folder.path())).collect();
    let spec = evaluation(specs, Predictor::Direct { samples_per_member: 3 });
    let launch = evaluate_launch(&spec, &paths, &folder.path().join("evaluate"));
    let ended = run(&launch);
    let reported = ended.done();

    let bytes = fs::read(artifact(&ended)).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = &metadata.metadata().as_ref().unwrap()["predictions"];
    let metadata: serde_json::Value = serde_json::from_str(metadata).unwrap();
    assert_eq!(metadata["trial"], launch.spec.key().to_string());
    assert_eq!(metadata["classes"], serde_json::json!([0, 1, 2, 3, 4, 5, 6, 7]));
    assert_eq!(metadata["ood"], serde_json::json!(["held-out"]));

    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (id, ood) = (stored(&file, "id"), stored(&file, "ood/held-out"));
    assert_eq!(id.shape, Shape { members: 4, samples: 120, classes: 8 });
    assert!(ood.labels.iter().all(|&label| label == 8 || label == 9));
    let id = Predictions::new(id.shape, id.probabilities, id.ids).unwrap().with_labels(id.labels).unwrap();
    let ood = Predictions::new(ood.shape, ood.probabilities, ood.ids).unwrap();
    let report =
        ClassificationReport::compute(&Evaluation::new(&id).with_ood(&[("held-out", &ood)])).unwrap();
    assert!(report.entries().len() > 20);
    for (name, value) in report {
        assert_eq!(reported[&name.to_string()].to_bits(), value.to_bits(), "{name}");
    }
    assert_eq!(reported["members"], 4.0);
    assert!(reported["parameters"] > 2.0 * 70_000.0);
    assert!(reported["train_seconds"] > 0.0 && reported["evaluate_seconds"] > 0.0);

    // Of two networks, only the second has vectors that vary.
    let posterior = tensors(&artifact_called("posterior.safetensors", &ended).unwrap());
    assert!(posterior.keys().all(|name| name.starts_with("1/")));
    assert_eq!(posterior["1/stem/alpha/factor"].1, [2, 1, 4]);
    assert_eq!(posterior["1/linear/alpha/mean"].1, [2, 64]);
    let checkpoint = tensors(&paths[1]);
    assert_eq!(posterior["1/stem/alpha/codes"], checkpoint["model/stem.alpha"]);
    assert_eq!(posterior["1/stem/gamma/mean"], checkpoint["model/stem.gamma"]);
    assert!(!posterior.contains_key("1/stem/gamma/factor"));
}

/// Single precision, as numpy reads it.
fn floats((_, _, bytes): &(String, Vec<usize>, Vec<u8>)) -> Vec<f32> {
    bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn a_rank_one_network_trains_on_its_bound_and_leaves_its_posterior() {
    let folder = tempfile::tempdir().unwrap();
    let method = TrainMethod::RankOne(RankOneSettings { members: 2, ..RankOneSettings::default() });
    let train = train_spec(method);
    let training = run(&launch(TrialSpec::Train(train.clone()), &folder.path().join("train")));
    let [loss, data, kl] = ["loss", "cross_entropy", "kl"].map(|name| training.values(name));
    assert_eq!(kl.len(), 18);
    for ((loss, data), kl) in loss.iter().zip(&data).zip(&kl) {
        assert!((loss - data - kl).abs() < 1e-4 * loss, "{loss} is not {data} + {kl}");
    }
    // Annealed over 0.8 · 18 = 14.4 steps; before the second step vectors have hardly moved.
    assert!((kl[1] / kl[0] - 2.0).abs() < 0.1, "{kl:?}");

    let paths = [training.final_checkpoint()];
    let mut spec = evaluation(vec![train], Predictor::Direct { samples_per_member: 2 });
    let ended = evaluate(&spec, &paths, &folder.path().join("evaluate"));
    assert_eq!(ended.done()["members"], 2.0);
    let posterior = tensors(&artifact_called("posterior.safetensors", &ended).unwrap());
    let checkpoint = tensors(&paths[0]);
    for side in ["alpha", "gamma"] {
        let name = format!("model/groups.1.0.conv2.{side}");
        assert_eq!(posterior[&format!("groups.1.0.conv2/{side}/mean")], checkpoint[&name]);
        let std = floats(&posterior[&format!("groups.1.0.conv2/{side}/std")]);
        let rho = floats(&checkpoint[&format!("{name}_rho")]);
        assert!(std.iter().zip(rho).all(|(std, rho)| (std - rho.exp().ln_1p()).abs() < 1e-5));
    }
    spec.seed += 1;
    let other = evaluate(&spec, &paths, &folder.path().join("other"));
    assert_ne!(ended.done()["nll"], other.done()["nll"]);
}

/// With a learning rate of 0.05 and 18 steps the network knows its digits far better than chance (1/8), so
/// images, labels and weights all arrive where they belong.
#[test]
fn a_trained_network_beats_chance_and_an_ensemble_of_one_is_deterministic() {
    let folder = tempfile::tempdir().unwrap();
    let mut train = train_spec(TrainMethod::Deterministic);
    train.data.train_limit = None;
    train.recipe.epochs = 2;
    let paths = [trained(&train, folder.path())];
    let mut spec = evaluation(vec![train], Predictor::Direct { samples_per_member: 1 });
    let one = evaluate(&spec, &paths, &folder.path().join("one"));
    assert!(one.done()["accuracy"] > 0.6, "{:?}", one.done());
    spec.seed += 1;
    let other = evaluate(&spec, &paths, &folder.path().join("other"));
    assert_eq!(one.done()["nll"], other.done()["nll"]);
}

#[test]
fn draws_depend_on_the_seed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let train = train_spec(lp_bnn());
    let paths = [trained(&train, folder.path())];
    let mut spec = evaluation(vec![train], Predictor::Direct { samples_per_member: 2 });
    let first = evaluate(&spec, &paths, &folder.path().join("first"));
    let again = evaluate(&spec, &paths, &folder.path().join("again"));
    let same = fs::read(artifact(&first)).unwrap() == fs::read(artifact(&again)).unwrap();
    assert!(same, "equal content is equal bytes, by which blobs are stored once");
    spec.seed += 1;
    let other = evaluate(&spec, &paths, &folder.path().join("other"));
    assert_ne!(first.done()["nll"], other.done()["nll"]);
}

#[test]
fn each_pass_of_mc_dropout_is_a_member() {
    let folder = tempfile::tempdir().unwrap();
    let train = train_spec(TrainMethod::Dropout(DropoutSettings { rate: 0.3, ..DropoutSettings::default() }));
    let paths = [trained(&train, folder.path())];
    let sampled = evaluation(vec![train.clone()], Predictor::McDropout { samples: 5 });
    let sampled = evaluate(&sampled, &paths, &folder.path().join("sampled"));
    assert_eq!(sampled.done()["members"], 5.0);
    assert!(sampled.done()["disagreement"] > 0.0);
    let direct = evaluation(vec![train], Predictor::Direct { samples_per_member: 1 });
    let direct = evaluate(&direct, &paths, &folder.path().join("direct"));
    assert_eq!(direct.done()["members"], 1.0);
}

#[test]
fn the_networks_must_be_those_that_the_evaluation_needs() {
    let folder = tempfile::tempdir().unwrap();
    let train = train_spec(TrainMethod::Deterministic);
    let path = trained(&train, folder.path());
    let mut other = train.clone();
    other.seed += 1;
    let spec = evaluation(vec![other.clone()], Predictor::Direct { samples_per_member: 1 });
    // The file says of itself which trial it is of.
    let ended = evaluate(&spec, &[path], &folder.path().join("evaluate"));
    assert!(matches!(ended.cause(), FailureCause::CheckpointIncompatible { .. }), "{}", ended.cause());
    let ended = evaluate(&spec, &[], &folder.path().join("none"));
    assert!(matches!(ended.cause(), FailureCause::SpecRejected { .. }), "{}", ended.cause());
}

#[test]
fn a_checkpoint_from_the_middle_of_training_is_not_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let train = train_spec(TrainMethod::Deterministic);
    let mut training = launch(TrialSpec::Train(train.clone()), &folder.path().join("train"));
    training.policy.checkpoint_steps = Some(5);
    let (step, path) = run(&training).checkpoints().remove(0);
    assert!(step < 18);
    let spec = evaluation(vec![train], Predictor::Direct { samples_per_member: 1 });
    let ended = evaluate(&spec, &[path], &folder.path().join("evaluate"));
    let FailureCause::CheckpointIncompatible { message } = ended.cause() else { panic!("{}", ended.cause()) };
    assert!(message.contains("before the end of training"), "{message}");
}

#[test]
fn out_of_distribution_images_of_another_shape_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let train = train_spec(TrainMethod::Deterministic);
    let path = trained(&train, folder.path());
    let mut spec = evaluation(vec![train], Predictor::Direct { samples_per_member: 1 });
    spec.ood = vec![OodSource::Set(DatasetName::Mnist)];
    let ended = evaluate(&spec, &[path], &folder.path().join("evaluate"));
    let FailureCause::SpecRejected { message } = ended.cause() else { panic!("{}", ended.cause()) };
    assert!(message.contains("1×28×28"), "{message}");
}
