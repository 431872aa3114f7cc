//! An evaluate trial: predictions of trained networks on the test images and on out-of-distribution
//! images, stored and scored.
//!
//! Decides what is predicted and with which draws. What the scores mean is the business of the crate
//! `metrics`; it is given the very numbers that are stored, so anyone can compute them again.

mod artifact;
mod predict;
mod training;
mod variants;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::report::{Launch, Report};
use common::spec::{EVALUATION_NUMERICS, EvaluateSpec, NUMERICS, Predictor, TrainSpec};
use metrics::{ClassificationReport, Predictions};
use tch::Device;

pub use artifact::PREDICTIONS;

use crate::agent::Agent;
use crate::checkpoint::{self, Checkpoint};
use crate::data;
use crate::device;
use crate::error::TrainerError;
use crate::model::Network;
use crate::train::Progress;
use predict::{ImageSet, Pass, Recorder};
use training::TrainingImages;
use variants::{Origin, Variants};

/// Predicts and scores what `spec` asks for.
///
/// # Errors
///
/// [`TrainerError`] when the specification, the data or a network's checkpoint stops it.
pub fn run(launch: &Launch, spec: &EvaluateSpec, agent: &Agent) -> Result<(), TrainerError> {
    let first = check(launch, spec)?;
    let device = device::of_rank();
    let mut sets = image_sets(launch, spec, first, device)?;
    let pass = Pass { predictor: &spec.predictor, seed: spec.seed, batch_size: spec.batch_size };
    let batches: u64 = sets.iter().map(|set| pass.batches(set)).sum();
    let variants = Variants::count(&spec.predictor);
    let images = training_images(launch, spec, first, device)?;
    let preparation = training::passes(&spec.predictor) * images.as_ref().map_or(0, TrainingImages::batches);
    let total = (batches * pass.draws() * variants + preparation) * spec.networks.len() as u64;
    let mut recorder = Recorder::new(Progress::new(agent.reporter.clone(), total, 0));

    let mut parameters = 0;
    let mut train_seconds = 0.0;
    let mut seconds = Duration::ZERO;
    for (index, network_spec) in spec.networks.iter().enumerate() {
        let checkpoint = open(launch, spec, index)?;
        let network = rebuild(network_spec, &checkpoint, device)?;
        train_seconds += checkpoint.header().train_seconds;
        let started = Instant::now();
        let origin = Origin { spec, index: index as u64, network: &network, images: images.as_ref() };
        let networks = Variants::new(origin, &checkpoint, &mut recorder)?;
        parameters += networks.parameter_count();
        drop(checkpoint);
        for variant in 0..variants {
            networks.apply(variant, &mut recorder);
            let place = index as u64 * variants + variant;
            pass.predict(place, &network, &networks, &mut sets, &mut recorder);
        }
        device::synchronize(device);
        seconds += started.elapsed();
    }

    let sets: Vec<_> = sets.into_iter().map(ImageSet::finish).collect();
    let path = artifact::write(&launch.work_dir, launch, spec, &sets)?;
    agent.reporter.send(&Report::Artifact { name: PREDICTIONS.to_owned(), path });

    let mut metrics = scores(&sets)?;
    metrics.extend([
        ("parameters".to_owned(), parameters as f64),
        ("members".to_owned(), sets[0].shape.members as f64),
        ("train_seconds".to_owned(), train_seconds),
        ("evaluate_seconds".to_owned(), seconds.as_secs_f64()),
    ]);
    tracing::info!(seconds = seconds.as_secs_f64(), "evaluation done");
    agent.reporter.send(&Report::Done { metrics });
    Ok(())
}

