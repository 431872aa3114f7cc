//! Posteriors over weights: what training keeps for them, and what is predicted with them.

use std::fs;
use std::path::PathBuf;

use common::FailureCause;
use common::spec::{
    LaplaceCurvature, LaplaceSettings, Predictor, Schedule, SnapshotPlace, SnapshotSettings, SwagSettings,
    TradiSettings, TrainMethod, TrainSpec, TrialSpec,
};
use safetensors::SafeTensors;
use trainer::model::{Network, Role};

use crate::evaluation::{artifact, evaluate, evaluation, stored, trained};
use crate::resume::{kill_and_resume, survives_kills};
use crate::support::{Ended, assert_same_tensors, batch_ensemble, launch, run, run_gang, train_spec};

/// Fast filters: 18 steps would not move the published ones.
fn tradi() -> TrainMethod {
    TrainMethod::Tradi(TradiSettings { mean_noise: 5.0, variance_noise: 5.0, observation_noise: 10.0 })
}

/// Collects twice an epoch from the third on: eight networks for three columns.
fn swag() -> TrainMethod {
    TrainMethod::Swag(SwagSettings { start: 0.3, lr: 0.02, rank: 3, collections_per_epoch: 2 })
}

fn snapshots(place: SnapshotPlace) -> TrainMethod {
    TrainMethod::Snapshots(SnapshotSettings { count: 4, place })
}

fn methods() -> [TrainMethod; 3] {
    [tradi(), swag(), snapshots(SnapshotPlace::CycleEnds)]
}

#[test]
fn trackers_of_a_trial_that_was_killed_end_with_the_same_bits() {
    for method in methods() {
        survives_kills(method, false, &[10]);
    }
}

/// The ranks compare the digests of what they tracked before the first says that it is done.
#[test]
fn two_ranks_track_the_same_and_go_on_with_it_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    for (index, method) in methods().into_iter().enumerate() {
        let folder = folder.path().join(index.to_string());
        let mut spec = train_spec(method);
        spec.world_size = 2;
        let whole = launch(TrialSpec::Train(spec), &folder.join("whole"));
        let expected = run_gang(&whole).swap_remove(0);
        let resumed = kill_and_resume(&whole, 10, &folder.join("resumed"));
        assert_same_tensors(&expected.final_checkpoint(), &resumed.final_checkpoint());
    }
}

/// Sizes of the network: all parameters, and those outside of normalisations.
fn sizes(spec: &TrainSpec) -> [f64; 2] {
    let network = Network::new(&spec.model, &spec.method, [1, 8, 8], 8, 0, tch::Device::Cpu).unwrap();
    let weights =
        network.named_tensors().into_iter().filter(|named| matches!(named.role, Role::Weight { .. }));
    let outside = weights.filter(|named| !named.name.split('.').any(|part| part.starts_with("bn")));
    let outside: usize = outside.map(|named| named.tensor.numel()).sum();
    [network.parameter_count() as f64, outside as f64]
}

/// Probabilities `[J][N·K]` of the test images.
fn probabilities(ended: &Ended) -> Vec<Vec<f32>> {
    let bytes = fs::read(artifact(ended)).unwrap();
    let set = stored(&SafeTensors::deserialize(&bytes).unwrap(), "id");
    set.probabilities.chunks(set.shape.samples * set.shape.classes).map(<[f32]>::to_vec).collect()
}

/// A network that was trained once, for several evaluations.
struct Trained {
    folder: tempfile::TempDir,
    spec: TrainSpec,
    path: PathBuf,
}

impl Trained {
    fn new(spec: TrainSpec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = trained(&spec, folder.path());
        Self { folder, spec, path }
    }

    fn predict(&self, predictor: Predictor, name: &str) -> Ended {
        let spec = evaluation(vec![self.spec.clone()], predictor);
        evaluate(&spec, std::slice::from_ref(&self.path), &self.folder.path().join(name))
    }
}

/// More draws add members and change none: networks that were drawn before stay what they were.
#[test]
fn draws_from_a_tracked_posterior_are_members_that_differ() {
    let drawn = |samples| {
        [
            (tradi(), Predictor::Tradi { samples, features: 4 }),
            (swag(), Predictor::Swag { samples, scale: 1.0 }),
        ]
    };
    for ((method, two), (_, three)) in drawn(2).into_iter().zip(drawn(3)) {
        let network = Trained::new(train_spec(method));
        let two = probabilities(&network.predict(two, "two"));
        let ended = network.predict(three, "three");
        let three = probabilities(&ended);
        assert_eq!(three.len(), 3);
        assert_eq!(two[..], three[..2]);
        assert_ne!(three[0], three[1]);
        let [all, outside] = sizes(&network.spec);
        let expected = match &network.spec.method {
            TrainMethod::Tradi(_) => all + 2.0 * outside,
            _ => (2.0 + 3.0) * all,
        };
        assert_eq!(ended.done()["parameters"], expected);
    }
}

