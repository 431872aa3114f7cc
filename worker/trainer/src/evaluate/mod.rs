//! An evaluate trial: predictions of trained networks on the test images and on out-of-distribution
//! images, stored and scored.
//!
//! Decides what is predicted and with which draws. What the scores mean is the business of the crate
//! `metrics`; it is given the very numbers that are stored, so anyone can compute them again.

mod artifact;
mod predict;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::report::{Launch, Report};
use common::spec::{EvaluateSpec, NUMERICS, Predictor, TrainSpec};
use metrics::{ClassificationReport, Evaluation, Predictions};
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
    let total = batches * pass.draws() * spec.networks.len() as u64;
    let mut recorder = Recorder::new(Progress::new(agent.reporter.clone(), total, 0));

    let mut parameters = 0;
    let mut train_seconds = 0.0;
    let mut seconds = Duration::ZERO;
    for (index, network_spec) in spec.networks.iter().enumerate() {
        let checkpoint = open(launch, spec, index)?;
        let network = rebuild(network_spec, &checkpoint, device)?;
        parameters += network.parameter_count();
        train_seconds += checkpoint.header().train_seconds;
        drop(checkpoint);
        let started = Instant::now();
        pass.predict(index as u64, &network, &mut sets, &mut recorder);
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
    let numerics = spec.networks.iter().map(|network| network.numerics).chain([spec.numerics]);
    if let Some(found) = numerics.into_iter().find(|&numerics| numerics != NUMERICS) {
        return Err(TrainerError::Numerics { found });
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
    let draws = match spec.predictor {
        Predictor::Direct { samples_per_member } => samples_per_member,
        Predictor::McDropout { samples } => samples,
    };
    for (what, count) in [("the number of samples", draws), ("the batch size", spec.batch_size)] {
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
    let report = ClassificationReport::compute(&Evaluation::new(&id).with_ood(&named))?;
    Ok(report.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}