/// Checks what does not need data, and returns the first network's specification.
fn check<'a>(launch: &Launch, spec: &'a EvaluateSpec) -> Result<&'a TrainSpec, TrainerError> {
    if let Some(found) = spec.networks.iter().map(|network| network.numerics).find(|&found| found != NUMERICS)
    {
        return Err(TrainerError::Numerics { found, expected: NUMERICS });
    }
    if spec.numerics != EVALUATION_NUMERICS {
        return Err(TrainerError::Numerics { found: spec.numerics, expected: EVALUATION_NUMERICS });
    }
    if launch.world_size != 1 {
        return Err(TrainerError::WorldSize { expected: 1, found: launch.world_size });
    }
    let expected = launch.spec.needs();
    let found: Vec<_> = launch.networks.iter().map(|file| file.trial).collect();
    let Some(first) = spec.networks.first().filter(|_| expected == found) else {
        return Err(TrainerError::Networks { expected, found });
    };
    if spec.networks.iter().any(|other| other.data != first.data || other.model != first.model) {
        return Err(TrainerError::MixedEnsemble);
    }
    let pass = Pass { predictor: &spec.predictor, seed: spec.seed, batch_size: spec.batch_size };
    let samples = pass.draws().min(Variants::count(&spec.predictor));
    let features = match spec.predictor {
        Predictor::Tradi { features, .. } => u64::from(features),
        Predictor::Direct { .. }
        | Predictor::McDropout { .. }
        | Predictor::Swag { .. }
        | Predictor::Snapshots { .. }
        | Predictor::LastLayerLaplace(_) => 1,
    };
    for (what, count) in [
        ("the number of samples", samples),
        ("the number of random features", features),
        ("the batch size", spec.batch_size.into()),
    ] {
        if count == 0 {
            return Err(TrainerError::Zero { what });
        }
    }
    Ok(first)
}

/// The test set, then the out-of-distribution sets in the order of the specification.
fn image_sets(
    launch: &Launch,
    spec: &EvaluateSpec,
    network: &TrainSpec,
    device: Device,
) -> Result<Vec<ImageSet>, TrainerError> {
    let test = data::test(&network.data, &launch.data_dir)?;
    let mut sets = vec![ImageSet::new(None, test, device)];
    for &source in &spec.ood {
        let images = data::out_of_distribution(&network.data, source, &launch.data_dir)?;
        sets.push(ImageSet::new(Some(source.to_string()), images, device));
    }
    Ok(sets)
}

/// Training images, of predictors that pass over them.
fn training_images(
    launch: &Launch,
    spec: &EvaluateSpec,
    network: &TrainSpec,
    device: Device,
) -> Result<Option<TrainingImages>, TrainerError> {
    let load = || TrainingImages::load(network, spec.seed, &launch.data_dir, device);
    (training::passes(&spec.predictor) > 0).then(load).transpose()
}

fn open(launch: &Launch, spec: &EvaluateSpec, index: usize) -> Result<Checkpoint, TrainerError> {
    let file = &launch.networks[index];
    let checkpoint = checkpoint::read(&file.path)?;
    checkpoint.belongs_to(file.trial, spec.networks[index].numerics)?;
    checkpoint.is_final()?;
    Ok(checkpoint)
}

fn rebuild(spec: &TrainSpec, checkpoint: &Checkpoint, device: Device) -> Result<Network, TrainerError> {
    let classes = i64::from(spec.data.classes());
    let input = data::input_shape(&spec.data);
    let network = Network::new(&spec.model, &spec.method, input, classes, spec.seed, device)?;
    checkpoint.restore_network(&network.named_tensors())?;
    Ok(network)
}

fn scores(sets: &[predict::Predicted]) -> Result<BTreeMap<String, f64>, TrainerError> {
    let predictions =
        sets.iter().map(|set| Predictions::new(set.shape, set.probabilities.as_slice(), set.ids.as_slice()));
    let mut predictions = predictions.collect::<Result<Vec<_>, _>>()?.into_iter();
    let labels: Vec<u32> =
        sets[0].labels.iter().map(|&label| u32::try_from(label).unwrap_or(u32::MAX)).collect();
    let id = predictions.next().expect("the test set comes first").with_labels(labels)?;
    let ood: Vec<_> = predictions.collect();
    let names = sets.iter().filter_map(|set| set.name.as_deref());
    let named: Vec<_> = names.zip(&ood).collect();
    let report = ClassificationReport::compute(&id, &named)?;
    Ok(report.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}