/// Whole digits, so that there is something to predict: averaged weights with statistics of their own know the digits, and
/// with those of the last step of training they would not.
#[test]
fn the_averaged_network_predicts_with_statistics_of_its_own() {
    let mut train = train_spec(swag());
    train.data.train_limit = None;
    train.recipe.epochs = 4;
    let ended = Trained::new(train).predict(Predictor::Swag { samples: 1, scale: 0.0 }, "mean");
    assert!(ended.done()["accuracy"] > 0.8, "{:?}", ended.done());
}

#[test]
fn kept_networks_are_members_and_the_last_is_the_trained_one() {
    let mut train = train_spec(snapshots(SnapshotPlace::CycleEnds));
    train.recipe.schedule = Schedule::Cyclic { cycles: 4 };
    let network = Trained::new(train);
    let ended = network.predict(Predictor::Snapshots { count: 3 }, "three");
    assert_eq!(ended.done()["parameters"], 3.0 * sizes(&network.spec)[0]);
    let three = probabilities(&ended);
    assert_eq!(three.len(), 3);
    let direct = network.predict(Predictor::Direct { samples_per_member: 1 }, "direct");
    assert_eq!(three[2], probabilities(&direct)[0]);
    assert_ne!(three[1], three[2]);
    let ended = network.predict(Predictor::Snapshots { count: 5 }, "five");
    assert!(matches!(ended.cause(), FailureCause::SpecRejected { .. }), "{}", ended.cause());
}

#[test]
fn laplace_makes_the_trained_network_less_certain() {
    let network = Trained::new(train_spec(TrainMethod::Deterministic));
    let direct = network.predict(Predictor::Direct { samples_per_member: 1 }, "direct");
    let plain = probabilities(&direct).remove(0);
    let with = |curvature, prior_precision, name: &str| {
        let settings = LaplaceSettings { curvature, prior_precision };
        network.predict(Predictor::LastLayerLaplace(settings), name)
    };
    for (curvature, name) in [(LaplaceCurvature::Kronecker, "kronecker"), (LaplaceCurvature::Full, "full")] {
        let certain = probabilities(&with(curvature, Some(1e12), &format!("{name} certain"))).remove(0);
        let off = certain.iter().zip(&plain).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "{name}: {off}");
        let fitted = with(curvature, None, name);
        let confidence =
            |rows: &[f32]| rows.chunks(8).map(|row| row.iter().copied().fold(0.0, f32::max)).sum::<f32>();
        let fitted = probabilities(&fitted).remove(0);
        assert!(confidence(&fitted) < confidence(&plain), "{name}");
    }
}

fn refusal(ended: &Ended) -> String {
    match ended.cause() {
        FailureCause::SpecRejected { message } => message.clone(),
        other => panic!("{other}"),
    }
}

#[test]
fn a_predictor_of_another_method_is_refused() {
    let ensemble = Trained::new(train_spec(batch_ensemble()));
    let laplace = Predictor::LastLayerLaplace(LaplaceSettings::default());
    let message = refusal(&ensemble.predict(laplace, "laplace"));
    assert!(message.contains("ordinary linear last layer"), "{message}");
    let message = refusal(&ensemble.predict(Predictor::Snapshots { count: 1 }, "snapshots"));
    assert!(message.contains("the training kept 0"), "{message}");
    let swag = ensemble.predict(Predictor::Swag { samples: 1, scale: 1.0 }, "swag");
    let FailureCause::CheckpointIncompatible { message } = swag.cause() else { panic!("{}", swag.cause()) };
    assert!(message.contains("tracker/swag.mean"), "{message}");
}

#[test]
fn a_training_too_short_for_its_tracker_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let short = |method: TrainMethod, name: &str| {
        refusal(&run(&launch(TrialSpec::Train(train_spec(method)), &folder.path().join(name))))
    };
    let late = SwagSettings { start: 0.95, ..SwagSettings::default() };
    let message = short(TrainMethod::Swag(late), "swag");
    assert!(message.contains("collections-per-epoch"), "{message}");
    let many = SnapshotSettings { count: 7, place: SnapshotPlace::LastEpochs };
    let message = short(TrainMethod::Snapshots(many), "snapshots");
    assert!(message.contains("6 epochs for 7 networks"), "{message}");
}

#[test]
fn filters_that_cannot_forget_where_they_started_are_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(&launch(
        TrialSpec::Train(train_spec(TrainMethod::Tradi(TradiSettings::default()))),
        folder.path(),
    ));
    assert!(
        ended.warnings().iter().any(|message| message.contains("raise `mean-noise` to")),
        "{:?}",
        ended.warnings()
    );
}
